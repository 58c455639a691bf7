"""The arrays of one transition and of a batch: how they nest, their names, and how values become them.

The fields are those of a ``Batch``. Observations may be nested as Gymnasium's Dict and Tuple spaces are; each
of their arrays is then a field of a row, a column of a saved state, and a tensor of a batch. One array and
one int64 action, which DQN takes, is the plain case: its transitions are stored without a check.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import numpy as np
import torch

from stoker import space_kinds as spaces
from stoker.errors import ConfigError, InvalidExperience
from stoker.replay.layout import Array, ArraySpec, RowLayout
from stoker.types import Experience

if TYPE_CHECKING:
    import gymnasium

Nest: TypeAlias = "ArraySpec | Mapping[str, Nest] | tuple[Nest, ...]"
"""One value: an array, or a dict or tuple of nests. Its leaves have an order, and names with their path."""

_Error: TypeAlias = type[ConfigError] | type[InvalidExperience]

_INDEX = ArraySpec(torch.int64)
_NUMBER = ArraySpec(torch.float32)

_ROW_ORDER = ("actions", "rewards", "bootstrap_masks", "observations", "next_observations")
"""A row begins with the numbers: in the plain case they are written in one go."""

_OF_ONE = ("observation", "action", "reward", "next_observation", "bootstrap_mask")
"""The fields of a ``Batch`` as one transition has them."""

_KINDS = "Box, Discrete, MultiBinary and MultiDiscrete"


class Batch(NamedTuple):
    """B transitions, one tensor per column, all on one device; row i of each belongs to transition i.

    Attributes:
        observations: dtype of the replay ``[B, *observation_shape]``; of a nested observation space a dict
            or tuple of such tensors, nested as the space is.
        actions: int64 ``[B]``, as the environment took them; of an action space other than Discrete
            ``[B, *action_shape]`` of its dtype.
        rewards: float32 ``[B]``.
        next_observations: as ``observations``.
        bootstrap_masks: float32 ``[B]``: 0.0 where the episode terminated, else 1.0 (truncated ones too);
            for a transition over k steps ``gamma**(k-1)``.
    """

    observations: Any
    actions: torch.Tensor
    rewards: torch.Tensor
    next_observations: Any
    bootstrap_masks: torch.Tensor


class PrioritizedBatch(NamedTuple):
    """A ``Batch`` that was drawn by priority: its columns, and two more.

    Attributes:
        indices: int64 ``[B]``, for ``PrioritizedReplay.update_priorities``: how many transitions had been
            added before each. An index names one transition for ever, not a row of the ring.
        weights: float32 ``[B]``, in (0, 1]: the factor of each one's loss, which corrects the bias of drawing
            some more often.
    """

    observations: Any
    actions: torch.Tensor
    rewards: torch.Tensor
    next_observations: Any
    bootstrap_masks: torch.Tensor
    indices: torch.Tensor
    weights: torch.Tensor

    @property
    def transitions(self) -> Batch:
        """The columns of a ``Batch``: the same tensors."""
        return Batch(*self[:5])


class TransitionSpec:
    """The arrays of a transition: their nesting, names, dtypes and shapes.

    Args:
        observation: one observation: an ``ArraySpec``, or a dict or tuple of them, however nested.
        action: one action; an int64 when left out.

    Attributes:
        fields: all arrays by name, in the order of a ``Batch``: ``observations['camera']``, ..., ``actions``.
        layout: their places in a row.
        is_plain: whether an observation is one array and an action one int64.

    Raises:
        ConfigError: Numpy lacks a dtype.
    """

    def __init__(self, observation: Nest, action: ArraySpec = _INDEX) -> None:
        self._nests: list[Nest] = [observation, action, _NUMBER, observation, _NUMBER]
        named = {field: leaves(nest, field) for field, nest in zip(Batch._fields, self._nests, strict=True)}
        self.fields: dict[str, ArraySpec] = dict(leaf for field in Batch._fields for leaf in named[field])
        self.layout: RowLayout = RowLayout(
            self.fields, [name for field in _ROW_ORDER for name, _ in named[field]]
        )
        self.is_plain: bool = isinstance(observation, ArraySpec) and action == _INDEX
        self._leaves = [
            (f"{name}{path}", f"{field}{path}", self.layout.getters[f"{field}{path}"][0].base, spec.shape)
            for field, name, nest in zip(Batch._fields, _OF_ONE, self._nests, strict=True)
            for path, spec in leaves(nest, "")
        ]

    @classmethod
    def of_spaces(
        cls, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]
    ) -> TransitionSpec:
        """The transitions of an environment, in its spaces' dtypes, shapes and nesting.

        A Discrete value is an int64, whichever integer its space names: what tensors are indexed with.

        Args:
            observation_space: a Box, Discrete, MultiBinary or MultiDiscrete, or a Dict or Tuple of these.
            action_space: one of the first four.

        Raises:
            ConfigError: A space is of another kind, or of a dtype that torch lacks; the message names the
                place.
        """
        action = _array(action_space, f"actions of {action_space}", _KINDS)
        return cls(_nest(observation_space, "observation_space"), action)

    def batch(self, columns: Sequence[torch.Tensor]) -> Batch:
        """Columns in the order of ``fields``, nested as the observations are."""
        if self.is_plain:
            return Batch(*columns)
        values = iter(columns)
        return Batch(*(unflatten(nest, values) for nest in self._nests))

    def values(self, experience: Experience, bootstrap_mask: float) -> Sequence[Any]:
        """A transition's values in the order of ``fields``; the plain ones are not checked.

        Raises:
            InvalidExperience: A key is missing or unknown, or a value is of another shape or of a dtype that
                would lose its kind; the message names the place.
        """
        given = (
            experience.observation,
            experience.action,
            experience.reward,
            experience.next_observation,
            bootstrap_mask,
        )
        if self.is_plain:
            return given
        values = self._flat(_OF_ONE, given, InvalidExperience)
        return [
            value
            if type(value) is np.ndarray and value.shape == shape and value.dtype == dtype
            else _fitted(value, name, dtype, shape, InvalidExperience)
            for value, (name, _, dtype, shape) in zip(values, self._leaves, strict=True)
        ]

    def columns(self, given: Sequence[Any]) -> Sequence[Array]:
        """The five fields of a ``Batch`` as arrays ``[B, *shape]`` in the order of ``fields``.

        Args:
            given: each as an array, or a tensor on any device, nested as the field is.

        Raises:
            ConfigError: A column is of another nesting, shape or length, or of a dtype that would lose its
                kind.
        """
        values = self._flat(Batch._fields, given, ConfigError)
        try:
            n_rows = len(values[0])
        except TypeError as error:
            raise ConfigError(f"{self._leaves[0][1]} is one value: give one per transition") from error
        return [
            _fitted(value, name, dtype, (n_rows, *shape), ConfigError)
            for value, (_, name, dtype, shape) in zip(values, self._leaves, strict=True)
        ]

    def _flat(self, names: Sequence[str], given: Sequence[Any], error: _Error) -> list[Any]:
        return [
            leaf
            for name, nest, value in zip(names, self._nests, given, strict=True)
            for leaf in flatten(nest, value, name, error)
        ]


def leaves(nest: Nest, name: str) -> list[tuple[str, ArraySpec]]:
    """Its arrays in order, each under a name that begins with ``name`` and ends with its path."""
    if isinstance(nest, ArraySpec):
        return [(name, nest)]
    return [leaf for key, inner in _items(nest) for leaf in leaves(inner, f"{name}[{key!r}]")]


def flatten(nest: Nest, value: Any, name: str, error: _Error) -> list[Any]:
    """The parts of a value in the order of ``leaves``; the parts are not checked.

    Args:
        nest: how the value should be nested.
        value: dicts (any mapping) and tuples (lists too).
        name: what the value is called in a message.
        error: raised when it is nested otherwise; the message names the place and the keys.
    """
    if isinstance(nest, ArraySpec):
        return [value]
    if isinstance(nest, tuple):
        given = cast("Sequence[Any]", value)
        if not isinstance(value, tuple | list) or len(given) != len(nest):
            raise error(f"{name} is {_kind(value)}: give a tuple of {len(nest)}")
    else:
        if not isinstance(value, Mapping):
            raise error(f"{name} is {_kind(value)}: give a dict with the keys {_listed(nest)}")
        mapping = cast("Mapping[Any, Any]", value)
        if mapping.keys() != nest.keys():
            if missing := [key for key in nest if key not in mapping]:
                raise error(f"{name} lacks {_listed(missing)}: give a dict with the keys {_listed(nest)}")
            unknown = [key for key in mapping if key not in nest]
            raise error(f"{name} has {_listed(unknown)}, but only the keys {_listed(nest)} are taken")
    found: list[Any] = []
    items: Any = enumerate(nest) if isinstance(nest, tuple) else nest.items()
    for key, inner in items:
        if isinstance(inner, ArraySpec):
            found.append(value[key])
        else:
            found += flatten(inner, value[key], f"{name}[{key!r}]", error)
    return found


def unflatten(nest: Nest, values: Iterator[Any]) -> Any:
    """The nest with each leaf replaced by the next of the values: new dicts and tuples."""
    if isinstance(nest, ArraySpec):
        return next(values)
    if isinstance(nest, tuple):
        return tuple(unflatten(inner, values) for inner in nest)
    return {key: unflatten(inner, values) for key, inner in nest.items()}


def _fitted(value: Any, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], error: _Error) -> Array:
    """A value as an array of that dtype; whole numbers may come in any integer dtype that holds them."""
    problem, cause = "", None
    try:
        array = np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value)
        if array.shape == shape and array.dtype == dtype:
            return array
        if array.shape != shape:
            problem = f"has shape {list(array.shape)}"
        elif array.dtype.kind in "iu" and dtype.kind in "iu":
            limits = np.iinfo(dtype)
            if array.size and not (limits.min <= array.min() and array.max() <= limits.max):
                problem = f"has values from {array.min()} to {array.max()}"
        elif not np.can_cast(array.dtype, dtype, "same_kind"):
            problem = f"is {array.dtype.name} and would not stay what it is"
        if not problem:
            return array.astype(dtype)
    except (TypeError, ValueError, RuntimeError) as unreadable:
        problem, cause = f"cannot be read as an array ({unreadable})", unreadable
    raise error(f"{name} {problem}: give {dtype.name} {list(shape)}") from cause


def _items(nest: Mapping[str, Nest] | tuple[Nest, ...]) -> Sequence[tuple[Any, Nest]]:
    return list(enumerate(nest)) if isinstance(nest, tuple) else list(nest.items())


def _kind(value: Any) -> str:
    kind = f"a {type(value).__name__}"
    return f"{kind} of {len(cast('Sequence[Any]', value))}" if isinstance(value, tuple | list) else kind


def _listed(keys: Any) -> str:
    return ", ".join(reprlib.repr(key) for key in keys) or "(none)"


def _nest(space: Any, name: str) -> Nest:
    if isinstance(space, spaces.Dict):
        return {key: _nest(value, f"{name}[{key!r}]") for key, value in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_nest(value, f"{name}[{i}]") for i, value in enumerate(space.spaces))
    return _array(space, f"{name}, a {space}", f"{_KINDS}, and Dict and Tuple of these")


def _array(space: Any, what: str, taken: str) -> ArraySpec:
    """The one array that a value of the space is."""
    if isinstance(space, spaces.Discrete):
        return _INDEX
    if not isinstance(space, spaces.Box | spaces.MultiBinary | spaces.MultiDiscrete):
        raise ConfigError(f"a replay cannot hold {what}: it takes {taken}")
    name, shape = space.dtype.name, space.shape
    try:
        held = torch.as_tensor(np.empty(0, name)).dtype  # by its name: in this machine's byte order
    except TypeError as error:
        raise ConfigError(
            f"a replay cannot hold values of {space}: torch has no {name}; use float32 or another dtype that "
            "it has"
        ) from error
    return ArraySpec(held, tuple(int(length) for length in shape))
