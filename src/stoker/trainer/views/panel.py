"""The table of the live view, with the sections of Stable-Baselines3: rollout, time, train, eval.

A narrow terminal has a narrow last column, or none, and no chart. What matters is in every width.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from stoker.trainer.views.readings import Reading
from stoker.trainer.views.text import chart, duration, number, short, sparkline

_WIDEST = 92
_CHART_LINES = 7
_METRICS = 4
"""The most metrics of the last optimization step that are shown; on a narrow terminal it is one."""
_NARROW = 40
"""The columns that labels and values take."""
_ASIDE, _WIDE_ASIDE = 18, 38
"""The columns that the last column needs for its texts, and for the shares of the time and a chart."""

_STYLES = {"ep_rew_mean": "bold green", "total_timesteps": "bold", "best": "bold green"}

_Row = tuple[str, str, RenderableType]
"""Label, value, and the content of the last column."""


def draw(reading: Reading, title: str, console: Console) -> RenderableType:
    """The table, in the size of the console and with the characters that it can show."""
    width, ascii_only = min(console.width, _WIDEST), console.options.ascii_only
    room = width - _NARROW if width >= _NARROW + _ASIDE else 0
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, min_width=18)
    table.add_column(no_wrap=True, justify="right", min_width=12)
    if room:
        table.add_column(no_wrap=True, width=room)
    for name, rows in _sections(reading, room, ascii_only):
        table.add_row(Text(name, style="bold cyan"))
        for label, value, aside in rows:
            cells = [Text(f"  {label}"), Text(value, style=_STYLES.get(label, "")), aside]
            table.add_row(*cells[: len(table.columns)])
    body: RenderableType = table
    if (
        room >= _WIDE_ASIDE
        and len(reading.curve) > 1
        and console.height >= table.row_count + _CHART_LINES + 7
    ):
        steps = range(len(reading.curve))
        lines = chart(steps, reading.curve, width - 6, _CHART_LINES, ascii_only=ascii_only)[:-1]
        plot = Text("\n".join(lines), style="green", no_wrap=True)
        body = Group(table, Text("reward so far", style="bold cyan"), plot)
    return Panel(
        body,
        title=Text(title, style="bold"),
        title_align="left",
        box=box.ROUNDED,
        border_style="bright_black",
        width=width,
        padding=(0, 1),
    )


def _sections(reading: Reading, room: int, ascii_only: bool) -> Iterator[tuple[str, list[_Row]]]:
    if reading.data_steps is not None:
        yield "data", [("transitions", number(reading.data_steps), "")]
    else:
        yield "rollout", _rollout(reading, room, ascii_only)

    done = min(1.0, reading.total_steps / reading.limit) if reading.limit else 1.0
    eta = duration(reading.eta_s)
    times: list[_Row] = [
        ("total_timesteps", number(reading.total_steps), _progress(reading, done, room)),
        ("fps", number(reading.steps_per_s, 0), Text("steps per second", style="dim")),
        ("time_elapsed", duration(reading.elapsed_s), Text.assemble(("ETA ", "dim"), eta)),
    ]
    if not room:
        times += [("limit", number(reading.limit), ""), ("progress", f"{done:.0%}", ""), ("eta", eta, "")]
    shares, aside = reading.shares, Text()
    busiest = max(shares, key=lambda name: shares[name], default="-")
    if room >= _WIDE_ASIDE:
        parts = (part for name, share in shares.items() for part in ((f"{name} ", "dim"), f"{share:.0%}  "))
        aside = Text.assemble(*parts)
    elif shares:
        busiest = f"{busiest} {shares[busiest]:.0%}"
    times.append(("busiest", busiest, aside))
    yield "time", times

    metrics = list(reading.metrics.items())[: _METRICS if room >= _WIDE_ASIDE else 1]
    train: list[_Row] = [(name, short(value), "") for name, value in metrics]
    train.append(("n_updates", number(reading.opt_steps), ""))
    train.append(("queue", f"{reading.queue:.0%}", _bar(reading.queue, room - 2, "magenta")))
    yield "train", train

    yield "eval", [_evaluation("mean_reward", reading.last_eval), _evaluation("best", reading.best)]


def _rollout(reading: Reading, room: int, ascii_only: bool) -> list[_Row]:
    spark = sparkline(reading.curve, room - 2, ascii_only=ascii_only)
    rollout: list[_Row] = [
        ("ep_rew_mean", number(reading.mean_reward), Text(spark, style="green")),
        ("ep_len_mean", number(reading.mean_length), Text("last 100 episodes", style="dim")),
        ("episodes", number(reading.total_episodes), ""),
    ]
    if reading.restarts:
        rollout.append(("env restarts", number(reading.restarts), ""))
    if reading.workers:
        counts, _, rest = reading.workers.partition(" ")
        rollout.append(("workers", counts, Text(rest, style="yellow" if "," in rest else "dim")))
    if reading.exploration is not None:
        bar = _bar(min(1.0, reading.exploration), room - 2, "yellow")
        rollout.append(("exploration_rate", f"{reading.exploration:.3f}", bar))
    return rollout


def _evaluation(label: str, found: tuple[float, int] | None) -> _Row:
    at = "" if found is None else f"@ {found[1]:,} steps"
    return label, number(found and found[0]), Text(at, style="dim")


def _progress(reading: Reading, done: float, room: int) -> RenderableType:
    text = f"{done:.0%} of {reading.limit:,}"
    line = Table.grid(padding=(0, 1, 0, 0))
    line.add_row(_bar(done, room - len(text) - 3, "cyan"), text)
    return line


def _bar(share: float, width: int, style: str) -> ProgressBar:
    return ProgressBar(1.0, share, width=max(1, width), complete_style=style)
