"""``stoker COMMAND ...``: runs the command, and turns what it raises into one line and an exit code.

    0    done, or stopped and saved              2    a usage error: nothing was started
    1    a failure, or output that was lost      130  left at once: a second Ctrl-C, or one before it began

A command's module is imported when the command is called, so that help and usage errors come at once.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stoker import __version__
from stoker.cli.streams import notices_on_stderr, steady_streams
from stoker.errors import ConfigError, Stalled, StokerError

if TYPE_CHECKING:
    from stoker.cli.parsing import Command

COMMANDS = {
    "train": ("train:Train", "Train an agent on an environment, into a new run directory."),
    "resume": ("train:Resume", "Resume a run where it ended."),
    "stop": ("detached:Stop", "End a training that --restart-learner keeps running on a cluster."),
    "serve": ("serve:Serve", "Learn from remote actors, over HTTP and WebSocket."),
    "token": ("token:Token", "Make a token for a client of `stoker serve`."),
    "actor": ("actor:PlayOnServer", "Play environments for a training on a server."),
    "eval": ("evaluate:Evaluate", "Score a run's policy over whole episodes."),
    "record": ("record:Record", "Film a run's policy to an .mp4 or .gif file."),
    "export": ("export:Export", "Write a run's policy as ONNX, for numpy or for torch, without stoker."),
    "ls": ("ls:Ls", "List the runs of a runs directory."),
    "show": (
        "inspection:Show",
        "Show a run: counters, checkpoints, evaluations, its curve, its last events.",
    ),
    "dash": ("dash:Dash", "Show the runs of a directory in a browser, live."),
    "explain": ("explain:Explain", "Say which part limits a training, and what would help."),
    "verify": ("upkeep:Verify", "Check a run's files: checksums, rows, journal, agreement of counters."),
    "replay": ("evaluate:Replay", "Train again from a run's journal, and compare with what it saved."),
    "fork": ("upkeep:Fork", "Make a new run that begins with a checkpoint of another one."),
    "prune": ("upkeep:Prune", "Remove old checkpoints, and the journal that none of the newest needs."),
    "data export": ("data:ExportData", "Write the episodes in a run's journal as a data set."),
    "data import": ("data:ImportData", "Check a foreign data set, and write it as Minari does."),
    "data describe": ("data:DescribeData", "Say what is in a data set, or in a run's journal."),
    "plot": ("plot:Plot", "Draw the learning curves of runs to a PNG, SVG or PDF file."),
}
"""Command -> its ``Command`` class, as ``module:name`` in this package, and its help; some have two words."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Args:
        argv: the words behind ``stoker``; None: those of this process, whose standard streams are then made
            steady (see ``stoker.cli.streams``).
    """
    if argv is not None:
        return ended(lambda: _dispatch(list(argv)))
    output = steady_streams()
    try:
        code = ended(_dispatch_here)
    except SystemExit as leaving:  # after --help
        code = int(leaving.code or 0)
    return output.checked(code)


def _dispatch_here() -> int:
    search_here()
    return _dispatch(sys.argv[1:])


def search_here() -> None:
    """Let modules of the working directory be imported, as `python -m` does: agents may be there.

    Raises:
        ConfigError: The directory was removed.
    """
    try:
        here = str(Path.cwd())
    except FileNotFoundError:
        raise ConfigError("the current directory was removed: change to one that exists") from None
    if not sys.flags.safe_path and "" not in sys.path:
        sys.path.insert(0, here)


def ended(work: Callable[[], int]) -> int:
    """Do the work; what it raises becomes one line on standard error and an exit code."""
    try:
        with notices_on_stderr():
            return work()
    except StokerError as error:
        print(f"stoker: error: {_one_line(error)}", file=sys.stderr)
        code = 2 if isinstance(error, ConfigError) else 1
        if not isinstance(error.__cause__, Stalled):
            return code
    except KeyboardInterrupt:
        print("stoker: interrupted", file=sys.stderr)
        code = 130
    # A thread may still be in a call: torch would abort a process that exits around it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _dispatch(args: list[str]) -> int:
    if not args:
        print(_help(), file=sys.stderr)
        return 2
    name, rest = args[0], args[1:]
    if name in ("-h", "--help", "help"):
        print(_help())
        return 0
    if name in ("-V", "--version"):
        print(f"stoker {__version__}")
        return 0
    if members := [command for command in COMMANDS if command.startswith(f"{name} ")]:
        if not rest or rest[0] in ("-h", "--help"):
            print(
                f"usage: stoker {name} COMMAND ...\n\ncommands:\n{_commands(members)}",
                file=sys.stdout if rest else sys.stderr,
            )
            return 0 if rest else 2
        name, rest = f"{name} {rest[0]}", rest[1:]
    if name not in COMMANDS:
        what = "flag" if name.startswith("-") else "command"
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f": there is {', '.join(members or COMMANDS)}"
        raise ConfigError(f"unknown {what} {name!r}{hint} (see `stoker --help`)")
    module, _, kind = COMMANDS[name][0].partition(":")
    with _interrupted_by_sigterm():
        command: Command = getattr(import_module(f"stoker.cli.{module}"), kind).from_words(name, rest)
    return run_async(command)


def run_async(work: Callable[[], Awaitable[int]]) -> int:
    """Run the work on an event loop, and return its exit code."""
    import anyio  # late, for the sake of --help and --version

    backend: dict[str, Any] = {"use_uvloop": sys.platform != "win32" and find_spec("uvloop") is not None}
    return anyio.run(work, backend="asyncio", backend_options=backend)


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Generator[None]:
    """SIGTERM does what Ctrl-C does: reading the words may make an environment, which takes time."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _help() -> str:
    return f"""\
usage: stoker COMMAND ...

Trains reinforcement-learning agents from many concurrent environments, and keeps each run safe on disk.

commands:
{_commands(COMMANDS)}

  stoker train CartPole-v1            learn, with a live view; Ctrl-C saves and says how to resume
  stoker plot runs/CartPole-v1 -o curve.png
  stoker COMMAND --help               the flags of a command
  stoker --version"""


def _commands(names: Iterable[str]) -> str:
    return "\n".join(f"  {name:<13} {COMMANDS[name][1]}" for name in names)


def _one_line(error: StokerError) -> str:
    """The message and the notes that were added to it, on one line."""
    parts = [str(error), *getattr(error, "__notes__", [])]
    return "; ".join(" ".join(part.split()) for part in parts)
