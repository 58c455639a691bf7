"""Small vector environments on threads and in processes: episodes, seeds, batches, faults, staleness."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from portable_parts import PortableAgent, Right, Seeded, Spoilt, always_crashing

from stoker import (
    PPO,
    ActorFailed,
    ConfigError,
    Experience,
    ExperienceBatch,
    FailureLimit,
    PPOConfig,
    SessionFailed,
    Stalled,
    TrainingSession,
    run_vector_actors,
)
from stoker.actors import Assignment, EnvFactory, Mailbox, OwnPolicy, Worker, decode_message, encode_message
from stoker.actors.messages import Credit, Failed, Played, Ready, Stop
from stoker.actors.places import place_of
from stoker.actors.vector import VectorActorGroup
from stoker.journal import EpisodeEnded, EpisodeStarted
from stoker.testing import ChainEnv
from stoker.threads import call_soon_here

pytestmark = pytest.mark.anyio
AT_ONCE = FailureLimit(failures=2, window_s=1000.0, first_delay_s=0.0)
PATIENT = FailureLimit(failures=1000, window_s=1000.0, first_delay_s=0.0)
ASYNCIO, TRIO = ("asyncio", {"use_uvloop": False}), ("trio", {})
on_asyncio = pytest.mark.parametrize("anyio_backend", [ASYNCIO], ids=["asyncio"], indirect=True)
both_places = pytest.mark.parametrize(
    ("place", "anyio_backend"),
    [pytest.param("threads", TRIO, id="threads"), pytest.param("processes", ASYNCIO, id="processes")],
    indirect=["anyio_backend"],
)
MODES = list(AutoresetMode)
DISABLED = AutoresetMode.DISABLED
IDS = ["a", "b", "c", "d"]


class Lengthy(Seeded):
    """A chain whose length comes from its seeded generator."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        result = super().reset(seed=seed, options=options)
        self.length = int(self.np_random.integers(1, 7))
        return result


def vector(make: Callable[[], Any] = Lengthy, n: int = 2, mode: AutoresetMode = DISABLED) -> SyncVectorEnv:
    return SyncVectorEnv([make] * n, autoreset_mode=mode)


async def play(
    make_env: Any, *, n: int = 200, agent: Any = None, actor_ids: Any = IDS, **settings: Any
) -> Any:
    agent = PortableAgent() if agent is None else agent
    names = ("on_silent_actor", "actor_timeout_s", "max_staleness", "opt_interval")
    of_session = {name: settings.pop(name) for name in names if name in settings}
    settings = {"workers": 2, "seed": 5, **settings}
    with anyio.fail_after(100):
        async with TrainingSession(agent, max_steps=n, **of_session) as session:
            reports = await run_vector_actors(session, make_env, actor_ids, **settings)
    return agent, session, reports


class Telling(PortableAgent):
    """Calls a function on the event loop after it has observed something."""

    def __init__(self) -> None:
        super().__init__()
        self._call_soon = call_soon_here()
        self.tell: Callable[[], None] = lambda: None

    def observe(self, experiences: Any) -> None:
        super().observe(experiences)
        self._call_soon(self.tell)


async def play_until(
    is_enough: Callable[[VectorActorGroup], bool], make_env: Any, place: Any, **settings: Any
) -> Any:
    """Play with two workers until it is enough, which is looked at when steps were learned."""
    agent = Telling()

    def look() -> None:
        if is_enough(group):
            session.stop()

    with anyio.fail_after(100):
        async with TrainingSession(agent, **settings) as session:
            group = VectorActorGroup(session, make_env, IDS, place=place, workers=2, seed=5, limit=PATIENT)
            agent.tell = look
            await group.run()
    return agent, session, group.reports


async def play_past_a_restart(make_env: Any, place: str, **settings: Any) -> Any:
    """Play until each actor has done ten steps after an environment was made again."""
    before: dict[Any, int] = {}

    def is_enough(group: VectorActorGroup) -> bool:
        if group.restarts and not before:
            before.update({report.actor_id: report.steps for report in group.reports})
        return bool(before) and all(report.steps > before[report.actor_id] + 10 for report in group.reports)

    return await play_until(is_enough, make_env, place, **settings)


