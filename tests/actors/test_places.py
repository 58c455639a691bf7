"""Actors with their own copies of the policy, as tasks and on threads, and a place of the user."""

from __future__ import annotations

import itertools
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from portable_parts import PLACE, ListsAgent, Overwriting, PortableAgent, Seeded, SlowChain, Spoilt, by_actor
from socket_place import SocketPlace

from stoker import (
    ActorFailed,
    ActorGroup,
    ConfigError,
    EpisodeStatus,
    Experience,
    FailureLimit,
    SessionFailed,
    Stalled,
    StatsTracker,
    TrainingSession,
    UnexpectedExit,
    run_actors,
)
from stoker.actors import Assignment, EnvFactory, OwnPolicy, WorkerCommand
from stoker.actors.messages import Credit
from stoker.actors.places import place_of
from stoker.actors.streams import PolicyFeed
from stoker.envs import episode_seed
from stoker.session.publishing import PolicyBuffer
from stoker.testing import AsyncChainEnv, ChainEnv, CrashingEnv, FakeAgent

pytestmark = pytest.mark.anyio
PATIENT = FailureLimit(failures=1000, window_s=1000.0, first_delay_s=0.0)
AT_ONCE = FailureLimit(failures=2, window_s=1000.0, first_delay_s=0.0)
ASYNCIO, TRIO = ("asyncio", {"use_uvloop": False}), ("trio", {})
CENTRAL = pytest.param({}, ASYNCIO, id="central")
OWN = [
    pytest.param({"place": "tasks", "sync_interval": 1}, ASYNCIO, id="tasks"),
    pytest.param({"place": "threads"}, TRIO, id="threads"),
]
"""Where actors have copies; the event loop differs, so that each place is played on one and all on both."""

on_asyncio = pytest.mark.parametrize("anyio_backend", [ASYNCIO], ids=["asyncio"], indirect=True)


def everywhere(*places: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("settings", "anyio_backend"), places, indirect=["anyio_backend"])


own_copies, all_places = everywhere(*OWN), everywhere(CENTRAL, *OWN)


async def play(
    factory: Callable[[], Any],
    *,
    n: int = 60,
    actors: int | Sequence[Any] = 2,
    agent: PortableAgent | None = None,
    session_settings: dict[str, Any] | None = None,
    within_s: float = 60.0,
    **settings: Any,
) -> tuple[Any, Any, Any]:
    agent = PortableAgent() if agent is None else agent
    with anyio.fail_after(within_s):
        async with TrainingSession(agent, max_steps=n, **(session_settings or {})) as session:
            reports = await run_actors(session, factory, actors, **settings)
    return agent, session, reports


def steps_of(agent: FakeAgent, actor_id: Any) -> list[tuple[Any, ...]]:
    """What an actor did, by value."""
    return [
        (e.observation.tolist(), e.action, e.reward, e.next_observation.tolist(), e.status)
        for e in agent.experiences
        if e.actor_id == actor_id
    ]


@on_asyncio
async def test_a_place_of_the_user_plays_as_tasks_do_and_outlives_its_workers() -> None:
    started, both = set[int](), anyio.Event()

    async def wait_for_both(metrics: Any) -> None:
        started.add(metrics.actor_id)
        if len(started) == 2:
            both.set()
        await both.wait()

    central, *_ = await play(Seeded, n=300, actors=[0, 1], seed=7)
    place = SocketPlace()
    agent, session, _ = await play(
        Seeded, n=300, actors=[0, 1], seed=7, place=place, on_step=wait_for_both, within_s=100.0
    )
    assert place.checked
    assert agent.total_steps == session.total_steps == 300
    assert os.getpid() not in {e.policy_extras["pid"] for e in agent.experiences}
    for actor_id in (0, 1):
        mine, theirs = steps_of(agent, actor_id), steps_of(central, actor_id)
        common = min(len(mine), len(theirs))
        assert mine[:common] == theirs[:common]
    assert [link.program.wait(60) for link in place.links if link.program is not None] == [0, 0]

    place = SocketPlace()
    accepted = itertools.count(1)

    async def kill_once(_: Any) -> None:
        if next(accepted) == 50:
            place.links[0].kill()

    _, session, [report] = await play(
        Seeded, n=400, actors=1, seed=1, place=place, limit=PATIENT, on_step=kill_once, within_s=100.0
    )
    assert (session.total_steps, report.restarts) == (400, 1)
    assert "process has ended (killed by signal 9)" in str(report.last_error)
    assert [link.program.wait(60) for link in place.links if link.program is not None] == [-9, 0]


