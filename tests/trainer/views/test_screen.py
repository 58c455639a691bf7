"""A screen follows a training to its last state, whatever the terminal does."""

from __future__ import annotations

import threading

import anyio
import pytest

from stoker.testing import ChainEnv, FakeAgent
from stoker.trainer import Progress, Trainer, TrainerConfig
from stoker.trainer.views.readings import Reading
from stoker.trainer.views.screen import Screen

pytestmark = pytest.mark.anyio


class Config(TrainerConfig, frozen=True, kw_only=True):
    """What readings need of a config."""

    total_timesteps: int = 50


class Kept:
    """A view that keeps what it was shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[int, bool]] = []
        self.n_closed = 0

    def show(self, reading: Reading, *, last: bool = False) -> None:
        self.shown.append((reading.total_steps, last))

    def close(self) -> None:
        self.n_closed += 1


class Gone(Kept):
    """A terminal that hung up."""

    def show(self, reading: Reading, *, last: bool = False) -> None:
        super().show(reading, last=last)
        raise BrokenPipeError


class Stuck(Kept):
    """A terminal that accepts nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def show(self, reading: Reading, *, last: bool = False) -> None:
        self.go.wait(60)
        super().show(reading, last=last)


async def trained_on(view: Kept) -> Screen:
    screen = Screen(view)
    trainer = Trainer(FakeAgent(action=1), ChainEnv, TrainerConfig(max_steps=50, num_envs=2))

    async def watch(progress: Progress) -> None:
        await screen.follow(progress)

    with anyio.fail_after(60):
        result = await trainer.train(watch=watch, watched_config=Config())
        await screen.close()
    assert result.total_steps == 50
    return screen


@pytest.mark.parametrize("kind", [Kept, Gone])
async def test_the_last_state_is_shown_and_the_view_closed(kind: type[Kept]) -> None:
    view = kind()
    screen = await trained_on(view)
    assert view.shown[-1] == (50, True)
    assert [last for _, last in view.shown[:-1]] == [False] * (len(view.shown) - 1)
    assert view.n_closed == 1
    assert screen.reading is not None
    assert screen.reading.total_steps == 50


async def test_a_terminal_that_accepts_nothing_does_not_keep_a_training_from_ending() -> None:
    view = Stuck()
    screen = await trained_on(view)
    assert view.shown == []
    assert screen.reading is not None
    assert screen.reading.total_steps == 50
    view.go.set()
