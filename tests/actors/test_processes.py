"""Actors in processes: they play as tasks do, and no failure there ends the training."""

from __future__ import annotations

import multiprocessing
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import types
from collections.abc import Sequence
from functools import partial
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import gymnasium
import psutil
import pytest
from portable_parts import (
    PLACE,
    Deadly,
    ListsAgent,
    Overwriting,
    PortableAgent,
    Right,
    Seeded,
    SlowChain,
    Spoilt,
    StayingAgent,
    Surrounded,
    Tidying,
    Unpickled,
    always_crashing,
    by_actor,
    never_there,
    spoilt_by_name,
    with_four_threads,
)

import launching
from stoker import (
    ActorFailed,
    ActorGroup,
    ConfigError,
    EpisodeRecord,
    FailureLimit,
    SessionFailed,
    StatsTracker,
    TrainingSession,
    run_actors,
)
from stoker.actors import Assignment, OwnPolicy, WorkerExited, processes
from stoker.actors.places import place_of
from stoker.envs import episode_seed

pytestmark = pytest.mark.anyio
PATIENT = FailureLimit(failures=1000, window_s=1000.0, first_delay_s=0.0)
HERE = Path(__file__).parent
ASYNCIO = pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio")


@pytest.fixture(params=[ASYNCIO])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """To start a process takes long, and has little to do with the event loop: mostly one is enough."""
    return request.param


class Extras(StatsTracker):
    """Keeps the extras of the environments."""

    def __init__(self) -> None:
        super().__init__()
        self.extras: list[dict[str, float]] = []

    def update(self, record: EpisodeRecord, *rest: Any, **more: Any) -> None:
        self.extras.append(record.extras)
        super().update(record, *rest, **more)


async def play(
    factory: Any,
    *,
    n: int = 60,
    actors: int | Sequence[Any] = 1,
    place: Any = "processes",
    agent: Any = None,
    session_settings: dict[str, Any] | None = None,
    **settings: Any,
) -> tuple[Any, Any, Any]:
    agent = PortableAgent() if agent is None else agent
    with anyio.fail_after(100):
        async with TrainingSession(agent, max_steps=n, **(session_settings or {})) as session:
            reports = await run_actors(session, factory, actors, place=place, **settings)
    return agent, session, reports


def workers() -> list[psutil.Process]:
    """Processes of actors that are there: multiprocessing's server, once it runs, is their parent."""
    server = forkserver._forkserver._forkserver_pid
    children = [] if server is None else psutil.Process(server).children(recursive=True)
    return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]


def steps_of(agent: Any, actor_id: Any) -> list[Any]:
    return [
        (e.observation.tolist(), e.action, e.reward, e.next_observation.tolist(), e.status)
        for e in agent.experiences
        if e.actor_id == actor_id
    ]


async def test_processes_play_as_tasks_do_up_to_exactly_max_steps() -> None:
    ids = ["a", 1]
    stats = Extras()
    central, *_ = await play(Seeded, n=600, actors=ids, seed=7, place="tasks")
    agent, session, reports = await play(
        Seeded, n=600, actors=ids, seed=7, session_settings={"stats": stats, "publish_interval": 1}
    )
    assert agent.total_steps == session.total_steps == 600
    assert workers() == []
    played = by_actor(agent)
    for actor_id, report in zip(ids, reports, strict=True):
        mine, theirs = steps_of(agent, actor_id), steps_of(central, actor_id)
        common = min(len(mine), len(theirs))
        assert mine[:common] == theirs[:common]
        assert report.steps >= played[actor_id]
        assert report.env_s > 0 or not played[actor_id]
    assert sum(report.steps for report in reports) - session.refused_steps == 600
    assert session.total_episodes == len(stats.extras) == sum(e.status.is_done for e in agent.experiences)
    # Environment and policy live together, in a process that is not this one.
    assert {extras["pid"] for extras in stats.extras} <= {
        float(e.policy_extras["pid"]) for e in agent.experiences
    }
    assert float(os.getpid()) not in {extras["pid"] for extras in stats.extras}
    assert all(extras["same_thread"] == extras["is_success"] == 1.0 for extras in stats.extras)
    assert [e.policy_extras["opts"] for e in agent.experiences] == [
        e.policy_version for e in agent.experiences
    ]
    assert sum(report.syncs for report in reports) > 0
    for actor_id in ids:
        versions = [e.policy_version for e in agent.experiences if e.actor_id == actor_id]
        assert versions == sorted(versions)


