"""Logging in with a browser: a link that is good once, and the cookie that it leaves behind.

The link is for whoever starts the server, in a terminal. Once it was used there is a new one.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final

from stoker.lru import LRUDict

LOGIN: Final = "login"
"""Where the link leads, below the dashboard."""

_MOST_BROWSERS = 100
_DAYS = 30


class Login:
    """Lets browsers in that have opened the link; only what is in memory knows them.

    Args:
        on_used: called when the link was used, so that the new one can be shown.
    """

    def __init__(self, on_used: Callable[[], object] | None = None) -> None:
        self.on_used = on_used
        self._code = secrets.token_urlsafe(32)
        self._known: LRUDict[str, None] = LRUDict(_MOST_BROWSERS)

    @property
    def link(self) -> str:
        """The end of the link that is good now, relative to the dashboard."""
        return f"{LOGIN}?code={self._code}"

    def open(self, code: str, scope: Mapping[str, Any]) -> str | None:
        """The value of ``Set-Cookie`` for the right code, which is void from now on; None: it is wrong."""
        if not hmac.compare_digest(code.encode(errors="replace"), self._code.encode()):
            return None
        self._code = secrets.token_urlsafe(32)
        token = secrets.token_urlsafe(32)
        self._known.put(_digest(token), None)
        if self.on_used is not None:
            self.on_used()
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        path = f"{scope.get('root_path', '')}/"
        age = _DAYS * 24 * 3600
        return f"{_name(scope)}={token}; Path={path}; Max-Age={age}; HttpOnly; SameSite=Strict{secure}"

    def knows(self, scope: Mapping[str, Any]) -> bool:
        """Whether the request comes from a browser that has logged in."""
        name = _name(scope)
        for header, value in scope["headers"]:
            if header != b"cookie":
                continue
            try:
                cookie = SimpleCookie(value.decode("latin-1")).get(name)
            except CookieError:
                continue
            if cookie is not None and _digest(cookie.value) in self._known:
                return True
        return False


def _name(scope: Mapping[str, Any]) -> str:
    """A browser sends a cookie to all ports of a host."""
    server = scope.get("server") or ("", 0)
    return f"stoker_dash_{server[1] or 0}"


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
