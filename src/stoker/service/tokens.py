"""The tokens that a service lets in, and what each of them may do.

A file holds hashes alone, so that reading it lets nobody in::

    [[token]]
    name = "game"
    sha256 = "..."                   # of the token; `stoker token game` prints both
    scopes = ["act", "observe"]
    actors = "npc-"                  # it may play actors whose names begin with that
    rate = 2000                      # steps per second; left out: no limit
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta

from stoker.errors import ConfigError
from stoker.protocol import ProtocolError
from stoker.settings import Positive, Settings, read_toml, settings_from

_logger = logging.getLogger("stoker.service")

Scope: TypeAlias = Literal["act", "observe", "read", "admin"]
"""``act``: ask for actions. ``observe``: send steps to learn from. ``read``: the spec, the policy and the
metrics. ``admin``: end actors and take them over, and all else."""


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

    def require(self, *needs: Scope) -> None:
        """Refuse it if it has none of these scopes.

        Raises:
            ProtocolError: ``forbidden``.
        """
        if not any(map(self.may, needs)):
            raise ProtocolError(
                "forbidden",
                f"the token {self.name!r} has the scopes {', '.join(self.scopes) or 'none'}; "
                f"this needs {' or '.join(needs)}",
            )

    def require_actor(self, actor: str) -> None:
        """Refuse it if it may not play this actor.

        Raises:
            ProtocolError: ``forbidden``.
        """
        if not actor.startswith(self.actors):
            raise ProtocolError(
                "forbidden", f"the token {self.name!r} is for actors that begin with {self.actors!r}"
            )


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
            _logger.warning("%s can be read by %s: `chmod 600 %s`", path, readers, path)
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
