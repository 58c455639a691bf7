"""Acting together: calls that wait at the same time are answered by one forward pass.

A waiting call costs its caller nothing but the wait; the pass runs as soon as every task that was ready
has had its turn, so that actors in step share it. It runs on the event loop while it is short and in a
thread of its own when it is not, always on the last published weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import anyio

from stoker.errors import ConfigError
from stoker.replies import Reply
from stoker.session.policies import PolicySource
from stoker.threads import DedicatedThread
from stoker.types import ActMode

__all__ = ["Inference"]

SLOW_PASS_S = 2e-3
"""A forward pass that computes longer than this holds the event loop too long."""

SLOW_PASSES = 3
"""So many of them move inference to its thread; the first pass alone pays for lazy initialisation."""


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
        self._n_slow = 0
        self._thread = DedicatedThread("stoker-inference")
        self._waiting: dict[ActMode, list[tuple[Any, Reply[tuple[Any, Any]]]]] = {
            mode: [] for mode in ActMode
        }
        self._wake = anyio.Event()
        self._closed: Callable[[], Exception] | None = None
        self._n_in_pass = 0
        self.since: float | None = None
        """When the pass that its thread is computing began, in monotonic seconds; None: there is none."""
        self.n_passes = 0
        """Forward passes so far."""
        self.n_actions = 0
        """Actions that they gave."""
        self.busy_s = 0.0
        """Seconds spent in them."""

    @property
    def n_waiting(self) -> int:
        """Callers that wait for a pass, or for the present one to end."""
        return sum(map(len, self._waiting.values())) + self._n_in_pass

    async def act(self, observation: Any, mode: ActMode) -> tuple[Any, Any]:
        """The action for one observation, and what the policy wants to remember about it, or None."""
        if self._closed is not None:
            raise self._closed()
        reply: Reply[tuple[Any, Any]] = Reply()
        self._waiting[mode].append((observation, reply))
        self._wake.set()
        return await reply.wait()

    def close(self, error: Callable[[], Exception]) -> None:
        """Answer those who wait, and those who come, with this error."""
        self._closed = error
        for waiting in self._waiting.values():
            for _, reply in waiting:
                reply.fail(error())
            waiting.clear()
        self._thread.close()

    async def run(self) -> None:
        """Answer until cancelled.

        Raises:
            Exception: Whatever the policy raised.
        """
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            for mode, waiting in self._waiting.items():
                # Those who gave up while they waited are not acted for.
                batch = [call for call in waiting if not call[1].abandoned]
                waiting.clear()
                if batch:
                    await self._answer(mode, batch)

    async def _answer(self, mode: ActMode, batch: list[tuple[Any, Reply[tuple[Any, Any]]]]) -> None:
        observations = [observation for observation, _ in batch]
        try:
            if self._in_thread:
                self.since, self._n_in_pass = time.monotonic(), len(batch)
                actions, memories = await self._thread.run(
                    self._act, observations, mode, abandon_on_cancel=True
                )
                self.since, self._n_in_pass = None, 0
            else:
                actions, memories = self._act(observations, mode)
        except BaseException:
            self._waiting[mode][:0] = batch  # to be told why when the session closes
            if self._closed is not None:
                self.close(self._closed)
            raise
        for (_, reply), action, memory in zip(batch, actions, memories, strict=True):
            reply.set((action, memory))

    def _act(self, observations: Sequence[Any], mode: ActMode) -> tuple[Sequence[Any], Sequence[Any]]:
        # Processor time decides: a short pass may wait long for the interpreter lock, in a thread, too.
        started, cpu_started = time.perf_counter(), time.thread_time()
        policy, ticket = self._policies.acquire()
        try:
            actions, memories = policy.act(observations, mode)
        finally:
            self._policies.release(ticket)
        if self._adaptive and time.thread_time() - cpu_started > SLOW_PASS_S:
            self._n_slow += 1
            self._in_thread = self._n_slow >= SLOW_PASSES
        self.n_passes += 1
        self.n_actions += len(observations)
        self.busy_s += time.perf_counter() - started
        if len(actions) != len(observations) or (memories is not None and len(memories) != len(actions)):
            raise ConfigError(
                f"the policy answered {len(observations)} observations with {len(actions)} actions"
                + ("" if memories is None else f" and {len(memories)} memories")
            )
        return actions, [None] * len(actions) if memories is None else memories
