"""The report of ``stoker data describe`` for people."""

from __future__ import annotations

from rich.text import Text

from stoker.cli.printing import columns, facts_table, say
from stoker.data import DatasetReport
from stoker.trainer.views.text import number, short

_BAR = 30
_MOST_SHARES = 12


def say_report(report: DatasetReport) -> None:
    """Print it."""
    inferred = " (inferred from the values)" if report.spaces_are_inferred else ""
    facts = {
        "source": f"{report.source} ({report.format})",
        "environment": report.env_id or "unknown",
        "observations": report.observation_space + inferred,
        "actions": report.action_space + inferred,
        "steps": number(report.n_steps),
        "episodes": number(report.n_episodes),
        "ended": ", ".join(f"{number(n)} {how}" for how, n in report.ends.items() if n),
        "left out": f"{number(report.n_dropped)} steps without a next observation" * bool(report.n_dropped),
        "distinct": f"{report.distinct:.1%} of the transitions",
        "known seeds": f"{_share(report.n_with_seed, report.n_episodes)} of the episodes",
        "known versions": f"of the policy, in {_share(report.n_with_version, report.n_steps)} of the steps",
        "reference scores": _references(report),
    }
    say(facts_table(facts))
    _say_spreads(report)
    _say_histogram(report)
    _say_columns(report)
    _say_actions(report)


def _share(part: int, whole: int) -> str:
    return f"{part / max(1, whole):.1%}"


def _references(report: DatasetReport) -> str:
    if report.ref_min_score is None or report.ref_max_score is None:
        return "unknown"
    return f"random {report.ref_min_score:g}, expert {report.ref_max_score:g}"


def _say_spreads(report: DatasetReport) -> None:
    found = {"return": report.returns, "length": report.lengths, "normalized": report.normalized}
    table = columns(("", "mean", "min", "25 %", "median", "75 %", "max"), numbers=range(1, 7))
    for name, spread in found.items():
        if spread is not None:
            values = (spread.mean, spread.min, spread.q25, spread.median, spread.q75, spread.max)
            table.add_row(name, *map(short, values))
    say()
    say(table)


def _say_histogram(report: DatasetReport) -> None:
    if report.returns is None or report.returns.min == report.returns.max:
        return
    low, width = report.returns.min, (report.returns.max - report.returns.min) / len(report.histogram)
    table = columns(("returns from", "episodes", ""), numbers=(0, 1))
    for place, share in enumerate(report.histogram):
        table.add_row(short(low + place * width), f"{share:.1%}", _bar(share / max(report.histogram)))
    say()
    say(table)


def _say_columns(report: DatasetReport) -> None:
    table = columns(
        ("column", "min", "max", "not finite", "outside", "never changes"), numbers=range(1, 5), folds=5
    )
    for column in report.columns:
        bad = (column.n_not_finite, column.n_outside)
        texts = [Text(number(n), style="bold red" if n else "") for n in bad]
        low, high = ("-" if each is None else short(each) for each in (column.min, column.max))
        table.add_row(column.name, low, high, *texts, ", ".join(map(str, column.constant)))
    say()
    say(table)
    for column in report.columns:
        if column.first_bad is not None:
            episode, step = column.first_bad
            problem = f"{column.name}: the first bad value is in episode {episode}, step {step}"
            say(Text(problem, style="bold red"))


def _say_actions(report: DatasetReport) -> None:
    if not report.actions:
        return
    table = columns(("use of", "entropy", "shares"), numbers=(1,), folds=2)
    for use in report.actions:
        shares = " ".join(f"{share:.0%}" for share in use.shares[:_MOST_SHARES])
        more = " ..." if len(use.shares) > _MOST_SHARES else ""
        table.add_row(use.name, f"{use.entropy:.2f}", shares + more)
    say()
    say(table)


def _bar(share: float) -> str:
    return "#" * round(share * _BAR)
