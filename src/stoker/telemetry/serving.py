"""A small HTTP server for metrics, in threads of its own, for programs that have no server."""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver
import sys
import threading
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler
from typing import Any

from stoker import __version__
from stoker.errors import SessionClosed
from stoker.exits import Closing
from stoker.listening import host_named, is_loopback, url_of

_logger = logging.getLogger("stoker.telemetry")

_PATIENCE_S = 5.0
"""How long a client may take to send its request or to read the answer."""
_MOST_CLIENTS = 8
_PLAIN = "text/plain; charset=utf-8"


class MetricsServer(Closing):
    """Answers ``GET /metrics`` with an exposition until it is closed; a context manager.

    The training does not wait for it: a scrape runs in its own thread, and one that fails is answered with
    500 and logged once. On a loopback address the request must name that in ``Host``, so that no web page can
    read the metrics by giving its own name this address.

    Args:
        listener: listens, as ``listening_socket`` makes it; the server closes it.
        expose: makes the text for an ``Accept`` header, and its content type.
    """

    def __init__(self, listener: socket.socket, expose: Callable[[str], tuple[bytes, str]]) -> None:
        self._server = _Server(listener, expose)
        self.address: tuple[str, int] = listener.getsockname()[:2]
        """Host and port."""
        self._thread = threading.Thread(
            target=partial(self._server.serve_forever, poll_interval=0.1), name="stoker-metrics", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Where the metrics are."""
        return f"{url_of(*self.address)}/metrics"

    def close(self) -> None:
        """Answer no more; the port is free when this returns."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Serves eight clients at once; when more come, it hangs up on the one that has been there longest."""

    daemon_threads = True
    block_on_close = False  # a client that does not read holds no training up

    def __init__(self, listener: socket.socket, expose: Callable[[str], tuple[bytes, str]]) -> None:
        super().__init__(listener.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.expose = expose
        self.is_loopback = is_loopback(listener.getsockname()[0])
        self.has_failed = False
        self._clients: dict[socket.socket, None] = {}

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(clients := list(self._clients)) >= _MOST_CLIENTS:
            with contextlib.suppress(OSError):  # it has just left
                clients[0].shutdown(socket.SHUT_RDWR)
        self._clients[request] = None
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._clients.pop(request, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has left, or was too slow, is no error of the server."""
        _logger.debug("a scrape from %s was cut off: %s", client_address, sys.exc_info()[1])


class _Handler(BaseHTTPRequestHandler):
    timeout = _PATIENCE_S
    server_version = f"stoker/{__version__}"
    sys_version = ""
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        """Answer with the metrics."""
        host = host_named(self.headers.get("Host", ""))
        if self.server.is_loopback and not is_loopback(host):
            self._answer(421, f"this server is localhost, not {host!r}\n".encode(errors="backslashreplace"))
        elif self.path.partition("?")[0] != "/metrics":
            self._answer(404, b"the metrics are at /metrics\n")
        else:
            self._answer(*self._metrics())

    do_HEAD = do_GET  # noqa: N815

    def _metrics(self) -> tuple[int, bytes, str]:
        try:
            return 200, *self.server.expose(self.headers.get("Accept", ""))
        except SessionClosed:
            return 503, b"the training is not open yet\n", _PLAIN
        except Exception as error:
            if not self.server.has_failed:
                self.server.has_failed = True
                _logger.exception("the metrics could not be read; the training goes on")
            return 500, f"{type(error).__name__}: {error}\n".encode(errors="backslashreplace"), _PLAIN

    def _answer(self, status: int, body: bytes, content_type: str = _PLAIN) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the base class has it
        _logger.debug(format, *args)
