"""Single requests to a server: what it is, where a stream stands, its newest policy."""

from __future__ import annotations

from typing import TypeVar
from urllib.parse import quote

import anyio
import httpx2
import msgspec

from stoker.client.links import LinkBroken, problem_of
from stoker.errors import ConfigError
from stoker.protocol import ActorState, ProtocolError
from stoker.protocol.problems import KINDS

T = TypeVar("T")
_PAUSE_S = 5.0


class Requests:
    """Requests beside the messages of records. Each but ``newer_policy`` is one attempt.

    Args:
        client: has the server's address and the token.
    """

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def get(self, path: str, kind: type[T]) -> T:
        """The answer to a request, as a struct.

        Raises:
            ProtocolError: The server says why not.
            LinkBroken: There is no answer.
            ConfigError: The answer is none of stoker's.
        """
        response = await self._response("GET", path)
        try:
            return msgspec.json.decode(response.content, type=kind)
        except msgspec.MsgspecError as error:
            raise ConfigError(f"{response.url} is no answer of stoker's protocol: {error}") from error

    async def last_record(self, name: str) -> int:
        """The number of the last record that the server has of an actor, 0 if it does not know it."""
        try:
            return (await self.get(_path(name), ActorState)).answer.next - 1
        except ProtocolError as error:
            if error.kind == "unknown-actor":
                return 0
            raise

    async def end_stream(self, name: str) -> bool:
        """Have the server forget an actor's numbers; False: a connection still holds it."""
        try:
            await self._response("DELETE", _path(name))
        except ProtocolError as error:
            return error.kind != "held"
        return True

    async def newer_policy(self, after: int) -> tuple[int, bytes]:
        """Wait for a policy above a version; returns its version and its file for numpy.

        Raises:
            ConfigError: The server has none.
        """
        while True:
            try:
                response = await self._response("GET", f"/v1/policy?format=numpy&after={after}")
            except (LinkBroken, ProtocolError) as error:
                if isinstance(error, ProtocolError) and not KINDS[error.kind].retry:
                    raise config_error(f"{self._client.base_url}: {error}", error) from error
                await anyio.sleep(_PAUSE_S)
            else:
                if response.status_code == 200:  # 204: none has come yet
                    return int(response.headers["stoker-policy-version"]), response.content

    async def _response(self, method: str, path: str) -> httpx2.Response:
        try:
            response = await self._client.request(method, path)
        except (httpx2.HTTPError, OSError) as error:
            raise LinkBroken(f"{type(error).__name__}: {error}") from error
        if response.status_code not in (200, 204):
            raise ProtocolError.from_problem(problem_of(response))
        return response


def config_error(text: str, cause: BaseException) -> ConfigError:
    """A ``ConfigError`` with its cause."""
    error = ConfigError(text)
    error.__cause__ = cause
    return error


def _path(name: str) -> str:
    return f"/v1/actors/{quote(name, safe='')}"
