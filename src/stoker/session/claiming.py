"""What a session has for itself while it is open: its agent, and the right to write its run."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import TypeVar

from stoker.agents.protocol import LearningAgent
from stoker.errors import SessionClosed, SessionError
from stoker.runs import TrainingRun

__all__ = ["SessionClaim"]

T = TypeVar("T")


class SessionClaim:
    """The agent and the run of one session, from its opening until ``release``.

    Args:
        agent: what learns; claimed at once.
        run: where the session writes, or None; locked by ``open``.

    Raises:
        SessionError: The agent is in another open session of this process.
    """

    def __init__(self, agent: LearningAgent, run: TrainingRun | None) -> None:
        self._agent = agent  # as long as this lives, no other object has its id
        self._run = run
        self._has_run = self._is_opening = self._is_released = False
        self._lock = threading.Lock()
        with _agents_lock:
            other = _agents.setdefault(id(agent), self)
        if other is not self:
            raise SessionError(
                f"this {type(agent).__name__} is in another open session ({other}): close that one first, or "
                "give each session an agent of its own, such as copy.deepcopy(agent)"
            )

    def __str__(self) -> str:
        return "without a run" if self._run is None else f"of {self._run.directory}"

    def open(self, restore: Callable[[], T]) -> T:
        """Lock the run and restore from it: all, or nothing. Blocks.

        If ``release`` is called meanwhile, the claim ends when ``restore`` has returned.

        Raises:
            RunLocked, RunBroken, WriteFailed: As for ``TrainingRun.begin_session``.
            SessionClosed: The claim was released.
        """
        with self._lock:
            if self._is_released:
                raise _closed()
            self._is_opening = True
        is_open = False
        try:
            if self._run is not None:
                self._run.begin_session()
                self._has_run = True
            result = restore()
            is_open = True
        finally:
            with self._lock:
                self._is_opening = False
                is_open = is_open and not self._is_released
                self._is_released = not is_open
            if not is_open:
                self._give_back(settled=True)
        if not is_open:
            raise _closed()
        return result

    def release(self, *, settled: bool = True) -> None:
        """Let other sessions have the agent and the run. A second call does nothing.

        Args:
            settled: whether no thread of the session uses them any more; if not, both stay taken.
        """
        with self._lock:
            was_released, self._is_released = self._is_released, True
            if was_released or self._is_opening:  # in a thread, which gives them back
                return
        self._give_back(settled)

    def _give_back(self, settled: bool) -> None:
        if settled:
            with _agents_lock:
                del _agents[id(self._agent)]
        else:
            _never_released.append(self)
        if self._has_run and self._run is not None:
            self._run.end_session(settled)


def _closed() -> SessionClosed:
    return SessionClosed("open", entered=True)


_agents: weakref.WeakValueDictionary[int, SessionClaim] = weakref.WeakValueDictionary()
"""By the agents' ids. Weak, because an event loop that was dropped never closes its sessions."""
_agents_lock = threading.Lock()
_never_released: list[SessionClaim] = []