async def test_each_kind_of_fault_in_a_process_costs_one_episode(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    faults = ["raise", "die", "hang", "leave", "NaN observation", "shape"]
    for what in faults:
        (tmp_path / f"stoker-actor-{what}").write_text(what)
    n_spoilt = 0

    def is_over() -> bool:
        return n_spoilt == len(faults)

    agent = PortableAgent()
    with anyio.fail_after(100):
        async with TrainingSession(agent, actor_timeout_s=4.0, on_silent_actor="restart") as session:

            async def on_step(metrics: Any) -> None:
                nonlocal n_spoilt
                n_spoilt = sum(r.restarts == 1 and r.steps > 60 for r in group.reports)
                if is_over():
                    session.stop()

            factory = partial(spoilt_by_name, str(tmp_path))
            group = ActorGroup(
                session, factory, faults, place="processes", limit=PATIENT, seed=1, on_step=on_step
            )
            await group.run()
    errors = {report.actor_id: report.last_error for report in group.reports}
    assert errors.pop("hang").startswith(
        "Stalled: actor 'hang' (in its environment; its last event was step "
    )
    assert {name: re.sub(PLACE, "", error) for name, error in errors.items()} == {
        "raise": "RuntimeError: simulator crashed",
        "die": "WorkerLost: its process has ended (killed by signal 9)",
        "leave": "WorkerLost: its process has ended (exit code 3)",
        "NaN observation": "InvalidExperience: an observation of [nan]",
        "shape": "InvalidExperience: env of actor shape (Spoilt).step gave an observation array([0., 0.], "
        "dtype=float32) (ndarray) of shape (2,), not (1,): Gymnasium's rule is that every observation is in "
        "observation_space; correct the one or the other",
    }
    assert workers() == []
    assert [report.restarts for report in group.reports] == [1] * len(faults)
    for actor_id in faults:
        done = [e.status.is_done for e in agent.experiences if e.actor_id == actor_id]
        ends = [k for k, is_done in enumerate(done) if is_done]
        lengths = [later - before for before, later in zip([-1, *ends], ends, strict=False)]
        # One episode lost its end: what arrived of it stands before the next one.
        broken = [length for length in lengths if length != 3]
        assert len(broken) <= 1, actor_id
        assert all(3 < length < 6 for length in broken), actor_id
    assert caplog.text.count("that episode is lost, a new one is made in 0.0 s") == len(faults)


@pytest.mark.parametrize("anyio_backend", [pytest.param(("trio", {}), id="trio")], indirect=True)
async def test_a_limit_on_staleness_and_a_gate_are_kept_in_processes() -> None:
    seen: list[int] = []
    allowed = 120

    async def on_step(metrics: Any) -> None:
        seen.append(metrics.total_steps)

    class Gate:
        async def enter(self, actor_id: Any) -> bool:
            nonlocal allowed
            allowed -= 1
            return allowed >= 0

        def give_back(self, actor_id: Any) -> None:
            raise AssertionError(f"actor {actor_id} has no failing environment")

    agent, session, reports = await play(
        partial(SlowChain, 0.001),
        n=1000,
        actors=2,
        session_settings={"max_staleness": 2, "publish_interval": 1},
        sync_interval=3,
        on_step=on_step,
        gate=Gate(),
    )
    assert agent.total_steps == sum(report.steps for report in reports) == 120
    assert session.refused_steps == 0
    assert seen == list(range(1, 121))
    assert max(agent.lags) <= 2
    assert len(agent.lags) == 120


async def test_an_episode_that_ends_its_process_is_not_begun_again() -> None:
    central, *_ = await play(Seeded, n=12, seed=7, place="tasks")
    deadly, limit = partial(Deadly, episode_seed(7, 0, 0)), FailureLimit(failures=2, first_delay_s=0.0)
    agent, _, (report,) = await play(deadly, n=9, seed=7, limit=limit)
    assert (report.restarts, report.last_error) == (1, "WorkerLost: its process has ended (exit code 1)")
    assert steps_of(agent, 0) == steps_of(central, 0)[3:], "from the second episode on"


async def test_steps_name_the_weights_that_chose_them_also_in_a_process_that_replaces_another(
    tmp_path: Path,
) -> None:
    (tmp_path / "spoiler").write_text("raise")

    async def learn_it(metrics: Any) -> None:
        await session.barrier()

    agent = PortableAgent()
    with anyio.fail_after(60):
        async with TrainingSession(agent, max_steps=40, publish_interval=1) as session:
            factory = partial(Spoilt, str(tmp_path / "spoiler"))
            (report,) = await run_actors(
                session, factory, 1, place="processes", limit=PATIENT, on_step=learn_it
            )
    versions = [e.policy_version for e in agent.experiences]
    assert report.restarts == 1
    assert versions[7] == 7, "the eighth step was the first one of the new process"
    assert [e.policy_extras["opts"] for e in agent.experiences] == versions


async def test_each_process_has_random_numbers_of_its_own_and_the_environment_of_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stats = Extras()
    for said in ("no", "yes"):  # the server of processes has started by the second time
        monkeypatch.setenv("STOKER_SAID", said)
        await play(Surrounded, n=12, actors=2, session_settings={"stats": stats})
    assert {each["knows"] for each in stats.extras} == {0.0, 1.0}
    for kind in ("numpy", "python"):
        drawn = [each[kind] for each in stats.extras]
        assert len(set(drawn)) == len(drawn) > 2
    assert {each["parent"] for each in stats.extras} == {forkserver._forkserver._forkserver_pid}


def test_their_server_imports_no_other_packages_than_the_training_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = processes._preloadable.__wrapped__
    assert {"gymnasium", "stoker"} <= {*find()}
    monkeypatch.setattr(gymnasium, "__file__", str(HERE / "gymnasium/__init__.py"))  # found by sys.path alone
    assert "gymnasium" not in find()
    assert "stoker" in find()


async def test_processes_start_also_where_their_server_could_not_listen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    far = tmp_path / ("x" * 100)
    far.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(far))
    stats = Extras()
    await play(Surrounded, n=6, session_settings={"stats": stats})
    assert stats.extras
    assert forkserver._forkserver._forkserver_pid not in {each["parent"] for each in stats.extras}


