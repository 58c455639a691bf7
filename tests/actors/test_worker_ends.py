"""How workers start and end, on a place that the test plays: what is sent, accepted, awaited and killed."""

from __future__ import annotations

import anyio
import numpy as np
import pytest
from portable_parts import PortableAgent, Seeded

from stoker import (
    ActorGroup,
    EpisodeRecord,
    EpisodeStatus,
    Experience,
    FailureLimit,
    Stalled,
    TrainingSession,
)
from stoker.actors import Assignment, EnvFactory, Mailbox, OwnPolicy, WorkerCommand, WorkerEvent, WorkerExited
from stoker.actors.group import start_limiter
from stoker.actors.messages import Credit, Failed, Played, PlayedEvent, Ready, Stop, Weights
from stoker.actors.vector import VectorActorGroup
from stoker.journal import EpisodeEnded, EpisodeStarted

pytestmark = pytest.mark.anyio


class PlayedPlace:
    """A place with one worker, which the test plays.

    Args:
        at_stop: what the worker posts when it gets ``Stop``.
    """

    def __init__(self, *at_stop: WorkerEvent) -> None:
        self.messages: Mailbox[WorkerEvent] = Mailbox()
        self.sent: list[WorkerCommand] = []
        self.assignments: list[Assignment] = []
        self.is_open = self.is_killed = False
        self._at_stop = at_stop

    def check(self, factory: EnvFactory, policy: OwnPolicy) -> None:
        pass

    def link(self, assignment: Assignment, factory: EnvFactory, policy: OwnPolicy) -> PlayedPlace:
        self.assignments.append(assignment)
        return self

    def open(self) -> None:
        self.is_open = True

    def send(self, command: WorkerCommand) -> None:
        self.sent.append(command)
        for message in self._at_stop if isinstance(command, Stop) else ():
            self.messages.post(message)

    def kill(self) -> None:
        self.is_killed = True
        self.messages.post(WorkerExited(-9))


def played(*events: PlayedEvent, version: int = 0, asks: bool = False) -> Played:
    return Played(events, (0.0,) * 5, 0, version, asks)


def step(version: int = 0) -> Experience:
    seen = np.zeros(1, np.float32)
    return Experience(seen, 1, 0.0, seen, EpisodeStatus.CONTINUING, 0, None, version)


