"""Cancellation at any await: each event is wholly in or wholly out, and the caller can tell which.

Hypothesis draws a schedule: who calls what, for how long the event loop goes round, who is cancelled then,
and when the learner stands still, so that the queue fills and callers wait. A call that returned is in, in
its place; one that was cancelled is out. Native cancellation goes to asyncio's tasks, without scopes.

The short form runs with all the tests; the long one is marked ``faults``. STOKER_SCHEDULES sizes it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import numpy as np
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings, strategies as st

from stoker import TrainingRun, TrainingSession
from stoker.testing import FakeAgent
from stoker.types import EpisodeStatus, Experience, ExperienceBatch

SCHEDULES = int(os.environ.get("STOKER_SCHEDULES", "2000"))
N_ACTORS = 4
PATIENCE_S = 30.0
FORMS = {
    "asyncio": ("asyncio", {"use_uvloop": False}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "native": ("asyncio", {"use_uvloop": False}),
    "trio": ("trio", {}),
}
OFTEN = ("observe", "act", "on_episode")
CALLS = st.tuples(
    st.just("call"),
    st.sampled_from([*OFTEN, *OFTEN, "act_many", "observe_many", "observe_batch", "observe_row"]),
    st.integers(0, N_ACTORS - 1),
)
REQUESTS = st.tuples(st.just("call"), st.sampled_from(["flush", "checkpoint", "snapshot"]), st.just(-1))
TURNS = st.tuples(st.just("turns"), st.integers(1, 5))
CANCELS = st.tuples(st.just("cancel"), st.integers(0, 7))
WORLD = st.sampled_from([("hold",), ("hold",), ("go",), ("rest",)])
SCHEDULE = st.lists(
    st.one_of(CALLS, CALLS, CALLS, CALLS, REQUESTS, TURNS, TURNS, CANCELS, CANCELS, WORLD),
    min_size=40,
    max_size=120,
)
SETTINGS = st.fixed_dictionaries(
    {"queue_capacity": st.integers(1, 4), "max_steps": st.one_of(st.none(), st.integers(3, 15))}
)

MANY = ("observe_many", "observe_batch")
STEPS = ("observe", "observe_row", *MANY)

told: Counter[str] = Counter()
"""Over all schedules: how many calls returned, how many were cancelled."""


class HeldAgent(FakeAgent):
    """A fake agent that stands still while it is held."""

    def __init__(self) -> None:
        super().__init__(policy_extras=True)
        self.go = threading.Event()
        self.go.set()

    def act(self, observations: Sequence[Any], mode: Any) -> Any:
        actions, extras = super().act(observations, mode)
        is_array = isinstance(observations, np.ndarray)  # then a batch of decisions is remembered
        return (np.array(actions), np.array(extras)) if is_array else (actions, extras)

    def observe(self, experiences: Sequence[Experience]) -> None:
        assert self.go.wait(PATIENCE_S), "nobody let it go on"
        super().observe(experiences)


def transition(serial: int, actor: int, seen: int = 0) -> Experience:
    here = np.array([seen], np.float32)
    return Experience(here, 0, float(serial), here, EpisodeStatus.CONTINUING, actor)


def serials_on_disk(run: TrainingRun) -> list[int]:
    lines = (run.directory / "train_episodes.jsonl").read_text().splitlines() if run.train_log else []
    return [int(json.loads(line)["extras"]["serial"]) for line in lines]


class Callers:
    """Every call, and what its end tells the caller: a log for each actor."""

    def __init__(self, session: TrainingSession, run: TrainingRun) -> None:
        self.session = session
        self.run = run
        self.serials = itertools.count(1)
        self.seen = dict.fromkeys(range(N_ACTORS), 0)
        """What each actor acted on last."""
        self.log: dict[int, list[tuple[str, list[int], bool]]] = {actor: [] for actor in range(N_ACTORS)}
        """Call, serials of its events, whether it returned."""

    async def call(self, name: str, actor: int) -> None:
        if actor < 0:
            await getattr(self, name)()
            return
        serials = [next(self.serials) for _ in range(3 if name in MANY else 1)]
        returned = False
        try:
            await getattr(self, name)(serials, actor)
            returned = True
        finally:
            self.log[actor].append((name, serials, returned))
            told["returned" if returned else "cancelled"] += 1

    async def act(self, serials: list[int], actor: int) -> None:
        await self.session.act(np.array(serials, np.float32), actor_id=actor)
        (self.seen[actor],) = serials

    async def observe(self, serials: list[int], actor: int) -> None:
        await self.session.observe(transition(serials[0], actor, self.seen[actor]))

    async def observe_many(self, serials: list[int], actor: int) -> None:
        seen = self.seen[actor]
        await self.session.observe_many([transition(serial, actor, seen) for serial in serials])

    async def act_many(self, serials: list[int], actor: int) -> None:
        await self.session.act_many(np.array([serials], np.float32), (actor,))
        (self.seen[actor],) = serials

    async def observe_batch(self, serials: list[int], actor: int) -> None:
        size = len(serials)
        here, over = np.full((size, 1), self.seen[actor], np.float32), np.zeros(size, bool)
        await self.session.observe_batch(
            ExperienceBatch(here, np.zeros(size, int), serials, here, over, over, (actor,) * size)
        )

    observe_row = observe_batch

    async def on_episode(self, serials: list[int], actor: int) -> None:
        extras = {"serial": float(serials[0])}
        await self.session.on_episode(0.0, 1, EpisodeStatus.TERMINATED, extras, actor_id=actor)

    def accepted(self, *names: str) -> set[int]:
        """What certainly was accepted so far; only told where no limit may have refused it."""
        if self.session.config.max_steps is not None:
            return set()
        calls = itertools.chain.from_iterable(self.log.values())
        return {serial for name, serials, ok in calls if ok and name in names for serial in serials}

    async def flush(self) -> None:
        episodes = self.accepted("on_episode")
        await self.session.flush()
        assert episodes <= set(serials_on_disk(self.run) if episodes else ())

    async def checkpoint(self) -> None:
        steps = len(self.accepted(*STEPS))
        await self.session.checkpoint()
        assert max(self.run.checkpoint_steps()) >= steps

    async def snapshot(self) -> None:
        steps = len(self.accepted(*STEPS))
        assert (await self.session.snapshot()).total_steps >= steps


class Scopes:
    """Calls in tasks of a task group, each under a scope of its own."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self._tasks = tasks

    def start(self, callers: Callers, name: str, actor: int, ended: Callable[[], None]) -> Any:
        scope = anyio.CancelScope()

        async def run() -> None:
            try:
                with scope:
                    await callers.call(name, actor)
            finally:
                ended()

        self._tasks.start_soon(run)
        return scope


