"""The thread of one environment: everything that happens to the environment happens there.

Above a ``stoker.threads.DedicatedThread`` it adds one guarantee: the environment is closed on its thread
and exactly once, also when a caller gave up on a stuck call or on the construction.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple

import anyio
from gymnasium.error import ClosedEnvironmentError

from stoker.threads import DedicatedThread

__all__ = ["CLOSE_GRACE_S", "EnvThread"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

CLOSE_GRACE_S = 5.0
"""How long closing an environment may hold up a cancellation, in seconds."""

_log = logging.getLogger(__name__)


class EnvThread:
    """Calls into one environment, one after the other, always on the same thread.

    Args:
        name: the thread's name.
        on_close: what closes the environment; None as long as there is none (see ``closes_with``).
    """

    def __init__(self, name: str, on_close: Callable[[], Any] | None = None) -> None:
        self._name = name
        self._thread = DedicatedThread(name)
        self._on_close = on_close  # set before the thread starts, or on the thread
        self._lock = threading.Lock()
        self._inside = False
        self._leaving = False

    async def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Call the function there. Cancellation does not wait: a call that runs goes on unseen.

        Raises:
            ClosedEnvironmentError: The thread was closed.
        """
        if self._leaving:  # asked again on the thread; here so that no second thread is started
            raise self._closed_error()
        return await self._thread.run(self._enter, function, args)

    def closes_with(self, on_close: Callable[[], Any]) -> None:
        """Say what closes the environment; to be called on the thread, where it was constructed."""
        self._on_close = on_close

    async def close(self) -> Any:
        """Close the environment on its thread and end the thread; a second call does nothing.

        Carried out also when cancelled, for at most ``CLOSE_GRACE_S``. When an abandoned call is still
        running it is not waited for: the environment is closed as soon as that call comes back.

        Returns:
            What the environment's own close returned, for a caller who has to await it.
        """
        with self._lock:
            if self._leaving:
                return None
            self._leaving = True
            inside = self._inside
        result = None
        try:
            if not inside:
                with anyio.move_on_after(CLOSE_GRACE_S, shield=True) as grace:
                    result = await self._thread.run(self._finish)
                if grace.cancelled_caught:
                    _log.warning(
                        "%s: closing it took over %g s; it is left behind", self._name, CLOSE_GRACE_S
                    )
        finally:
            self._thread.close()
        return result

    def _enter(self, function: Callable[[*Ts], T], args: tuple[*Ts]) -> T:
        with self._lock:
            # Under the lock, so that close() either sees the call running or has it refused here.
            if self._leaving:
                raise self._closed_error()
            self._inside = True
        try:
            return function(*args)
        finally:
            with self._lock:
                self._inside = False
                leaving = self._leaving
            if leaving:
                self._finish_unheard()

    def _finish(self) -> Any:
        on_close, self._on_close = self._on_close, None
        return None if on_close is None else on_close()

    def _finish_unheard(self) -> None:
        try:
            self._finish()
        except BaseException:  # noqa: BLE001 - logged: the caller is gone
            _log.exception("%s: closing it failed after an abandoned call", self._name)

    def _closed_error(self) -> ClosedEnvironmentError:
        return ClosedEnvironmentError(f"{self._name}: the environment was closed")
