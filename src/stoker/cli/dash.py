"""``stoker dash``: the runs of a directory in a browser, live. It only reads."""

from __future__ import annotations

import contextlib
import platform
import re
import socket
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from anyio import to_thread

from stoker.cli.options import Flag
from stoker.cli.parsing import Command
from stoker.errors import ConfigError, RunNotFound
from stoker.listening import is_loopback, listening_socket, url_of
from stoker.runs.layout import is_run, runs_below
from stoker.settings import Port
from stoker.signals import ENDING_SIGNALS, SignalGuard

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from stoker.service.auth import Gate

USUAL_PORT = 8060
_GRACE_S = 5.0
_SIZE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(k|m|g|t)?i?b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class Dash(Command, frozen=True, kw_only=True):
    """Show the runs of a directory in a browser, live, also those that other processes write meanwhile.

    Nothing is written. Other machines reach it only with --host; then a browser logs in once, by the link
    that is printed. Ctrl-C ends it.
    """

    paths: Annotated[
        tuple[str, ...], Flag(metavar="[RUNS_DIR]", is_positional=True, repeats=True, default="default: runs")
    ] = ()
    """The runs directory, or the directory of a name, a version or a run in it; it need not exist yet."""

    host: Annotated[str, Flag(metavar="HOST")] = "127.0.0.1"
    """The address to listen on; at any but this machine's loopback, browsers have to log in."""

    port: Annotated[
        Port | None, Flag(metavar="PORT", default=f"default: {USUAL_PORT}, else any free one")
    ] = None
    """The port to listen on; 0: any free one."""

    open: bool = False
    """Open the page in this machine's browser."""

    memory: Annotated[str, Flag(metavar="SIZE")] = "512MB"
    """What is kept of the rows of all runs; those that were looked at longest ago are read again."""

    allowed_hosts: Annotated[
        tuple[str, ...], Flag(name="allowed-host", metavar="NAME", repeats=True, default="default: loopback")
    ] = ()
    """A name under which a proxy leads here; then browsers have to log in, too."""

    export: Annotated[str, Flag(metavar="FILE.html RUN [RUN ...]", default="default: none")] = ""
    """Serve nothing; write the page with these runs to one HTML file, which opens anywhere, offline. The
    directory of a name or version means all of its runs."""

    async def __call__(self) -> int:
        if self.export:
            return await self._write_report()
        from stoker.service.auth import Gate
        from stoker.service.limits import Limits
        from stoker.service.serving import Server

        if len(self.paths) > 1:
            raise ConfigError(f"{self.paths[1]}: give one runs directory, that of several runs to compare")
        root = Path(*self.paths or ("runs",))
        is_local = is_loopback(self.host)
        gate = Gate(hosts=self.allowed_hosts or (() if is_local else ("*",)))
        app = await dashboard_over(
            root,
            gate,
            needs_login=not is_local or bool(self.allowed_hosts),
            memory_bytes=size_of("--memory", self.memory),
        )
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(listening(self.host, self.port))
            server = Server(app, Limits(), has_websockets=False)
            guard = stack.enter_context(_Guard(ENDING_SIGNALS, _GRACE_S))
            guard.finish_with(partial(_end, guard, server.end))
            address = f"{url_of(self.host, listener.getsockname()[1], every=platform.node())}/"
            link = tell(app, address)
            if self.open:
                await to_thread.run_sync(_open, link)
            await server.serve_on(listener)
        return 0

    async def _write_report(self) -> int:
        if self.port is not None or self.allowed_hosts:
            raise ConfigError("--export serves nothing: leave out --port and --allowed-host")
        paths = [Path(path) for path in self.paths or ("runs",)]
        print(await to_thread.run_sync(_write_report, Path(self.export), paths))
        if self.open:
            await to_thread.run_sync(_open, Path(self.export))
        return 0


def _open(place: str | Path) -> None:
    """Open an address or a file in this machine's browser. Blocks."""
    import webbrowser  # late: it takes time

    webbrowser.open(place if isinstance(place, str) else place.resolve().as_uri())