class NativeTasks:
    """Calls in asyncio's own tasks, which are cancelled once and at whatever they wait for."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self._tasks = tasks

    def start(self, callers: Callers, name: str, actor: int, ended: Callable[[], None]) -> Any:
        task = asyncio.get_running_loop().create_task(callers.call(name, actor))

        async def join() -> None:
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                task.cancel()
                with anyio.CancelScope(shield=True):
                    await asyncio.wait([task])
                raise
            finally:
                ended()
            if not task.cancelled():
                task.result()

        self._tasks.start_soon(join)
        return task


async def drive(callers: Callers, agent: HeldAgent, schedule: list[Any], native: bool, aborted: bool) -> None:
    """Do what the schedule says; at its end wait for those who still wait, or cancel everything."""
    pending: dict[Any, Any] = {}
    others = itertools.count()
    async with anyio.create_task_group() as tasks:
        starter = NativeTasks(tasks) if native else Scopes(tasks)
        for step in schedule:
            match step:
                case ("call", name, actor):
                    # One call at a time for an actor: its episodes are one stream.
                    slot = actor if actor >= 0 else f"other {next(others)}"
                    if slot not in pending:
                        ended = lambda slot=slot: pending.pop(slot, None)  # noqa: E731
                        pending[slot] = starter.start(callers, name, actor, ended)
                case ("turns", n):
                    for _ in range(n):
                        await checkpoint()
                case ("cancel", k) if pending:
                    list(pending.values())[k % len(pending)].cancel()
                case ("hold",):
                    agent.go.clear()
                case ("go",):
                    agent.go.set()
                case ("rest",):
                    await anyio.sleep(0.001)  # what threads and disk do takes more than turns of the loop
        if aborted:
            tasks.cancel_scope.cancel()
        else:
            agent.go.set()


async def live(schedule: list[Any], parts: dict[str, Any], native: bool, aborted: bool, root: str) -> None:
    run = await TrainingRun.create("cancelled", root=root)
    agent = HeldAgent()
    session = TrainingSession(agent, run, checkpoint_freq=5, **parts)
    try:
        with anyio.fail_after(PATIENCE_S), anyio.CancelScope() as scope:
            async with session:
                callers = Callers(session, run)
                await drive(callers, agent, schedule, native, aborted)
                agent.go.set()
                if aborted:
                    scope.cancel()
    finally:
        agent.go.set()
    check(callers, agent, session)
    history = await run.read_train_episodes()
    check_rows(callers, session, history)
    newest = next((state for _, state in run.candidates()), None)
    if newest is not None:
        assert newest["session"]["total_steps"] == session.total_steps, "the final checkpoint is of the end"
    else:
        assert session.total_steps == session.total_episodes == 0
    await run.aclose()


def check(callers: Callers, agent: HeldAgent, session: TrainingSession) -> None:
    """What was consumed is what returned: in order for each actor, nothing twice, nothing else."""
    assert session.accepted_steps == session.total_steps == len(agent.experiences)
    limit = session.config.max_steps
    assert limit is None or session.total_steps <= limit
    n_refused = 0
    for actor, log in callers.log.items():
        consumed = [e for e in agent.experiences if e.actor_id == actor]
        place = 0
        expected: float | None = None
        for name, serials, returned in log:
            may_be_partly_in = name == "observe_many" or (name == "observe_batch" and expected is not None)
            if name in ("act", "act_many") and returned:
                expected = serials[0]
            elif name == "on_episode" and returned:
                expected = None
            elif name in STEPS:
                for serial in serials:
                    if place < len(consumed) and consumed[place].reward == serial:
                        experience = consumed[place]
                        place += 1
                        assert returned or may_be_partly_in, f"{serial} was cancelled and is in"
                        remembered = (
                            None if experience.policy_extras is None else float(experience.policy_extras[0])
                        )
                        assert remembered == expected, f"{serial} goes with another action"
                        expected = None
                    elif returned:
                        assert limit is not None, f"{serial} returned and is not in, or not in its place"
                        n_refused += 1
                    else:
                        break
        assert place == len(consumed), "there is something that nobody has handed in, or out of order"
    assert n_refused <= session.refused_steps


def check_rows(callers: Callers, session: TrainingSession, history: dict[str, Any]) -> None:
    """One row for each episode that returned, in order for each actor, and none for those that did not."""
    assert history["episode"].tolist() == list(range(1, session.total_episodes + 1))
    rows = zip(history["actor_id"], history.get("extras.serial", ()), strict=True)
    by_actor: dict[int, list[int]] = {actor: [] for actor in range(N_ACTORS)}
    for actor, serial in rows:
        by_actor[actor].append(int(serial))
    for actor, log in callers.log.items():
        returned = [serials[0] for name, serials, ok in log if name == "on_episode" and ok]
        if session.config.max_steps is None:
            assert by_actor[actor] == returned
        else:  # episodes that the limit cut are dropped
            rest = iter(returned)
            assert all(serial in rest for serial in by_actor[actor])


def one_schedule(form: str, schedule: list[Any], parts: dict[str, Any], aborted: bool) -> None:
    backend, options = FORMS[form]
    with tempfile.TemporaryDirectory() as root:
        anyio.run(
            live, schedule, parts, form == "native", aborted, root, backend=backend, backend_options=options
        )


@pytest.mark.parametrize("form", FORMS)
def test_events_are_in_or_out(form: str) -> None:
    campaign(form, 20)


@pytest.mark.faults
@pytest.mark.parametrize("form", FORMS)
def test_events_are_in_or_out_in_thousands_of_schedules(form: str) -> None:
    campaign(form, SCHEDULES)


def campaign(form: str, n_schedules: int) -> None:
    told.clear()

    @settings(max_examples=n_schedules, deadline=None)
    @given(SCHEDULE, SETTINGS, st.booleans())
    def each(schedule: list[Any], parts: dict[str, Any], aborted: bool) -> None:
        one_schedule(form, schedule, parts, aborted)

    each()
    print(
        f"\n{n_schedules} schedules on {form}: {told['returned']} calls returned and are in, "
        f"{told['cancelled']} were cancelled and are out, 0 torn"
    )


def test_an_episode_that_the_limit_cut_is_dropped_also_when_it_is_told_twice() -> None:
    async def tell() -> None:
        async with TrainingSession(FakeAgent(), max_steps=2) as session:
            for serial in range(4):
                await session.observe(transition(serial, 0))
            with anyio.CancelScope() as scope:
                scope.cancel()
                await session.on_episode(0.0, 4, EpisodeStatus.TERMINATED)
            assert scope.cancelled_caught
            await session.on_episode(0.0, 4, EpisodeStatus.TERMINATED)
        assert session.total_episodes == 0

    anyio.run(tell)