async def test_a_worker_whose_start_took_a_while_gets_the_newest_weights() -> None:
    place = PlayedPlace(WorkerExited())
    with anyio.fail_after(30):
        async with (
            TrainingSession(PortableAgent(), publish_interval=1) as session,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(ActorGroup(session, Seeded, 1, place=place).run)
            await anyio.wait_all_tasks_blocked()
            await session.observe(step())
            await session.barrier()
            place.messages.post(Ready())
            await anyio.wait_all_tasks_blocked()
            sent = [*place.sent]
            tasks.cancel_scope.cancel()
    assert [type(command) for command in sent] == [Weights]


async def test_a_worker_that_waits_for_its_start_when_the_session_ends_is_not_started() -> None:
    workers: list[PlayedPlace] = []

    class Several(PlayedPlace):
        def link(self, assignment: Assignment, factory: EnvFactory, policy: OwnPolicy) -> PlayedPlace:
            workers.append(PlayedPlace())
            return workers[-1]

    n_at_once = int(start_limiter().total_tokens)
    with anyio.fail_after(30):
        async with (
            TrainingSession(PortableAgent(), actor_timeout_s=0.1) as session,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(ActorGroup(session, Seeded, n_at_once + 1, place=Several()).run)
            await anyio.wait_all_tasks_blocked()
            session.stop()
    assert [worker.is_open for worker in workers] == [True] * n_at_once + [False]


async def test_the_next_worker_of_a_vector_environment_begins_the_next_episode_of_each_actor() -> None:
    place = PlayedPlace(WorkerExited())
    begun = [EpisodeStarted(actor_id, None) for actor_id in ("a", "b", "b", "b")]
    for message in (Ready(), played(*begun), Failed(RuntimeError("simulator crashed")), Ready()):
        place.messages.post(message)
    limit = FailureLimit(first_delay_s=0.0)
    with anyio.fail_after(30):
        async with TrainingSession(PortableAgent()) as session, anyio.create_task_group() as tasks:
            group = VectorActorGroup(session, Seeded, ["a", "b"], place=place, workers=1, limit=limit)
            tasks.start_soon(group.run)
            while len(place.assignments) < 2:
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
    assert [assignment.episodes for assignment in place.assignments] == [(0, 0), (1, 3)]


async def test_the_times_of_workers_add_up() -> None:
    def at(times: int) -> Played:
        return Played((), (0.0, 1.0 * times, 2.0 * times, 4.0 * times, 8.0 * times), 0, 0, asks=False)

    place = PlayedPlace(at(times=10), WorkerExited())
    for message in (Ready(), at(times=1), Failed(RuntimeError("simulator crashed"))):
        place.messages.post(message)
    with anyio.fail_after(30):
        async with TrainingSession(PortableAgent()) as session, anyio.create_task_group() as tasks:
            group = ActorGroup(session, Seeded, 1, place=place, limit=FailureLimit(first_delay_s=0.0))
            tasks.start_soon(group.run)
            while len(place.assignments) < 2:
                await anyio.lowlevel.checkpoint()
            place.messages.post(Ready())
            place.messages.post(at(times=1))
            await anyio.wait_all_tasks_blocked()
            (report,) = group.reports
            found = report.env_s, report.act_s, report.wait_s
            tasks.cancel_scope.cancel()
    assert found == (33.0, 44.0, 88.0)


async def test_the_end_of_an_episode_that_is_in_flight_when_the_session_is_done_is_accepted() -> None:
    ended = EpisodeEnded(EpisodeRecord(0.0, 1, EpisodeStatus.TERMINATED), 0)
    place = PlayedPlace(played(ended), WorkerExited())
    place.messages.post(Ready())
    place.messages.post(played(EpisodeStarted(0, None), step()))
    with anyio.fail_after(30):
        async with TrainingSession(PortableAgent(), max_steps=1) as session:
            await ActorGroup(session, Seeded, 1, place=place).run()
    assert session.total_episodes == 1
    assert not place.is_killed


async def test_weights_do_not_pile_up_for_a_worker_that_does_not_take_them() -> None:
    place = PlayedPlace(WorkerExited())
    place.messages.post(Ready())
    n_sent: list[int] = []
    with anyio.fail_after(30):
        async with (
            TrainingSession(PortableAgent(), publish_interval=1) as session,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(ActorGroup(session, Seeded, 1, place=place).run)
            for version in (0, 0, 0, 0, 1, 1):
                place.messages.post(played(step(version), version=version))
                await anyio.wait_all_tasks_blocked()
                await session.barrier()
                n_sent.append(sum(isinstance(command, Weights) for command in place.sent))
            session.stop()
            place.messages.post(played())
    assert n_sent == [0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("is_ready", [False, True])
async def test_a_cancelled_group_kills_the_worker_that_is_not_ready_and_stops_the_other(
    is_ready: bool,
) -> None:
    place = PlayedPlace(WorkerExited())
    with anyio.fail_after(30):
        async with TrainingSession(PortableAgent()) as session, anyio.create_task_group() as tasks:
            tasks.start_soon(ActorGroup(session, Seeded, 1, place=place).run)
            await anyio.wait_all_tasks_blocked()
            if is_ready:  # which is still unread when the group is cancelled
                place.messages.post(Ready())
            tasks.cancel_scope.cancel()
    assert place.is_killed == (not is_ready)


async def test_a_worker_that_is_stuck_is_not_waited_for_again() -> None:
    place = PlayedPlace(WorkerExited())
    place.messages.post(Ready())
    with anyio.fail_after(30), pytest.raises(Stalled):
        async with TrainingSession(PortableAgent(), actor_timeout_s=0.1, on_silent_actor="fail") as session:
            await ActorGroup(session, Seeded, 1, place=place).run()
    assert place.is_killed


async def test_an_action_of_a_worker_that_ends_holds_back_nobody_meanwhile() -> None:
    allowed: list[bool] = []

    class Slow(PlayedPlace):
        def send(self, command: WorkerCommand) -> None:
            super().send(command)
            if isinstance(command, Stop):
                allowed.append(session.pacing.allows())

    place = Slow(WorkerExited())
    place.messages.post(Ready())
    place.messages.post(played(EpisodeStarted(0, None), asks=True))
    with anyio.fail_after(30):
        async with (
            TrainingSession(PortableAgent(), max_staleness=0) as session,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(ActorGroup(session, Seeded, 1, place=place).run)
            while Credit(1) not in place.sent:
                await anyio.lowlevel.checkpoint()
            assert not session.pacing.allows(), "its action is in flight"
            tasks.cancel_scope.cancel()
    assert allowed
    assert allowed[0]


async def test_a_worker_that_asks_with_old_weights_gets_the_newest_before_its_credit() -> None:
    place = PlayedPlace(WorkerExited())
    place.messages.post(Ready())
    asking = played(EpisodeStarted(0, None), step(), asks=True)
    with anyio.fail_after(30):
        async with (
            TrainingSession(PortableAgent(), max_staleness=1, publish_interval=1) as session,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(ActorGroup(session, Seeded, 1, place=place, sync_interval=100).run)
            for _ in range(3):
                place.messages.post(asking)
                await anyio.wait_all_tasks_blocked()
                await session.barrier()
                await anyio.wait_all_tasks_blocked()
            session.stop()
            place.messages.post(played())
    sent = [command.version if isinstance(command, Weights) else command for command in place.sent]
    assert sent[:6] == [Credit(1), 1, Credit(1), 2, Credit(1), Stop()]
