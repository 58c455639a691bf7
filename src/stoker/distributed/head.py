"""Says when the head of a cluster is gone: Ray ends the processes of a cluster a minute after it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from stoker.distributed.reaching import check_reachable, host_and_port

_logger = logging.getLogger("stoker.distributed")

_ASK_S = 5.0
_QUIET_S = 10.0
"""After so long without an answer the head is reported as gone."""


def head_answers(address: str, timeout_s: float) -> bool:
    """Whether the head of a cluster answers at ``HOST:PORT``. Blocks, for ``timeout_s`` at most."""
    try:
        check_reachable(*host_and_port(address), timeout_s)
    except OSError:
        return False
    return True


class HeadWatch:
    """Asks the head of a cluster every 5 s, and warns once while it does not answer for 10 s.

    Args:
        address: of the head.
        ask: asks it without waiting; the answer goes to the function that it is given.
        now: in monotonic seconds.
    """

    def __init__(self, address: str, ask: Callable[[Callable[[bool], None]], None], now: float) -> None:
        self._address = address
        self._ask = ask
        self._answered_at = self._asked_at = self._now = now
        self._is_asked = self._is_gone = False

    def tick(self, now: float) -> None:
        """Ask if it is time; to be called about twice a second."""
        self._now = now
        if not self._is_asked and now - self._asked_at >= _ASK_S:
            self._is_asked, self._asked_at = True, now
            self._ask(self._on_answer)

    def _on_answer(self, is_there: bool) -> None:
        self._is_asked = False
        quiet_s = self._now - self._answered_at
        if is_there:
            self._answered_at = self._now
            if self._is_gone:
                _logger.warning("the head of the cluster at %s answers again", self._address)
            self._is_gone = False
        elif not self._is_gone and quiet_s >= _QUIET_S:
            self._is_gone = True
            _logger.warning(
                "the head of the cluster at %s has not answered for %.0f s: unless it comes back, Ray ends "
                "this process a minute after the head; the run can then be resumed",
                self._address,
                quiet_s,
            )
