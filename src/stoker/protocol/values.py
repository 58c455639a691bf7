"""Values of spaces as messages have them, and as agents take them: observations, actions and masks.

A value arrives as nested lists, as ``{"b64", "dtype", "shape"}``, as the extension type 1 of MessagePack, or
as an array. Each is checked against its space once: type, shape, finite, in the range of its dtype, and for
whole numbers one of the space's. The bounds of a Box are told to clients, but not enforced: environments
exceed them by rounding, and agents learn from such observations as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from stoker.errors import ConfigError
from stoker.plain import shown
from stoker.protocol.arrays import BoxReader, WholeReader
from stoker.protocol.paths import joined, place_of
from stoker.protocol.problems import ProtocolError

_MASK: Final = "action_mask"

Reader = Callable[[Any, str | int], Any]
"""Reads a value at a path; a number is the place of an observation's record among the steps."""


class SpaceCodec:
    """Reads and writes the observations and actions of a pair of spaces.

    Args:
        observation_space: Gymnasium's.
        action_space: Gymnasium's.

    Attributes:
        mask_length: the length of the mask of actions in each observation; None: there is none.

    Raises:
        ConfigError: A space is of a kind that clients cannot be told.
    """

    def __init__(self, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]) -> None:
        self._read_observation = _reader(observation_space)
        box: Any = observation_space
        self._read_column = BoxReader(box).column if type(box) is spaces.Box else None
        self._read_action = _reader(action_space)
        self._parts: Mapping[str, Reader] = {}
        self.mask_length: int | None = None
        inner: Any = getattr(observation_space, "spaces", None)
        if isinstance(inner, Mapping) and _MASK in inner and _has_choices(action_space):
            members = cast("Mapping[str, gymnasium.Space[Any]]", inner)
            self._parts = {key: _reader(each) for key, each in members.items()}
            mask: Any = members[_MASK]
            self._mask_dtype = np.dtype(mask.dtype)
            self._mask_shape = tuple(mask.shape)
            self.mask_length = int(np.prod(self._mask_shape))

    def observation(
        self, value: Any, path: str | int, action_mask: Any = None, *, is_last: bool = False
    ) -> Any:
        """An observation as the agent's space has it.

        Args:
            value: as a message has it; arrays, too.
            path: of the value; or the place of its record among the steps.
            action_mask: of the record. With it the value is the rest of the observation: if that is only one
                part named ``observation``, the part itself.
            is_last: whether the episode ends here: then a mask may be missing, and allows everything.

        Raises:
            ProtocolError: The value is not of the space; the path names the place.
        """
        if self.mask_length is None:
            if action_mask is None:
                return self._read_observation(value, path)
            raise _invalid(_beside(path), "observations here have no mask: leave it out")
        return self._masked(value, place_of(path), action_mask, is_last=is_last)

    def observations(self, values: Sequence[Any]) -> NDArray[Any] | None:
        """Several observations without masks as one array, at a fraction of the cost of ``observation``.

        None: that is not possible, or one is not of the space; read each by itself.
        """
        return None if self._read_column is None else self._read_column(values)

    def _masked(self, value: Any, path: str, action_mask: Any, *, is_last: bool) -> Any:
        if action_mask is None:
            if isinstance(value, Mapping) and _MASK in value:
                return self._read_observation(value, path)
            if not is_last:
                detail = f"it is missing: give 0 or 1 for each of the {self.mask_length} actions"
                raise _invalid(_beside(path), detail)
            mask = np.ones(self._mask_shape, self._mask_dtype)
        else:
            mask = self._parts[_MASK](_flat(action_mask), _beside(path))
        rest = [key for key in self._parts if key != _MASK]
        if rest == ["observation"]:
            parts = {"observation": self._parts["observation"](value, path)}
        else:
            parts = _read_members({key: self._parts[key] for key in rest}, value, path)
        return {key: mask if key == _MASK else parts[key] for key in self._parts}

    def action(self, value: Any, path: str | int) -> Any:
        """An action as the agent's space has it: an int of a Discrete space, else an array.

        Raises:
            ProtocolError: As for ``observation``.
        """
        return self._read_action(value, f"steps[{path}].action" if isinstance(path, int) else path)

    def encode_action(self, action: Any) -> Any:
        """An action in builtins, as answers have it: an int, or nested lists."""
        return action if type(action) is int else _plain(action)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return cast("Any", value).tolist()
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, tuple | list):
        return [_plain(part) for part in cast("tuple[Any, ...]", value)]
    return value