async def test_what_an_environment_left_for_the_exit_of_its_process_is_done(tmp_path: Path) -> None:
    async with TrainingSession(PortableAgent(), max_steps=10) as session:
        await run_actors(session, partial(Tidying, str(tmp_path)), 1, place="processes")
    left = {name: (tmp_path / name).read_text() for name in ("handler", "thread", "log")}
    assert left == {"handler": "", "thread": "", "log": "it has begun\n"}


async def test_torch_has_one_thread_in_each_process() -> None:
    stats = Extras()
    await play(Unpickled(with_four_threads), n=6, session_settings={"stats": stats})
    assert [extras["n_threads"] for extras in stats.extras] == [1.0, 1.0]


async def test_experiences_do_not_change_when_the_environment_overwrites_its_arrays() -> None:
    agent, *_ = await play(Overwriting, agent=ListsAgent(), actors=1)
    assert len(agent.experiences) >= 60
    for k, e in enumerate(agent.experiences):
        assert (e.observation, e.next_observation) == ([float(k % 3)], [float(k % 3 + 1)])
        assert e.action == [1.0]


async def test_a_factory_or_policy_that_cannot_be_pickled_is_refused_before_a_process_starts() -> None:
    async with TrainingSession(PortableAgent()) as session:
        with pytest.raises(ConfigError, match="the factory .* cannot be sent to another process.*a lambda"):
            ActorGroup(session, lambda: Seeded(4), place="processes")
    async with TrainingSession(StayingAgent()) as session:
        with pytest.raises(ConfigError, match="the policy .* cannot be sent.*its class must be picklable"):
            ActorGroup(session, Seeded, place="processes")
    assert workers() == []


async def test_a_failure_that_every_retry_would_repeat_ends_it_at_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "spoiler"
    for what, message in [
        ("old", r"^env of actor 0 \(Spoilt\).step returned 4 values: Gymnasium's are five"),
        (
            "objects",
            "^actor 0: what it played cannot be sent to another process: .* of dtype object.*place='threads'",
        ),
    ]:
        path.write_text(what)
        with pytest.raises(ConfigError, match=message):
            await play(partial(Spoilt, str(path)), limit=PATIENT)
    path.write_text("unlucky")
    with pytest.raises(
        SessionFailed, match="the policy failed: .*ZeroDivisionError: 13 brings no luck"
    ) as caught:
        await play(partial(Spoilt, str(path)), limit=PATIENT)
    assert "in act" in "".join(getattr(caught.value.__cause__, "__notes__", []))
    path.write_text("exit")
    with pytest.raises(ActorFailed, match=r"UnexpectedExit: env of actor 0.step raised SystemExit\(3\)"):
        await play(partial(Spoilt, str(path)), limit=PATIENT)
    assert capfd.readouterr().err == ""
    only_here = types.ModuleType("only_here")
    only_here.factory = types.FunctionType(spoilt_by_name.__code__, {}, "factory")  # type: ignore[attr-defined]
    only_here.factory.__module__ = "only_here"
    only_here.factory.__qualname__ = "factory"
    monkeypatch.setitem(sys.modules, "only_here", only_here)
    with pytest.raises(ConfigError, match="actor 0: its process ended before it could begin"):
        await play(only_here.factory, limit=PATIENT)
    assert "No module named 'only_here'" in capfd.readouterr().err
    assert workers() == []


