"""Keeps a session connected: through cuts and restarts, over the first transport that works."""

from __future__ import annotations

import contextlib
import logging
import math
import random
import secrets
import socket
import time
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, Final, Literal

import anyio
import gymnasium
import httpx2

from stoker import __version__
from stoker.client.links import HttpLink, LinkBroken, WebSocketLink, WebSocketRefused
from stoker.client.local import LocalPolicy
from stoker.client.requests import Requests, config_error
from stoker.client.session import RemoteSession
from stoker.errors import ConfigError, SessionClosed, SessionFailed, first_error
from stoker.plain import shown
from stoker.protocol import Hello, ProtocolError, Spaces, Spec, difference
from stoker.protocol.problems import KINDS

if TYPE_CHECKING:
    from anyio.abc import TaskStatus

    from stoker.client.links import Link

_logger = logging.getLogger("stoker.client")

Transport = Literal["auto", "websocket", "http"]
_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 5.0
LEAVE_S: Final = 5.0
"""How long a session that is left by an error, or after the training's end, waits for the server's disk."""


class Connection:
    """Keeps a session connected.

    Args:
        client: has the server's address and the token.
        token, spaces, name, take_over, transport, patience_s: of ``connect``.
    """

    def __init__(
        self,
        client: httpx2.AsyncClient,
        token: str | None,
        spaces: tuple[gymnasium.Space[Any], gymnasium.Space[Any]] | None,
        name: str | None,
        take_over: bool,
        transport: Transport,
        patience_s: float,
    ) -> None:
        self._client = client
        self._requests = Requests(client)
        self._token = token
        self._spaces = spaces
        self._is_named = name is not None
        self._prefix = f"{name or f'{socket.gethostname()[:40]}-{secrets.token_hex(4)}'}-"
        self._take_over: bool | list[str] = take_over
        self._transport: Transport = transport
        self._patience_s = patience_s
        self._away_since: float | None = None  # the first of the attempts that failed since then
        self._heard_at = 0.0
        self._pause_s = _PAUSE_S
        self._session: RemoteSession | None = None

    async def run(self, *, task_status: TaskStatus[RemoteSession]) -> None:
        """Connect, start the session, and connect again whenever the connection is cut.

        Raises:
            StokerError: There is no session yet; later the session gets the error.
        """
        pause_s: float | None = 0.0
        while pause_s is not None:
            await anyio.sleep(pause_s)
            try:
                session = self._session or await self._opened()
                async with self._linked(session) as link:
                    if self._session is None:
                        self._session = session
                        task_status.started(session)
                    await session.sender.run(link)
            except Exception as group:  # noqa: BLE001 - sorted here
                pause_s = self._pause_for(first_error(group))

    def _pause_for(self, error: BaseException) -> float | None:
        """How long to wait before the next attempt; None: there is no use in one, and the session knows.

        Raises:
            BaseException: There is no use in one, and no session yet.
        """
        if (final := self._final(error)) is None:
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
            asked_s = error.retry_after if isinstance(error, ProtocolError) else None
            return max(asked_s or 0.0, self._pause_s * (0.5 + random.random()))  # noqa: S311
        if self._session is None:
            raise final from final.__cause__
        self._session.fail("client", final)
        return None

    def _final(self, error: BaseException) -> BaseException | None:
        """What the error means if there is no use in another attempt; None: there is."""
        url, now = self._client.base_url, time.monotonic()
        heard_at = self._heard_at if self._session is None else max(self._heard_at, self._session.heard_at)
        if self._away_since is None or heard_at > self._away_since:
            self._away_since, self._pause_s = now, _PAUSE_S
        match error:
            case ProtocolError(kind="training-failed" | "internal"):
                return SessionFailed("server", error)
            case ProtocolError():
                self._heard_at = now
                if not KINDS[error.kind].retry:
                    return config_error(f"{url}: {error}", error)
            case LinkBroken() if (away_s := now - self._away_since) > self._patience_s:
                away = TimeoutError(f"{url} is out of reach for {away_s:.0f} s: {error}")
                return SessionFailed("connection", away)
            case LinkBroken():
                pass
            case _:
                return error
        if now == self._away_since:
            _logger.warning("%s: %s; trying again", url, error)
        return None

    # Opening ----------------------------------------------------------------------------------------

    async def _opened(self) -> RemoteSession:
        """The session for what the server says about itself."""
        spec = await self._requests.get("/v1/spec", Spec)
        if spec.spaces is None:
            if self._spaces is None:
                raise ConfigError(
                    f"{self._client.base_url}: this server takes its spaces from a client: give spaces"
                )
            spaces = self._spaces
        else:
            spaces = spec.spaces.gymnasium()
            self._compare(Spaces.of(*self._spaces) if self._spaces is not None else None, spec.spaces)
        if spec.training == "opening" and spec.spaces is not None:  # what it keeps is not known yet
            raise ProtocolError("not-ready", "it opens its run")
        return RemoteSession(spec, spaces, prefix=self._prefix, find=self._last_record)

    def _compare(self, own: Spaces | None, theirs: Spaces) -> None:
        found = None if own is None else difference(own, theirs)
        if found is not None:
            raise ConfigError(
                f"the spaces differ: {found.path} is {shown(found.one)} here, and {shown(found.other)} at "
                f"{self._client.base_url}: play the environment that the server was started for"
            )

    @contextlib.asynccontextmanager
    async def _linked(self, session: RemoteSession) -> AsyncGenerator[Link]:
        """A link over the first transport that works."""
        if self._transport != "http":
            hello = Hello(
                client=f"stoker/{__version__}",
                token=self._token,
                take_over=self._take_over,
                spaces=None if self._spaces is None else Spaces.of(*self._spaces),
            )
            try:
                async with WebSocketLink.open(self._client, hello) as (link, welcome):
                    self._heard_at = time.monotonic()
                    session.know(welcome.spec)
                    try:
                        yield link
                    finally:
                        # The server may hold the broken connection for alive: these actors are ours. But
                        # where another client has fenced this one, nothing is taken back from it.
                        self._take_over = [] if link.was_fenced else session.names
            except WebSocketRefused as refused:
                if self._transport == "websocket":
                    raise ConfigError(f"{self._client.base_url} speaks no WebSocket: {refused}") from refused
                _logger.info("%s speaks no WebSocket (%s): using HTTP", self._client.base_url, refused)
                self._transport = "http"
            else:
                return
        if session.spec.spaces is None:
            raise ConfigError(f"{self._client.base_url}: its spaces can be given only over a WebSocket")
        yield HttpLink(self._client)

    async def _last_record(self, name: str) -> int:
        """The number of the last record that the server has of an actor, 0 if it does not know it."""
        if not self._is_named:
            return 0
        while True:
            try:
                return await self._requests.last_record(name)
            except (LinkBroken, ProtocolError) as error:
                pause_s = self._pause_for(error)
            if pause_s is None:
                raise SessionClosed("the call", entered=True)
            await anyio.sleep(pause_s)

    async def keep_policy(
        self, session: RemoteSession, epsilon: float, *, task_status: TaskStatus[None]
    ) -> None:
        """Have the session act with the server's newest policy; a failure goes to the session.

        Raises:
            StokerError: There is no policy to act with.
        """
        if "off-policy" not in session.spec.features:
            raise ConfigError(
                f"{self._client.base_url}: local_policy: its agent learns from its own actions only"
            )
        local = LocalPolicy(self._requests.newer_policy, session.action_space, epsilon)
        await local.update()
        session.act_with(local)
        task_status.started()
        while True:
            try:
                await local.update()
            except ConfigError as error:
                session.fail("local policy", error)
                return

    # Closing ----------------------------------------------------------------------------------------

    async def finish(self, session: RemoteSession) -> None:
        """Return when everything is on the server's disk.

        Raises:
            StokerError: The session has failed, or the server is out of reach.
        """
        if session.failure is not None:
            raise session.failure
        limit_s = LEAVE_S if session.sender.is_done else math.inf
        with anyio.move_on_after(limit_s) as waiting:
            await session.flush()
        if waiting.cancelled_caught:
            _logger.warning("the training has ended, and its server has not said whether all is on its disk")

    async def leave(self) -> None:
        """Remove the streams of a name that nobody will use again. The connection is closed by now."""
        session = self._session
        if self._is_named or session is None or session.failure is not None or session.sender.is_done:
            return
        with anyio.move_on_after(LEAVE_S), contextlib.suppress(LinkBroken):
            for name in session.names:
                # Until the server has seen the close of the connection, it says that the actor is held.
                while not await self._requests.end_stream(name):  # noqa: ASYNC110
                    await anyio.sleep(_PAUSE_S)