class NotingThreads:
    """Threads, and the commands that their workers get."""

    def __init__(self) -> None:
        self.sent: list[WorkerCommand] = []

    def check(self, factory: EnvFactory, policy: OwnPolicy) -> None:
        pass

    def link(self, assignment: Assignment, factory: EnvFactory, policy: OwnPolicy) -> Any:
        threads: Any = place_of("threads")
        link = threads.link(assignment, factory, policy)
        send = link.send

        def noting(command: WorkerCommand) -> None:
            self.sent.append(command)
            send(command)

        link.send = noting
        return link


@on_asyncio
async def test_a_worker_has_credit_for_as_many_steps_as_came_and_for_no_more() -> None:
    place = NotingThreads()
    _, _, (report,) = await play(partial(ChainEnv, 1), n=300, actors=1, place=place)
    assert report.episodes >= 300
    credit = sum(command.n_steps for command in place.sent if isinstance(command, Credit))
    assert credit == report.steps


@own_copies
async def test_the_same_seeds_episodes_and_steps_as_with_central_acting(settings: Any) -> None:
    central, *_ = await play(Seeded, n=600, actors=["a", 1], seed=7)
    agent, session, reports = await play(Seeded, n=600, actors=["a", 1], seed=7, **settings)
    assert agent.total_steps == session.total_steps == 600
    for actor_id, report in zip(["a", 1], reports, strict=True):
        mine, theirs = steps_of(agent, actor_id), steps_of(central, actor_id)
        common = min(len(mine), len(theirs))
        assert mine[:common] == theirs[:common]
        assert report.episodes == report.steps // 3
    assert sum(report.steps for report in reports) - session.refused_steps == 600


async def test_copies_that_are_due_at_different_times_get_the_same_weights() -> None:
    policies = PolicyBuffer(PortableAgent())
    feed = PolicyFeed(policies, sync_interval=5)
    policies.publish(5)
    shared = feed.fresh()
    policies.publish(9)
    assert (shared.version, feed.fresh()) == (5, shared), "it is packed and sent once for all"
    policies.publish(10)
    assert feed.fresh().version == 10
    policies.publish(12)
    assert feed.newest().version == 12


@own_copies
async def test_a_copy_is_updated_when_it_is_behind_by_the_interval(settings: Any) -> None:
    for interval in (1, 5):
        agent, session, (report,) = await play(
            ChainEnv,
            n=60,
            actors=1,
            seed=1,
            session_settings={"publish_interval": 1, "queue_capacity": 4},
            **{**settings, "sync_interval": interval},
        )
        versions = [e.policy_version for e in agent.experiences]
        assert versions == sorted(versions)
        assert [e.policy_extras["opts"] for e in agent.experiences] == versions, (
            "these weights chose that action"
        )
        # It may have been updated once more for steps that came too late to be accepted.
        assert len(set(versions)) - 1 <= report.syncs <= session.opt_steps / interval
        assert all(
            later - before >= interval for before, later in itertools.pairwise(versions) if later != before
        )
        assert session.opt_steps == 60
        if settings["place"] == "tasks":  # which plays no further ahead than the queue is long
            assert versions[-1] >= 60 - 2 * 4 - interval


@own_copies
async def test_copies_keep_to_a_limit_that_is_below_their_interval(settings: Any) -> None:
    agent, *_ = await play(
        ChainEnv,
        session_settings={"max_staleness": 2, "publish_interval": 1},
        **{**settings, "sync_interval": 50},
    )
    assert len(agent.lags) == 60
    assert max(agent.lags) <= 2
    assert [e.policy_extras["opts"] for e in agent.experiences] == [
        e.policy_version for e in agent.experiences
    ]


@on_asyncio
async def test_each_copy_has_its_own_generator_which_the_seed_determines() -> None:
    drawn: list[Any] = []
    for seed in (3, 3, 4, None):
        agent, *_ = await play(ChainEnv, n=40, actors=[0, "0"], seed=seed, sync_interval=2)
        drawn.append(
            [[e.policy_extras["drawn"] for e in agent.experiences if e.actor_id == a][:10] for a in (0, "0")]
        )
    assert drawn[0] == drawn[1]
    assert len({values[0] for pair in (drawn[0], drawn[2], drawn[3]) for values in pair}) == 6
    expected = np.random.default_rng(episode_seed(3, "0", 0, stream="policies")).random(10).tolist()
    assert drawn[0][1] == expected


