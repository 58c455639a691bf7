"""The messages of Godot RL Agents that a game sends, and its named values as those of one space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, cast

import msgspec
import numpy as np
from msgspec import Meta

from stoker.plain import shown
from stoker.protocol import ProtocolError, Spaces
from stoker.protocol.messages import Number
from stoker.protocol.spaces import BoxSpace, DictSpace, DiscreteSpace, MultiDiscreteSpace, Space

_MOST_AGENTS = 512  # two records of each fit into a message
_MOST_EXTRAS = 64
_CUT_OFF = "TimeLimit.truncated"


class _ObservationPart(msgspec.Struct):
    space: Literal["box", "discrete"]
    size: int | list[int]
    low: float | None = None
    high: float | None = None


class _ActionPart(msgspec.Struct):
    action_type: Literal["discrete", "continuous"]
    size: Annotated[int, Meta(ge=1, le=65536)]


_Observations: TypeAlias = dict[str, _ObservationPart]
_Actions: TypeAlias = dict[str, _ActionPart]


class GameInfo(msgspec.Struct):
    """What a game says of itself; older plugins give the spaces of all agents as one."""

    type: Literal["env_info"]
    n_agents: Annotated[int, Meta(ge=1, le=_MOST_AGENTS)]
    observation_space: list[_Observations] | _Observations
    action_space: list[_Actions] | _Actions
    agent_policy_names: list[str] = []


class Observed(msgspec.Struct):
    """What the agents of a game saw, one value for each of them."""

    type: Literal["reset", "step"]
    obs: list[dict[str, Any]]
    reward: list[Number] = []
    done: list[bool] = []
    info: list[dict[str, Any]] = []

    def check(self, n_agents: int) -> None:
        """Refuse a message that leaves an agent out."""
        for name in ("obs",) if self.type == "reset" else ("obs", "reward", "done"):
            if len(getattr(self, name)) != n_agents:
                raise ProtocolError("invalid", f"give one for each of {n_agents} agents", path=name)

    def ending(self, agent: int) -> tuple[bool, Any, dict[str, float]]:
        """Of an episode that is done: whether it was cut off, its last observation or None, and numbers."""
        info = self.info[agent] if agent < len(self.info) else {}
        numbers = {
            key: float(value)
            for key, value in info.items()
            if isinstance(value, int | float) and len(key) <= _MOST_EXTRAS and key != _CUT_OFF
        }
        extras = dict([*numbers.items()][:_MOST_EXTRAS])
        return bool(info.get(_CUT_OFF)), info.get("terminal_observation") or None, extras


class GameSpaces:
    """The spaces of a game, whose values it names: one part is the space itself, several are put together.

    Args:
        observation: the parts of an observation.
        action: the parts of an action.

    Raises:
        ProtocolError: They cannot be one space.
    """

    def __init__(self, observation: Mapping[str, Any], action: Mapping[str, Any]) -> None:
        self._shapes = {name: part.size for name, part in observation.items() if _is_image(name, part)}
        parts = {name: _part_of(name, part) for name, part in observation.items()}
        self._only = next(iter(parts)) if len(parts) == 1 else None
        self._actions = action
        seen: Space = DictSpace(parts) if self._only is None else parts[self._only]
        self.spaces: Spaces = Spaces(seen, _action_space(action))

    def observed(self, values: Any) -> Any:
        """An observation of the space; images come as digits."""
        if not isinstance(values, dict):
            raise ProtocolError("invalid", f"{shown(values)} is no object of named values", path="obs")
        given = cast("dict[str, Any]", values)
        found = {name: self._image(name, value) for name, value in given.items()}
        return found.get(self._only) if self._only is not None else found

    def _image(self, name: str, value: Any) -> Any:
        if name not in self._shapes:
            return value
        try:
            return np.frombuffer(bytes.fromhex(value), np.uint8).reshape(self._shapes[name])
        except (TypeError, ValueError):
            detail = f"{shown(value)} is no image of {self._shapes[name]} bytes in hexadecimal digits"
            raise ProtocolError("invalid", detail, path=f"obs.{name}") from None

    def named(self, action: Any) -> dict[str, Any]:
        """An action by the names of its parts, as the game wants it."""
        found: dict[str, Any] = {}
        numbers, start = [action] if isinstance(action, int) else action, 0
        for name, part in self._actions.items():
            is_one = part.action_type == "discrete"
            end = start + (1 if is_one else part.size)
            found[name], start = numbers[start] if is_one else numbers[start:end], end
        return found


def _is_image(name: str, part: _ObservationPart) -> bool:
    return part.space == "box" and "2d" in name


def _part_of(name: str, part: _ObservationPart) -> Space:
    shape = [part.size] if isinstance(part.size, int) else part.size
    if part.space == "discrete":
        if len(shape) != 1:
            raise ProtocolError("invalid", f"{shape}: give the number of values", path=f"{name}.size")
        return DiscreteSpace(shape[0])
    if _is_image(name, part):
        return BoxSpace(shape, "uint8", 0, 255)
    return BoxSpace(shape, "float32", part.low, part.high)


def _action_space(action: Mapping[str, _ActionPart]) -> Space:
    sizes = [part.size for part in action.values()]
    match [*{part.action_type for part in action.values()}]:
        case ["discrete"]:
            return DiscreteSpace(sizes[0]) if len(sizes) == 1 else MultiDiscreteSpace(sizes)
        case ["continuous"]:
            return BoxSpace([sum(sizes)], "float32", -1, 1)
        case _:
            detail = f"{', '.join(action) or 'no action'}: give discrete actions or continuous ones, not both"
            raise ProtocolError("invalid", detail, path="action_space")


def spaces_of(info: GameInfo) -> GameSpaces:
    """The spaces that all agents of a game share."""
    if len(names := sorted({*info.agent_policy_names})) > 1:
        detail = f"they name the policies {', '.join(names)}: one is trained here, so give all the same name"
        raise ProtocolError("invalid", detail, path="agent_policy_names")
    shared: list[Any] = []
    for path in ("observation_space", "action_space"):
        given: Any = getattr(info, path)
        of_agents = cast("list[Any]", given if isinstance(given, list) else [given])
        if not of_agents or of_agents.count(of_agents[0]) < len(of_agents):
            raise ProtocolError("invalid", "the agents differ: one policy cannot play them all", path=path)
        shared.append(of_agents[0])
    return GameSpaces(*shared)
