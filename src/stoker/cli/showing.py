"""``stoker show``: one run at a glance. Free of torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, cast

import msgspec
import tyro
from rich.table import Table
from rich.text import Text

from stoker.cli.driving import run_async
from stoker.cli.formats import ago, from_here, size
from stoker.cli.listing import status_of
from stoker.cli.parsing import parse, required
from stoker.cli.stored import open_run
from stoker.cli.tables import output, say
from stoker.errors import RunBroken
from stoker.runs import Columns, TrainingRun
from stoker.runs.naming import natural_key
from stoker.runs.reading import EvaluationSummary, evaluations_of
from stoker.trainer.views.curves import chart
from stoker.trainer.views.numbers import number
from stoker.writer import files

__all__ = ["ShowArguments", "show"]

_CHART_LINES = 8
_EVALUATIONS = 8
"""So many of the last evaluations are shown."""
_KEY_SETTINGS = ("env", "agent", "num_envs", "total_timesteps", "seed", "device")


class ShowArguments(msgspec.Struct, frozen=True, kw_only=True):
    """What a command line of ``stoker show`` says."""

    run: Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help_behavior_hint="(required)")
    ] = ""
    """The run's directory, or that of a version or name: then its newest run."""

    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object instead."""


class Facts(msgspec.Struct, frozen=True):
    """All that is shown of a run."""

    run: TrainingRun
    status: str
    config: Any
    checkpoints: dict[str, int]
    episodes: Columns
    evaluations: list[EvaluationSummary]


def show(args: Sequence[str]) -> int:
    """Run ``stoker show`` and return its exit code.

    Raises:
        RunNotFound, RunBroken: There is no such run, or it cannot be read.
    """
    arguments = parse(
        "show", ShowArguments, args, "Show a run: counters, checkpoints, evaluations, its curve."
    )
    facts = run_async(_facts, required(arguments.run, "show", "a run", "runs/CartPole-v1"))
    if arguments.json:
        print(json.dumps(_as_json(facts)))
    else:
        _print(facts)
    return 0


async def _facts(path: str) -> Facts:
    run = await open_run(path)
    try:
        config = await run.read_config()
    except RunBroken:
        config = None
    sizes = files.sizes_in(run.checkpoints_directory)
    return Facts(
        run,
        await status_of(run),
        config,
        {name: sizes[name] for name in sorted(sizes, key=natural_key) if not name.startswith(".")},
        await run.read_train_episodes(),
        evaluations_of(await run.read_eval_episodes()),
    )


def _as_json(facts: Facts) -> dict[str, Any]:
    return {
        "run": str(facts.run.directory),
        "status": facts.status,
        **msgspec.to_builtins(facts.run.metadata),
        "last_100_mean_reward": _last_mean(facts.episodes),
        "checkpoints": facts.checkpoints,
        "evaluations": msgspec.to_builtins(facts.evaluations),
        "config": facts.config,
    }


def _last_mean(episodes: Columns) -> float | None:
    rewards = episodes["total_reward"][-100:]
    return float(rewards.mean()) if len(rewards) else None


def _print(facts: Facts) -> None:
    metadata, now = facts.run.metadata, datetime.now(UTC)
    best = number(metadata.best_value)
    if metadata.best_step is not None:
        best += f" @ step {metadata.best_step:,}"
    rows = [
        ("run", from_here(facts.run.directory)),
        ("status", f"{facts.status}, updated {ago(metadata.last_updated, now)}"),
        ("steps", number(metadata.total_steps)),
        ("episodes", number(metadata.total_episodes)),
        ("last 100 episodes", number(_last_mean(facts.episodes))),
        ("best evaluation", best),
    ]
    if config := _as_dict(facts.config):
        rows.append(("config", _settings({key: config[key] for key in _KEY_SETTINGS if key in config})))
        if settings := _as_dict(config.get("agent_settings")):
            rows.append(("agent settings", _settings(settings)))
    rows.append(
        ("checkpoints", ", ".join(f"{k} ({size(v)})" for k, v in facts.checkpoints.items()) or "none")
    )
    for attempt in metadata.attempts:
        began = attempt.started_at.strftime("%Y-%m-%d %H:%M:%S UTC")
        rows.append((f"attempt {attempt.number}", f"{began}, from step {attempt.from_steps:,}"))
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style="cyan")
    grid.add_column(overflow="fold")
    for label, text in rows:
        grid.add_row(label, Text(text))
    say(grid)
    if facts.evaluations:
        say()
        say(_evaluations(facts.evaluations))
    _print_curve(facts)


def _as_dict(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _settings(values: dict[str, Any]) -> str:
    return ", ".join(f"{key}={'none' if value is None else value}" for key, value in values.items())


def _evaluations(evaluations: list[EvaluationSummary]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="cyan", padding=(0, 2, 0, 0))
    for name in ("evaluated at", "mean reward", "std", "mean length", "episodes"):
        table.add_column(name, justify="right", no_wrap=True)
    for found in evaluations[-_EVALUATIONS:]:
        table.add_row(
            number(found.total_steps),
            number(found.mean_reward),
            number(found.std_reward),
            number(found.mean_length),
            number(found.n_episodes),
        )
    return table


def _print_curve(facts: Facts) -> None:
    rewards, steps = facts.episodes["total_reward"], facts.episodes["total_steps"]
    if len(rewards) < 2:
        return
    console = output()
    width = min(console.width, 80)
    lines = chart(
        steps.tolist(), rewards.tolist(), width, _CHART_LINES, ascii_only=console.options.ascii_only
    )
    say()
    say(Text("episode reward over steps", style="cyan"))
    say(Text("\n".join(lines), style="green", no_wrap=True))
