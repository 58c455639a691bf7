"""Views of a sweep in progress: a table with a line per seed that stays in place, or plain lines."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.text import Text

from stoker.cli.sweep_messages import Order, Report
from stoker.trainer.views.tables import fitting_table
from stoker.trainer.views.text import duration, number
from stoker.trainer.views.view import LiveView, View, is_live

WAITING, STARTING, RUNNING, FINISHING, FAILED = "waiting", "starting", "running", "finishing", "failed"
_STYLES = {WAITING: "dim", RUNNING: "green", FAILED: "bold red", FINISHING: "yellow"}
_FIRST = (FAILED, FINISHING, RUNNING, STARTING)
"""What is shown first where there is no room for all."""

_LINE_S = 5.0
"""Seconds between two plain lines of one seed, for each that is trained at once."""

_BAR = 16
_WIDTHS = {
    "seed": 4, "": _BAR, "done": 4, "steps": 15, "steps/s": 7, "ETA": 5, "reward": 7, "eval": 7, "best": 7,
    "state": 9,
}  # fmt: skip
_SPARE = ("", "steps/s", "steps", "eval", "ETA", "best")
"""What a narrow terminal has no room for, in this order."""

_AROUND = 4
"""Lines around the seeds."""


class SeedRun:
    """One seed of a sweep, and how far it is.

    Args:
        seed: the seed.
        order: what its process is to do; None: it has all its steps already.
        run: the directory of its run, if there is one already.
    """

    def __init__(self, seed: int, order: Order | None, run: Path | None = None) -> None:
        self.seed: int = seed
        self.order: Order | None = order
        self.run: Path | None = run
        self.report: Report = Report()
        self.state = WAITING if order is not None else "done"
        self.exit_code: int | None = None
        """That of its process; None: it has not ended, or has not begun."""
        self.cause = ""
        """What it said when it failed; "": nothing."""

    @property
    def is_active(self) -> bool:
        """Whether its process runs."""
        return self.state in (STARTING, RUNNING, FINISHING)

    @property
    def failure(self) -> str:
        """The exit code, or the signal that killed it, and the cause."""
        code = self.exit_code or 0
        how = f"exit code {code}"
        if code < 0:
            names = {int(each): each.name for each in signal.Signals}
            how = f"killed by {names.get(-code, f'signal {-code}')}"
        return f"{how}: {self.cause}" if self.cause else how


class SweepReading(NamedTuple):
    """A sweep at one moment.

    Attributes:
        console: where it is shown.
        seeds: those of the sweep.
        lines: what there is to say since the last reading.
    """

    console: Console
    seeds: Sequence[SeedRun]
    lines: Sequence[str]

    def say(self) -> None:
        """Print the lines."""
        for line in self.lines:
            self.console.print(line, soft_wrap=True, markup=False, highlight=False, emoji=False)


class _Lines(View[SweepReading]):
    """The lines alone."""

    def show(self, reading: SweepReading, *, last: bool = False) -> None:
        """Print them."""
        reading.say()


class _PlainSweep(View[SweepReading]):
    """A line for each seed every few seconds, and at each of its evaluations."""

    def __init__(self) -> None:
        self._shown: dict[int, tuple[float, int, float | None]] = {}

    def show(self, reading: SweepReading, *, last: bool = False) -> None:
        """Print the lines that are due."""
        reading.say()
        now, n_active = time.monotonic(), sum(seed.is_active for seed in reading.seeds)
        for seed in reading.seeds:
            report = seed.report
            shown_at, steps, last_eval = self._shown.setdefault(seed.seed, (now, 0, None))
            is_due = now - shown_at >= _LINE_S * n_active or report.last_eval != last_eval
            if seed.state == RUNNING and report.total_steps != steps and (is_due or last):
                self._shown[seed.seed] = now, report.total_steps, report.last_eval
                reading.console.out(_line(seed), highlight=False)


def sweep_view(console: Console, *, progress: bool) -> View[SweepReading]:
    """The view that fits the console; it prints the lines above the table, if it has one."""
    if not progress:
        return _Lines()
    return LiveView(console, _redrawn) if is_live(console) else _PlainSweep()


def _redrawn(reading: SweepReading) -> RenderableType:
    reading.say()
    return drawn(reading.seeds, reading.console)


def drawn(seeds: Sequence[SeedRun], console: Console) -> RenderableType:
    """The table of the seeds, those at work first where it has no room for all; then how many are where."""
    room = max(1, console.height - _AROUND)
    chosen = seeds
    if len(seeds) > room:
        at_work = [seed for state in _FIRST for seed in seeds if seed.state == state]
        chosen = [*at_work, *(seed for seed in seeds if seed not in at_work)][:room]
    table = fitting_table(_WIDTHS, [_cells(seed) for seed in chosen], _SPARE, console.width)
    counts = Counter(seed.state for seed in seeds)
    summary = ", ".join(f"{count} {state}" for state, count in counts.items())
    return Group(table, Text(f"{len(seeds)} seeds: {summary}", style="dim"))


def _cells(seed: SeedRun) -> list[RenderableType]:
    report = seed.report
    bar = ProgressBar(total=max(report.limit, 1), completed=report.total_steps, width=_BAR)
    done, steps, rate, eta = "-", "-", "-", "-"
    if report.limit:
        done, steps = f"{report.total_steps / report.limit:.0%}", f"{report.total_steps:,}/{report.limit:,}"
    if seed.state == RUNNING:
        rate, eta = number(report.steps_per_s, 0), duration(report.eta_s)
    values = map(number, (report.mean_reward, report.last_eval, report.best))
    state = Text(seed.state, style=_STYLES.get(seed.state, ""))
    numbers = map(Text, (done, steps, rate, eta, *values))
    return [Text(str(seed.seed), style="bold cyan"), bar, *numbers, state]


def _line(seed: SeedRun) -> str:
    report = seed.report
    parts = [f"{report.total_steps:,}/{report.limit:,} steps", f"{report.steps_per_s:,.0f}/s"]
    if report.eta_s is not None and report.total_steps < report.limit:
        parts.append(f"ETA {duration(report.eta_s)}")
    if report.mean_reward is not None:
        parts.append(f"reward {number(report.mean_reward)}")
    if report.last_eval is not None:
        parts.append(f"eval {number(report.last_eval)} (best {number(report.best)})")
    return f"  seed {seed.seed}: " + "  ".join(parts)
