"""What each request to the dashboard passes first: its address, its origin, its method and who sends it.

A page of another site can make a browser send requests here, also under a name of its own that leads to this
machine (DNS rebinding). So the names in ``Host`` and ``Origin`` are checked, and where the browser says that
another site is behind a request: then only the address in its address bar may lead here.
"""

from __future__ import annotations

import html
from typing import Final

from stoker.dashboard.login import LOGIN, Login
from stoker.protocol import ProtocolError
from stoker.service.asgi import ASGIApp, Receive, Scope, Send, path_of, respond, with_headers
from stoker.service.auth import Gate
from stoker.service.refusals import problem_headers, problem_json

POLICY: Final = (
    "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'"
)
"""What the page may load, and that no other page may show it in a frame."""

_HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_SHORT_HEADERS = _HEADERS[1:2]
"""Of an answer without a body, which is what most polls get."""


class Entrance:
    """Refuses requests before anything of the dashboard runs, and adds the headers that protect its page.

    Args:
        app: the dashboard.
        gate: which addresses and tokens are let in.
        login: which browsers are let in; None: if the gate needs no token, anybody.
    """

    def __init__(self, app: ASGIApp, gate: Gate, login: Login | None) -> None:
        self._app, self._gate, self._login = app, gate, login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as an ASGI application."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        send = with_headers(send, lambda status: _SHORT_HEADERS if status == 304 else _HEADERS)
        try:
            self._gate.check_address(scope)
            _check_site(scope)
            _check_method(scope["method"])
            if path_of(scope) != f"/{LOGIN}":
                self._admit(scope)
        except ProtocolError as refusal:
            await send_refusal(refusal, scope, send)
            return
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        if self._login is None and not self._gate.has_tokens:
            return
        if self._login is not None and self._login.knows(scope):
            return
        if self._gate.has_tokens and any(name == b"authorization" for name, _ in scope["headers"]):
            self._gate.admit(scope, "read")
            return
        token = ", or send `Authorization: Bearer TOKEN`" if self._gate.has_tokens else ""
        way_out = f"open the link that the server printed last in its terminal{token}"
        raise ProtocolError("unauthenticated", f"this browser has not logged in: {way_out}")


def _check_site(scope: Scope) -> None:
    """Refuse what a page of another site asks for; its links may lead here.

    Raises:
        ProtocolError: ``wrong-origin``.
    """
    headers = {name: value for name, value in scope["headers"] if name.startswith(b"sec-fetch-")}
    if headers.get(b"sec-fetch-site", b"none") in (b"none", b"same-origin"):
        return
    is_link = headers.get(b"sec-fetch-mode") == b"navigate" and headers.get(b"sec-fetch-dest") == b"document"
    if not is_link:
        raise ProtocolError("wrong-origin", "a page of another site sent this request; open the page itself")


def _check_method(method: str) -> None:
    if method not in ("GET", "HEAD"):
        raise ProtocolError("method-not-allowed", f"{method}: the dashboard only reads: GET")


async def send_refusal(refusal: ProtocolError, scope: Scope, send: Send) -> None:
    """Answer with a refusal: as a problem, and to a browser that shows it as a small page."""
    body = problem_json(refusal)
    headers = problem_headers(refusal, body)
    accepted = b",".join(value for name, value in scope["headers"] if name == b"accept")
    if b"text/html" in accepted:
        body = _page(refusal).encode()
        kept = [pair for pair in headers if pair[0] not in (b"content-type", b"content-length")]
        headers = [
            *kept,
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
        ]
    if refusal.kind == "method-not-allowed":
        headers.append((b"allow", b"GET, HEAD"))
    await respond(send, refusal.status, headers, b"" if scope["method"] == "HEAD" else body)


def _page(refusal: ProtocolError) -> str:
    title, detail = html.escape(refusal.title), html.escape(refusal.problem().detail)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        f"<title>stoker</title><h1>{title}</h1><p>{detail}</p></html>"
    )
