"""Batched inference: ``act`` calls that wait at the same time share one forward pass.

A waiting call costs its caller nothing but the wait; the pass runs as soon as every task that was ready
has had its turn, so that actors in step share it. It runs on the event loop while it is short and in a
thread of its own when it is not, always on the last published weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio

from stoker.errors import ConfigError
from stoker.session.policies import PolicySource
from stoker.threads import DedicatedThread
from stoker.types import ActMode

__all__ = ["Inference"]

_Answer = tuple[Sequence[Any], Sequence[Any] | None, int]

SLOW_PASS_S = 2e-3
"""A forward pass that computes longer than this holds the event loop too long."""

SLOW_PASSES = 3
"""This many move inference to its thread; the first pass alone pays for lazy initialization."""


class _PendingBatch:
    """The callers of one forward pass; all of them wait for one event."""

    __slots__ = (
        "actions",
        "answered",
        "error",
        "gone",
        "observations",
        "opt_steps",
        "places",
        "policy_extras",
    )

    def __init__(self) -> None:
        self.observations: list[Any] = []
        self.places: Sequence[int] | None = None  # of those who are still there; None: of all
        self.gone: set[int] = set()  # the places of those who gave up
        self.answered = anyio.Event()
        self.actions: Sequence[Any] | Mapping[int, Any] = ()  # by place
        self.policy_extras: Sequence[Any] | Mapping[int, Any] | None = None
        self.opt_steps = 0  # behind the policy that answered
        self.error: Callable[[], Exception] | None = None

    def __len__(self) -> int:
        return len(self.observations)

    def begin(self) -> Sequence[Any]:
        """The observations of those who have not given up by now."""
        if self.gone:
            self.places = [place for place in range(len(self.observations)) if place not in self.gone]
            self.observations = [self.observations[place] for place in self.places]
        return self.observations

    def answer(self, actions: Sequence[Any], extras: Sequence[Any] | None, opt_steps: int) -> None:
        """Answer the callers, unless they were answered before."""
        if not self.answered.is_set():
            places = self.places
            self.opt_steps = opt_steps
            self.actions = actions if places is None else dict(zip(places, actions, strict=True))
            if extras is not None:
                self.policy_extras = extras if places is None else dict(zip(places, extras, strict=True))
            self.answered.set()

    def fail(self, error: Callable[[], Exception]) -> None:
        """Raise an error in the callers, one each, unless they were answered before."""
        if not self.answered.is_set():
            self.error = error
            self.answered.set()


class Inference:
    """Collects observations and answers them with actions.

    Args:
        policies: where the policy to act with comes from, such as a ``PolicyBuffer``.
        place: ``"inline"``, ``"thread"`` or ``"auto"``.
    """

    def __init__(self, policies: PolicySource, place: str) -> None:
        self._policies = policies
        self._in_thread = place == "thread"
        self._adaptive = place == "auto"
        self._n_long = 0  # passes that were slow by the clock
        self._n_slow = 0  # and by the processor's time
        self._thread = DedicatedThread("stoker-inference")
        self._exploring: _PendingBatch | None = None  # for a pass to begin
        self._exploiting: _PendingBatch | None = None
        self._taken: list[tuple[ActMode, _PendingBatch]] = []  # for the present ones to end
        self._wake = anyio.Event()
        self._closed: Callable[[], Exception] | None = None
        self.n_passes = 0
        """Forward passes so far."""
        self.n_actions = 0
        """Actions that they gave."""
        self.busy_s = 0.0
        """Seconds spent in them."""

    @property
    def since(self) -> float | None:
        """When the pass that its thread is computing began, in monotonic seconds; None: there is none."""
        return self._thread.since

    @property
    def n_waiting(self) -> int:
        """Callers that wait for a pass, or for the present one to end."""
        return sum(len(together) for _, together in [*self._taken, *self._waiting()])

    async def act(self, observation: Any, mode: ActMode) -> tuple[Any, Any]:
        """The action for one observation, and what the policy wants to remember about it, or None."""
        action, extras, _ = await self.ask(observation, mode)
        return action, extras

    async def ask(self, observation: Any, mode: ActMode) -> tuple[Any, Any, int]:
        """The same, and the optimization steps behind the policy that chose it."""
        batch = self._exploring if mode is ActMode.EXPLORE else self._exploiting
        if batch is None:
            batch = self._new_batch(mode)
        place = len(batch.observations)
        batch.observations.append(observation)
        try:
            await batch.answered.wait()
        except BaseException:
            batch.gone.add(place)
            raise
        if batch.error is not None:
            raise batch.error()
        extras = batch.policy_extras
        return batch.actions[place], None if extras is None else extras[place], batch.opt_steps

    async def ask_many(self, observations: Sequence[Any], mode: ActMode) -> _Answer:
        """The actions for several observations, in one pass; the request costs no more than for one."""
        batch = self._exploring if mode is ActMode.EXPLORE else self._exploiting
        if batch is None:
            batch = self._new_batch(mode)
        first = len(batch.observations)
        batch.observations.extend(observations)
        places = range(first, first + len(observations))
        try:
            await batch.answered.wait()
        except BaseException:
            batch.gone.update(places)
            raise
        if batch.error is not None:
            raise batch.error()
        actions, extras = batch.actions, batch.policy_extras
        remembered = None if extras is None else [extras[place] for place in places]
        return [actions[place] for place in places], remembered, batch.opt_steps

    def _new_batch(self, mode: ActMode) -> _PendingBatch:
        """Begin the batch that the next pass answers; once closed there is none."""
        if self._closed is not None:
            raise self._closed()
        self._wake.set()  # first: an interruption must not leave a batch that is never answered
        batch = _PendingBatch()
        if mode is ActMode.EXPLORE:
            self._exploring = batch
        else:
            self._exploiting = batch
        return batch

    def close(self, error: Callable[[], Exception]) -> None:
        """Answer those who wait, and those who come, with this error."""
        self._closed = error
        for _, together in [*self._taken, *self._waiting()]:
            together.fail(error)
        self._taken.clear()
        self._exploring = self._exploiting = None
        self._thread.close()

    async def run(self) -> None:
        """Answer until cancelled.

        Raises:
            Exception: Whatever the policy raised; those it was asked for wait for ``close`` to tell them.
        """
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            self._taken = self._waiting()
            self._exploring = self._exploiting = None
            while self._taken:
                mode, together = self._taken[0]
                if observations := together.begin():
                    together.answer(*await self._pass(observations, mode))
                del self._taken[:1]

    def _waiting(self) -> list[tuple[ActMode, _PendingBatch]]:
        modes = ((ActMode.EXPLORE, self._exploring), (ActMode.EXPLOIT, self._exploiting))
        return [(mode, together) for mode, together in modes if together is not None]

    async def _pass(self, observations: Sequence[Any], mode: ActMode) -> _Answer:
        if not self._in_thread:
            return self._act(observations, mode)
        return await self._thread.run(self._act, observations, mode)

    def _act(self, observations: Sequence[Any], mode: ActMode) -> _Answer:
        started = time.perf_counter()
        # Processor time decides: a short pass may wait long for the interpreter lock, in a thread, too. It
        # costs to ask for it, so that is done once a pass has taken long by the clock on the wall.
        cpu_started = time.thread_time() if self._adaptive and self._n_long else 0.0
        policy, ticket = self._policies.acquire()
        opt_steps = self._policies.opt_steps(ticket)
        try:
            actions, extras = policy.act(observations, mode)
        finally:
            self._policies.release(ticket)
        elapsed_s = time.perf_counter() - started
        if self._adaptive and elapsed_s > SLOW_PASS_S:
            self._n_long += 1
            if cpu_started and time.thread_time() - cpu_started > SLOW_PASS_S:
                self._n_slow += 1
                self._in_thread = self._n_slow >= SLOW_PASSES
        self.n_passes += 1
        self.n_actions += len(observations)
        self.busy_s += elapsed_s
        if len(actions) != len(observations) or (extras is not None and len(extras) != len(actions)):
            raise ConfigError(
                f"the policy answered {len(observations)} observations with {len(actions)} actions"
                + ("" if extras is None else f" and {len(extras)} policy extras")
            )
        return actions, extras, opt_steps
