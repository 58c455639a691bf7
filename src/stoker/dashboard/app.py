"""``make_app``: the dashboard as an ASGI application, to be served by itself or mounted in another one."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from stoker.dashboard.entrance import Entrance, send_refusal
from stoker.dashboard.index import INTERVAL_S, MEMORY_BYTES, Index
from stoker.dashboard.login import Login
from stoker.dashboard.pages import PageFiles
from stoker.dashboard.responses import Refused
from stoker.dashboard.routes import Routes
from stoker.protocol import ProtocolError
from stoker.service.asgi import ASGIApp, Receive, Scope, Send, running
from stoker.service.auth import Gate
from stoker.types import AnyPath


def make_app(
    root: AnyPath = "runs",
    *,
    gate: Gate | None = None,
    login: Login | None = None,
    memory_bytes: int = MEMORY_BYTES,
    interval_s: float = INTERVAL_S,
) -> Starlette:
    """The dashboard over a runs directory, as an ASGI application. It writes nothing.

    A framework that mounts the application does not run its lifespan: enter ``dashboard_lifespan(app)`` in
    its own. Its addresses are relative, so it may be mounted anywhere.

    Args:
        root: the runs directory; a training may make it later.
        gate: which addresses and tokens are let in; None: requests to this machine's loopback names, without
            tokens. A token needs the scope ``read``.
        login: lets browsers in that have opened its link; None: only the gate decides.
        memory_bytes: what the columns of all runs may take.
        interval_s: seconds between two looks at the files, while somebody looks at the page.

    Raises:
        ConfigError: It is no directory, or cannot be read.
    """
    index = Index(Path(root), memory_bytes=memory_bytes, interval_s=interval_s)
    routes = Routes(index, PageFiles(), login)
    app = Starlette(
        routes=routes.routes(),
        exception_handlers={HTTPException: _nowhere},
        lifespan=dashboard_lifespan,
    )
    app.state.stoker = index
    app.state.login = login
    app.add_middleware(_Running, index=index)
    app.add_middleware(Entrance, gate=gate or Gate(), login=login)
    return app


@asynccontextmanager
async def dashboard_lifespan(app: Starlette) -> AsyncGenerator[None]:
    """Look at the runs of ``make_app``'s application while a block runs.

    @asynccontextmanager
    async def lifespan(host):
        async with dashboard_lifespan(dashboard):
            yield

    host = FastAPI(lifespan=lifespan)
    host.mount("/dash", dashboard)
    """
    async with running(app.state.stoker):
        yield


class _Running:
    """Refuses requests to an application whose lifespan nobody has entered."""

    def __init__(self, app: ASGIApp, index: Index) -> None:
        self._app, self._index = app, index

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._index.is_running:
            if self._index.is_closed:
                refusal = ProtocolError("going-down", "the dashboard is ending", retry_after=1)
            else:
                way_out = "enter `dashboard_lifespan(app)` in the lifespan of the application that mounts it"
                refusal = ProtocolError("not-ready", f"the dashboard does not run: {way_out}")
            await send_refusal(refusal, scope, send)
            return
        await self._app(scope, receive, send)


async def _nowhere(request: Request, _: Exception) -> Response:
    return Refused(ProtocolError("not-found", f"{request.url.path}: there is nothing here"))
