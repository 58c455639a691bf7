"""The promises of a replay memory, as checks to run on your own: storing, sampling, saving.

The suite numbers its transitions and writes the number into every column, so that a mixed-up row shows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from stoker.errors import ConfigError
from stoker.testing.contract import (
    Check,
    Contract,
    ContractViolation,
    brief,
    expect_error,
    expect_same,
    run_checks,
    through_file,
)
from stoker.types import EpisodeStatus, Experience

__all__ = ["SampledReplay", "check_replay", "replay_contract"]

_CONTRACT = Contract()
_CAPACITY = 8
_DRAWS = 80
"""Enough batches to draw every transition: the chance to miss one is negligible."""


class SampledReplay(Protocol):
    """The methods that the suite calls, as ``UniformReplay`` has them."""

    @property
    def capacity(self) -> int:
        """The most transitions that it can hold."""
        ...

    @property
    def n_added(self) -> int:
        """The number of transitions ever added."""
        ...

    def __len__(self) -> int: ...

    def add(self, experience: Experience, /) -> None:
        """Copy one transition in."""
        ...

    def extend(self, experiences: Sequence[Experience], /) -> None:
        """Copy transitions in, in order."""
        ...

    def sample(self, batch_size: int, /) -> Any:
        """Draw transitions; their columns are attributes, as in ``Batch``."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The whole state."""
        ...

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Restore a state."""
        ...


class _Suite(NamedTuple):
    """The arguments of ``replay_contract``."""

    factory: Callable[[int, int], SampledReplay]
    shape: tuple[int, ...]

    def numbered(self, numbers: Iterable[int]) -> list[Experience]:
        """The transitions with these numbers."""
        statuses = list(EpisodeStatus)
        return [
            Experience(
                np.full(self.shape, number, np.float32),
                number % 5,
                float(number),
                np.full(self.shape, number + 0.5, np.float32),
                statuses[number % 3],
            )
            for number in numbers
        ]

    def filled(self, count: int, capacity: int = _CAPACITY, seed: int = 0) -> SampledReplay:
        """A replay with this many transitions added."""
        replay = self.factory(capacity, seed)
        replay.extend(self.numbered(range(count)))
        return replay


def check_replay(
    make_replay: Callable[[int, int], SampledReplay], *, observation_shape: Sequence[int] = (2,)
) -> None:
    """Check every promise of a replay that a learner relies on.

    Args:
        make_replay: makes a replay from a capacity and a seed, for float32 observations and Discrete actions.
        observation_shape: the shape of one observation.

    Raises:
        ContractViolation: It names the broken promise, what was seen, and what was expected.
    """
    run_checks(replay_contract(make_replay, observation_shape=observation_shape))


def replay_contract(
    make_replay: Callable[[int, int], SampledReplay], *, observation_shape: Sequence[int] = (2,)
) -> list[Check]:
    """The checks of ``check_replay`` as a list, for a test framework."""
    return _CONTRACT.checks(_Suite(make_replay, tuple(observation_shape)))


# Promises -----------------------------------------------------------------------------------------


@_CONTRACT.promise
def counts_what_it_holds(suite: _Suite) -> None:
    """The replay counts what it holds, up to its capacity, and all that was ever added."""
    replay = suite.factory(_CAPACITY, 0)
    for number, experience in enumerate(suite.numbered(range(3 * _CAPACITY)), 1):
        replay.add(experience)
        expected = (min(number, _CAPACITY), number, _CAPACITY)
        if (found := (len(replay), replay.n_added, replay.capacity)) != expected:
            raise ContractViolation(
                "length, n_added and capacity are counted",
                f"{found} after {number} transitions",
                str(expected),
            )


@_CONTRACT.promise
def draws_all_that_it_holds_and_nothing_else(suite: _Suite) -> None:
    """The replay draws the newest transitions, up to its capacity, and no others."""
    for count in (1, 3, _CAPACITY, _CAPACITY + 3, 4 * _CAPACITY - 1):
        expected = set(range(max(0, count - _CAPACITY), count))
        found = {int(number) for number in _rewards(suite.filled(count))}
        if found != expected:
            raise ContractViolation(
                "the newest transitions are drawn, and no others",
                f"numbers {sorted(found)} of {count} added with capacity {_CAPACITY}",
                str(sorted(expected)),
            )


@_CONTRACT.promise
def the_parts_of_a_transition_stay_together(suite: _Suite) -> None:
    """Each row has the observation, action, reward and next observation of one transition."""
    replay = suite.filled(2 * _CAPACITY - 3)
    columns = _columns(replay.sample(_CAPACITY))
    shapes = [(_CAPACITY, *axes) for axes in (suite.shape, (), (), suite.shape, ())]
    for (name, column), shape in zip(columns.items(), shapes, strict=True):
        if column.shape != shape:
            raise ContractViolation(
                f"{name} has a row per transition", f"shape {list(column.shape)}", str(list(shape))
            )
    for row in range(_CAPACITY):
        number = int(columns["rewards"][row])
        (experience,) = suite.numbered([number])
        for name, value in (
            ("observations", experience.observation),
            ("actions", experience.action),
            ("next_observations", experience.next_observation),
        ):
            if not np.array_equal(columns[name][row], value):
                raise ContractViolation(
                    "the parts of a transition stay together",
                    f"{name} {brief(columns[name][row])} beside the reward of transition {number}",
                    brief(value),
                )


@_CONTRACT.promise
def masks_are_zero_for_terminated_alone(suite: _Suite) -> None:
    """The bootstrap mask is 0 where the episode terminated, and 1 where it continues or was truncated."""
    replay = suite.filled(_CAPACITY)
    for _ in range(4):
        columns = _columns(replay.sample(_CAPACITY))
        for number, mask in zip(columns["rewards"], columns["bootstrap_masks"], strict=True):
            status = suite.numbered([int(number)])[0].status
            if mask != status.bootstrap_mask:
                raise ContractViolation(
                    "masks distinguish terminated from truncated",
                    f"{mask} for {status}",
                    str(status.bootstrap_mask),
                )


@_CONTRACT.promise
def extending_is_adding_one_by_one(suite: _Suite) -> None:
    """Extend equals adding each transition in order, also beyond the capacity."""
    for counts in ((3, 4), (_CAPACITY - 1, 3), (2, 2 * _CAPACITY + 1), (0, 5)):
        one, other = suite.factory(_CAPACITY, 0), suite.factory(_CAPACITY, 0)
        experiences = suite.numbered(range(sum(counts)))
        for experience in experiences:
            one.add(experience)
        other.extend(experiences[: counts[0]])
        other.extend(experiences[counts[0] :])
        promise = f"extending by {counts} equals adding one by one"
        expect_same(promise, _state(one), _state(other), "state", "equal states")


@_CONTRACT.promise
def what_is_added_is_copied(suite: _Suite) -> None:
    """Changing an array after it was added, or a batch after it was drawn, does not change the replay."""
    replay = suite.factory(_CAPACITY, 0)
    experiences = suite.numbered(range(_CAPACITY))
    replay.extend(experiences[1:])
    replay.add(experiences[0])
    before = _state(replay)
    for experience in experiences:
        experience.observation[...] = -1.0
        experience.next_observation[...] = -1.0
    expect_same("what is added is copied", before, _state(replay), "state")
    batch = replay.sample(_CAPACITY)
    stored = _columns_of_state(replay)
    for name in _COLUMNS:
        getattr(batch, name)[...] = -1
    expect_same("a batch is a copy", stored, _columns_of_state(replay), "state")


@_CONTRACT.promise
def the_seed_decides_what_is_drawn(suite: _Suite) -> None:
    """The same transitions, calls and seed give the same batches; another seed gives others."""
    one, same, other = (_rewards(suite.filled(_CAPACITY, seed=seed), 3) for seed in (3, 3, 4))
    if not np.array_equal(one, same):
        raise ContractViolation("one seed gives one sequence of batches", "another one", "the same batches")
    if np.array_equal(one, other):
        raise ContractViolation("another seed gives other batches", "the same batches", "others")


@_CONTRACT.promise
def what_cannot_be_drawn_is_refused(suite: _Suite) -> None:
    """Drawing none, or more than the replay holds, is a ConfigError and changes nothing."""
    for count, batch_size in ((0, 1), (3, 0), (3, -1), (3, 4)):
        replay = suite.filled(count)
        _expect_refused(
            f"sampling {batch_size} of {count}", replay, lambda r=replay, size=batch_size: r.sample(size)
        )


@_CONTRACT.promise
def a_resume_draws_the_same_batches(suite: _Suite) -> None:
    """A replay that loaded a state holds, draws and drops the same as the one that gave it."""
    for count in (0, 3, _CAPACITY, 2 * _CAPACITY + 3):
        replay = suite.filled(count, seed=5)
        if count:
            replay.sample(1)
        resumed = suite.factory(_CAPACITY, 6)
        resumed.load_state_dict(_state(replay))
        if (found := (len(resumed), resumed.n_added)) != (len(replay), replay.n_added):
            raise ContractViolation(
                "a resumed replay holds as much", str(found), str((len(replay), replay.n_added))
            )
        for each in (replay, resumed):
            each.extend(suite.numbered(range(count, count + 3)))
        for _ in range(3):
            drawn, again = (_columns(each.sample(len(each))) for each in (replay, resumed))
            expect_same(f"with {count} transitions, a resume continues bit by bit", drawn, again, "batch")


@_CONTRACT.promise
def a_deep_copy_is_independent(suite: _Suite) -> None:
    """If copy.deepcopy copies the replay, it draws and stores as the replay would, in its own memory."""
    replay, uncopied = (suite.filled(_CAPACITY + 3, seed=5) for _ in range(2))
    for each in (replay, uncopied):
        each.sample(2)
    try:
        copied = copy.deepcopy(replay)
    except Exception:  # noqa: BLE001 - a replay that cannot be copied may raise any error
        return
    before = _state(replay)
    for _ in range(3):
        for each in (copied, uncopied):
            each.extend(suite.numbered(range(50, 53)))
        drawn, expected = (_columns(each.sample(2)) for each in (copied, uncopied))
        expect_same("a deep copy continues bit by bit", expected, drawn, "batch", "the same, or no copy")
    expect_same("a deep copy has its own memory", before, _state(replay), "state")


@_CONTRACT.promise
def a_foreign_state_is_refused(suite: _Suite) -> None:
    """A foreign state, or one that lacks a part, is a ConfigError and changes nothing."""
    replay = suite.filled(_CAPACITY + 2)
    own = _state(replay)
    lacking = {key: value for key, value in own.items() if key != min(own)}
    for what, state in (("something else", {"weights": 1}), ("a state with a part missing", lacking)):
        _expect_refused(f"loading {what}", replay, lambda state=state: replay.load_state_dict(state))


_COLUMNS = ("observations", "actions", "rewards", "next_observations", "bootstrap_masks")


def _columns(batch: Any) -> dict[str, Any]:
    return {name: np.asarray(getattr(batch, name).cpu()) for name in _COLUMNS}


def _rewards(replay: SampledReplay, batch_size: int | None = None) -> Any:
    size = len(replay) if batch_size is None else batch_size
    return np.concatenate([_columns(replay.sample(size))["rewards"] for _ in range(_DRAWS)])


def _state(replay: SampledReplay) -> dict[str, Any]:
    """The state, read back from a file."""
    return through_file(replay.state_dict())


def _columns_of_state(replay: SampledReplay) -> dict[str, Any]:
    """The stored columns: drawing changes the rest of the state."""
    return {name: value for name, value in _state(replay).items() if name in _COLUMNS}


def _expect_refused(what: str, replay: SampledReplay, call: Callable[[], Any]) -> None:
    before = _state(replay)
    expect_error(f"{what} is refused", ConfigError, call)
    expect_same(f"{what} changes nothing", before, _state(replay), "state")