def steps_of(agent: Any, actor_id: Any) -> list[tuple[Any, ...]]:
    return [
        (e.observation.tolist(), e.action, e.reward, e.next_observation.tolist(), e.status)
        for e in agent.experiences
        if e.actor_id == actor_id
    ]


@both_places
async def test_workers_play_the_episodes_of_one_vector_environment(place: str) -> None:
    def is_enough(group: VectorActorGroup) -> bool:
        return all(report.steps >= 50 for report in group.reports)

    here, *_ = await play(partial(vector, n=4), n=200, place="tasks", workers=None)
    there, session, reports = await play_until(is_enough, vector, place)
    for actor_id in IDS:
        mine, theirs = steps_of(there, actor_id), steps_of(here, actor_id)
        assert len(theirs) == 50
        assert mine[:50] == theirs
    assert session.total_episodes == sum(e.status.is_done for e in there.experiences)
    assert [report.actor_id for report in reports] == IDS
    assert [report.restarts for report in reports] == [0] * 4
    for first, second in (reports[:2], reports[2:]):
        assert first.env_s == second.env_s > 0
    pids = {e.policy_extras["pid"] for e in there.experiences}
    assert (os.getpid() in pids) == (place == "threads")


async def test_the_limit_is_exact_and_what_was_played_beyond_it_is_counted_as_refused() -> None:
    agent, session, reports = await play(vector, place="threads", n=201)
    assert agent.total_steps == session.total_steps == 201
    assert sum(report.steps for report in reports) == 201 + session.refused_steps


