"""Sub-environments of a vector environment as actors: whole episodes, seeds, failures, hangs, exact ends."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from stoker import (
    ActorFailed,
    ConfigError,
    EpisodeStatus,
    Experience,
    ExperienceBatch,
    FailureLimit,
    InvalidExperience,
    SessionFailed,
    Stalled,
    TrainingRun,
    TrainingSession,
)
from stoker.actors.vector import VectorActorGroup, run_vector_actors
from stoker.envs import episode_seed
from stoker.testing import ChainEnv, CrashingEnv, FakeAgent

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]
AT_ONCE = FailureLimit(failures=3, window_s=1000.0, first_delay_s=0.0)
PATIENT = FailureLimit(failures=1000, window_s=1000.0, first_delay_s=0.0)
MODES = list(AutoresetMode)
by_mode = pytest.mark.parametrize("mode", MODES, ids=[mode.name for mode in MODES])
STEP_MODE = AutoresetMode.NEXT_STEP
ASYNCIO, TRIO = ("asyncio", {"use_uvloop": False}), ("trio", {})
on_asyncio = pytest.mark.parametrize("anyio_backend", [ASYNCIO], ids=["asyncio"], indirect=True)
"""For tests of values, which do not depend on the event loop."""

by_mode_and_stepping = pytest.mark.parametrize(
    ("mode", "stepping", "anyio_backend"),
    [
        pytest.param(AutoresetMode.NEXT_STEP, "thread", ASYNCIO, id="next step, thread"),
        pytest.param(AutoresetMode.NEXT_STEP, "inline", TRIO, id="next step, inline"),
        pytest.param(AutoresetMode.SAME_STEP, "auto", ASYNCIO, id="same step, auto"),
        pytest.param(AutoresetMode.SAME_STEP, "thread", TRIO, id="same step, thread"),
        pytest.param(AutoresetMode.DISABLED, "inline", ASYNCIO, id="disabled, inline"),
        pytest.param(AutoresetMode.DISABLED, "thread", TRIO, id="disabled, thread"),
    ],
    indirect=["anyio_backend"],
)


class Noisy(ChainEnv):
    """A chain that begins with a number from its seeded generator."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        _, info = super().reset(seed=seed)
        return np.array([self.np_random.random()], np.float32), info


def chains(mode: AutoresetMode, *lengths: int, make: Callable[[int], Any] = ChainEnv) -> SyncVectorEnv:
    return SyncVectorEnv([lambda length=length: make(length) for length in lengths], autoreset_mode=mode)


def same(mode: AutoresetMode, make: Callable[[], Any], count: int = 2) -> SyncVectorEnv:
    return SyncVectorEnv([make] * count, autoreset_mode=mode)


async def play(
    make_env: Callable[[], Any], *, n: int = 100, agent: Any = None, actor_ids: Any = None, **settings: Any
) -> Any:
    """An agent after some steps; all go right."""
    agent = FakeAgent(action=1) if agent is None else agent
    of_session = {k: settings.pop(k) for k in ("on_silent_actor", "actor_timeout_s", "run") if k in settings}
    with anyio.fail_after(60):
        async with TrainingSession(agent, max_steps=n, **of_session) as session:
            reports = await run_vector_actors(session, make_env, actor_ids, **settings)
    return agent, session, reports


def of(agent: FakeAgent, actor_id: Any) -> list[Experience]:
    return [e for e in agent.experiences if e.actor_id == actor_id]


def firsts(agent: FakeAgent, actor_id: Any) -> list[float]:
    mine = of(agent, actor_id)
    starts = [True, *(e.status.is_done for e in mine)]
    return [float(e.observation[0]) for e, begins in zip(mine, starts, strict=False) if begins]


