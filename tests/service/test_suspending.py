from __future__ import annotations

import anyio
import pytest

from stoker.service.suspending import noting_suspension

pytestmark = pytest.mark.anyio


async def test_a_coroutine_that_does_not_wait_is_not_noted() -> None:
    async def answer() -> int:
        return 7

    noted: list[str] = []
    assert await noting_suspension(answer(), lambda: noted.append("waits")) == 7
    assert noted == []


async def test_the_first_wait_is_noted_once_and_the_answer_comes_back() -> None:
    noted: list[str] = []
    event = anyio.Event()

    async def answer() -> str:
        await event.wait()
        await anyio.lowlevel.checkpoint()
        return "answered"

    async with anyio.create_task_group() as tasks:

        def waits() -> None:
            noted.append("waits")
            tasks.start_soon(set_event)

        async def set_event() -> None:
            event.set()

        assert await noting_suspension(answer(), waits) == "answered"
    assert noted == ["waits"]


async def test_a_cancelled_wait_is_cancelled_inside_and_may_clean_up() -> None:
    seen: list[str] = []

    async def stuck() -> None:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            seen.append("cancelled")
            raise

    with anyio.CancelScope() as scope:
        await noting_suspension(stuck(), scope.cancel)
    assert scope.cancelled_caught
    assert seen == ["cancelled"]


async def test_an_error_behind_a_wait_is_raised() -> None:
    async def failing() -> None:
        await anyio.lowlevel.checkpoint()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await noting_suspension(failing(), lambda: None)