def _has_choices(space: gymnasium.Space[Any]) -> bool:
    return isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)


def _flat(mask: Any) -> Any:
    """A mask of lists, one for each number of an action, as one list."""
    if not isinstance(mask, list | tuple):
        return mask
    parts = cast("list[Any]", mask)
    if not parts or not all(isinstance(part, list | tuple) for part in parts):
        return parts
    return [each for part in parts for each in part]


def _beside(path: str | int) -> str:
    """The path of the mask beside an observation."""
    parent, dot, _ = place_of(path).rpartition(".")
    return f"{parent}{dot}{_MASK}"


def _reader(space: gymnasium.Space[Any]) -> Reader:
    match space:
        case spaces.Box():
            return BoxReader(space).read
        case spaces.Discrete():
            low = np.array(int(space.start), np.int64)
            return WholeReader(low, low + (int(space.n) - 1), np.dtype(np.int64)).read
        case spaces.MultiDiscrete():
            low, counts = np.asarray(space.start, np.int64), np.asarray(space.nvec, np.int64)
            return WholeReader(low, low + (counts - 1), np.dtype(cast("Any", space.dtype))).read
        case spaces.MultiBinary():
            zeros = np.zeros(cast("Any", space).shape, np.int64)
            return WholeReader(zeros, zeros + 1, np.dtype(np.int8)).read
        case spaces.Dict():
            inner: Mapping[str, Any] = cast("Any", space).spaces
            members = {key: _reader(each) for key, each in inner.items()}
            return lambda value, path: _read_members(members, value, path)
        case spaces.Tuple():
            parts = [_reader(each) for each in cast("Any", space).spaces]
            return lambda value, path: _read_parts(parts, value, path)
        case _:
            raise ConfigError(
                f"clients cannot send values of {space}: use a Box, Discrete, MultiDiscrete or MultiBinary, "
                "or a Dict or Tuple of these"
            )


def _read_members(readers: Mapping[str, Reader], value: Any, path: str | int) -> dict[str, Any]:
    where = place_of(path)
    if not isinstance(value, Mapping):
        raise _invalid(where, f"{shown(value)} is no object: give one with {', '.join(readers)}")
    given = cast("Mapping[Any, Any]", value)
    for key in readers:
        if key not in given:
            raise _invalid(joined(where, key), "it is missing")
    if len(given) != len(readers):
        extra = str(next(key for key in given if key not in readers))
        raise _invalid(joined(where, extra), f"there is no such part: the space has {', '.join(readers)}")
    return {key: read(given[key], joined(where, key)) for key, read in readers.items()}


def _read_parts(readers: list[Reader], value: Any, path: str | int) -> tuple[Any, ...]:
    where = place_of(path)
    if not isinstance(value, list | tuple):
        raise _invalid(where, f"{shown(value)} is no array: give one of {len(readers)} values")
    given = cast("list[Any]", value)
    if len(given) != len(readers):
        raise _invalid(where, f"it has {len(given)} values: give {len(readers)}")
    return tuple(
        read(part, f"{where}[{at}]") for at, (read, part) in enumerate(zip(readers, given, strict=True))
    )


def _invalid(path: str, detail: str) -> ProtocolError:
    return ProtocolError("invalid", detail, path=path)