async def test_too_many_failures_end_the_training_with_the_error_and_traceback_of_the_process() -> None:
    with pytest.raises(ActorFailed, match="failed 2 times within 1000 s.*simulator crashed") as caught:
        await play(always_crashing, limit=FailureLimit(failures=2, window_s=1000.0, first_delay_s=0.0))
    assert str(caught.value.__cause__) == "RuntimeError: simulator crashed"
    assert "testing/fakes.py" in "".join(getattr(caught.value.__cause__, "__notes__", []))


# Ends of the training's process --------------------------------------------------------------------


class Program:
    """The training of ``group_program.py``, in its own process group."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = launching.Popen(
            [sys.executable, str(HERE / "group_program.py"), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "begun\n"

    async def children(self) -> list[int]:
        """Descriptors of its actors' processes, when they play."""
        with anyio.fail_after(60):
            # Nothing announces another process's files.
            while len(paths := list(self.folder.glob("*.pid"))) < 2:  # noqa: ASYNC110
                await anyio.sleep(0.02)
        return [os.pidfd_open(int(path.read_text())) for path in paths]

    def end(self) -> tuple[str, str]:
        try:
            return self.process.communicate(timeout=60)
        finally:
            self.process.kill()


def have_ended(descriptors: list[int]) -> bool:
    """Whether these processes end; waits for them, but not for ever."""
    for descriptor in descriptors:
        if not select.select([descriptor], [], [], 30.0)[0]:
            return False
        os.close(descriptor)
    return True


needs_pidfd = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux's pidfd")


@needs_pidfd
async def test_a_killed_training_leaves_no_process_behind_even_one_that_holds_the_lock(
    tmp_path: Path,
) -> None:
    program = Program(tmp_path)
    children = await program.children()
    os.kill(program.process.pid, signal.SIGKILL)
    assert have_ended(children)
    program.end()


@needs_pidfd
@pytest.mark.parametrize("when", ["booting", "playing"])
async def test_ctrl_c_ends_the_processes_without_output(when: str, tmp_path: Path) -> None:
    program = Program(tmp_path)
    children = await program.children() if when == "playing" else []
    os.killpg(program.process.pid, signal.SIGINT)
    out, err = program.end()
    assert (out, err) == ("interrupted\n", "")
    assert have_ended(children)


class Large(PortableAgent):
    """Its policy is larger than what a pipe holds at once."""

    def __init__(self) -> None:
        super().__init__()
        self.ballast = bytes(1 << 20)

    def policy(self) -> Any:
        policy = super().policy()
        policy.ballast = self.ballast
        return policy


async def test_a_process_that_dies_while_it_starts_blocks_no_other() -> None:
    agent = Large()
    killed: list[int] = []

    async def kill_the_first() -> None:
        while not killed:
            for child in workers():
                child.kill()
                killed.append(child.pid)
                return
            await anyio.lowlevel.checkpoint()

    with anyio.fail_after(100):
        async with TrainingSession(agent, max_steps=60) as session:
            group = ActorGroup(session, Seeded, 2, place="processes", seed=1)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(kill_the_first)
                await group.run()
    assert agent.total_steps == 60
    assert group.restarts == len(killed) == 1


async def test_a_process_that_never_starts_does_not_keep_a_finished_training_from_ending() -> None:
    factory = Unpickled(never_there, "stoker-actor-1")
    with anyio.fail_after(30):
        async with TrainingSession(PortableAgent(), max_steps=60, actor_timeout_s=2.0) as session:
            first, second = await run_actors(session, factory, 2, place="processes")
    assert (first.restarts, second.restarts, second.steps) == (0, 0, 0)
    assert workers() == []


async def test_a_process_that_is_killed_before_it_has_started_ends() -> None:
    processes: Any = place_of("processes")
    link = processes.link(
        Assignment(actor_id=0, seed=1, episode=0),
        Unpickled(never_there, "stoker-actor-0"),
        OwnPolicy(Right(), 0),
    )
    link.kill()
    link.open()
    try:
        with anyio.fail_after(20):
            assert await link.messages.take() == WorkerExited(-9)
    finally:
        link.kill()


async def train_in_processes() -> None:
    async with TrainingSession(PortableAgent(), max_steps=20) as session:
        await run_actors(session, Seeded, 1, place="processes")


def train_and_say(pipe: Connection) -> None:
    try:
        anyio.run(train_in_processes)
    except ConfigError as error:
        pipe.send(str(error))


def test_a_training_in_a_daemonic_process_is_refused_at_once() -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    program = context.Process(target=train_and_say, args=(theirs,), daemon=True)
    program.start()
    theirs.close()
    assert ours.poll(60)
    assert "actor 0: its process cannot be started (AssertionError: daemonic" in ours.recv()
    program.join(60)
    assert program.exitcode == 0