@on_asyncio
async def test_on_threads_an_environment_sees_one_thread_from_construction_to_closing() -> None:
    made: list[int] = []
    closed: list[tuple[int, int]] = []

    class Closing(Seeded):
        def __init__(self) -> None:
            super().__init__()
            made.append(self.thread)

        def close(self) -> None:
            closed.append((self.thread, threading.get_ident()))

    extras: list[dict[str, float]] = []

    class Remembering(StatsTracker):
        def update(self, record: Any, *rest: Any, **more: Any) -> None:
            extras.append(record.extras)
            super().update(record, *rest, **more)

    await play(Closing, actors=3, place="threads", session_settings={"stats": Remembering()})
    assert len(closed) == len(made) > 0
    assert all(made_on == closed_on != threading.get_ident() for made_on, closed_on in closed)
    assert extras
    assert all(said["same_thread"] == said["is_success"] == 1.0 for said in extras)


async def test_on_threads_environments_may_be_async(anyio_backend: Any) -> None:
    agent, session, _ = await play(lambda: AsyncChainEnv(3, latency=0.0005), place="threads")
    assert agent.total_steps == 60
    assert session.total_episodes >= 60 // 3 - 2


def spoiler(tmp_path: Path, what: str) -> Callable[[], Any]:
    path = tmp_path / "spoiler"
    path.write_text(what)
    return partial(Spoilt, str(path))


FAULTS = [
    ("raise", "RuntimeError: simulator crashed"),
    ("NaN reward", "InvalidExperience: reward=nan is not finite: clip it, or correct what computes it"),
    ("NaN observation", "InvalidExperience: an observation of [nan]"),
    (
        "shape",
        "InvalidExperience: env of actor 0 (Spoilt).step gave an observation array([0., 0.], dtype=float32) "
        "(ndarray) of shape (2,), not (1,): Gymnasium's rule is that every observation is in "
        "observation_space; correct the one or the other",
    ),
]


