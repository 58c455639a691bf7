"""A ring of the newest transitions, sampled uniformly with replacement.

Memory is taken once, when it is made. On the CPU rows are written through numpy views of the tensors,
because one indexed assignment to a tensor costs microseconds; on another device they are staged in host
memory and copied over in slices. It has a random generator of its own: the same transitions in the same
order, and the same seed, give the same batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from stoker.errors import ConfigError
from stoker.replay.batch import Batch
from stoker.types import Experience

__all__ = ["UniformReplay"]


class _Views(NamedTuple):
    """Numpy arrays over the memory of a Batch."""

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: np.ndarray
    bootstrap_masks: np.ndarray


class UniformReplay:
    """The newest ``capacity`` transitions; the oldest makes way for a new one.

    What is added is copied, and taken as checked: a wrong shape that numpy can broadcast is not noticed
    here. Use it from one thread at a time.

    Args:
        capacity: how many transitions it holds, at least 1.
        observation_shape: the shape of one observation.
        observation_dtype: what observations are stored as.
        device: where they are stored and sampled.
        seed: of the generator that draws batches.

    Raises:
        ConfigError: The capacity is below 1.
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
        self._shape = tuple(observation_shape)
        self._dtype = observation_dtype
        self._device = torch.device(device)
        self._columns = self._allocate(capacity, self._device)
        self._views = _views(self._columns) if self._device.type == "cpu" else None
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
        if self._views is None:
            self._extend_staged((experience,), bootstrap_mask)
            return
        position = self._position
        _write(self._views, position, experience, bootstrap_mask)
        position += 1
        if self._size < position:
            self._size = position
        self._position = 0 if position == self._capacity else position
        self._n_added += 1

    def extend(self, experiences: Sequence[Experience]) -> None:
        """Copy transitions in, in their order."""
        if self._views is None:
            self._extend_staged(experiences)
            return
        for experience in experiences:
            self.add(experience)

    def sample(self, batch_size: int) -> Batch:
        """Draw transitions uniformly with replacement, as new tensors on the replay's device.

        Raises:
            ConfigError: The replay is empty or the batch size is below 1.
        """
        if self._size == 0 or batch_size < 1:
            raise ConfigError(
                f"cannot sample {batch_size} of {self._size} transitions: "
                "the batch size and the number of transitions must both be at least 1"
            )
        rows = torch.randint(self._size, (batch_size,), generator=self._generator).to(self._device)
        return Batch(*(column.index_select(0, rows) for column in self._columns))

    def state_dict(self) -> dict[str, Any]:
        """The filled rows, and the numbers and generator state that go with them.

        The rows share the replay's memory where that is in the host: keep a copy, not these.
        """
        columns = {name: column[: self._size] for name, column in self._columns._asdict().items()}
        return {**columns, **self.reference()}

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
        for column, rows in zip(self._columns, saved, strict=True):
            column[:size].copy_(rows)
        self._size, self._position = size, position
        self._n_added = int(state["n_added"])
        self._generator.set_state(state["generator"].cpu())

    def _allocate(self, rows: int, device: torch.device) -> Batch:
        shape = (rows, *self._shape)
        return Batch(
            observations=torch.empty(shape, dtype=self._dtype, device=device),
            actions=torch.empty(rows, dtype=torch.int64, device=device),
            rewards=torch.empty(rows, dtype=torch.float32, device=device),
            next_observations=torch.empty(shape, dtype=self._dtype, device=device),
            bootstrap_masks=torch.empty(rows, dtype=torch.float32, device=device),
        )

    def _extend_staged(self, experiences: Sequence[Experience], bootstrap_mask: float | None = None) -> None:
        """Write rows in host memory, then copy them over in at most two slices per column."""
        overrun = max(len(experiences) - self._capacity, 0)
        start = (self._position + overrun) % self._capacity
        count = len(experiences) - overrun
        staged = self._allocate(count, torch.device("cpu"))
        views = _views(staged)
        for row, experience in enumerate(experiences[overrun:]):
            _write(views, row, experience, bootstrap_mask)
        head = min(count, self._capacity - start)
        for column, new in zip(self._columns, staged, strict=True):
            column[start : start + head].copy_(new[:head])
            column[: count - head].copy_(new[head:])
        self._position = (start + count) % self._capacity
        self._size = min(self._size + len(experiences), self._capacity)
        self._n_added += len(experiences)

    def _saved_columns(self, state: Mapping[str, Any]) -> Batch:
        expected = {*Batch._fields, *self.reference()}
        if missing := sorted(expected - {*state}):
            raise ConfigError(f"not the state of a UniformReplay: it lacks {', '.join(missing)}")
        saved = Batch(*(state[name] for name in Batch._fields))
        for name, column, rows in zip(Batch._fields, self._columns, saved, strict=True):
            ours, theirs = (state["size"], *column.shape[1:]), tuple(rows.shape)
            if ours != theirs or column.dtype != rows.dtype:
                raise ConfigError(
                    f"the saved replay's {name} are {rows.dtype} {list(theirs)}, but this replay takes "
                    f"{column.dtype} {list(ours)}: load it into an agent made for the same spaces"
                )
        return saved


def _views(columns: Batch) -> _Views:
    return _Views(*(column.numpy() for column in columns))


def _write(views: _Views, row: int, experience: Experience, bootstrap_mask: float | None) -> None:
    views.observations[row] = experience.observation
    views.actions[row] = experience.action
    views.rewards[row] = experience.reward
    views.next_observations[row] = experience.next_observation
    mask = experience.status.bootstrap_mask if bootstrap_mask is None else bootstrap_mask
    views.bootstrap_masks[row] = mask
