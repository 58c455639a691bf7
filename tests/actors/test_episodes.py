"""How often an environment may fail, by a table against a fake clock, and what counts as its failure."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from stoker.actors.episodes import (
    EnvCalls,
    EnvironmentFailed,
    FailureCount,
    FailureLimit,
    opened_env,
    play_episode,
)
from stoker.errors import ActorFailed, ConfigError, UnexpectedExit
from stoker.testing import ChainEnv
from stoker.types import EpisodeStatus, Experience

CAUSE = RuntimeError("simulator crashed")


# limit, when the failures happen (s), the pauses that follow (s); one pause fewer: the last is one too many
CASES: list[tuple[str, dict[str, Any], list[float], list[float]]] = [
    ("the first ends it", {"failures": 1}, [0], []),
    ("the third in a row ends it", {"failures": 3}, [0, 1, 2], [0.1, 0.2]),
    ("pauses double", {"failures": 6}, [0, 1, 2, 3, 4], [0.1, 0.2, 0.4, 0.8, 1.6]),
    (
        "up to the longest",
        {"failures": 9, "longest_delay_s": 0.5},
        [0, 1, 2, 3, 4],
        [0.1, 0.2, 0.4, 0.5, 0.5],
    ),
    (
        "old ones are forgotten",
        {"failures": 3, "window_s": 10.0},
        [0, 1, 11.5, 12, 30],
        [0.1, 0.2, 0.1, 0.2, 0.1],
    ),
    ("at the edge they count", {"failures": 3, "window_s": 10.0}, [0, 5, 10], [0.1, 0.2]),
    ("just beyond it not", {"failures": 3, "window_s": 10.0}, [0, 5, 10.001, 16], [0.1, 0.2, 0.2, 0.2]),
    ("rare failures never end it", {"failures": 2, "window_s": 1.0}, [0, 2, 4, 6, 8], [0.1] * 5),
    ("without pauses", {"failures": 4, "first_delay_s": 0.0}, [0, 0, 0], [0.0, 0.0, 0.0]),
]


@pytest.mark.parametrize(
    ("limit", "times", "pauses"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_failures_against_a_limit(limit: dict[str, Any], times: list[float], pauses: list[float]) -> None:
    clock = iter(times)
    count = FailureCount("robot", FailureLimit(**limit), lambda: next(clock))
    assert [count.add(CAUSE) for _ in pauses] == pytest.approx(pauses)
    if len(pauses) < len(times):
        with pytest.raises(
            ActorFailed,
            match=r"^actor 'robot': its environment failed (\d+ times within .* s, at last )?with Run",
        ) as caught:
            count.add(CAUSE)
        assert caught.value.__cause__ is CAUSE
        assert caught.value.failures == FailureLimit(**limit).failures
        assert caught.value.actor_id == "robot"
        assert "RuntimeError: simulator crashed" in str(caught.value)


def test_an_environment_that_wants_to_end_the_process_gets_no_other_try() -> None:
    count = FailureCount("robot", FailureLimit(failures=1000))
    cause = UnexpectedExit("env.step raised SystemExit(0)")
    with pytest.raises(ActorFailed, match="actor 'robot': .* env.step raised SystemExit") as caught:
        count.add(cause)
    assert caught.value.__cause__ is cause


def test_limits_that_cannot_be_used_are_refused() -> None:
    for settings, message in [
        ({"failures": 0}, "failures=0"),
        ({"failures": -1}, "failures=-1"),
        ({"window_s": 0.0}, "window_s=0"),
        ({"window_s": float("nan")}, "window_s=nan"),
        ({"first_delay_s": -0.1}, "first_delay_s=-0.1"),
        ({"longest_delay_s": -1.0}, "longest_delay_s=-1"),
    ]:
        with pytest.raises(ConfigError, match=message):
            FailureLimit(**settings)  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_a_call_counts_as_running_until_it_ends_in_whichever_way() -> None:
    calls = EnvCalls()
    seen: list[float | None] = []

    async def call(*, fails: bool) -> int:
        seen.append(calls.since)
        if fails:
            raise CAUSE
        return 7

    assert await calls(call(fails=False)) == 7
    assert calls.since is None
    with pytest.raises(EnvironmentFailed) as failure:
        await calls(call(fails=True))
    assert failure.value.__cause__ is CAUSE
    assert calls.since is None
    assert None not in seen


def test_a_cancellation_is_a_failure_only_where_the_environment_raised_it() -> None:
    async def cancels() -> None:
        raise asyncio.CancelledError

    async def main() -> None:
        calls = EnvCalls()
        task = asyncio.ensure_future(calls(asyncio.Event().wait()))
        await asyncio.sleep(0)
        assert calls.since is not None
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert calls.since is None
        with pytest.raises(EnvironmentFailed):
            await calls(cancels())

    asyncio.run(main())


class Listening:
    """Acts as it is told, and keeps what it observes."""

    def __init__(self, actions: list[int]) -> None:
        self.actions = actions
        self.steps: list[Experience] = []

    async def may_step(self) -> bool:
        return bool(self.actions)

    async def act(self, observation: Any, /) -> Any:
        return self.actions.pop(0), None, None

    async def observe(self, step: Experience, /) -> None:
        self.steps.append(step)


class Paying(ChainEnv):
    """Pays for each step what its number is."""

    def step(self, action: Any) -> Any:
        seen, _, terminated, truncated, info = super().step(action)
        return seen, float(self._steps), terminated, truncated, info


@pytest.mark.anyio
@pytest.mark.parametrize("n_played", [0, 1, 3])
async def test_an_episode_that_is_continued_has_the_record_of_the_whole(n_played: int) -> None:
    actions = [1, 0, 1, 1, 1]
    async with opened_env(partial(Paying, 3), "inline", "env") as env:
        first = Listening(actions[:n_played])
        assert await play_episode(env, first, 0, 7) is None, "abandoned"
        second = Listening(actions[n_played:])
        record = await play_episode(env, second, 0, 7, first.steps)
    assert record is not None
    assert (record.total_reward, record.length) == (1.0 + 2.0 + 3.0 + 4.0 + 5.0, 5)
    assert [step.reward for step in first.steps + second.steps] == [1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.anyio
@pytest.mark.parametrize("most", [1, 4, 5])
async def test_an_episode_has_at_most_its_steps_and_then_is_truncated(most: int) -> None:
    listener = Listening([1, 0] * 2 + [1] * 9)
    async with opened_env(partial(ChainEnv, 5), "inline", "env") as env:
        record = await play_episode(env, listener, 0, 7, max_steps=most)
    assert record is not None
    assert (record.length, record.status) == (most, EpisodeStatus.TRUNCATED)
    assert [step.status.is_done for step in listener.steps] == [False] * (most - 1) + [True]
