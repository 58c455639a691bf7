"""``connect``: a session on a server, over the first transport that works, through cuts and restarts."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import urlsplit

import anyio
import gymnasium
import httpx2

from stoker.client.connection import LEAVE_S, Connection, Transport
from stoker.client.session import RemoteSession
from stoker.errors import ConfigError, StokerError
from stoker.exits import single_error


@contextlib.asynccontextmanager
async def connect(
    url: str,
    *,
    token: str | None = None,
    spaces: tuple[gymnasium.Space[Any], gymnasium.Space[Any]] | None = None,
    name: str | None = None,
    take_over: bool = False,
    transport: Transport = "auto",
    local_policy: bool = False,
    epsilon: float = 0.05,
    patience_s: float = 120.0,
    verify: Any = True,
) -> AsyncGenerator[RemoteSession]:
    """Open a session on a server; the end of the block waits until all its steps are on the server's disk.

    A block that ends with an error waits for that only shortly.

    Args:
        url: of the server, such as ``http://127.0.0.1:8000``; with a path, if it is mounted there.
        token: if the server wants one.
        spaces: observation and action space of the environment, to be compared with the server's. A server
            that takes its spaces from clients gets these.
        name: begins the names of the actors at the server; 0 is ``<name>-0`` there. A client that is started
            again under the same name continues its streams. None: a random name; its streams are removed at
            the end.
        take_over: take the actors over from another connection that still plays under this name.
        transport: ``"auto"``: a WebSocket, and HTTP where that is refused.
        local_policy: choose actions here, with the server's policy, without a round trip. The policy acts
            greedily; for agents that may learn from any actions, such as DQN and SAC.
        epsilon: with ``local_policy``, the probability of a random action instead.
        patience_s: how long a server may be out of reach. A server that answers that it is starting or busy
            is waited for, for as long as it says so.
        verify: certificates of TLS: True, or an ``ssl.SSLContext``.

    Raises:
        ConfigError: The address is none of stoker's, the token is not valid, or the spaces differ.
        SessionFailed: The server is out of reach, has failed, or has lost its run.
    """
    base = _checked(url)
    if not patience_s >= 0:
        raise ConfigError(f"patience_s={patience_s!r}: give a number of at least 0")
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(base_url=base, headers=headers, verify=verify, timeout=60.0) as client:
        connection = Connection(client, token, spaces, name, take_over, transport, patience_s)
        try:
            with single_error():
                async with anyio.create_task_group() as tasks:
                    session: RemoteSession = await tasks.start(connection.run)
                    if local_policy:
                        await tasks.start(connection.keep_policy, session, epsilon)
                    try:
                        yield session
                    except BaseException:
                        with anyio.move_on_after(LEAVE_S, shield=True), contextlib.suppress(StokerError):
                            await session.flush()
                        raise
                    else:
                        await connection.finish(session)
                    finally:
                        session.end()
                        tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await connection.leave()


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"url={url!r}: give the server's address, such as http://127.0.0.1:8000")
    if parts.query or parts.fragment or parts.username:
        raise ConfigError(f"url={url!r}: give it without a query or a login; the token has its own argument")
    return url.rstrip("/")