@by_mode_and_stepping
async def test_whole_episodes_in_order_up_to_exactly_max_steps(mode: AutoresetMode, stepping: str) -> None:
    agent, session, reports = await play(lambda: same(mode, lambda: ChainEnv(3), 4), n=101, stepping=stepping)
    assert agent.total_steps == session.total_steps == 101
    assert sum(report.steps for report in reports) - session.refused_steps == 101
    for actor_id in range(4):
        mine = of(agent, actor_id)
        assert [int(e.observation[0]) for e in mine] == [k % 3 for k in range(len(mine))]
        assert [int(e.next_observation[0]) for e in mine] == [k % 3 + 1 for k in range(len(mine))]
        assert [e.reward for e in mine] == [float(k % 3 == 2) for k in range(len(mine))]
        assert all(e.status.is_terminal == (k % 3 == 2) for k, e in enumerate(mine))
    assert session.total_episodes == sum(len(of(agent, actor_id)) // 3 for actor_id in range(4))
    assert session.stats_summary() == {"episode_reward": 1.0, "episode_length": 3.0}
    assert [report.actor_id for report in reports] == [0, 1, 2, 3]
    assert all(report.env_s == reports[0].env_s > 0 and report.restarts == 0 for report in reports)


@on_asyncio
@by_mode
async def test_episodes_of_different_lengths_end_each_in_its_own_way(mode: AutoresetMode) -> None:
    class Impatient(ChainEnv):
        """One of length 9 is truncated after 5 steps."""

        def step(self, action: Any) -> Any:
            *result, info = super().step(action)
            if self.length == 9 and result[0][0] == 5:
                result[3] = True
            return (*result, info)

    # Box spaces differ by length, so all of them say 9.
    def make(length: int) -> Any:
        env = Impatient(length)
        env.observation_space = ChainEnv(9).observation_space
        return env

    agent, _, reports = await play(lambda: chains(mode, 2, 9, 3, make=make), n=200)
    for actor_id, length, end in ((0, 2, EpisodeStatus.TERMINATED), (1, 5, EpisodeStatus.TRUNCATED)):
        mine = of(agent, actor_id)
        assert [int(e.next_observation[0]) for e in mine] == [k % length + 1 for k in range(len(mine))]
        statuses = [EpisodeStatus.CONTINUING] * (length - 1) + [end]
        assert [e.status for e in mine] == [statuses[k % length] for k in range(len(mine))]
    assert [report.episodes for report in reports] == [
        report.steps // k for report, k in zip(reports, (2, 5, 3), strict=True)
    ]
    if mode is STEP_MODE:  # a reset takes its own round: six rounds for an episode of five steps
        assert reports[0].steps / reports[1].steps == pytest.approx((2 / 3) / (5 / 6), rel=0.1)
    else:
        assert {abs(one.steps - reports[0].steps) for one in reports} <= {0, 1}


@on_asyncio
async def test_all_share_a_forward_pass_and_those_being_reset_are_not_asked() -> None:
    agent, *_ = await play(lambda: same(STEP_MODE, lambda: ChainEnv(3), 4), n=48)
    assert agent.batch_sizes == [4] * 12
    agent, _, _ = await play(lambda: chains(STEP_MODE, 2, 3, make=lambda k: in_space(ChainEnv(k))), n=40)
    assert set(agent.batch_sizes) == {1, 2}
    assert sum(agent.batch_sizes) == 40 or sum(agent.batch_sizes) == 41


def in_space(env: Any) -> Any:
    env.observation_space = ChainEnv(9).observation_space
    return env


class Succeeding(ChainEnv):
    """A chain that says at the end whether its length is even; a long one says nothing."""

    def step(self, action: Any) -> Any:
        *rest, terminated, truncated, info = super().step(action)
        says = (terminated or truncated) and self.length < 5
        return (
            *rest,
            terminated,
            truncated,
            ({"is_success": np.bool_(self.length % 2 == 0)} if says else info),
        )


@by_mode
@on_asyncio
async def test_the_success_of_each_episode_is_in_its_row(mode: AutoresetMode, tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    await play(lambda: chains(mode, 2, 3, 5, make=lambda length: in_space(Succeeding(length))), n=60, run=run)
    rows = [json.loads(line) for line in (run.directory / "train_episodes.jsonl").read_text().splitlines()]
    assert {row["actor_id"] for row in rows} == {0, 1, 2}
    assert all(row["extras"].get("is_success") == [1.0, 0.0, None][row["actor_id"]] for row in rows)


@on_asyncio
async def test_ids_are_given_and_rows_are_written(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    agent, session, reports = await play(
        lambda: same(STEP_MODE, lambda: ChainEnv(3), 3), n=90, actor_ids=["a", 7, "7"], run=run
    )
    assert [report.actor_id for report in reports] == ["a", 7, "7"]
    assert {e.actor_id for e in agent.experiences} == {"a", 7, "7"}
    rows = [json.loads(line) for line in (run.directory / "train_episodes.jsonl").read_text().splitlines()]
    assert len(rows) == session.total_episodes == 30
    assert {(row["length"], row["total_reward"], row["status"]) for row in rows} == {(3, 1.0, "Terminated")}
    assert set(agent.started) == {"a", 7, "7"}


@on_asyncio
@pytest.mark.parametrize("copy", [True, False])
async def test_worker_processes(copy: bool) -> None:
    make = lambda: AsyncVectorEnv([lambda: ChainEnv(3)] * 2, copy=copy, context="fork")  # noqa: E731
    agent, session, _ = await play(make, n=40, stepping="thread")
    assert session.total_steps == 40
    for actor_id in (0, 1):
        mine = of(agent, actor_id)
        assert [int(e.observation[0]) for e in mine] == [k % 3 for k in range(len(mine))]


# Seeds --------------------------------------------------------------------------------------------


@on_asyncio
@by_mode
async def test_the_first_episodes_have_the_seeds_of_their_actors(mode: AutoresetMode) -> None:
    make = lambda: same(mode, lambda: Noisy(3), 3)  # noqa: E731
    agent, _, _ = await play(make, seed=7, actor_ids=["a", "b", "c"])
    again, _, _ = await play(make, seed=7, actor_ids=["a", "b", "c"])
    for actor_id in ("a", "b", "c"):
        begun = firsts(agent, actor_id)
        assert begun == firsts(again, actor_id)
        assert len(set(begun)) == len(begun) > 9
        env = Noisy(3)
        # Where we reset, every episode has a seed; else the sub-environment continues with its generator.
        known = [
            float(
                env.reset(
                    seed=episode_seed(7, actor_id, k) if mode is AutoresetMode.DISABLED or k == 0 else None
                )[0][0]
            )
            for k in range(len(begun))
        ]
        assert begun == known
    other, _, _ = await play(make, seed=8, actor_ids=["a", "b", "c"])
    assert not set(firsts(other, "a")) & set(firsts(agent, "a"))


@on_asyncio
@by_mode
async def test_the_journal_holds_the_seeds_that_are_known(mode: AutoresetMode, tmp_path: Path) -> None:
    seen: list[tuple[Any, int | None]] = []

    class Telling(TrainingSession):
        async def on_episode_start(self, actor_id: Any = 0, seed: int | None = None) -> None:
            seen.append((actor_id, seed))
            await super().on_episode_start(actor_id, seed)

    async with Telling(FakeAgent(action=1), max_steps=36) as session:
        await run_vector_actors(session, lambda: same(mode, lambda: Noisy(3), 2), seed=7)
    for actor_id in (0, 1):
        mine = [seed for who, seed in seen if who == actor_id]
        known = [episode_seed(7, actor_id, k) for k in range(len(mine))]
        assert len(mine) >= 6
        assert mine == (known if mode is AutoresetMode.DISABLED else [known[0]] + [None] * (len(mine) - 1))


@on_asyncio
async def test_without_a_seed_nothing_is_seeded() -> None:
    seeds: list[Any] = []

    class Noting(ChainEnv):
        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            seeds.append(seed)
            return super().reset(seed=seed)

    await play(lambda: same(AutoresetMode.DISABLED, lambda: Noting(3)))
    assert len(seeds) > 4
    assert set(seeds) == {None}


@on_asyncio
async def test_a_resumed_run_goes_on_with_the_seeds_of_the_next_episodes(tmp_path: Path) -> None:
    make = lambda: same(AutoresetMode.DISABLED, lambda: Noisy(3))  # noqa: E731
    whole, _, _ = await play(make, n=60, seed=7)
    run = await TrainingRun.create("x", root=tmp_path)
    halves: list[float] = []
    for n in (30, 60):
        agent, _, _ = await play(make, n=n, seed=7, run=run)
        halves += firsts(agent, 1)
        run = await TrainingRun.resume(run.directory)
    assert halves == firsts(whole, 1)


# Failures -----------------------------------------------------------------------------------------


@by_mode_and_stepping
async def test_one_that_raises_costs_the_episodes_of_all_and_is_made_again(
    mode: AutoresetMode, stepping: str, caplog: pytest.LogCaptureFixture
) -> None:
    numbers, made, closed = itertools.count(1), itertools.count(), []

    class Closing(ChainEnv):
        def close(self) -> None:
            closed.append(1)

    def make_env() -> Any:
        next(made)
        crashing = lambda: CrashingEnv(in_space(Closing(4)), {5}, steps=numbers)  # noqa: E731
        return SyncVectorEnv([crashing, lambda: in_space(Closing(4))], autoreset_mode=mode)

    agent, session, reports = await play(make_env, n=60, stepping=stepping, limit=PATIENT)
    assert session.total_steps == 60
    assert next(made) == 2
    assert len(closed) == 4
    assert [(r.restarts, r.last_error) for r in reports] == [(1, "RuntimeError: simulator crashed")] * 2
    # Four whole steps of each, then a crash: of the first one's second episode, as of the other's.
    lost_at = {AutoresetMode.NEXT_STEP: 4, AutoresetMode.SAME_STEP: 4, AutoresetMode.DISABLED: 4}[mode]
    for actor_id in (0, 1):
        cells = [int(e.observation[0]) for e in of(agent, actor_id)]
        assert cells == [0, 1, 2, 3] + [k % 4 for k in range(len(cells) - lost_at)]
    assert "its environment failed (RuntimeError: simulator crashed)" in caplog.text


@on_asyncio
async def test_the_running_episodes_are_given_up_and_not_counted() -> None:
    numbers = itertools.count(1)
    make = lambda: SyncVectorEnv([lambda: CrashingEnv(ChainEnv(4), {3}, steps=numbers), lambda: ChainEnv(4)])  # noqa: E731
    agent, session, reports = await play(make, n=44, limit=PATIENT)
    assert [[int(e.observation[0]) for e in of(agent, k)][:6] for k in (0, 1)] == [[0, 1, 0, 1, 2, 3]] * 2
    assert agent.started[:4] == [0, 1, 0, 1]
    assert session.total_episodes == sum(report.episodes for report in reports) == 10


async def test_too_many_failures_come_out_alone_with_their_cause() -> None:
    with pytest.raises(ActorFailed, match=r"actor 'a': its environment failed 3 times") as caught:
        await play(
            lambda: same(STEP_MODE, lambda: CrashingEnv(ChainEnv(3), {2})),
            limit=AT_ONCE,
            actor_ids=["a", "b"],
        )
    assert isinstance(caught.value.__cause__, RuntimeError)


@on_asyncio
@pytest.mark.parametrize("spoilt", ["reward", "first", "next"])
async def test_invalid_experiences_are_failures_of_the_environment(spoilt: str) -> None:
    class Checking(FakeAgent):
        def check_observation(self, observation: Any) -> None:
            if not np.isfinite(observation).all():
                raise InvalidExperience("a value is not finite")

        def check_experience(self, experience: Experience) -> None:
            self.check_observation(experience.next_observation)

    class Spoilt(ChainEnv):
        def reset(self, **settings: Any) -> Any:
            seen, info = super().reset(**settings)
            return (seen * np.nan if spoilt == "first" else seen), info

        def step(self, action: Any) -> Any:
            seen, reward, *rest = super().step(action)
            return (
                (seen * np.nan if spoilt == "next" else seen),
                np.nan if spoilt == "reward" else reward,
                *rest,
            )

    with pytest.raises(ActorFailed) as caught:
        await play(lambda: same(STEP_MODE, lambda: Spoilt(3)), agent=Checking(action=1), limit=AT_ONCE)
    assert isinstance(caught.value.__cause__, InvalidExperience)


@on_asyncio
async def test_an_agent_that_dies_ends_it_with_its_cause() -> None:
    with pytest.raises(SessionFailed, match="the agent failed: RuntimeError") as caught:
        await play(lambda: same(STEP_MODE, lambda: ChainEnv(3)), agent=FakeAgent(action=1, fail_at=50))
    assert isinstance(caught.value.__cause__, RuntimeError)


@on_asyncio
async def test_a_policy_that_dies_ends_it_with_its_cause() -> None:
    class Blind(FakeAgent):
        def act(self, observations: Any, mode: Any) -> Any:
            raise ZeroDivisionError("no idea")

    with pytest.raises(SessionFailed) as caught:
        await play(lambda: same(STEP_MODE, lambda: ChainEnv(3)), agent=Blind())
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@on_asyncio
async def test_a_worker_process_that_dies_is_replaced_and_none_is_left() -> None:
    made: list[AsyncVectorEnv] = []

    def make_env() -> AsyncVectorEnv:
        made.append(AsyncVectorEnv([lambda: ChainEnv(3)] * 2, context="fork"))
        if len(made) == 1:
            made[0].processes[0].terminate()  # the other one would not be ended
            made[0].processes[0].join()
        return made[-1]

    _, session, (report, _) = await play(make_env, n=30, limit=PATIENT, stepping="inline")
    assert (session.total_steps, report.restarts, len(made)) == (30, 1, 2)
    for env in made:
        for process in env.processes:
            process.join(10)
            assert not process.is_alive()


# Hangs --------------------------------------------------------------------------------------------


class Hanging(ChainEnv):
    """Hangs in one of its steps until it is released."""

    hangs = threading.Event()

    def __init__(self, released: threading.Event, at: int, numbers: Any) -> None:
        super().__init__(3)
        self.released, self.at, self.numbers = released, at, numbers

    def step(self, action: Any) -> Any:
        if next(self.numbers) == self.at:
            self.hangs.set()
            self.released.wait(50)
        return super().step(action)


@pytest.fixture
def released() -> Any:
    event = threading.Event()
    Hanging.hangs.clear()
    yield event
    event.set()


@on_asyncio
async def test_one_that_is_stuck_ends_the_session_if_set(released: threading.Event) -> None:
    numbers = itertools.count(1)
    with pytest.raises(Stalled, match=r"actor 0 \(in its environment; its last event was step 2 of its life"):
        await play(
            lambda: same(STEP_MODE, lambda: Hanging(released, 5, numbers)),
            stepping="thread",
            actor_timeout_s=0.2,
            on_silent_actor="fail",
        )


async def test_one_that_is_stuck_is_made_again_if_set(released: threading.Event) -> None:
    numbers = itertools.count(1)
    _, session, reports = await play(
        lambda: same(STEP_MODE, lambda: Hanging(released, 5, numbers)),
        n=30,
        stepping="thread",
        actor_timeout_s=0.2,
        on_silent_actor="restart",
        limit=PATIENT,
    )
    assert session.total_steps == 30
    assert [report.restarts for report in reports] == [1, 1]
    assert reports[1].last_error is not None
    assert "Stalled" in reports[1].last_error


async def test_a_stuck_environment_is_reported_once_and_not_by_the_session_too(
    released: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    numbers = itertools.count(1)
    agent = FakeAgent(action=1)
    with anyio.fail_after(60):
        async with TrainingSession(agent, max_steps=30, actor_timeout_s=0.1) as session:
            async with anyio.create_task_group() as tasks:
                make = lambda: same(STEP_MODE, lambda: Hanging(released, 5, numbers))  # noqa: E731
                tasks.start_soon(lambda: run_vector_actors(session, make, stepping="thread"))
                while "has not moved" not in caplog.text:
                    await anyio.lowlevel.checkpoint()
                await anyio.sleep(0.3)  # time for a second look
                released.set()
            assert session.supervised_actors == set()
    assert caplog.text.count("has not moved") == 1
    assert session.total_steps == 30


async def test_it_does_not_keep_a_finished_training_from_ending(
    released: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    numbers = itertools.count(1)
    async with TrainingSession(FakeAgent(action=1), actor_timeout_s=0.1) as session:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                make = lambda: same(STEP_MODE, lambda: Hanging(released, 5, numbers))  # noqa: E731
                tasks.start_soon(lambda: run_vector_actors(session, make, stepping="thread"))
                while not Hanging.hangs.is_set():
                    await anyio.lowlevel.checkpoint()
                session.stop()
    assert "did not return" in caplog.text


# Ends ---------------------------------------------------------------------------------------------


async def test_stop_ends_it_in_the_middle_of_a_round() -> None:
    steps = itertools.count(1)

    class Stopping(FakeAgent):
        def act(self, observations: Any, mode: Any) -> Any:
            if len(self.batch_sizes) == 4:
                session.stop()
            return super().act(observations, mode)

    class Counting(ChainEnv):
        def step(self, action: Any) -> Any:
            next(steps)
            return super().step(action)

    async with TrainingSession(Stopping(action=1)) as session:
        reports = await run_vector_actors(session, lambda: same(STEP_MODE, lambda: Counting(9)))
    assert [report.steps for report in reports] == [4, 4]
    assert next(steps) == 9, "the fifth round was not stepped"


@on_asyncio
async def test_a_session_that_is_done_plays_nothing() -> None:
    made: list[Any] = []
    async with TrainingSession(FakeAgent(), max_steps=0) as session:
        reports = await run_vector_actors(session, lambda: made.append(1), ["a", "b"])
    assert made == []
    assert [(report.actor_id, report.steps) for report in reports] == [("a", 0), ("b", 0)]


async def test_a_cancelled_one_closes_its_environment() -> None:
    closed: list[int] = []

    class Closing(ChainEnv):
        def close(self) -> None:
            closed.append(1)

    async with TrainingSession(FakeAgent(action=1)) as session:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: run_vector_actors(session, lambda: same(STEP_MODE, lambda: Closing(3))))
            while session.total_steps < 20:
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        session.stop()
    assert closed == [1, 1]


async def test_a_slow_one_does_not_hold_the_event_loop() -> None:
    class Slow(ChainEnv):
        def step(self, action: Any) -> Any:
            time.sleep(0.01)
            threads.add(threading.current_thread().name)
            return super().step(action)

    threads: set[str] = set()
    await play(lambda: same(STEP_MODE, lambda: Slow(3)), n=40, stepping="auto")
    assert threads == {"MainThread", "env of actor 0"}, "it moved to a thread when it proved slow"


@on_asyncio
async def test_an_async_factory() -> None:
    async def dial() -> Any:
        await anyio.lowlevel.checkpoint()
        return same(STEP_MODE, lambda: ChainEnv(3))

    for stepping in ("auto", "thread"):
        _, session, _ = await play(dial, n=20, stepping=stepping)
        assert session.total_steps == 20


# Refused ------------------------------------------------------------------------------------------


@on_asyncio
async def test_what_cannot_be_played_is_refused_at_once() -> None:
    for make, settings, message in [
        (lambda: ChainEnv(3), {}, "gave a ChainEnv, which is not a gymnasium.vector.VectorEnv"),
        (lambda: None, {}, "gave a NoneType"),
        (
            lambda: same(STEP_MODE, ChainEnv, 3),
            {"actor_ids": [1, 2]},
            "2 actor ids for a vector environment of 3",
        ),
        (lambda: same(STEP_MODE, ChainEnv), {"actor_ids": []}, "give at least one"),
        (lambda: same(STEP_MODE, ChainEnv), {"actor_ids": [1, 1]}, "actor ids 1 are given twice"),
        (lambda: same(STEP_MODE, ChainEnv), {"stepping": "slow"}, "stepping='slow' is unknown"),
    ]:
        made: list[Any] = []

        def counting(make: Callable[[], Any] = make, made: list[Any] = made) -> Any:
            made.append(1)
            return make()

        with pytest.raises(ConfigError, match=message):
            await play(counting, limit=PATIENT, **settings)
        assert len(made) <= 1, "a retry would fail again"


@on_asyncio
async def test_a_mode_that_is_not_said_is_refused() -> None:
    def silent() -> Any:
        env = same(STEP_MODE, ChainEnv)
        del env.metadata["autoreset_mode"]
        return env

    with pytest.raises(ConfigError, match="does not say how it begins the next episodes"):
        await play(silent)


@on_asyncio
async def test_lockstep_is_refused(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    async with TrainingSession(FakeAgent(), run, lockstep=True, max_steps=9) as session:
        with pytest.raises(ConfigError, match="lockstep=True: .* cannot take turns"):
            await run_vector_actors(session, lambda: same(STEP_MODE, ChainEnv))


@on_asyncio
@pytest.mark.parametrize(("count", "interval", "is_refused"), [(4, 1, True), (4, 2, False), (3, 1, False)])
async def test_a_round_that_cannot_be_fresh_enough_is_refused(
    count: int,
    interval: int,
    is_refused: bool,
) -> None:
    make = lambda: same(STEP_MODE, lambda: ChainEnv(3), count)  # noqa: E731
    settings = {"max_staleness": 2, "opt_interval": interval, "max_steps": 40}
    with anyio.fail_after(30):
        async with TrainingSession(FakeAgent(action=1), **settings) as session:
            if is_refused:
                with pytest.raises(ConfigError, match=r"max_staleness=2: 4 sub-environments .* by 3"):
                    await run_vector_actors(session, make)
            else:
                await run_vector_actors(session, make)
    assert session.total_steps == (0 if is_refused else 40)


@on_asyncio
async def test_the_vector_environment_of_gymnasium_trains() -> None:
    make = lambda: gymnasium.make_vec("CartPole-v1", 4, vectorization_mode="vector_entry_point")  # noqa: E731
    agent, session, _ = await play(make, n=300, seed=1)
    assert session.total_steps == 300
    for actor_id in range(4):
        mine = of(agent, actor_id)
        for before, after in itertools.pairwise(mine):
            if before.status.is_done:
                assert np.abs(after.observation).max() <= 0.05, "the first of the next episode"
            else:
                assert np.array_equal(before.next_observation, after.observation)


# Columns ------------------------------------------------------------------------------------------


class Columnar(FakeAgent):
    """Takes batches, and notes the sizes of those at the door and of those that come in."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.given: list[int] = []
        self.sizes: list[int] = []

    def check_observation(self, observation: Any) -> None:
        assert np.shape(observation) == (1,)

    def check_experience(self, experience: Experience) -> None:
        self.check_observation(experience.observation)

    def check_observations(self, observations: Any) -> bool:
        return observations.shape[1:] == (1,)

    def check_batch(self, batch: ExperienceBatch) -> bool:
        self.given.append(len(batch))
        return self.check_observations(batch.observations)

    def observe_batch(self, batch: ExperienceBatch) -> None:
        self.sizes.append(len(batch))
        self.observe(batch.experiences())


@on_asyncio
@by_mode
async def test_an_agent_of_batches_gets_one_per_round_with_the_same_rows(
    mode: AutoresetMode, tmp_path: Path
) -> None:
    found: list[Any] = []
    for kind in (FakeAgent, Columnar):
        run = await TrainingRun.create(kind.__name__, root=tmp_path)
        agent, session, reports = await play(
            lambda: chains(mode, 2, 3, 5, make=lambda k: in_space(Noisy(k))),
            n=100, seed=3, run=run, agent=kind(action=1),
        )  # fmt: skip
        mine = [
            (e.actor_id, e.observation.tolist(), e.action, e.reward, e.next_observation.tolist(), e.status)
            for e in agent.experiences
        ]
        rows = [json.loads(row) for row in (run.directory / "train_episodes.jsonl").read_text().splitlines()]
        episodes = [(row["actor_id"], row["length"], row["total_reward"], row["status"]) for row in rows]
        counts = [(report.steps, report.episodes) for report in reports]
        found.append((mine, episodes, counts, session.total_steps, session.refused_steps))
    assert found[0] == found[1]
    assert sum(agent.sizes) == 100
    assert agent.given == [size for size in agent.batch_sizes if size]


async def test_reports_are_those_of_the_moment() -> None:
    seen: list[tuple[int, float]] = []

    class Reading(Columnar):
        def act(self, observations: Any, mode: Any) -> Any:
            seen.append((sum(report.steps for report in group.reports), group.env_s))
            return super().act(observations, mode)

    with anyio.fail_after(60):
        async with TrainingSession(Reading(action=1), max_steps=40) as session:
            group = VectorActorGroup(session, lambda: same(AutoresetMode.SAME_STEP, lambda: ChainEnv(3), 4))
            await group.run()
    assert [steps for steps, _ in seen] == [4 * k for k in range(10)]
    assert [env_s for _, env_s in seen] == sorted({env_s for _, env_s in seen})
    assert [report.steps for report in group.reports] == [10] * 4