def _write_report(target: Path, paths: Sequence[Path]) -> str:
    """Write a report of these runs, and say what it holds. Blocks.

    Raises:
        ConfigError: The file cannot be a report.
        RunNotFound: One of the paths contains no run.
    """
    from rich.filesize import decimal as size

    from stoker.cli.printing import counted
    from stoker.dashboard.report import write_report

    if target.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--export {target}: give a file that ends in .html, then the runs")
    if not target.parent.is_dir():
        raise ConfigError(f"--export {target}: there is no directory {target.parent}")
    runs = list(dict.fromkeys(run for path in paths for run in _runs_in(path)))
    n_bytes = write_report(target, runs)
    return f"{target}  shows {counted(len(runs), 'run')} in {size(n_bytes)}"


def _runs_in(path: Path) -> list[Path]:
    """The run that this is the directory of, or else all runs below it.

    Raises:
        RunNotFound: There is none.
    """
    found = [path] if is_run(path) else runs_below(path)
    if not found:
        raise RunNotFound(path, "there is no run; `stoker ls` lists those of a runs directory")
    return found


async def dashboard_over(
    root: Path, gate: Gate, *, needs_login: bool, memory_bytes: int = 512 << 20
) -> Starlette:
    """The dashboard over a runs directory.

    Raises:
        ConfigError: It is no directory, or cannot be read.
    """
    from stoker.dashboard.app import make_app
    from stoker.dashboard.login import Login

    login = Login() if needs_login else None
    return await to_thread.run_sync(
        partial(make_app, root, gate=gate, login=login, memory_bytes=memory_bytes)
    )


@contextlib.asynccontextmanager
async def shown_at(app: Starlette, address: str) -> AsyncGenerator[None]:
    """Run a mounted dashboard while a block runs, and print its address."""
    from stoker.dashboard.app import dashboard_lifespan

    async with dashboard_lifespan(app):
        tell(app, address)
        yield


def tell(app: Starlette, address: str) -> str:
    """Print the address of a dashboard and return it; a login link anew whenever one was used."""
    login, root = app.state.login, app.state.stoker.root
    what = root if root.exists() else f"{root}, which does not exist yet"
    if login is None:
        print(f"{address}  shows {what}", flush=True)
        return address

    def show() -> None:
        print(f"{address}{login.link}  shows {what} (a link is good once)", flush=True)

    login.on_used = show
    show()
    return f"{address}{login.link}"


@contextlib.contextmanager
def listening(host: str, port: int | None) -> Generator[socket.socket]:
    """Listen on this port; without one, on the usual one or, if it is taken, on any.

    Raises:
        ConfigError: The port is taken, or the address cannot be used.
    """
    try:
        listener = listening_socket(host, USUAL_PORT if port is None else port)
    except ConfigError:
        if port is not None:
            raise
        listener = listening_socket(host, 0)
    with listener:
        yield listener


def size_of(flag: str, text: str) -> int:
    """A number of bytes: ``512MB``, ``2G``, ``1048576``; a kilobyte has 1,024 bytes.

    Raises:
        ConfigError: It is none of these, or less than a megabyte; the message names the flag.
    """
    found = _SIZE.fullmatch(text.strip())
    n_bytes = 0 if found is None else int(float(found[1]) * _UNITS[(found[2] or "").lower()])
    if n_bytes < 1 << 20:
        raise ConfigError(f"{flag} {text!r}: give a size of at least 1MB, such as 512MB or 2GB")
    return n_bytes


class _Guard(SignalGuard):
    """Ends the server at a first signal."""

    def overdue(self, *, loop_turns: bool) -> str:
        return (
            "stoker: error: a request is still being answered" if loop_turns else "stoker: error: it is stuck"
        )

    def interrupted(self) -> str:
        return "stoker: interrupted"


def _end(guard: _Guard, end_server: Callable[[], object]) -> None:
    guard.announced()
    end_server()
