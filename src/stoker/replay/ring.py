"""A ring of the newest transitions: the base of all replays, and the one that draws uniformly.

Memory is allocated once, as one row of bytes per transition (``stoker.replay.storage``): adding one writes
one row, and drawing one reads one. The ring knows which rows are filled and in which order, saves and loads
them, and can be rebuilt from a journal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from stoker.errors import ConfigError
from stoker.replay.layout import Array, ArraySpec
from stoker.replay.storage import Storage, allocated_rows
from stoker.replay.transition import Batch, TransitionSpec
from stoker.types import AnyPath, Experience

if TYPE_CHECKING:
    import gymnasium


class Ring:
    """The newest ``capacity`` transitions; a new one replaces the oldest.

    Added transitions are copied, and a refused one changes nothing. Transitions of one array and one integer
    action are not checked: a wrong shape that numpy can broadcast is not noticed. Others are checked value by
    value. Use it from one thread at a time.

    Args:
        capacity: how many transitions it holds, at least 1.
        observation_shape: the shape of one observation; for more than one array a ``TransitionSpec``, or see
            ``for_spaces``.
        observation_dtype: the stored dtype of observations, where only their shape is given.
        device: where transitions are stored and sampled.
        seed: of the generator that draws batches: the same transitions in the same order and the same seed
            give the same batches.
        memory_map: a directory for a file without a name that holds the transitions, to have more of them
            than fit into memory; on the CPU only.

    Attributes:
        capacity: how many transitions it can hold.
        n_added: how many transitions were ever added, also those that were replaced since.

    Raises:
        ConfigError: The capacity is below 1 or too large for the memory or disk, numpy lacks the dtype, or
            the directory cannot be used.
    """

    def __init__(
        self,
        capacity: int,
        observation_shape: Sequence[int] | TransitionSpec,
        observation_dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        seed: int = 0,
        *,
        memory_map: AnyPath | None = None,
    ) -> None:
        if capacity < 1:
            raise ConfigError(f"a replay's capacity must be at least 1, got {capacity}")
        if not isinstance(observation_shape, TransitionSpec):
            observation_shape = TransitionSpec(ArraySpec(observation_dtype, tuple(observation_shape)))
        self._spec = observation_shape
        self.capacity = capacity
        self._device = torch.device(device)
        rows = allocated_rows(self._spec.layout, capacity, self._device, memory_map)
        self._storage = Storage(self._spec, rows, self._device.type == "cpu")
        self._put_one = self._storage.put_one
        self._position = 0  # the row written next: the oldest one once the ring is full
        self._size = 0
        self.n_added: int = 0
        self._generator = torch.Generator().manual_seed(seed)

    @classmethod
    def for_spaces(
        cls,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        capacity: int,
        **settings: Any,
    ) -> Self:
        """A replay for an environment's transitions, in its spaces' dtypes and shapes.

        Args:
            observation_space: a Box, Discrete, MultiBinary or MultiDiscrete, or a Dict or Tuple of these,
                however nested. Batches nest as it does.
            action_space: a Box, Discrete, MultiBinary or MultiDiscrete.
            capacity: how many transitions it holds.
            settings: of the class, from ``device`` on.

        Raises:
            ConfigError: A space cannot be held; or as for the class.
        """
        return cls(capacity, TransitionSpec.of_spaces(observation_space, action_space), **settings)

    def __len__(self) -> int:
        return self._size

    def __copy__(self) -> NoReturn:
        raise ConfigError(
            f"copy.copy of a {type(self).__name__} would share its rows: use copy.deepcopy, or make a new "
            "one and load the state_dict of this one"
        )

    def add(self, experience: Experience, bootstrap_mask: float | None = None) -> None:
        """Copy one transition in.

        Args:
            experience: the transition.
            bootstrap_mask: the factor of the next observation's value, beside the discount of one step; None:
                the one of the status.

        Raises:
            InvalidExperience: A value does not fit; the message names it, and nothing was added. Plain
                transitions raise numpy's errors.
        """
        position = self._position
        self._put_one(position, experience, bootstrap_mask)
        position += 1
        if self._size < position:
            self._size = position
        self._position = 0 if position == self.capacity else position
        self.n_added += 1

    def extend(self, experiences: Sequence[Experience]) -> None:
        """Copy transitions in, in their order: all of them, or none.

        Raises:
            InvalidExperience: As for ``add``.
        """
        if len(experiences) == 1:
            self.add(experiences[0])
        elif experiences:
            self._storage.put(self._position, experiences)
            self._advance(len(experiences))

    def extend_columns(
        self,
        observations: ArrayLike | Mapping[str, Any] | tuple[Any, ...],
        actions: ArrayLike,
        rewards: ArrayLike,
        next_observations: ArrayLike | Mapping[str, Any] | tuple[Any, ...],
        bootstrap_masks: ArrayLike,
    ) -> None:
        """Copy B transitions in, in their order, given as the columns of a ``Batch``.

        Each is an array, or a tensor on any device, that numpy converts to the stored dtype within its kind
        or to a wider kind: float64 to float32 and int to float, not float to int.

        Raises:
            ConfigError: A column is missing or of another shape, length or kind; nothing was added.
        """
        columns = self._spec.columns((observations, actions, rewards, next_observations, bootstrap_masks))
        self._storage.put_columns(self._position, columns)
        self._advance(len(columns[0]))

    def state_dict(self) -> dict[str, Any]:
        """The filled rows by column, in host memory, and the entries of ``reference``.

        The columns share the replay's memory where that is in the host: keep a copy, not these. Those of
        nested observations have names such as ``observations['camera']``.
        """
        columns = self._storage.held(self._size)
        return {**dict(zip(self._spec.fields, columns, strict=True)), **self.reference()}

    def reference(self) -> dict[str, Any]:
        """The state without the rows: with it and the transitions the replay can be rebuilt."""
        return {
            "position": self._position,
            "size": self._size,
            "n_added": self.n_added,
            "capacity": self.capacity,
            "generator": self._generator.get_state(),
        }

    def begin_rebuild(self, reference: Mapping[str, Any], n_added: int) -> None:
        """Expect the transitions after the first ``n_added`` ones, up to the state of ``reference``.

        Each gets the row that it had, so that after ``end_rebuild`` the next samples are the same.

        Raises:
            ConfigError: The reference is not of such a replay; nothing was changed.
        """
        self._check_state(reference)
        self.n_added = n_added
        if reference["capacity"] == self.capacity:
            missing = int(reference["n_added"]) - n_added
            self._position = (int(reference["position"]) - missing) % self.capacity
            self._size = self.capacity  # rows behind the position are not written in order
        else:
            self._position = self._size = 0

    def end_rebuild(self, reference: Mapping[str, Any]) -> None:
        """Finish a rebuild: all transitions up to the state of ``reference`` were added again.

        Raises:
            ConfigError: Their number differs.
        """
        if self.n_added != reference["n_added"]:
            raise ConfigError(
                f"the replay was rebuilt from {self.n_added} transitions where {reference['n_added']} had "
                "been added: the agent's settings for what it remembers (n_step, say) have changed"
            )
        if reference["capacity"] == self.capacity:
            self._size = int(reference["size"])
        self._adopt(reference)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned: the next samples are the same.

        A ring of another capacity keeps the newest transitions that fit, in their order.

        Raises:
            ConfigError: The state is not of such a replay, or of another observation shape or dtype; nothing
                was changed.
        """
        self._check_state(state, *self._spec.fields)
        size, position = int(state["size"]), int(state["position"])
        columns: list[Array] = []
        for name, spec in self._spec.fields.items():
            rows, shape = state[name], (size, *spec.shape)
            if rows.shape != shape or rows.dtype != spec.dtype:
                raise ConfigError(
                    f"the saved replay's {name} are {rows.dtype} {list(rows.shape)}, but this replay takes "
                    f"{spec.dtype} {list(shape)}: load it into an agent made for the same spaces"
                )
            columns.append(rows.cpu().numpy())
        if state["capacity"] != self.capacity:
            size = min(size, self.capacity)
            newest = self._newest_saved(state, size)
            columns = [column[newest] for column in columns]
            position = size % self.capacity
        self._storage.put_columns(0, columns)
        self._size, self._position = size, position
        self.n_added = int(state["n_added"])
        self._adopt(state)

    def load_generator(self, state: torch.Tensor) -> None:
        """Restore the ``generator`` of a ``reference`` alone: the same transitions give the same samples."""
        self._generator.set_state(state.cpu())

    def _adopt(self, reference: Mapping[str, Any]) -> None:
        """Take over the state beside the rows, from a ring that holds the same newest transitions."""
        self.load_generator(reference["generator"])

    def _advance(self, count: int) -> None:
        self._position = (self._position + count) % self.capacity
        self._size = min(self._size + count, self.capacity)
        self.n_added += count

    def _check_batch_size(self, batch_size: int) -> None:
        if batch_size < 1:
            raise ConfigError(f"cannot sample {batch_size} transitions: the batch size must be at least 1")
        if batch_size > self._size:
            way_out = "wait for more" if batch_size <= self.capacity else f"raise capacity={self.capacity}"
            raise ConfigError(
                f"cannot sample {batch_size} of {self._size} transitions: {way_out}, or lower the batch size"
            )

    def _check_state(self, state: Mapping[str, Any], *names: str) -> None:
        """Refuse a state that lacks one of these names or of the entries of ``reference``."""
        if missing := sorted({*names, *self.reference()} - {*state}):
            raise ConfigError(f"not the state of a {type(self).__name__}: it lacks {', '.join(missing)}")

    @staticmethod
    def _newest_saved(reference: Mapping[str, Any], count: int) -> NDArray[np.int64]:
        """The rows that the newest ``count`` transitions had in a saved ring, oldest first."""
        size = int(reference["size"])
        oldest = int(reference["position"]) if size == reference["capacity"] else 0
        return (np.arange(size - count, size) + oldest) % max(size, 1)


class UniformReplay(Ring):
    """The newest ``capacity`` transitions, each as likely as any other. Settings and errors: see ``Ring``."""

    _drawn = torch.empty(0, dtype=torch.int64)
    _drawn_array = _drawn.numpy()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._make_room(0)  # copied on their own, the tensor and its array would no longer share memory

    def sample(self, batch_size: int) -> Batch:
        """Draw transitions uniformly with replacement, as new tensors on the replay's device.

        They may be views of one memory that holds whole transitions.

        Raises:
            ConfigError: The batch size is below 1 or above the number of transitions held.
        """
        if not 1 <= batch_size <= self._size:
            self._check_batch_size(batch_size)
        if len(self._drawn_array) != batch_size:
            self._make_room(batch_size)
        self._drawn.random_(self._size, generator=self._generator)
        return self._storage.take(self._drawn_array)

    def _make_room(self, batch_size: int) -> None:
        """Allocate memory for the drawn rows, kept between draws: that costs more than to fill it."""
        self._drawn = torch.empty(batch_size, dtype=torch.int64)
        self._drawn_array = self._drawn.numpy()
