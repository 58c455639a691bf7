"""The kinds of action spaces: the check of actions, and what is chosen in the form that environments take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from stoker.agents.arrays import SHORT, ArrayValues, native_dtype
from stoker.errors import InvalidExperience
from stoker.nested import is_same
from stoker.plain import shown
from stoker.replay import ArraySpec
from stoker.space_kinds import Box, Discrete, MultiBinary, MultiDiscrete


class DiscreteActions:
    """A Discrete space: ``n`` actions, the ints from ``first`` to ``last``.

    Attributes:
        counts: the choices that there are for each number of an action: ``(n,)``.
        n_choices: their sum, which is the length of a mask.
    """

    described = "a Discrete space, of any number of actions and any start"
    spec: ArraySpec = ArraySpec(torch.int64)

    def __init__(self, space: Discrete) -> None:
        self.n: int = int(space.n)
        self.n_choices: int = self.n
        self.counts: tuple[int, ...] = (self.n,)
        self.first: int = int(space.start)
        self.last: int = self.first + self.n - 1

    @staticmethod
    def fits(space: Any) -> bool:
        """Whether the space is of this kind."""
        return isinstance(space, Discrete)

    def describe(self) -> dict[str, Any]:
        """The space in plain types."""
        return {"n": self.n, "start": self.first}

    def check(self, action: Any, name: str) -> None:
        """Raise ``InvalidExperience`` for an action that is not an integer of the space."""
        taken = f"give an int from {self.first} to {self.last}"
        # An array without axes is a number, too.
        number: Any = cast("Any", action)[()] if isinstance(action, np.ndarray) else action
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
            raise InvalidExperience(f"{name}={shown(action)} is not an integer: {taken}")
        if not self.first <= (index := int(cast("int", number))) <= self.last:
            raise InvalidExperience(f"{name}={index} is out of range: {taken}")

    def are_valid(self, rows: Any) -> bool:
        """Whether ``check`` passes each row of an array ``[B]``."""
        return (
            type(rows) is np.ndarray
            and rows.ndim == 1
            and rows.dtype.kind in "iu"
            and bool(((rows >= self.first) & (rows <= self.last)).all())
        )

    def for_env(self, chosen: NDArray[Any]) -> list[Any]:
        """Indices ``[B, 1]``, counted from 0, as the plain ints that the environment takes."""
        return self.column(chosen).tolist()

    def column(self, chosen: NDArray[Any]) -> NDArray[np.int64]:
        """The same as int64 ``[B]``."""
        return chosen[:, 0].astype(np.int64) + self.first

    def tensor(self, chosen: torch.Tensor) -> torch.Tensor:
        """As ``column``, of a tensor."""
        return chosen[:, 0] + self.first if self.first else chosen[:, 0]

    def indices(self, actions: NDArray[Any]) -> NDArray[np.int64]:
        """The way back from ``column``: int64 ``[B, 1]``."""
        return actions[:, None].astype(np.int64) - self.first

    def tensor_indices(self, actions: torch.Tensor) -> torch.Tensor:
        """As ``indices``, of a tensor."""
        return (actions - self.first if self.first else actions).unsqueeze(1)

    def is_chosen(self, action: Any, chosen: Sequence[float]) -> bool:
        """Whether the environment got ``action`` for the index ``[1]`` that was chosen."""
        return action - self.first == chosen[0]

    def are_chosen(self, actions: NDArray[Any], chosen: NDArray[Any]) -> bool:
        """Whether that is so for each of the actions ``[B]`` and indices ``[B, 1]``."""
        return bool((actions - self.first == chosen[:, 0]).all())


class MultiDiscreteActions(ArrayValues):
    """A MultiDiscrete space, or a MultiBinary one, whose numbers are 0 or 1.

    What is chosen is an index for each number, which counts from 0.

    Attributes:
        counts: the choices that there are for each number, flat.
        n_choices: their sum, which is the length of a mask.
    """

    described = "a MultiDiscrete or a MultiBinary space of at least one number"
    first: int = 1
    last: int = 0  # no int is an action

    def __init__(self, space: MultiDiscrete | MultiBinary) -> None:
        super().__init__(space, native_dtype(space), "biu")
        is_binary = isinstance(space, MultiBinary)
        counts = np.full(self.shape, 2) if is_binary else np.asarray(space.nvec)
        starts = np.zeros(self.shape) if is_binary else np.asarray(space.start)
        self.counts: tuple[int, ...] = tuple(counts.reshape(-1).tolist())
        self.n_choices: int = sum(self.counts)
        self._least = starts.astype(np.int64)
        self._most = self._least + (counts.astype(np.int64) - 1)

    @staticmethod
    def fits(space: Any) -> bool:
        """Whether the space is of this kind."""
        return isinstance(space, MultiDiscrete | MultiBinary) and 0 not in cast("Any", space).shape

    def describe(self) -> dict[str, Any]:
        """The space in plain types."""
        starts = self._least.reshape(-1).tolist()
        return {"shape": list(self.shape), "nvec": list(self.counts), "start": starts}

    def check(self, value: Any, name: str) -> None:
        """Raise ``InvalidExperience`` for an action that is not integers of the space."""
        if type(value) is np.ndarray and value.dtype.kind in "iu" and value.shape == self.shape:
            array: NDArray[Any] = value
        else:
            array = self._array(value, name)
        fits = (array >= self._least) & (array <= self._most)
        if not fits.all():
            where = tuple(map(int, np.unravel_index(int(np.argmin(fits)), fits.shape)))
            raise InvalidExperience(
                f"{name}[{', '.join(map(str, where))}] is {array[where]}: give an int from "
                f"{self._least[where]} to {self._most[where]} there"
            )

    def are_valid(self, rows: Any) -> bool:
        """Whether ``check`` passes each row of an array ``[B, *shape]``."""
        return (
            type(rows) is np.ndarray
            and rows.shape[1:] == self.shape
            and rows.dtype.kind in "iu"
            and bool(((rows >= self._least) & (rows <= self._most)).all())
        )

    def for_env(self, chosen: NDArray[Any]) -> list[Any]:
        """Indices ``[B, size]`` as arrays ``[*shape]``."""
        return list(self.column(chosen))

    def column(self, chosen: NDArray[Any]) -> NDArray[Any]:
        """The same as one array ``[B, *shape]``."""
        return (chosen.reshape(-1, *self.shape).astype(np.int64) + self._least).astype(self.dtype)

    def tensor(self, chosen: torch.Tensor) -> torch.Tensor:
        """As ``column``, of a tensor."""
        dtype = torch.as_tensor(np.empty(0, self.dtype)).dtype
        return (chosen.reshape(-1, *self.shape) + torch.as_tensor(self._least)).to(dtype)

    def indices(self, actions: NDArray[Any]) -> NDArray[np.int64]:
        """The way back from ``column``: int64 ``[B, size]``."""
        return (actions.astype(np.int64) - self._least).reshape(len(actions), -1)

    def tensor_indices(self, actions: torch.Tensor) -> torch.Tensor:
        """As ``indices``, of a tensor."""
        return (actions.long() - torch.as_tensor(self._least).to(actions.device)).flatten(1)

    def is_chosen(self, action: Any, chosen: Sequence[float]) -> bool:
        """Whether the environment got ``action`` for the indices ``[size]`` that were chosen."""
        return self.indices(np.asarray(action)[None])[0].tolist() == list(chosen)

    def are_chosen(self, actions: NDArray[Any], chosen: NDArray[Any]) -> bool:
        """Whether that is so for each of the actions ``[B, *shape]`` and indices ``[B, size]``."""
        return np.array_equal(self.indices(actions), chosen)


class BoxActions(ArrayValues):
    """A Box of floats of any shape; the bounds ``low`` and ``high`` are float64 ``[size]``."""

    counts: tuple[int, ...] = ()
    n_choices = 0
    described = "a Box of at least one float"
    first: int = 1
    last: int = 0  # no int is an action

    def __init__(self, space: Box) -> None:
        super().__init__(space, native_dtype(space), "iuf")
        self.low: NDArray[np.float64] = np.asarray(space.low, np.float64).reshape(-1)
        self.high: NDArray[np.float64] = np.asarray(space.high, np.float64).reshape(-1)
        self._bounds: tuple[list[float], list[float]] = self.low.tolist(), self.high.tolist()

    @staticmethod
    def fits(space: Any) -> bool:
        """Whether the space is of this kind."""
        return (
            isinstance(space, Box) and 0 not in space.shape and native_dtype(cast("Any", space)).kind == "f"
        )

    def describe(self) -> dict[str, Any]:
        """The space in plain types."""
        return {"shape": list(self.shape)}

    def for_env(self, chosen: NDArray[Any]) -> list[Any]:
        """Chosen actions ``[B, size]`` as arrays ``[*shape]``, clipped to the bounds."""
        rows = self.column(chosen)
        return [rows[row, ...] for row in range(len(rows))]  # with "...", rows of shape () are arrays too

    def indices(self, actions: NDArray[Any]) -> NDArray[np.int64]:
        """Numbers have none: int64 ``[B, 0]``."""
        return np.empty((len(actions), 0), np.int64)

    def is_chosen(self, action: Any, chosen: Sequence[float]) -> bool:
        """Whether the environment got ``action`` for the numbers ``[size]`` that were chosen.

        They are compared in the space's dtype, or in the action's own where that is less precise.
        """
        given = np.asarray(action).reshape(-1)
        if self.size <= SHORT and given.tolist() == list(map(_clipped, chosen, *self._bounds)):
            return True
        sent = self.column(np.asarray(chosen, np.float64)[None]).reshape(-1)
        return is_same(given, sent)

    def are_chosen(self, actions: NDArray[Any], chosen: NDArray[Any]) -> bool:
        """Whether that is surely so for each of the actions ``[B, *shape]`` and numbers ``[B, size]``."""
        return actions.dtype == self.dtype and np.array_equal(actions, self.column(chosen))

    def column(self, chosen: NDArray[Any]) -> NDArray[Any]:
        """The same as one array ``[B, *shape]``."""
        clipped = chosen.clip(self.low, self.high).astype(self.dtype)
        return clipped.reshape(len(chosen), *self.shape)

    def tensor(self, chosen: torch.Tensor) -> torch.Tensor:
        """As ``column``, of a tensor."""
        low, high = (torch.as_tensor(bound.astype(self.dtype)) for bound in (self.low, self.high))
        clipped = torch.maximum(torch.minimum(chosen.to(low.dtype), high), low)
        return clipped.reshape(-1, *self.shape)


Actions: TypeAlias = DiscreteActions | MultiDiscreteActions | BoxActions
ActionsT = TypeVar("ActionsT", bound=Actions)


def _clipped(number: float, low: float, high: float) -> float:
    return min(max(number, low), high)
