"""The settings of runs side by side: flat names, groups of runs with the same value, differences."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

import msgspec

from stoker.errors import ConfigError

Scalar: TypeAlias = bool | int | float | str | None
VERSION = "version"


def flat_settings(config: Any) -> dict[str, Scalar]:
    """The settings of a config by flat names, such as ``agent_settings.learning_rate``, in its order.

    A list, or a table without entries, is its JSON text. A config that is no table has no settings.
    """
    return dict(_leaves(config, "")) if isinstance(config, Mapping) else {}


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Scalar]]:
    if value is None or isinstance(value, (bool, int, float, str)):  # first: most are, and it is quick to see
        yield name, value
    elif isinstance(value, Mapping) and (value or not name):
        for key, part in cast("Mapping[Any, Any]", value).items():
            yield from _leaves(part, f"{name}.{key}" if name else str(key))
    else:
        yield name, msgspec.json.encode(value).decode()


class Facts(msgspec.Struct, frozen=True):
    """What decides in which group a run is.

    Attributes:
        version: its name and version, as ``CartPole-v1/v1``.
        settings: its ``flat_settings``.
    """

    version: str
    settings: Mapping[str, Scalar]


class Group(msgspec.Struct, frozen=True):
    """Runs that are averaged.

    Attributes:
        value: what they have in common, as ``agent=dqn``.
        env: their environment.
        label: the value, and the environment if other groups have the same value in another one.
        members: their places in the sequence of runs, ascending.
    """

    value: str
    env: str
    label: str
    members: tuple[int, ...]


class LeftOut(msgspec.Struct, frozen=True):
    """A curve or run that a comparison does not contain, and why.

    Attributes:
        label: the name that it was given.
        reason: a sentence.
    """

    label: str
    reason: str


def grouped(runs: Sequence[Facts], by: str) -> tuple[list[Group], list[int]]:
    """Put runs with the same value into one group, in the order in which the groups first occur.

    Rewards of different environments have no common scale, so a group never has more than one.

    Args:
        runs: the runs.
        by: ``version``, or the flat name of a setting.

    Returns:
        The groups, and the places of the runs that do not have the setting.

    Raises:
        ConfigError: No run has the setting; the message names similar ones.
    """
    if by == VERSION:
        values: list[str | None] = [run.version for run in runs]
    else:
        last = by.rpartition(".")[2]
        found = [run.settings.get(by, _ABSENT) for run in runs]
        values = [None if value is _ABSENT else f"{last}={shown(value)}" for value in found]
    if runs and all(value is None for value in values):
        names = dict.fromkeys(name for run in runs for name in run.settings)
        near = [name for name in names if name.rpartition(".")[2] == by.rpartition(".")[2]]
        near = near or difflib.get_close_matches(by, names, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"give {VERSION} or a setting of config.json"
        raise ConfigError(f"group by {by!r}: no run has such a setting; {hint}")
    envs = [str(run.settings.get("env", run.version.partition("/")[0])) for run in runs]
    places: dict[tuple[str, str], list[int]] = {}
    for place, (value, env) in enumerate(zip(values, envs, strict=True)):
        if value is not None:
            places.setdefault((value, env), []).append(place)
    is_mixed = len({value for value, _ in places}) < len(places)
    groups = [
        Group(value, env, f"{value}, {env}" if is_mixed else value, tuple(members))
        for (value, env), members in places.items()
    ]
    return groups, [place for place, value in enumerate(values) if value is None]


def shown(value: Scalar) -> str:
    """A setting as the command line spells it."""
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


class Difference(msgspec.Struct, frozen=True):
    """A setting in several runs.

    Attributes:
        key: its flat name.
        values: its value in each run; None where a run does not have it, "none" where it is null.
        differs: whether the values are not all the same.
    """

    key: str
    values: tuple[Scalar, ...]
    differs: bool


def differences(configs: Mapping[str, Any]) -> list[Difference]:
    """All settings of several runs, first those in which they differ, each kind in the configs' order.

    Args:
        configs: by run, nested or flat.
    """
    flat = [flat_settings(config) for config in configs.values()]
    found: list[Difference] = []
    for key in dict.fromkeys(key for settings in flat for key in settings):
        values = tuple(_or_none(settings[key]) if key in settings else None for settings in flat)
        kinds = {(isinstance(value, bool), value) for value in values}  # True is not 1, but 1.0 is
        found.append(Difference(key, values, differs=len(kinds) > 1))
    return sorted(found, key=lambda difference: not difference.differs)


def _or_none(value: Scalar) -> Scalar:
    return "none" if value is None else value


_ABSENT: Any = object()
