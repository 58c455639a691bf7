"""A ring of the newest transitions, sampled uniformly with replacement.

Memory is taken once, when it is made, as one row of bytes per transition (``stoker.replay.storage``): adding
one writes one row, and drawing one reads one. It has a random generator of its own: the same transitions in
the same order, and the same seed, give the same batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import ArrayLike

from stoker.errors import ConfigError
from stoker.replay.batch import Batch
from stoker.replay.columns import checked_columns
from stoker.replay.storage import DeviceStorage, HostStorage, transition_layout
from stoker.types import Experience

__all__ = ["UniformReplay"]


class UniformReplay:
    """The newest ``capacity`` transitions; the oldest makes way for a new one.

    What is added is copied. Transitions are taken as checked: a wrong shape that numpy can broadcast is not
    noticed here. What is refused leaves all as it was. Use it from one thread at a time.

    Args:
        capacity: how many transitions it holds, at least 1.
        observation_shape: the shape of one observation.
        observation_dtype: what observations are stored as.
        device: where they are stored and sampled.
        seed: of the generator that draws batches.

    Raises:
        ConfigError: The capacity is below 1, or numpy lacks the dtype.
    """

    def __init__(
        self,
        capacity: int,
        observation_shape: Sequence[int],
        observation_dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        if capacity < 1:
            raise ConfigError(f"a replay's capacity must be at least 1, got {capacity}")
        self._capacity = capacity
        self._layout = transition_layout(tuple(observation_shape), observation_dtype)
        place = torch.device(device)
        self._storage = (
            HostStorage(self._layout, capacity)
            if place.type == "cpu"
            else DeviceStorage(self._layout, capacity, place)
        )
        self._put_one = self._storage.put_one
        self._position = 0  # the row written next: the oldest one once the ring is full
        self._size = 0
        self._n_added = 0
        self._generator = torch.Generator().manual_seed(seed)

    @property
    def capacity(self) -> int:
        """How many transitions it can hold."""
        return self._capacity

    @property
    def n_added(self) -> int:
        """How many transitions were ever added, also those that have made way since."""
        return self._n_added

    def __len__(self) -> int:
        return self._size

    def add(self, experience: Experience, bootstrap_mask: float | None = None) -> None:
        """Copy one transition in; when numpy refuses a value, it raises and nothing has been added.

        Args:
            experience: the transition.
            bootstrap_mask: what the next observation's value is multiplied with, beside the discount of
                one step; None: what the status says.
        """
        position = self._position
        self._put_one(position, experience, bootstrap_mask)
        position += 1
        if self._size < position:
            self._size = position
        self._position = 0 if position == self._capacity else position
        self._n_added += 1

    def extend(self, experiences: Sequence[Experience]) -> None:
        """Copy transitions in, in their order; when numpy refuses a value, none of them has been added."""
        count = len(experiences)
        if count == 1:
            self.add(experiences[0])
            return
        first = max(count - self._capacity, 0)  # those before it would be written over
        row = (self._position + first) % self._capacity
        self._storage.put(row, experiences[first:] if first else experiences)
        self._advance(count)

    def extend_columns(
        self,
        observations: ArrayLike,
        actions: ArrayLike,
        rewards: ArrayLike,
        next_observations: ArrayLike,
        bootstrap_masks: ArrayLike,
    ) -> None:
        """Copy B transitions in, in their order, given as the columns of a ``Batch``.

        Each is an array, or a tensor on any device, of any dtype that numpy converts to the stored one
        within its kind or to a wider kind: float64 to float32 and int to float, not float to int.

        Args:
            observations: ``[B, *observation_shape]``.
            actions: ``[B]``.
            rewards: ``[B]``.
            next_observations: ``[B, *observation_shape]``.
            bootstrap_masks: ``[B]``; 0.0 where the episode terminated, else 1.0.

        Raises:
            ConfigError: A column is of another shape or kind; nothing was added.
        """
        given = (observations, actions, rewards, next_observations, bootstrap_masks)
        columns = checked_columns(self._layout, dict(zip(Batch._fields, given, strict=True)))
        count = len(columns[0])
        first = max(count - self._capacity, 0)
        row = (self._position + first) % self._capacity
        self._storage.put_columns(row, [column[first:] for column in columns] if first else columns)
        self._advance(count)

    def sample(self, batch_size: int) -> Batch:
        """Draw transitions uniformly with replacement, as new tensors on the replay's device.

        They may be views of one memory, in which a row holds all of a transition.

        Raises:
            ConfigError: The replay is empty or the batch size is below 1.
        """
        if self._size == 0 or batch_size < 1:
            raise ConfigError(
                f"cannot sample {batch_size} of {self._size} transitions: "
                "the batch size and the number of transitions must both be at least 1"
            )
        return self._storage.sample(self._size, batch_size, self._generator)

    def state_dict(self) -> dict[str, Any]:
        """The filled rows by column, in host memory, and the numbers and generator state that go with them.

        The columns share the replay's memory where that is in the host, with the stride of its rows: keep a
        copy, not these.
        """
        return {**self._storage.held(self._size)._asdict(), **self.reference()}

    def reference(self) -> dict[str, Any]:
        """All of ``state_dict`` but the rows: with it and the transitions the replay can be built again."""
        return {
            "position": self._position,
            "size": self._size,
            "n_added": self._n_added,
            "capacity": self._capacity,
            "generator": self._generator.get_state(),
        }

    def begin_rebuild(self, reference: Mapping[str, Any], n_added: int) -> None:
        """Expect the transitions behind the first ``n_added`` ones, up to where ``reference`` stands.

        Each then lands in the row that it had, so that after ``end_rebuild`` the next samples are the same.
        """
        self._n_added = n_added
        if reference["capacity"] == self._capacity:
            missing = int(reference["n_added"]) - n_added
            self._position = (int(reference["position"]) - missing) % self._capacity
            self._size = self._capacity  # rows behind the position are not written in order
        else:
            self._position = self._size = 0

    def end_rebuild(self, reference: Mapping[str, Any]) -> None:
        """Say that all transitions up to where ``reference`` stands were added again.

        Raises:
            ConfigError: They are not so many.
        """
        if self._n_added != reference["n_added"]:
            raise ConfigError(
                f"the replay was rebuilt from {self._n_added} transitions where {reference['n_added']} had "
                "been added: the agent's settings for what it remembers (n_step, say) have changed"
            )
        if reference["capacity"] == self._capacity:
            self._size = int(reference["size"])
        self._generator.set_state(reference["generator"].cpu())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what ``state_dict`` described: the next samples are the same.

        In a ring of another capacity the newest transitions that fit are kept, in their order.

        Raises:
            ConfigError: The state is not of a replay, or of another observation shape or dtype; nothing
                was changed.
        """
        saved = self._saved_columns(state)
        size, position = int(state["size"]), int(state["position"])
        if state["capacity"] != self._capacity:
            oldest = position if size == state["capacity"] else 0
            kept = min(size, self._capacity)
            rows = (torch.arange(size - kept, size) + oldest) % max(size, 1)
            saved = Batch(*(column.index_select(0, rows) for column in saved))
            size, position = kept, kept % self._capacity
        for column, rows in zip(self._storage.views(), saved, strict=True):
            column[:size].copy_(rows)
        self._size, self._position = size, position
        self._n_added = int(state["n_added"])
        self._generator.set_state(state["generator"].cpu())

    def _advance(self, count: int) -> None:
        self._position = (self._position + count) % self._capacity
        self._size = min(self._size + count, self._capacity)
        self._n_added += count

    def _saved_columns(self, state: Mapping[str, Any]) -> Batch:
        expected = {*Batch._fields, *self.reference()}
        if missing := sorted(expected - {*state}):
            raise ConfigError(f"not the state of a UniformReplay: it lacks {', '.join(missing)}")
        saved = Batch(*(state[name] for name in Batch._fields))
        for name, rows in zip(Batch._fields, saved, strict=True):
            field = self._layout.fields[name]
            ours, theirs = (state["size"], *field.shape), tuple(rows.shape)
            if ours != theirs or field.dtype != rows.dtype:
                raise ConfigError(
                    f"the saved replay's {name} are {rows.dtype} {list(theirs)}, but this replay takes "
                    f"{field.dtype} {list(ours)}: load it into an agent made for the same spaces"
                )
        return saved
