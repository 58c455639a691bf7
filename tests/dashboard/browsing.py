"""Debian's Chromium on a dashboard: what its page shows, and everything that goes wrong in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

WAIT_S = 20.0
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-extensions",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip
_WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(
  `${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""


def no_browser() -> str:
    """Why no page can be looked at; empty if one can."""
    try:
        import playwright.sync_api  # noqa: F401 - whether it is there
    except ImportError:
        return "playwright is not installed (pip install playwright)"
    if executable() is None:
        return "no chromium is installed (apt-get install chromium)"
    return ""


def executable() -> str | None:
    return next(filter(None, map(shutil.which, _NAMES)), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser that asks nobody but the pages that it is sent to."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=list(_QUIET))
        try:
            yield browser
        finally:
            browser.close()


class Window:
    """A window of the browser on one dashboard. ``check`` says what went wrong in it so far.

    Args:
        browser: the browser.
        url: the dashboard's address; requests to any other are faults.
        size: of the window, in CSS pixels.
        options: what else a context of playwright takes.
    """

    def __init__(
        self, browser: Any, url: str, *, size: tuple[int, int] = (1280, 900), **options: Any
    ) -> None:
        self.url = url
        self.requests: list[str] = []
        self.faults: list[str] = []
        width, height = size
        self.context = browser.new_context(viewport={"width": width, "height": height}, **options)
        self.context.set_default_timeout(WAIT_S * 1000)
        self.context.add_init_script(_WATCH)
        self.page = self.context.new_page()
        self.page.on("request", self._requested)
        self.page.on("console", self._told)
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("dialog", self._asked)
        self.page.on("requestfailed", self._failed)

    def open(self, address: str = "#/") -> Any:
        """Show a view, and return the page."""
        self.page.goto(f"{self.url}/{address}")
        return self.page

    def check(self) -> None:
        """Nothing was said on the console, no exception was left, nothing was asked of another origin."""
        assert self.faults == []
        assert self.page.evaluate("window.violations") == []
        assert self.page.evaluate("window.pwned") is None
        own = urlsplit(self.url).netloc
        foreign = [
            url
            for url in self.requests
            if urlsplit(url).scheme not in ("data", "blob") and urlsplit(url).netloc != own
        ]
        assert foreign == []

    def close(self) -> None:
        """Close the window."""
        self.context.close()

    def _requested(self, request: Any) -> None:
        self.requests.append(request.url)

    def _told(self, message: Any) -> None:
        if message.type in ("error", "warning", "assert"):
            self.faults.append(f"{message.type}: {message.text} ({message.location.get('url')})")

    def _asked(self, dialog: Any) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _failed(self, request: Any) -> None:
        if "ERR_ABORTED" not in (request.failure or ""):  # a view that is left ends its requests
            self.faults.append(f"failed: {request.url} {request.failure}")


needs_browser = pytest.mark.skipif(bool(no_browser()), reason=no_browser())
