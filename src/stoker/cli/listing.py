"""The runs of a directory as ``stoker ls`` selects, orders and groups them. Imports no torch."""

from __future__ import annotations

import contextlib
import difflib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast

import msgspec

from stoker.errors import ConfigError, RunDirectoryError
from stoker.runs import RunMetadata, TrainingRun
from stoker.runs.configs import Scalar, flat_settings
from stoker.runs.layout import CONFIG, natural_key
from stoker.runs.metadata import read_json_if_there
from stoker.runs.status import RunStatus, status_of
from stoker.runs.sweeps import read_sweep
from stoker.stats.intervals import Interval, mean_interval

SortKey: TypeAlias = Literal["started", "best", "steps", "updated", "name", "status"]

_STATUSES: Final = ("live", "stalled", "crashed", "stopped", "done", "ended", "broken")
"""The order in which a list sorted by status has them."""


class Listed(msgspec.Struct, frozen=True):
    """A run in a list.

    Attributes:
        directory: the run's.
        metadata: None: it is broken.
        status: what became of it.
        config: the content of its ``config.json``; None: it has none.
    """

    directory: Path
    metadata: RunMetadata | None
    status: RunStatus
    config: Any = None

    @property
    def place(self) -> tuple[str, str, str]:
        """Its name, version and run id; of a broken run as its path says."""
        if self.metadata is None:
            name, version, run_id = (*("", "", ""), *self.directory.parts)[-3:]
            return name, version, run_id
        return self.metadata.name, self.metadata.version, self.metadata.run_id

    @property
    def seed(self) -> int | None:
        """The seed that its config names, if there is one."""
        config: Any = self.config
        seed = cast("dict[str, Any]", config).get("seed") if isinstance(config, dict) else None
        return seed if isinstance(seed, int) else None

    @property
    def values(self) -> dict[str, Scalar]:
        """What conditions are about: the settings, and what ``stoker ls`` shows."""
        name, version, run_id = self.place
        found = flat_settings(self.config)
        found |= {"name": name, "version": version, "run": run_id, "status": self.status.name}
        if self.metadata is not None:
            found |= {
                "steps": self.metadata.total_steps,
                "episodes": self.metadata.total_episodes,
                "best": self.metadata.best_value,
                "best_step": self.metadata.best_step,
                "attempts": len(self.metadata.attempts),
            }
        return found


def listed(runs: Iterable[TrainingRun | RunDirectoryError]) -> list[Listed]:
    """Look at runs that ``list_runs`` has found. Blocks."""
    return [_listed(run) for run in runs]


def _listed(run: TrainingRun | RunDirectoryError) -> Listed:
    if not isinstance(run, TrainingRun):
        return Listed(Path(run.path).parent, None, RunStatus("broken", str(run)))
    try:
        config = read_json_if_there(run.directory / CONFIG, Any)
    except RunDirectoryError:  # what lists runs does not judge them
        config = None
    return Listed(run.directory, run.metadata, status_of(run, config), config)


# Selecting ---------------------------------------------------------------------------------------------

_CONDITION = re.compile(r"\s*([\w.-]+)\s*(>=|<=|!=|==?|>|<)\s*(.*?)\s*", re.DOTALL)
_ORDERS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": lambda value, limit: value >= limit,
    "<=": lambda value, limit: value <= limit,
    ">": lambda value, limit: value > limit,
    "<": lambda value, limit: value < limit,
}


