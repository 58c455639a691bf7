"""Actors on a session: seeds, rows, exact ends, and environments that misbehave."""

from __future__ import annotations

import itertools
import json
import logging
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import gymnasium
import numpy as np
import pytest

from stoker import (
    ActorFailed,
    ActorGroup,
    ConfigError,
    Experience,
    FailureLimit,
    InvalidExperience,
    SessionFailed,
    TrainingRun,
    TrainingSession,
    run_actors,
    run_vector_actors,
)
from stoker.envs import episode_seed
from stoker.testing import AsyncChainEnv, ChainEnv, CrashingEnv, FakeAgent, SlowEnv

pytestmark = pytest.mark.anyio
AT_ONCE = FailureLimit(failures=3, window_s=1000.0, first_delay_s=0.0)
PATIENT = FailureLimit(failures=1000, window_s=1000.0, first_delay_s=0.0)

Factory = Callable[[], Any]
on_asyncio = pytest.mark.parametrize(
    "anyio_backend", [("asyncio", {"use_uvloop": False})], ids=["asyncio"], indirect=True
)
"""For tests of values, which do not depend on the event loop."""


class Noisy(ChainEnv):
    """A chain that begins with a number from its seeded generator, and says it at the end."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        _, info = super().reset(seed=seed, options=options)
        self.seed = seed
        self.first = float(self.np_random.random())
        return np.array([self.first], np.float32), info

    def episode_extras(self) -> dict[str, float]:
        return {"first": self.first}


async def play(factory: Factory, *, n: int = 200, actors: Any = 2, agent: Any = None, **settings: Any) -> Any:
    """An agent after some steps of some actors, who all go right; and what the actors report."""
    agent = FakeAgent(action=1) if agent is None else agent
    with anyio.fail_after(60):
        async with TrainingSession(agent, max_steps=n) as session:
            reports = await run_actors(session, factory, actors, **settings)
    return agent, session, reports


KINDS: list[tuple[str, Factory, str]] = [
    ("inline", lambda: ChainEnv(3), "inline"),
    ("auto", lambda: ChainEnv(3), "auto"),
    ("thread", lambda: ChainEnv(3), "thread"),
    ("async", lambda: AsyncChainEnv(3), "auto"),
    ("slow", lambda: SlowEnv(ChainEnv(3), 0.0005), "thread"),
    ("wrapped", lambda: gymnasium.wrappers.TimeLimit(ChainEnv(3), 50), "auto"),
]


@pytest.mark.parametrize(("factory", "stepping"), [k[1:] for k in KINDS], ids=[k[0] for k in KINDS])
async def test_whole_episodes_in_order_up_to_exactly_max_steps(factory: Factory, stepping: str) -> None:
    agent, session, reports = await play(factory, n=200, actors=4, stepping=stepping)
    assert agent.total_steps == session.total_steps == 200
    assert sum(report.steps for report in reports) - session.refused_steps == 200
    for actor_id in range(4):
        mine: list[Experience] = [e for e in agent.experiences if e.actor_id == actor_id]
        # The chain is 3 steps long: 0 -> 1 -> 2 -> 3, terminated, again.
        assert [int(e.observation[0]) for e in mine] == [k % 3 for k in range(len(mine))]
        assert [int(e.next_observation[0]) for e in mine] == [k % 3 + 1 for k in range(len(mine))]
        assert [e.reward for e in mine] == [float(k % 3 == 2) for k in range(len(mine))]
        assert all(e.status.is_terminal == (k % 3 == 2) for k, e in enumerate(mine))
    whole = sum(sum(e.actor_id == a for e in agent.experiences) // 3 for a in range(4))
    assert session.total_episodes == whole
    assert session.stats_summary()["episode_length"] == 3.0
    assert all(report.env_s > 0 and report.restarts == 0 for report in reports)
    assert session.supervised_actors == set(), "nobody watches over them any more"


def firsts(agent: FakeAgent, actor_id: Any) -> list[float]:
    """What this actor saw at the beginning of its episodes."""
    mine = [e for e in agent.experiences if e.actor_id == actor_id]
    starts = [True, *(e.status.is_done for e in mine)]
    return [float(e.observation[0]) for e, begins in zip(mine, starts, strict=False) if begins]


@on_asyncio
async def test_the_same_seed_gives_the_same_episodes_and_another_others() -> None:
    again = [firsts((await play(lambda: Noisy(3), actors=1, seed=seed))[0], 0) for seed in (7, 7, 8)]
    assert again[0] == again[1]
    assert len(set(again[0])) == len(again[0]) > 50, "each episode has its own seed"
    assert not set(again[0]) & set(again[2])


@on_asyncio
async def test_actors_differ_and_each_has_its_seeds_whatever_the_others_do() -> None:
    agent, _, _ = await play(lambda: Noisy(3), actors=["a", "b", 5, "5"], seed=7)
    begun = {actor_id: firsts(agent, actor_id) for actor_id in ("a", "b", 5, "5")}
    assert len({first for mine in begun.values() for first in mine}) == sum(map(len, begun.values()))
    alone, _, _ = await play(lambda: Noisy(3), actors=["b"], seed=7)
    mine = firsts(alone, "b")
    assert mine[: len(begun["b"])] == begun["b"]
    env = Noisy(3)
    assert [float(env.reset(seed=episode_seed(7, "b", k))[0][0]) for k in range(5)] == mine[:5]


@on_asyncio
async def test_without_a_seed_environments_are_not_seeded() -> None:
    made: list[Noisy] = []

    def factory() -> Noisy:
        made.append(Noisy(3))
        return made[-1]

    await play(factory)
    assert [env.seed for env in made] == [None, None]


@on_asyncio
async def test_a_resumed_run_continues_with_the_seeds_of_the_next_episodes(tmp_path: Path) -> None:
    whole, _, _ = await play(lambda: Noisy(3), n=60, actors=1, seed=7)
    run = await TrainingRun.create("x", root=tmp_path)
    halves: list[float] = []
    for max_steps in (30, 60):
        agent = FakeAgent(action=1)
        async with TrainingSession(agent, run, max_steps=max_steps) as session:
            await run_actors(session, lambda: Noisy(3), 1, seed=7)
        halves += firsts(agent, 0)
        run = await TrainingRun.resume(run.directory)
    assert halves == firsts(whole, 0)


@on_asyncio
async def test_a_group_that_was_made_before_another_played_continues_behind_its_episodes() -> None:
    class Gate:
        """Lets 30 steps of each group pass."""

        n_left = 30

        async def enter(self, actor_id: Any) -> bool:
            self.n_left -= 1
            return self.n_left >= 0

        def give_back(self, actor_id: Any) -> None:
            raise AssertionError(f"actor {actor_id} has no failing environment")

    whole, _, _ = await play(lambda: Noisy(3), n=60, actors=1, seed=7)
    agent = FakeAgent(action=1)
    async with TrainingSession(agent) as session:
        groups = [ActorGroup(session, lambda: Noisy(3), 1, seed=7, gate=Gate()) for _ in range(2)]
        for group in groups:
            await group.run()
    assert len(firsts(agent, 0)) == 20
    assert firsts(agent, 0) == firsts(whole, 0)


@on_asyncio
async def test_extras_of_the_environment_reach_the_rows(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    agent = FakeAgent(action=1)
    wrapped = lambda: gymnasium.wrappers.OrderEnforcing(Noisy(3))  # noqa: E731 - hides the extras, as wrappers do
    async with TrainingSession(agent, run, max_steps=30) as session:
        await run_actors(session, wrapped, 2, seed=1)
    rows = [json.loads(line) for line in (run.directory / "train_episodes.jsonl").read_text().splitlines()]
    assert len(rows) == session.total_episodes > 0
    seen = {first for actor_id in (0, 1) for first in firsts(agent, actor_id)}
    for row in rows:
        assert row["extras"].keys() == {"first", "seen"}
        assert np.float32(row["extras"]["first"]) in seen
        assert (row["length"], row["total_reward"], row["status"]) == (3, 1.0, "Terminated")


@pytest.mark.parametrize("stepping", ["inline", "thread"])
async def test_an_environment_that_raises_costs_one_episode_and_is_made_again(
    stepping: str, caplog: pytest.LogCaptureFixture
) -> None:
    numbers = itertools.count(1)
    made = itertools.count()

    def factory() -> Any:
        next(made)
        return CrashingEnv(ChainEnv(3), {5, 11}, steps=numbers)

    agent, session, (report,) = await play(factory, n=30, actors=1, stepping=stepping, limit=PATIENT)
    assert session.total_steps == 30
    # Steps 1-3 are an episode, 4 is lost with the crash in 5, 6-8 and so on.
    assert [int(e.observation[0]) for e in agent.experiences[:10]] == [0, 1, 2, 0, 0, 1, 2, 0, 1, 0]
    assert session.total_episodes == (30 - 1 - 2) // 3
    assert (report.restarts, report.last_error, next(made)) == (2, "RuntimeError: simulator crashed", 3)
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert (
        warnings
        == [
            "actor 0: its environment failed (RuntimeError: simulator crashed); "
            "that episode is lost, a new one is made in 0.0 s"
        ]
        * 2
    )


@on_asyncio
@pytest.mark.parametrize("given", [ChainEnv(3), "CartPole-v1"], ids=["an environment", "a name"])
@pytest.mark.parametrize("play_on", [run_actors, run_vector_actors])
async def test_what_is_no_factory_is_refused_at_once(given: Any, play_on: Any) -> None:
    async with TrainingSession(FakeAgent(), max_steps=1) as session:
        with pytest.raises(ConfigError, match="^factory=.*: give a function that makes an environment, such"):
            await play_on(session, given)


async def test_an_async_environment_that_raises_is_made_again() -> None:
    class Disconnecting(AsyncChainEnv):
        async def step(self, action: Any) -> Any:
            if next(numbers) % 7 == 0:
                raise ConnectionResetError("gone")
            return await super().step(action)

    numbers = itertools.count(1)
    _, session, (report,) = await play(lambda: Disconnecting(3), n=50, actors=1, limit=PATIENT)
    assert session.total_steps == 50
    assert re.fullmatch(r"ConnectionResetError: gone \(.*test_group\.py:\d+\)", str(report.last_error))
    assert report.restarts == report.steps // 6


@pytest.mark.parametrize("n_actors", [1, 3])
async def test_too_many_failures_come_out_alone_with_their_cause(n_actors: int) -> None:
    factory = lambda: CrashingEnv(ChainEnv(3), {2})  # noqa: E731
    with pytest.raises(
        ActorFailed, match=r"actor \d: its environment failed 3 times within 1000 s"
    ) as caught:
        await play(factory, actors=n_actors, limit=AT_ONCE)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert str(caught.value.__cause__) == "simulator crashed"


@on_asyncio
async def test_the_session_of_a_failed_actor_is_saved(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)

    async def body() -> None:
        async with TrainingSession(FakeAgent(action=1), run) as session:
            await run_actors(session, lambda: CrashingEnv(ChainEnv(3), {5}), 1, limit=AT_ONCE)

    with pytest.raises(ActorFailed):
        await body()
    assert run.checkpoint_steps() == [12]
    assert (await run.read_train_episodes())["episode"].tolist() == [1, 2, 3]


async def test_an_actor_that_fails_ends_the_others_and_closes_their_environments() -> None:
    made: list[AsyncChainEnv] = []

    def factory() -> Any:
        if not made:
            made.append(AsyncChainEnv(3))
            return CrashingEnv(ChainEnv(3), {1})
        made.append(AsyncChainEnv(3, latency=3600.0))
        return made[-1]

    with pytest.raises(ActorFailed):
        await play(factory, actors=5, limit=FailureLimit(failures=1))
    assert len(made) == 5
    assert all(env.closed for env in made[1:])


class Faulty(ChainEnv):
    """A chain whose every step or reset is spoilt by a function."""

    def __init__(self, spoil: Callable[[list[Any]], Any], *, reset: bool = False) -> None:
        super().__init__(3)
        self.spoil = spoil
        self.spoils_reset = reset

    def reset(self, **arguments: Any) -> Any:
        result = super().reset(**arguments)
        return self.spoil(list(result)) if self.spoils_reset else result

    def step(self, action: Any) -> Any:
        result = super().step(action)
        return result if self.spoils_reset else self.spoil(list(result))


def with_reward(value: Any) -> Factory:
    return lambda: Faulty(lambda r: (r[0], value, *r[2:]))


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail


class BadExtras(ChainEnv):
    def __init__(self, extras: Any) -> None:
        super().__init__(2)
        self.extras = extras

    def episode_extras(self) -> Any:
        return self.extras() if callable(self.extras) else self.extras


FAULTS: list[tuple[str, Factory, type[Exception]]] = [
    ("NaN reward", with_reward(math.nan), InvalidExperience),
    ("infinite reward", with_reward(-math.inf), InvalidExperience),
    ("reset raises", lambda: Faulty(raising(OSError("port")), reset=True), OSError),
    ("the factory raises", raising(FileNotFoundError("no binary")), FileNotFoundError),
    ("NaN extras", lambda: BadExtras({"x": math.nan}), InvalidExperience),
    ("extras that are text", lambda: BadExtras({"x": "fast"}), InvalidExperience),
    ("extras raise", lambda: BadExtras(raising(KeyError("x"))), KeyError),
]


@on_asyncio
async def test_invalid_results_of_an_environment_count_as_its_failures() -> None:
    for name, factory, cause in FAULTS:
        with pytest.raises(ActorFailed) as caught:
            await play(factory, actors=1, limit=AT_ONCE)
        assert caught.value.failures == 3, name
        assert isinstance(caught.value.__cause__, cause), name


async def test_a_factory_that_raises_once_is_called_again() -> None:
    calls = itertools.count()

    async def factory() -> Any:
        if next(calls) % 2 == 0:
            raise ConnectionRefusedError("not yet")
        return AsyncChainEnv(3)

    _, session, reports = await play(factory, n=40, actors=2, limit=PATIENT)
    assert session.total_steps == 40
    assert sum(report.restarts for report in reports) >= 1


@on_asyncio
async def test_one_bad_episode_is_lost_and_not_counted() -> None:
    episodes = itertools.count(1)

    class SometimesBad(ChainEnv):
        def episode_extras(self) -> dict[str, float]:
            return {"x": math.nan if next(episodes) == 2 else 1.0}

    _, session, (report,) = await play(lambda: SometimesBad(2), n=20, actors=1, limit=PATIENT)
    assert (session.total_steps, session.total_episodes, report.restarts) == (20, 9, 1)


async def test_an_error_in_closing_an_environment_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Unclosable(ChainEnv):
        def close(self) -> None:
            raise OSError("already gone")

    numbers = itertools.count(1)
    factory = lambda: CrashingEnv(Unclosable(3), {5}, steps=numbers)  # noqa: E731
    for stepping in ("inline", "thread"):
        _, session, _ = await play(factory, n=30, actors=1, limit=PATIENT, stepping=stepping)
        assert session.total_steps == 30
    assert caplog.text.count("env of actor 0: closing it failed") == 3
    assert "already gone" in caplog.text


NO_ENVIRONMENTS: list[tuple[str, Factory, str]] = [
    (
        "old Gym's four",
        lambda: Faulty(lambda r: tuple(r[:2]) + tuple(r[3:])),
        "returned 4 values: Gymnasium's are five",
    ),
    ("a reset of one", lambda: Faulty(lambda r: r[0], reset=True), "reset returned"),
    ("no reward", with_reward(None), "reward=None"),
    ("a reward that is a vector", with_reward(np.ones(1)), r"reward=array\(\[1.\]\)"),
    ("a flag that is text", lambda: Faulty(lambda r: (*r[:2], "False", False, {})), "terminated='False'"),
    ("no environment", object, "without a method 'reset'"),
    ("its class", lambda: ChainEnv, "is the class ChainEnv"),
    ("extras that are no mapping", lambda: BadExtras([1.0]), "episode_extras returned"),
]


@on_asyncio
async def test_an_object_that_is_not_an_environment_is_refused_at_once() -> None:
    for name, factory, message in NO_ENVIRONMENTS:
        made: list[Any] = []

        def counting(factory: Factory = factory, made: list[Any] = made) -> Any:
            made.append(1)
            return factory()

        with pytest.raises(ConfigError, match=message):
            await play(counting, actors=1, limit=PATIENT)
        assert len(made) == 1, f"{name}: a retry would fail again"


@on_asyncio
async def test_invalid_actor_ids_are_refused() -> None:
    async with TrainingSession(FakeAgent()) as session:
        for actors, message in [
            (0, "actors=0"),
            (-3, "actors=-3"),
            ([], "give at least one"),
            ([1, 2, 1], "actor ids 1 are given twice"),
            (["a", "b", "b", "a"], "actor ids 'a', 'b' are given twice"),
            ((i % 2 for i in range(3)), "actor ids 0 are given twice"),
            (True, "actors=True: give how many"),
            (None, "actors=None: give how many"),
            ("abc", "actors='abc': give how many"),
            ([0, 1.5], r"actors holds 1.5 \(float\)"),
            ([True], r"actors holds True \(bool\)"),
        ]:
            with pytest.raises(ConfigError, match=message):
                ActorGroup(session, ChainEnv, actors)  # type: ignore[arg-type]
        ActorGroup(session, ChainEnv, [1, "1"])


@on_asyncio
async def test_actors_may_be_any_iterable_of_ids() -> None:
    _, _, reports = await play(lambda: ChainEnv(3), actors=(f"a{i}" for i in range(3)))
    assert [report.actor_id for report in reports] == ["a0", "a1", "a2"]


async def test_stop_ends_all_actors() -> None:
    async with TrainingSession(FakeAgent(action=1)) as session:
        group = ActorGroup(session, lambda: AsyncChainEnv(3), 10)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(group.run)
            while session.total_episodes < 5:
                await anyio.lowlevel.checkpoint()
            session.stop()
    assert len(group.reports) == 10
    assert sum(report.episodes for report in group.reports) >= session.total_episodes >= 5
    assert group.env_s == pytest.approx(sum(report.env_s for report in group.reports))
    assert group.restarts == 0


@on_asyncio
async def test_an_agent_that_dies_ends_the_actors_with_its_cause() -> None:
    with pytest.raises(SessionFailed, match="the agent failed: RuntimeError") as caught:
        await play(lambda: ChainEnv(3), agent=FakeAgent(action=1, fail_at=50))
    assert isinstance(caught.value.__cause__, RuntimeError)


@on_asyncio
async def test_a_session_that_is_done_plays_nothing() -> None:
    made: list[Any] = []
    async with TrainingSession(FakeAgent(), max_steps=0) as session:
        reports = await run_actors(session, lambda: made.append(1), 3)
    assert made == []
    assert [report.steps for report in reports] == [0, 0, 0]


@on_asyncio
async def test_observations_of_an_environment_that_reuses_its_array_are_copied():
    class InPlace(gymnasium.Env[Any, Any]):
        observation_space = gymnasium.spaces.Box(0, 100, (1,), np.float32)
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            self.position = np.zeros(1, np.float32)
            return self.position, {}

        def step(self, action):
            self.position += 1
            return self.position, 1.0, bool(self.position[0] == 10), False, {}

    agent = FakeAgent()
    async with TrainingSession(agent, max_steps=40) as session:
        await run_actors(session, InPlace, 2)
    pairs = [(float(e.observation[0]), float(e.next_observation[0])) for e in agent.experiences]
    assert all(after == before + 1 for before, after in pairs)


async def test_an_environment_that_hangs_does_not_keep_a_finished_training_from_ending(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Hangs(AsyncChainEnv):
        async def step(self, action: Any) -> Any:
            await anyio.sleep_forever()

    made: list[Any] = []

    def factory() -> Any:
        made.append(None)
        return Hangs(4) if len(made) == 1 else AsyncChainEnv(4)

    with anyio.fail_after(30):
        async with TrainingSession(FakeAgent(action=1), max_steps=200, actor_timeout_s=0.5) as session:
            reports = await run_actors(session, factory, 3)
    assert session.total_steps == 200
    assert sorted(report.steps > 0 for report in reports) == [False, True, True]
    assert "did not return" in caplog.text
