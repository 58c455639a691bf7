"""Who may send what: the tokens of a file, and the addresses that requests may come from.

A file holds hashes alone, so that reading it lets nobody in::

    [[token]]
    name = "game"
    sha256 = "..."                   # of the token; `stoker token game` prints both
    scopes = ["act", "observe"]
    actors = "npc-"                  # it may play actors whose names begin with that
    rate = 2000                      # steps per second; left out: no limit

A browser sends requests to this machine for any page that it shows, also under a name that the page's owner
points here (DNS rebinding). So the names in ``Host`` and ``Origin`` are checked, with tokens or without.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from msgspec import Meta

from stoker.errors import ConfigError
from stoker.listening import host_named, is_loopback
from stoker.protocol import ProtocolError, StepMessage
from stoker.settings import Positive, Settings, read_toml, settings_from

__all__ = [
    "ANYBODY",
    "Gate",
    "Principal",
    "Scope",
    "Tokens",
    "check_steps",
    "require",
    "require_actor",
    "token_of",
]

logger = logging.getLogger("stoker.service")

Scope: TypeAlias = Literal["act", "observe", "read", "admin"]
"""``act``: ask for actions. ``observe``: send steps to learn from. ``read``: the spec, the policy and the
metrics. ``admin``: end actors and take them over, and all else."""

_SUBPROTOCOL = "token."
_HOW = "send `Authorization: Bearer TOKEN`"


class Principal(Settings, frozen=True, kw_only=True):
    """Whose token it is, and what it may do.

    Attributes:
        name: for logs and messages.
        sha256: of the token, in hexadecimal digits.
        scopes: what it may do.
        actors: what the names of its actors begin with.
        rate: the most steps per second that it may send; None: no limit.
    """

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    sha256: Annotated[str, Meta(pattern="^[0-9a-fA-F]{64}$")] = "0" * 64
    scopes: tuple[Scope, ...] = ("act", "observe", "read")
    actors: str = ""
    rate: Positive | None = None

    @property
    def is_unlimited(self) -> bool:
        """Whether it may send any records, at any rate."""
        return self.rate is None and self.may("act") and self.may("observe")

    def may(self, scope: Scope) -> bool:
        """Whether it has a scope; ``admin`` has all."""
        return scope in self.scopes or "admin" in self.scopes


ANYBODY = Principal(name="anybody", scopes=("admin",))
"""Who sends a request to a service without tokens."""


class Tokens:
    """The tokens that are let in.

    Args:
        principals: one per token.
    """

    def __init__(self, principals: Sequence[Principal]) -> None:
        self._principals = [(one.sha256.lower(), one) for one in principals]

    @classmethod
    def from_file(cls, path: Path) -> Tokens:
        """Read a file of tokens. Blocks. A file that other users can read is warned about.

        Raises:
            ConfigError: It cannot be read, or an entry cannot be used; the message names it.
        """
        where = f"--token-file {path}"
        values = read_toml(path, "--token-file ")
        entries: Any = values.pop("token", None)
        if values or not isinstance(entries, list) or not entries:
            also = f", besides {', '.join(values)}" if values else ""
            raise ConfigError(
                f"{where}: give one table [[token]] or several{also}; `stoker token` prints one"
            )
        principals: list[Principal] = []
        for number, entry in enumerate(entries, 1):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            place = f"{where}: token {number}"
            if not isinstance(entry, Mapping) or not {"name", "sha256"} <= {*entry}:  # pyright: ignore[reportUnknownArgumentType]
                raise ConfigError(f"{place}: give a table with a name and a sha256")
            principals.append(settings_from(entry, Principal, place))  # pyright: ignore[reportUnknownArgumentType]
        for field in ("name", "sha256"):
            given = [getattr(one, field).lower() for one in principals]
            if twice := next((value for value in given if given.count(value) > 1), None):
                raise ConfigError(f"{where}: {field} = {twice!r} is there twice; give each token its own")
        if readers := _readers(path):
            logger.warning("%s can be read by %s: `chmod 600 %s`", path, readers, path)
        return cls(principals)

    def principal_of(self, token: str) -> Principal | None:
        """Whose token it is; None: nobody's. Takes as long for a wrong token as for a right one."""
        given = hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()
        found = None
        for sha256, principal in self._principals:
            if hmac.compare_digest(sha256, given):
                found = principal
        return found


def _readers(path: Path) -> str:
    mode = path.stat().st_mode
    return "all users" if mode & stat.S_IROTH else "other users of its group" if mode & stat.S_IRGRP else ""


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
        require(principal, *needs)
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
        require(principal, "act")
    if any(step.learn for step in message.steps):
        require(principal, "observe")
    gate.spend(principal, len(message.steps))


def require(principal: Principal, *needs: Scope) -> None:
    """Refuse a principal that has none of these scopes, with a ``ProtocolError``: ``forbidden``."""
    if not any(map(principal.may, needs)):
        raise ProtocolError(
            "forbidden",
            f"the token {principal.name!r} has the scopes {', '.join(principal.scopes) or 'none'}; "
            f"this needs {' or '.join(needs)}",
        )


def require_actor(principal: Principal, actor: str) -> None:
    """Refuse an actor that a principal may not play, with a ``ProtocolError``: ``forbidden``."""
    if not actor.startswith(principal.actors):
        raise ProtocolError(
            "forbidden", f"the token {principal.name!r} is for actors that begin with {principal.actors!r}"
        )


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
