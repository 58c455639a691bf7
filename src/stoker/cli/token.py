"""``stoker token``: make a token for a client of ``stoker serve``, and its entry in the token file."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
from typing import Annotated

from stoker.cli.options import Flag
from stoker.cli.parsing import Command
from stoker.errors import ConfigError
from stoker.settings import Positive


class Token(Command, frozen=True, kw_only=True):
    """Make a token for a client of `stoker serve`.

    The entry for the server's --token-file goes to standard output, and the token itself to standard error,
    once, or into a file for its client: the entry has a hash alone. For example:
    stoker token game >> tokens.toml
    """

    name: Annotated[
        str, Flag(metavar="NAME", missing="the client, such as `stoker {command} game`", is_positional=True)
    ]
    """The client's name."""

    scopes: tuple[str, ...] = ("act", "observe", "read")
    """What it may do: act, observe, read, admin."""

    actors: Annotated[str, Flag(metavar="PREFIX", default="default: all")] = ""
    """It may play the actors whose names begin with that."""

    rate: Annotated[Positive | None, Flag(metavar="FLOAT", default="default: no limit")] = None
    """The most steps per second that it may send."""

    token_file: Annotated[str, Flag(metavar="FILE", default="default: none")] = ""
    """Write the token to this new file, which its owner alone can read, for `stoker actor --token-file`."""

    async def __call__(self) -> int:
        from stoker.service.tokens import Principal
        from stoker.settings import settings_from

        token = secrets.token_urlsafe(32)
        values = {"name": self.name, "scopes": self.scopes, "actors": self.actors, "rate": self.rate}
        values["sha256"] = hashlib.sha256(token.encode()).hexdigest()
        settings_from(values, Principal, "token")
        lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if value not in (None, "")]
        if self.token_file:
            self._write(token)
        print("\n".join(["[[token]]", *lines]))
        if self.token_file:
            print(f"the token of {self.name} is in {self.token_file}", file=sys.stderr)
            return 0
        print(f"the token of {self.name}, which is shown only now: {token}", file=sys.stderr)
        return 0

    def _write(self, token: str) -> None:
        try:
            descriptor = os.open(self.token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise ConfigError(
                f"--token-file {self.token_file}: it exists: give a new file, or remove this one"
            ) from None
        except OSError as error:
            raise ConfigError(f"--token-file {self.token_file}: cannot be written: {error}") from error
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{token}\n")
