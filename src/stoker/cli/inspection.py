"""``stoker show``: look at a run without changing it. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
from anyio import to_thread
from rich.filesize import decimal as size
from rich.table import Table
from rich.text import Text

from stoker.cli.parsing import RunCommand
from stoker.cli.printing import ago, columns, facts_table, from_here, output, say, say_json
from stoker.cli.stored import config_of, open_run, policies_at
from stoker.errors import RunBroken
from stoker.multi.standings import Standings, standings_in
from stoker.runs import Columns
from stoker.runs.event_rows import EVENTS, EventRow
from stoker.runs.events import WorkersChanged
from stoker.runs.following import EventList
from stoker.runs.history import read_table
from stoker.runs.layout import natural_key
from stoker.runs.outcomes import killed_attempts, workers_by_node
from stoker.runs.rows import EvalEpisodeRow, EvaluationSummary, TrainEpisodeRow, evaluations_of
from stoker.runs.status import status_of
from stoker.settings import Natural
from stoker.trainer.views.text import chart, number
from stoker.writer import files

_CHART_LINES = 8
_EVALUATIONS = 8
"""How many of the last evaluations ``show`` lists."""
_KEY_SETTINGS = ("env", "offline", "agent", "num_envs", "total_timesteps", "seed", "device")


def _key_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are there; on a data set nobody plays in environments."""
    left_out = ("num_envs",) if settings.get("offline") else ("offline",)
    return {key: settings[key] for key in _KEY_SETTINGS if key in settings and key not in left_out}


