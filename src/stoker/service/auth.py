"""Which requests are let in: by the addresses that they come from and go to, and by their tokens.

A browser sends requests to this machine for any page that it shows, also under a name that the page's owner
points here (DNS rebinding). So the names in ``Host`` and ``Origin`` are checked, with tokens or without.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from stoker.listening import host_named, is_loopback
from stoker.protocol import ProtocolError, StepMessage
from stoker.service.tokens import ANYBODY, Principal, Scope, Tokens

_SUBPROTOCOL = "token."
_HOW = "send `Authorization: Bearer TOKEN`"


class Gate:
    """Lets requests in, or refuses them.

    Args:
        tokens: who may come; None: anybody.
        hosts: the names that ``Host`` may have beside those of this machine's loopback; ``*``: any.
        origins: the pages that may send requests from a browser beside those of the same host, such as
            ``https://game.example``; ``*``: any.
    """

    def __init__(
        self, tokens: Tokens | None = None, hosts: Iterable[str] = (), origins: Iterable[str] = ()
    ) -> None:
        self._tokens = tokens
        self._hosts = {host.lower().strip("[]") for host in hosts}
        self._origins = {origin.lower().rstrip("/") for origin in origins}
        self._buckets: dict[str, _Bucket] = {}

    @property
    def has_tokens(self) -> bool:
        """Whether a token is needed."""
        return self._tokens is not None

    def check_address(self, scope: Mapping[str, Any]) -> str | None:
        """Refuse a request under a foreign name, or from a page of another site.

        Args:
            scope: the request's, of ASGI.

        Returns:
            The origin of the page that sends it; None: no page does.

        Raises:
            ProtocolError: ``wrong-host`` or ``wrong-origin``.
        """
        host, origin = "", None
        for name, value in scope["headers"]:
            if name == b"host":
                host = host_named(value.decode("latin-1"))
            elif name == b"origin":
                origin = value.decode("latin-1")
        if "*" not in self._hosts and host not in self._hosts and not is_loopback(host):
            raise ProtocolError(
                "wrong-host", f"Host: {host!r} is no name of this service; `--allowed-host` adds one"
            )
        if origin is not None and not self._is_friendly(origin.lower(), host):
            raise ProtocolError(
                "wrong-origin", f"pages of {origin!r} may not use this service; `--allowed-origin` lets them"
            )
        return origin

    def _is_friendly(self, origin: str, host: str) -> bool:
        if "*" in self._origins or origin in self._origins:
            return True
        try:
            own = urlsplit(origin).hostname
        except ValueError:  # such as http://[
            return False
        return own is not None and (own == host or (is_loopback(own) and is_loopback(host)))

    def admit(self, scope: Mapping[str, Any], *needs: Scope) -> Principal:
        """The sender of a request.

        Args:
            scope: the request's, of ASGI.
            needs: one of these it must have.

        Raises:
            ProtocolError: ``unauthenticated`` or ``forbidden``.
        """
        if self._tokens is None:
            return ANYBODY
        principal = self.authenticated(token_of(scope))
        principal.require(*needs)
        return principal

    def authenticated(self, token: str | None) -> Principal:
        """The owner of a token.

        Raises:
            ProtocolError: ``unauthenticated``.
        """
        if self._tokens is None:
            return ANYBODY
        if token is None:
            raise ProtocolError("unauthenticated", f"this service needs a token: {_HOW}")
        principal = self._tokens.principal_of(token)
        if principal is None:
            raise ProtocolError("unauthenticated", "the service knows no such token")
        return principal

    def spend(self, principal: Principal, n_steps: int) -> None:
        """Count steps of a token against its rate.

        Raises:
            ProtocolError: 429, with the seconds to wait: there were more than that in the last second.
        """
        if principal.rate is None:
            return
        bucket = self._buckets.setdefault(principal.name, _Bucket(principal.rate))
        wait_s = bucket.take(n_steps)
        if wait_s > 0:
            raise ProtocolError(
                "rate-exceeded",
                f"the token {principal.name!r} may send {principal.rate:g} steps per second",
                retry_after=wait_s,
            )


class _Bucket:
    """A token bucket: it holds what one second gives, and at least one message may always take it."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._left = max(rate, 1.0)
        self._at = time.monotonic()

    def take(self, n: int) -> float:
        """Take ``n``, or return the seconds until they are there. A full bucket gives any number."""
        now = time.monotonic()
        most = max(self._rate, 1.0)
        self._left, self._at = min(most, self._left + self._rate * (now - self._at)), now
        missing = min(n, most) - self._left
        if missing > 0:
            return missing / self._rate
        self._left -= n  # below 0 after a message of more than a second's steps: the next one waits
        return 0.0


def check_steps(gate: Gate, principal: Principal, message: StepMessage) -> None:
    """Refuse records that a token does not allow, or not yet.

    Raises:
        ProtocolError: ``forbidden`` or ``rate-exceeded``.
    """
    if any(step.act for step in message.steps):
        principal.require("act")
    if any(step.learn for step in message.steps):
        principal.require("observe")
    gate.spend(principal, len(message.steps))


def token_of(scope: Mapping[str, Any]) -> str | None:
    """The token of a request: of its ``Authorization``, or of a WebSocket's subprotocol.

    Raises:
        ProtocolError: 401: a header of another form.
    """
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, token = value.decode("latin-1").partition(" ")
            if kind.lower() != "bearer" or not token.strip():
                raise ProtocolError("unauthenticated", f"Authorization has another form: {_HOW}")
            return token.strip()
    for subprotocol in scope.get("subprotocols", ()):
        if subprotocol.startswith(_SUBPROTOCOL):
            return _decoded(subprotocol.removeprefix(_SUBPROTOCOL))
    return None


def _decoded(text: str) -> str:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, ValueError):
        raise ProtocolError(
            "unauthenticated", "the subprotocol token.<text> holds no base64url of a token"
        ) from None