class Condition(msgspec.Struct, frozen=True):
    """A condition on a value of a run, such as ``agent=ppo``, ``env=ALE/*`` or ``best>=400``.

    Attributes:
        text: as it was given.
        key: what it is about.
        relation: ``=``, ``!=``, or one of ``_ORDERS``.
        wanted: the text behind it.
    """

    text: str
    key: str
    relation: str
    wanted: str

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read a condition.

        Raises:
            ConfigError: It has no relation or no key, or is to be compared with what is no number.
        """
        found = _CONDITION.fullmatch(text)
        if found is None:
            raise ConfigError(
                f"--filter {text}: write KEY=VALUE or KEY>=NUMBER, as in agent=ppo or 'best>=400'"
            )
        key, relation, wanted = found[1].replace("-", "_"), found[2].replace("==", "="), found[3]
        if relation in _ORDERS and _number(wanted) is None:
            raise ConfigError(f"--filter {text}: {wanted!r} is no number")
        return cls(text, key, relation, wanted)

    def key_in(self, runs: Sequence[Mapping[str, Scalar]]) -> str:
        """The key in full: ``learning_rate`` stands for ``agent_settings.learning_rate``.

        Raises:
            ConfigError: No run has it, or it stands for several; the message names similar ones.
        """
        keys = dict.fromkeys(key for values in runs for key in values)
        if self.key in keys or not keys:
            return self.key
        meant = [key for key in keys if key.endswith(f".{self.key}")]
        if len(meant) == 1:
            return meant[0]
        if not meant:
            last = {key: key.rpartition(".")[2] for key in keys}
            near = difflib.get_close_matches(self.key, {*keys, *last.values()}, n=3)
            meant = [key for key in keys if key in near or last[key] in near]
        hint = "`stoker show RUN` lists the settings of a run"
        if meant:
            hint = f"did you mean {' or '.join(meant[:3])}?"
        raise ConfigError(f"--filter {self.text}: no run has {self.key!r}; {hint}")

    def holds(self, value: Scalar) -> bool:
        """Whether it holds for a value; ``=`` takes ``*`` and ``?`` in a text for any letters."""
        if self.relation == "=":
            return self._equals(value)
        if self.relation == "!=":
            return not self._equals(value)
        limit = _number(self.wanted)
        if limit is None or isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return _ORDERS[self.relation](value, limit)

    def _equals(self, value: Scalar) -> bool:
        if value is None or isinstance(value, bool):
            return self.wanted.lower() == str(value).lower()
        if isinstance(value, str):
            return fnmatchcase(value, self.wanted)
        return _number(self.wanted) == value


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else number


def selected(runs: Sequence[Listed], conditions: Sequence[Condition]) -> list[Listed]:
    """The runs for which all conditions hold; one that lacks the value of a condition is left out.

    Raises:
        ConfigError: No run has the value.
    """
    if not conditions:
        return list(runs)
    values = [run.values for run in runs]
    keys = [condition.key_in(values) for condition in conditions]
    return [
        run
        for run, known in zip(runs, values, strict=True)
        if all(key in known and each.holds(known[key]) for key, each in zip(keys, conditions, strict=True))
    ]


# Ordering and grouping ---------------------------------------------------------------------------------


class RunGroup(msgspec.Struct, frozen=True):
    """The runs of one name and version, such as the seeds of a sweep.

    Attributes:
        name, version: what they have in common.
        runs: at least one.
        n_seeds: how many seeds the sweep has that made them; None: no sweep did.
    """

    name: str
    version: str
    runs: tuple[Listed, ...]
    n_seeds: int | None = None

    @property
    def known(self) -> list[RunMetadata]:
        """The metadata of those that can be read."""
        return [run.metadata for run in self.runs if run.metadata is not None]

    @property
    def bests(self) -> list[float]:
        """The best values of those that have one."""
        return [value for value in (run.best_value for run in self.known) if value is not None]

    @property
    def best(self) -> float | None:
        """The mean of their best values."""
        return sum(self.bests) / len(self.bests) if self.bests else None

    @property
    def interval(self) -> Interval | None:
        """Student's 95 % interval of that mean; None: of one run there is none."""
        return mean_interval(self.bests) if len(self.bests) > 1 else None

    @property
    def statuses(self) -> dict[str, int]:
        """How many are live, done and so on."""
        counts = Counter(run.status.name for run in self.runs)
        return {name: counts[name] for name in _STATUSES if counts[name]}


def grouped(runs: Sequence[Listed]) -> list[RunGroup]:
    """The runs by name and version, in the order in which these first occur. Blocks."""
    members: dict[tuple[str, str], list[Listed]] = {}
    for run in runs:
        members.setdefault(run.place[:2], []).append(run)
    return [RunGroup(*place, tuple(group), _n_seeds(group)) for place, group in members.items()]


def _n_seeds(runs: Sequence[Listed]) -> int | None:
    with contextlib.suppress(RunDirectoryError):  # a list of runs needs no sweep
        sweep = read_sweep(runs[0].directory.parent)
        return None if sweep is None else len(sweep.seeds)
    return None


def ordered(groups: Sequence[RunGroup], key: SortKey) -> list[RunGroup]:
    """Groups of one or more runs in that order: the best, longest, newest or most active first.

    Groups without the value come last; of equal ones the newest first.
    """
    return sorted(sorted(groups, key=_KEYS["started"]), key=_KEYS[key])


def _descending(values: Iterable[float]) -> float:
    return -max(values, default=-math.inf)


_KEYS: Mapping[SortKey, Callable[[RunGroup], Any]] = {
    "started": lambda group: _descending(run.started_at.timestamp() for run in group.known),
    "updated": lambda group: _descending(run.last_updated.timestamp() for run in group.known),
    "steps": lambda group: _descending(run.total_steps for run in group.known),
    "best": lambda group: math.inf if group.best is None else -group.best,
    "name": lambda group: tuple(map(natural_key, group.runs[0].place)),
    "status": lambda group: min(_STATUSES.index(run.status.name) for run in group.runs),
}