def _table(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


class Show(RunCommand, frozen=True, kw_only=True):
    """Show a run: counters, checkpoints, evaluations, its curve, and what happened to it last.

    Of a training of several policies, the run of each.
    """

    events: Natural = 10
    """How many of the last events to show."""

    async def __call__(self) -> int:
        for index, path in enumerate(await to_thread.run_sync(policies_at, self.run)):
            if index and not self.json:
                say()
            await self._show(path)
        return 0

    async def _show(self, path: str) -> None:
        run = await open_run(path)
        config = await config_of(run)
        status = status_of(run, config)
        sizes = files.files_in(run.checkpoints_directory)
        names = [name for name in sorted(sizes, key=natural_key) if not name.startswith(".")]
        checkpoints = {name: sizes[name] for name in names}
        found = await to_thread.run_sync(_found_in, run.directory)
        episodes, evaluations, events = found.episodes, evaluations_of(found.evaluations), found.events
        last_events = events[max(0, len(events) - self.events) :]
        workers = workers_by_node(events)
        endings = _endings(events, is_live=status.name in ("live", "stalled"))
        rewards = episodes["total_reward"][-100:]
        last_mean = float(rewards.mean()) if len(rewards) else None
        if self.json:
            read = {"last_100_mean_reward": last_mean, "checkpoints": checkpoints, "evaluations": evaluations}
            read |= {} if found.standings is None else {"self_play": found.standings}
            read |= {"workers": workers} if workers else {}
            read |= {"endings": endings, "events": last_events, "problems": found.problems}
            fields = msgspec.structs.asdict(run.metadata)
            says = {"status": status.name, "reason": status.reason}
            say_json({"run": str(run.directory), **says, **fields, **read, "config": config})
            return
        metadata, settings = run.metadata, _table(config)
        best_at = "" if metadata.best_step is None else f" @ step {metadata.best_step:,}"
        rows = {
            "run": from_here(run.directory),
            "status": str(status),
            "updated": ago(metadata.last_updated, datetime.now(UTC)),
            "steps": number(metadata.total_steps),
            "episodes": number(metadata.total_episodes),
            "last 100 episodes": number(last_mean),
            "best evaluation": f"{number(metadata.best_value)}{best_at}",
            "config": _listed(_key_settings(settings)),
            "agent settings": _listed(_table(settings.get("agent_settings"))),
            "checkpoints": ", ".join(f"{name} ({size(n)})" for name, n in checkpoints.items()) or "none",
        }
        for attempt in metadata.attempts:
            began = f"{attempt.started_at:%Y-%m-%d %H:%M:%S} UTC"
            ended = "" if attempt.number not in endings else f": {endings[attempt.number]}"
            rows[f"attempt {attempt.number}"] = f"{began}, from step {attempt.from_steps:,}{ended}"
        say(facts_table(rows))
        if evaluations:
            say()
            say(_evaluations(evaluations))
        if found.standings is not None:
            say()
            say(_standings(found.standings))
        if workers:
            say()
            say(_workers(workers))
        _say_curve(episodes)
        _say_events(last_events)
        for problem in found.problems:
            say(Text(f"\n{problem}", style="bold red"))


def _listed(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key}={'none' if value is None else value}" for key, value in settings.items())


def _evaluations(evaluations: list[EvaluationSummary]) -> Table:
    names = ("evaluated at", "mean reward", "std", "mean length", "episodes")
    table = columns(names, numbers=range(5))
    for found in evaluations[-_EVALUATIONS:]:
        shown = (found.total_steps, found.mean_reward, found.std_reward, found.mean_length, found.n_episodes)
        table.add_row(*map(number, shown))
    return table


def _standings(standings: Standings) -> Table:
    names = ("frozen at", "rating", "wins", "draws", "losses", "score lately")
    table = columns(names, numbers=range(6))
    for one in standings.opponents:
        shown = (one.step, round(one.rating), one.wins, one.draws, one.losses)
        score = f"{sum(one.recent) / len(one.recent):.2f}" if one.recent else "-"
        table.add_row(*map(number, shown), score)
    table.add_row("now", number(round(standings.rating)), *[""] * 4)
    return table


def _workers(workers: list[WorkersChanged]) -> Table:
    """The workers of a cluster, as their last change on each node left them."""
    names = (
        "workers on",
        "playing",
        "starting",
        "waiting",
        "ended",
        "lost steps",
        "late batches",
        "replaced",
    )
    table = columns(names, numbers=range(1, 8))
    for one in workers:
        states = (one.playing, one.starting, one.waiting, one.ended)
        shown = (*states, one.lost_steps, one.late_batches, one.restarts)
        table.add_row(one.node or "no place yet", *map(number, shown))
    return table


def _say_curve(episodes: Columns) -> None:
    rewards, steps = episodes["total_reward"], episodes["total_steps"]
    if len(rewards) < 2:
        return
    console = output()
    size_of_chart = min(console.width, 80), _CHART_LINES
    lines = chart(steps, rewards, *size_of_chart, ascii_only=console.options.ascii_only)
    say()
    say(Text("episode reward over steps", style="cyan"))
    say(Text("\n".join(lines), style="green", no_wrap=True))


class _Found(NamedTuple):
    """What is in the files of a run, the rows in them that are damaged, and how self-play stands."""

    episodes: Columns
    evaluations: Columns
    events: list[EventRow]
    problems: list[str]
    standings: Standings | None


def _found_in(directory: Path) -> _Found:
    read = partial(read_table, directory, is_strict=False)
    train, counted = read(TrainEpisodeRow, fields=("total_reward",))
    evaluation, evaluated = read(EvalEpisodeRow, fields=("total_reward", "length"))
    events = EventList(directory / EVENTS)
    events.refresh()
    read_files = (train, evaluation, events)
    problems = [f"{one.path.name}: {problem}" for one in read_files for problem in one.problems]
    standings = None
    try:
        standings = standings_in(directory)
    except RunBroken as error:
        problems.append(str(error))
    return _Found(train.columns(counted), evaluation.columns(evaluated), events.rows, problems, standings)


def _endings(events: list[EventRow], *, is_live: bool) -> dict[int, str]:
    """How the attempts ended, by number; ``running`` for the one of a live run."""
    endings = {row.attempt: str(row.details["how"]) for row in events if row.kind == "attempt_ended"}
    last = max((row.attempt for row in events), default=0)
    for row in killed_attempts(events):
        endings[row.attempt] = "running" if is_live and row.attempt == last else "killed"
    return endings


def _say_events(events: list[EventRow]) -> None:
    if not events:
        return
    say()
    say(Text("last events", style="cyan"))
    table = columns(("", "", "", ""), numbers=(1, 2), folds=3)
    for row in events:
        at = f"{row.time.astimezone():%Y-%m-%d %H:%M:%S}"
        table.add_row(at, f"attempt {row.attempt}", f"step {row.total_steps:,}", Text(row.event.sentence))
    say(table)
