"""``stoker COMMAND ...``: which command, and how what it raises becomes one line and an exit code.

    0    done, or stopped in good order          2    a usage error: nothing was started
    1    a failure, or output that was lost      130  left at once: a second Ctrl-C, or one before it began

Commands are imported when they are called, so that help and usage errors come at once.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from stoker import __version__
from stoker.cli.limits import start_clock
from stoker.cli.notices import notices_on_stderr
from stoker.cli.streams import steady_streams
from stoker.errors import ConfigError, Stalled, StokerError

__all__ = ["main"]

COMMANDS = {
    "train": ("stoker.cli.train", "train", "Train an agent on an environment, into a new run directory."),
    "resume": ("stoker.cli.train", "resume", "Go on with a run from its newest checkpoint."),
    "eval": ("stoker.cli.evaluate", "evaluate_run", "Score a run's policy over whole episodes."),
    "ls": ("stoker.cli.listing", "list_command", "List the runs of a runs directory."),
    "show": ("stoker.cli.showing", "show", "Show a run: counters, checkpoints, evaluations, its curve."),
    "verify": (
        "stoker.cli.verifying",
        "verify",
        "Check every file of a run: checksums, rows, journal, agreement of counters.",
    ),
    "replay": (
        "stoker.cli.replaying",
        "replay_command",
        "Train again from a run's journal, and compare with what it saved.",
    ),
    "fork": (
        "stoker.cli.forking",
        "fork_command",
        "Make a new run that begins with a checkpoint of another one.",
    ),
    "prune": ("stoker.cli.pruning", "prune_command", "Remove checkpoints and journal that nobody needs."),
    "plot": ("stoker.cli.plotting", "plot", "Draw the learning curves of runs to a PNG, SVG or PDF file."),
}
"""Command -> module, function and what it does."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Args:
        argv: the words behind ``stoker``; None: those of this process, whose standard streams are then made
            steady (see ``stoker.cli.streams``).
    """
    start_clock(with_process=argv is None)
    if argv is not None:
        return _run(list(argv))
    if not sys.flags.safe_path and "" not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does: agents and environments may be there
    with steady_streams() as output:
        try:
            code = _run(sys.argv[1:])
        except SystemExit as leaving:  # after --help
            code = int(leaving.code or 0)
        return output.checked(code)


def _run(args: list[str]) -> int:
    try:
        with notices_on_stderr():
            return _dispatch(args)
    except StokerError as error:
        print(f"stoker: error: {_one_line(error)}", file=sys.stderr)
        code = 2 if isinstance(error, ConfigError) else 1
        if isinstance(error.__cause__, Stalled):
            # A call was given up in the middle: torch would abort a process that is taken down around it.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        return code
    except KeyboardInterrupt:
        print("stoker: interrupted", file=sys.stderr)
        return 130


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
    if name not in COMMANDS:
        what = "flag" if name.startswith("-") else "command"
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f": there is {', '.join(COMMANDS)}"
        raise ConfigError(f"unknown {what} {name!r}{hint} (see `stoker --help`)")
    module, function, _ = COMMANDS[name]
    return getattr(import_module(module), function)(rest)


def _help() -> str:
    commands = "\n".join(f"  {name:<8} {text}" for name, (_, _, text) in COMMANDS.items())
    return f"""\
usage: stoker COMMAND ...

Trains reinforcement-learning agents from many concurrent environments, and keeps each run safe on disk.

commands:
{commands}

  stoker train CartPole-v1            learn, with a live view; Ctrl-C saves and says how to go on
  stoker plot runs/CartPole-v1 -o curve.png
  stoker COMMAND --help               the flags of a command
  stoker --version"""


def _one_line(error: StokerError) -> str:
    """The message, and what was noted about it on the way, on one line."""
    parts = [str(error), *getattr(error, "__notes__", [])]
    return "; ".join(" ".join(part.split()) for part in parts)