@all_places
@pytest.mark.parametrize(("what", "error"), FAULTS, ids=[f[0] for f in FAULTS])
async def test_a_fault_costs_one_episode_wherever_it_is_played(
    settings: Any, what: str, error: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    agent, session, (report,) = await play(
        spoiler(tmp_path, what), actors=1, limit=PATIENT, seed=1, **settings
    )
    assert report.restarts == 1
    # A worker's steps are refused on the event loop, which does not know their place in the episode.
    found = str(report.last_error).replace("after 2 steps of its episode: ", "")
    assert re.sub(PLACE, "", found) == error
    # Steps 1 to 7 went well, the eighth was spoilt: the second step of the third episode.
    done = [e.status.is_done for e in agent.experiences]
    assert done[:10] == [False, False, True] * 2 + [False] + [False, False, True]
    assert agent.total_steps == 60
    assert session.total_episodes == sum(done)
    assert "that episode is lost, a new one is made" in caplog.text


@all_places
async def test_too_many_faults_end_it_with_their_cause(settings: Any) -> None:
    with pytest.raises(ActorFailed, match="failed 2 times within 1000 s.*simulator crashed") as caught:
        await play(lambda: CrashingEnv(Seeded(), {5}), actors=2, limit=AT_ONCE, **settings)
    assert type(caught.value.__cause__) is RuntimeError


@own_copies
async def test_an_object_that_is_not_an_environment_is_refused_at_once(settings: Any, tmp_path: Path) -> None:
    for factory, message in (
        (object, "without a method 'reset'"),
        (spoiler(tmp_path, "old"), "returned 4 values"),
    ):
        with pytest.raises(ConfigError, match=message):
            await play(factory, actors=1, limit=PATIENT, **settings)


@own_copies
async def test_a_policy_that_raises_ends_the_session_with_that(settings: Any, tmp_path: Path) -> None:
    with pytest.raises(
        SessionFailed, match="the policy failed: ZeroDivisionError: 13 brings no luck"
    ) as caught:
        await play(spoiler(tmp_path, "unlucky"), actors=1, limit=PATIENT, **settings)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@own_copies
async def test_a_policy_that_cannot_be_copied_is_refused(settings: Any) -> None:
    async with TrainingSession(FakeAgent()) as session:
        with pytest.raises(ConfigError, match="FakeAgent is not a PortablePolicy.*use place='tasks' without"):
            ActorGroup(session, ChainEnv, **settings)


@on_asyncio
async def test_invalid_settings_are_refused() -> None:
    async with TrainingSession(PortableAgent()) as session:
        for settings, message in [
            ({"place": "elsewhere"}, "place='elsewhere': choose one of tasks, threads, processes"),
            ({"sync_interval": 0}, "sync_interval=0: give an int of at least 1"),
            ({"sync_interval": True}, "sync_interval=True"),
            ({"place": "threads", "sync_interval": 1.5}, "sync_interval=1.5"),
        ]:
            with pytest.raises(ConfigError, match=message):
                ActorGroup(session, ChainEnv, **settings)


@everywhere(*OWN, pytest.param({"place": "processes"}, ASYNCIO, id="processes"))
async def test_copies_are_refused_with_lockstep(settings: Any) -> None:
    async with TrainingSession(PortableAgent(), lockstep=True) as session:
        with pytest.raises(ConfigError, match="lockstep=True"):
            ActorGroup(session, ChainEnv, **settings)


@all_places
async def test_a_slow_actor_paces_the_fast_one_and_nothing_is_thrown_away(settings: Any) -> None:
    delays = [0.003, 0.0]
    agent, session, reports = await play(
        lambda: SlowChain(delays.pop(0) if delays else 0.0),
        n=150,
        seed=1,
        stepping="thread",
        session_settings={"max_staleness": 3, "publish_interval": 1},
        **settings,
    )
    assert agent.total_steps == 150
    assert max(agent.lags) <= 3
    assert len(by_actor(agent)) == 2
    assert min(by_actor(agent).values()) > 10, "the slow one holds the fast one"
    assert sum(report.steps for report in reports) - session.refused_steps == 150


async def test_a_stuck_thread_is_abandoned_and_another_one_continues(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    agent, session, (report,) = await play(
        spoiler(tmp_path, "hang"),
        actors=1,
        place="threads",
        limit=PATIENT,
        session_settings={"actor_timeout_s": 0.5, "on_silent_actor": "restart"},
    )
    assert (agent.total_steps, report.restarts) == (60, 1)
    assert report.last_error.startswith("Stalled: actor 0 (in its environment; its last event was step ")
    assert "the thread is left behind" in caplog.text
    done = [e.status.is_done for e in agent.experiences]
    assert session.total_episodes == sum(done)


@on_asyncio
async def test_a_stuck_thread_ends_the_session_if_so_set(tmp_path: Path) -> None:
    with pytest.raises(Stalled, match="actor 0"):
        await play(
            spoiler(tmp_path, "hang"),
            actors=1,
            place="threads",
            session_settings={"actor_timeout_s": 0.3, "on_silent_actor": "fail"},
        )


@all_places
async def test_an_environment_that_raises_system_exit_ends_the_training(
    settings: Any, tmp_path: Path
) -> None:
    agent = PortableAgent()
    message = (
        r"^actor 0: its environment failed with UnexpectedExit: env of actor 0\.step raised SystemExit\(3\)"
    )
    with pytest.raises(ActorFailed, match=message) as caught:
        await play(spoiler(tmp_path, "exit"), agent=agent, actors=1, limit=PATIENT, **settings)
    assert isinstance(caught.value.__cause__, UnexpectedExit)
    assert agent.total_steps == 7, "what was played before is learned"


@all_places
async def test_one_environment_for_two_actors_is_refused(settings: Any) -> None:
    env = Seeded()
    with pytest.raises(
        ConfigError, match="env of actor . is the same Seeded object that env of actor . still"
    ):
        await play(lambda: TimeLimit(env, 9), n=10**9, **settings)
    _, session, _ = await play(lambda: env, actors=1, **settings)
    assert session.total_steps == 60, "it was given back"


@all_places
async def test_experiences_do_not_change_when_the_environment_overwrites_its_arrays(settings: Any) -> None:
    agent = ListsAgent()
    await play(Overwriting, agent=agent, actors=1, **settings)
    assert [e.observation for e in agent.experiences] == [[float(k % 3)] for k in range(60)]
    assert [e.next_observation for e in agent.experiences] == [[float(k % 3 + 1)] for k in range(60)]
    assert [e.action for e in agent.experiences] == [[1.0]] * 60


@all_places
async def test_on_step_gets_each_accepted_step(settings: Any) -> None:
    seen: dict[int, list[Any]] = {0: [], 1: []}

    async def on_step(metrics: Any) -> None:
        seen[metrics.actor_id].append(metrics)

    agent, *_ = await play(Seeded, n=50, on_step=on_step, **settings)
    both = [*seen[0], *seen[1]]
    assert sorted(metrics.total_steps for metrics in both) == list(range(1, 51))
    for actor_id in (0, 1):
        mine = seen[actor_id]
        assert len(mine) == by_actor(agent)[actor_id]
        for k, metrics in enumerate(mine):
            assert (metrics.episode, metrics.episode_step) == (k // 3, k % 3 + 1)
            assert metrics.episode_over == (k % 3 == 2) == (metrics.status is EpisodeStatus.TERMINATED)
            assert metrics.reward == metrics.episode_reward == float(k % 3 == 2)
            assert metrics.exploration == 0.5


@all_places
async def test_a_gate_is_asked_before_each_step_and_may_end_an_actor(settings: Any) -> None:
    n_asked = 0

    class Gate:
        async def enter(self, actor_id: Any) -> bool:
            nonlocal n_asked
            assert actor_id == 0
            n_asked += 1
            return n_asked <= 10

        def give_back(self, actor_id: Any) -> None:
            raise AssertionError(f"actor {actor_id} has no failing environment")

    agent, session, (report,) = await play(Seeded, n=50, actors=1, gate=Gate(), **settings)
    assert n_asked == 11
    assert agent.total_steps == session.total_steps == report.steps == 10


@all_places
async def test_reports_say_where_the_time_went(settings: Any) -> None:
    _, _, reports = await play(partial(SlowChain, 0.0002), n=100, **settings)
    for report in reports:
        assert report.env_s > 0
        assert report.act_s > 0
        assert report.wait_s >= 0
        assert report.steps_per_sec > 0
        assert report.env_s + report.act_s + report.wait_s <= report.ended_at - report.begun_at
        assert report.steps_per_sec == report.steps / (report.ended_at - report.begun_at)


@own_copies
async def test_a_group_that_is_cancelled_closes_its_environments(settings: Any) -> None:
    opened: list[Any] = []

    class Closing(ChainEnv):
        def __init__(self) -> None:
            super().__init__(3)
            self.closed = False
            opened.append(self)

        def close(self) -> None:
            time.sleep(0.02)  # so that who does not wait for it is noticed
            self.closed = True

    async with TrainingSession(PortableAgent()) as session:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ActorGroup(session, Closing, 3, **settings).run)
            with anyio.fail_after(30):
                while session.total_steps < 100 or len(opened) < 3:
                    await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        steps = session.total_steps
        assert all(env.closed for env in opened)
        await session.flush()
        assert session.total_steps >= steps


@on_asyncio
async def test_a_session_that_is_done_plays_nothing() -> None:
    made: list[Any] = []
    _, _, reports = await play(lambda: made.append(1), n=0, place="threads")
    assert made == []
    assert [report.steps for report in reports] == [0, 0]


@on_asyncio
async def test_success_is_an_extra_unless_the_environment_gives_its_own() -> None:
    class Successful(ChainEnv):
        def __init__(self, success: Any, extras: dict[str, float]) -> None:
            super().__init__(2)
            self.success, self.extras = success, extras

        def step(self, action: Any) -> Any:
            *rest, _ = super().step(action)
            return (*rest, {"is_success": self.success})

        def episode_extras(self) -> dict[str, float]:
            return self.extras

    from stoker.actors.episodes import play_episode
    from stoker.envs import played

    class Listener:
        async def may_step(self) -> bool:
            return True

        async def act(self, observation: Any, /) -> Any:
            return 1, None, None

        async def observe(self, *_: Any) -> None:
            pass

    for success, extras, expected in [
        (True, {}, {"is_success": 1.0}),
        (np.bool_(0), {"x": 1.0}, {"is_success": 0.0, "x": 1.0}),
        (np.float32(0.5), {"is_success": 0.25}, {"is_success": 0.25}),
        ("yes", {}, {}),
        (None, {}, {}),
    ]:
        record = await play_episode(played(Successful(success, extras)), Listener(), 0, 1)
        assert record is not None
        assert record.extras == expected


class HeldAgent(PortableAgent):
    """Learns nothing until ``go`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def observe(self, experiences: Sequence[Experience]) -> None:
        assert self.go.wait(30), "go was not set"
        super().observe(experiences)


@all_places
async def test_when_actors_return_each_accepted_step_is_consumed(settings: Any) -> None:
    agent, at_return = HeldAgent(), list[int]()

    async def run(group: ActorGroup, session: TrainingSession) -> None:
        await group.run()
        at_return.append(session.total_steps)

    with anyio.fail_after(60):
        async with (
            TrainingSession(agent, max_steps=60, queue_capacity=1000) as session,  # never full
            anyio.create_task_group() as tasks,
        ):
            group = ActorGroup(session, lambda: ChainEnv(3), **settings)
            tasks.start_soon(run, group, session)
            while any(report.ended_at is None for report in group.reports):
                await anyio.lowlevel.checkpoint()
            await anyio.wait_all_tasks_blocked()
            agent.go.set()
    assert at_return == [60]