@on_asyncio
@pytest.mark.parametrize("mode", MODES, ids=[mode.name for mode in MODES])
async def test_each_way_of_resetting_gives_whole_episodes(mode: AutoresetMode) -> None:
    agent, session, _ = await play(partial(vector, ChainEnv, mode=mode), place="threads", n=301)
    for actor_id in IDS:
        mine = [e for e in agent.experiences if e.actor_id == actor_id]
        assert [int(e.observation[0]) for e in mine] == [k % 5 for k in range(len(mine))]
        assert [int(e.next_observation[0]) for e in mine] == [k % 5 + 1 for k in range(len(mine))]
        assert all(e.status.is_terminal == (k % 5 == 4) for k, e in enumerate(mine))
    assert session.total_episodes == sum(len(steps_of(agent, actor_id)) // 5 for actor_id in IDS)


@on_asyncio
async def test_copies_are_updated_and_steps_say_which_version_chose_them() -> None:
    agent, _, reports = await play(vector, place="threads", n=2000)
    versions = [e.policy_version for e in agent.experiences]
    assert versions[0] == 0
    assert versions[-1] > 0
    assert all(e.policy_extras["opts"] == e.policy_version for e in agent.experiences)
    assert reports[0].syncs > 0


@on_asyncio
async def test_ppo_learns_from_the_rounds_of_workers_as_columns() -> None:
    class ColumnsOnly(PPO):
        def observe(self, experiences: Any) -> None:
            raise AssertionError(f"{len(experiences)} single experiences")

    env = ChainEnv()
    config = PPOConfig(rollout_steps=64, batch_size=32, n_epochs=1, hidden_sizes=(8,))
    agent = ColumnsOnly(env.observation_space, env.action_space, config, seed=0)
    _, session, reports = await play(partial(vector, ChainEnv), agent=agent, place="processes", n=256)
    assert agent.total_steps == 256
    assert session.opt_steps > 0
    assert sum(report.steps for report in reports) == 256 + session.refused_steps


class Noting:
    """Threads; keeps what their workers play."""

    def __init__(self) -> None:
        self.assignments: list[Assignment] = []

    def check(self, factory: EnvFactory, policy: OwnPolicy) -> None:
        pass

    def link(self, assignment: Assignment, factory: EnvFactory, policy: OwnPolicy) -> Any:
        self.assignments.append(assignment)
        threads: Any = place_of("threads")
        return threads.link(assignment, factory, policy)


@on_asyncio
@pytest.mark.parametrize(("n", "workers"), [(6, 3), (6, 1), (6, None), (7, None), (8, None)])
async def test_each_worker_has_an_equal_share_of_the_actors_in_order(n: int, workers: int | None) -> None:
    place, ids = Noting(), [f"actor {k}" for k in range(n)]
    most = workers or max(k for k in range(1, n + 1) if n % k == 0 and k <= (os.cpu_count() or 1))
    make = partial(vector, ChainEnv, n // most)
    await play(make, n=4 * n, actor_ids=ids, place=place, workers=workers)
    shares = sorted(each.actor_ids for each in place.assignments)
    assert len(shares) == most
    assert {len(share) for share in shares} == {n // most}
    assert [actor_id for share in shares for actor_id in share] == ids
    assert all(each.actor_id == each.actor_ids[0] for each in place.assignments)


# Faults ---------------------------------------------------------------------------------------------


@on_asyncio
@pytest.mark.parametrize(
    ("place", "fault", "said"),
    [
        ("threads", "raise", "simulator crashed"),
        ("threads", "NaN reward", "reward=nan"),
        ("threads", "NaN observation", "observation of \\[nan\\]|nan"),
        pytest.param("processes", "die", "killed by signal 9", marks=pytest.mark.faults),
    ],
)
async def test_a_fault_costs_the_episodes_of_one_worker(
    place: str, fault: str, said: str, tmp_path: Path
) -> None:
    spoiler = tmp_path / "spoiler"
    spoiler.write_text(fault)
    make = partial(vector, partial(Spoilt, str(spoiler)))
    agent, session, reports = await play_past_a_restart(make, place)
    n_played = sum(report.steps for report in reports)
    assert agent.total_steps == session.total_steps == n_played - session.refused_steps
    assert not spoiler.exists()
    restarts = [report.restarts for report in reports]
    assert restarts in ([1, 1, 0, 0], [0, 0, 1, 1])
    (error,) = {report.last_error for report in reports} - {None}
    assert re.search(said, error), error
    for actor_id in IDS:
        starts = firsts(agent, actor_id)[:60]  # of thousands, two may agree by chance
        assert len({*starts}) == len(starts), "no episode was played twice"


def firsts(agent: Any, actor_id: Any) -> list[float]:
    """The first observation of each episode of a chain, whose observations rise."""
    found, last = list[float](), float("inf")
    for e in agent.experiences:
        if e.actor_id == actor_id:
            if e.observation[0] < last:
                found.append(float(e.observation[0]))
            last = float("inf") if e.status.is_done else float(e.next_observation[0])
    return found


async def test_too_many_faults_end_it_with_their_cause() -> None:
    with pytest.raises(ActorFailed, match="simulator crashed"):
        await play(partial(vector, always_crashing), place="threads", limit=AT_ONCE)


@pytest.mark.faults
@on_asyncio
async def test_a_stuck_worker_is_replaced(tmp_path: Path) -> None:
    spoiler = tmp_path / "spoiler"
    spoiler.write_text("hang")
    make = partial(vector, partial(Spoilt, str(spoiler)))
    _, _, reports = await play_past_a_restart(
        make, "processes", on_silent_actor="restart", actor_timeout_s=1.0
    )
    first, second = ([report.restarts for report in share] for share in (reports[:2], reports[2:]))
    assert first[0] + second[0] >= 1
    assert (first[0], second[0]) == (first[1], second[1]), "a share restarts together"


@on_asyncio
async def test_a_stuck_worker_ends_the_session_if_so_set(tmp_path: Path) -> None:
    spoiler = tmp_path / "spoiler"
    spoiler.write_text("hang")
    make = partial(vector, partial(Spoilt, str(spoiler)))
    with pytest.raises(Stalled, match="actor 'a'|actor 'c'"):
        await play(make, place="processes", n=10**6, on_silent_actor="fail", actor_timeout_s=1.0)


@on_asyncio
async def test_a_policy_that_raises_ends_the_session_with_that(tmp_path: Path) -> None:
    spoiler = tmp_path / "spoiler"
    spoiler.write_text("unlucky")
    make = partial(vector, partial(Spoilt, str(spoiler)))
    with pytest.raises(SessionFailed, match="13 brings no luck"):
        await play(make, place="threads", n=400)


async def test_a_limit_on_staleness_is_kept() -> None:
    agent, *_ = await play(vector, place="threads", n=300, max_staleness=3, opt_interval=1)
    assert len(agent.lags) == 300
    assert max(agent.lags) <= 3


async def test_a_cancelled_group_closes_its_environments() -> None:
    closed, entered = [threading.Event() for _ in range(2)], anyio.Event()
    waiting = iter(closed)

    class Closing(SyncVectorEnv):
        def close_extras(self, **settings: Any) -> None:
            super().close_extras(**settings)
            next(waiting).set()

    def make() -> Closing:
        return Closing([Lengthy] * 2, autoreset_mode=DISABLED)

    agent = Telling()
    agent.tell = entered.set
    with anyio.fail_after(60):
        async with TrainingSession(agent) as session, anyio.create_task_group() as tasks:
            tasks.start_soon(partial(run_vector_actors, session, make, IDS, place="threads", workers=2))
            await entered.wait()
            tasks.cancel_scope.cancel()
    assert all(event.wait(30) for event in closed)


@on_asyncio
async def test_invalid_settings_are_refused() -> None:
    for settings, problem in [
        ({"place": "tasks"}, "workers=2 is for place='threads' or 'processes'"),
        ({"place": "tasks", "workers": None, "sync_interval": 3}, "sync_interval=3 is for place="),
        ({"place": "threads", "workers": 3}, "workers=3 cannot have equal shares of 4 actors"),
        ({"place": "threads", "workers": 0}, "workers=0 cannot"),
        ({"place": "threads", "actor_ids": None}, "place='threads': give actor_ids"),
        ({"place": "processes", "sync_interval": 0}, "sync_interval=0"),
        ({"place": "elsewhere"}, "place='elsewhere'"),
    ]:
        with pytest.raises(ConfigError, match=problem):
            await play(vector, **settings)
    with pytest.raises(ConfigError, match="cannot be sent to another process"):
        await play(lambda: vector(n=2), place="processes")
    with pytest.raises(ConfigError, match="2 actor ids for a vector environment of 3"):
        await play(partial(vector, n=3), place="threads")
    with pytest.raises(ConfigError, match="max_staleness=0: 2 sub-environments act at once"):
        await play(vector, place="threads", max_staleness=0, opt_interval=1)


# The worker by itself -------------------------------------------------------------------------------


async def test_a_round_is_one_batch_in_one_message_which_survives_the_way_through_bytes() -> None:
    inbox: Mailbox[Any] = Mailbox()
    commands: Mailbox[Any] = Mailbox()
    assignment = Assignment(
        actor_id="a", seed=3, episode=4, actor_ids=("a", 7), episodes=(4, 0), window_steps=6, batch_steps=2,
        max_delay_s=3600.0,
    )  # fmt: skip
    factory = partial(vector, Seeded)

    class Columns(Right):
        def act(self, observations: Any, mode: Any) -> Any:
            actions, _ = super().act(observations, mode)
            return actions, np.arange(2.0 * len(actions)).reshape(-1, 2)

    worker = Worker(assignment, factory, OwnPolicy(Columns(), 9), commands, inbox.post)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run)
        with anyio.fail_after(30):
            sent = [await inbox.take() for _ in range(5)]
            await anyio.wait_all_tasks_blocked()
            assert inbox.take_now() is None, "its credit is spent"
            commands.post(Credit(1))
            more = await inbox.take()
        commands.post(Stop())
    assert sent[0] == Ready()
    begun, *rounds = sent[1:]
    assert [type(event) for event in begun.events] == [EpisodeStarted] * 2
    assert [event.actor_id for event in begun.events] == ["a", 7]
    assert [[type(event) for event in each.events] for each in rounds] == [
        [ExperienceBatch],
        [ExperienceBatch],
        [ExperienceBatch, EpisodeEnded, EpisodeEnded, EpisodeStarted, EpisodeStarted],
    ]
    ended = rounds[2].events[1]
    assert (ended.actor_id, ended.record.length, ended.record.total_reward) == ("a", 3, 1.0)
    assert [type(event) for event in more.events] == [ExperienceBatch]
    whole = Played((*rounds[0].events, *rounds[1].events), (1.0, 2.0, 3.0), 4, 5, asks=False)
    data = encode_message(whole)
    back: Any = decode_message(data)
    for mine, theirs in zip(whole.events, back.events, strict=True):
        assert isinstance(mine, ExperienceBatch)
        assert mine.actor_ids == theirs.actor_ids == ("a", 7)
        for name in mine.__struct_fields__[:-1]:
            ours, other = np.asarray(getattr(mine, name)), np.asarray(getattr(theirs, name))
            if name != "actor_ids":
                assert (ours.dtype, ours.tolist()) == (other.dtype, other.tolist()), name
        assert theirs.policy_versions.tolist() == [9, 9]
    assert rounds[1].events[0].observations is rounds[0].events[0].next_observations
    assert len(data) < sum(len(encode_message(each)) for each in rounds[:2]), "nor is it sent twice"


async def test_rounds_are_sent_together_as_far_as_a_message_goes() -> None:
    inbox: Mailbox[Any] = Mailbox()
    commands: Mailbox[Any] = Mailbox()
    assignment = Assignment(
        actor_id="a", seed=3, episode=0, actor_ids=("a", 7), episodes=(0, 0), window_steps=12, batch_steps=4,
        max_delay_s=3600.0,
    )  # fmt: skip
    make = partial(vector, partial(ChainEnv, 1000))
    worker = Worker(assignment, make, OwnPolicy(Right(), 0), commands, inbox.post)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run)
        await anyio.wait_all_tasks_blocked()  # its credit is spent
        commands.post(Stop())
    sent = [inbox.take_now() for _ in range(len(inbox))]
    assert [len(message.events) for message in sent if isinstance(message, Played)] == [2, 4, 4, 4]


class ForActors(Right):
    """Notes for whom it acts, and whose episodes have ended."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def act_for(self, observations: Any, mode: Any, actor_ids: Any) -> Any:
        self.seen.append(list(actor_ids))
        return self.act(observations, mode)

    def end_episode(self, actor_id: Any) -> None:
        self.seen.append(f"{actor_id} ended")


@pytest.mark.parametrize("ids", [(), ("a", 7)], ids=["single", "vector"])
async def test_a_policy_that_acts_for_actors_gets_their_ids_and_the_ends_of_their_episodes(ids: Any) -> None:
    inbox: Mailbox[Any] = Mailbox()
    commands: Mailbox[Any] = Mailbox()
    assignment = Assignment(
        actor_id="a", seed=3, episode=0, actor_ids=ids, episodes=(0, 0), window_steps=4 * max(1, len(ids)),
    )  # fmt: skip
    policy = ForActors()
    factory = partial(vector, Seeded) if ids else Seeded
    worker = Worker(assignment, factory, OwnPolicy(policy, 0), commands, inbox.post)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run)
        await anyio.wait_all_tasks_blocked()  # its credit is spent
        commands.post(Stop())
    everyone = list(ids) or ["a"]
    assert policy.seen == [*[everyone] * 3, *[f"{who} ended" for who in everyone], everyone]


async def test_a_worker_that_asks_plays_one_round_for_each_permission() -> None:
    inbox: Mailbox[Any] = Mailbox()
    commands: Mailbox[Any] = Mailbox()
    assignment = Assignment(actor_id="a", seed=3, episode=0, actor_ids=("a", 7), episodes=(0, 0), asks=True)
    worker = Worker(assignment, partial(vector, Seeded), OwnPolicy(Right(), 0), commands, inbox.post)
    n_steps: list[int] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run)
        for _ in range(3):
            await anyio.wait_all_tasks_blocked()
            sent = [inbox.take_now() for _ in range(len(inbox))]
            played = [message for message in sent if isinstance(message, Played)]
            assert played[-1].asks
            n_steps.append(sum(type(event) is Experience for each in played for event in each.events))
            commands.post(Credit(1))
        commands.post(Stop())
    assert n_steps == [0, 2, 2]


async def test_the_observation_that_a_policy_fails_on_is_told() -> None:
    inbox: Mailbox[Any] = Mailbox()

    class Second(Seeded):
        def step(self, action: Any) -> Any:
            return np.full(1, -13, np.float32), *super().step(action)[1:]

    def make() -> SyncVectorEnv:
        return SyncVectorEnv([Seeded, Second], autoreset_mode=DISABLED)

    assignment = Assignment(actor_id=0, seed=3, episode=0, actor_ids=(0, 1), episodes=(0, 0))
    with anyio.fail_after(30):
        await Worker(assignment, make, OwnPolicy(Right(), 0), Mailbox(), inbox.post).run()
    *_, last = [inbox.take_now() for _ in range(len(inbox))]
    assert isinstance(last, Failed)
    assert isinstance(last.error, ZeroDivisionError)
    assert last.observation.tolist() == [-13.0]
