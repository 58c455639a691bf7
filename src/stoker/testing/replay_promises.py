"""What a replay promises, as checks to run on your own: what it keeps, what it draws, what it saves.

The transitions that it is given are numbered, and tell their number in every column: so it shows whether
the parts of a transition stay together.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from stoker.errors import ConfigError
from stoker.testing.contract import Check, ContractViolation, brief, difference, named_checks, run_checks
from stoker.testing.lessons import through_file
from stoker.types import EpisodeStatus, Experience

__all__ = ["SampledReplay", "check_replay", "replay_contract"]

_CAPACITY = 8
_DRAWS = 80
"""Batches that are drawn where all of what is held should turn up: missing one by chance is out of reach."""


class SampledReplay(Protocol):
    """What the suite asks of a replay: what ``UniformReplay`` has."""

    @property
    def capacity(self) -> int:
        """How many transitions it can hold."""
        ...

    @property
    def n_added(self) -> int:
        """How many transitions were ever added."""
        ...

    def __len__(self) -> int: ...

    def add(self, experience: Experience, /) -> None:
        """Copy one transition in."""
        ...

    def extend(self, experiences: Sequence[Experience], /) -> None:
        """Copy transitions in, in their order."""
        ...

    def sample(self, batch_size: int, /) -> Any:
        """Draw transitions; the columns of a ``Batch``, as attributes."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that it needs to go on."""
        ...

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Become what ``state_dict`` described."""
        ...


class _Suite(NamedTuple):
    """What the checks share."""

    factory: Callable[[int, int], SampledReplay]
    shape: tuple[int, ...]

    def numbered(self, numbers: Iterable[int]) -> list[Experience]:
        """The transitions of these numbers."""
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
        """A replay that was given the first transitions."""
        replay = self.factory(capacity, seed)
        replay.extend(self.numbered(range(count)))
        return replay


def check_replay(
    make_replay: Callable[[int, int], SampledReplay], *, observation_shape: Sequence[int] = (2,)
) -> None:
    """Hold a replay against everything that a learner relies on.

    Args:
        make_replay: makes one of a capacity and a seed, for float32 observations and Discrete actions.
        observation_shape: the shape of one observation.

    Raises:
        ContractViolation: It names the broken promise, what was seen, and what was expected.
    """
    run_checks(replay_contract(make_replay, observation_shape=observation_shape))


def replay_contract(
    make_replay: Callable[[int, int], SampledReplay], *, observation_shape: Sequence[int] = (2,)
) -> list[Check]:
    """The same as a list of named checks, for a test framework to go through."""
    return named_checks(_CHECKS, _Suite(make_replay, tuple(observation_shape)))


# Promises -----------------------------------------------------------------------------------------


def counts_what_it_holds(suite: _Suite) -> None:
    """It holds what was added, up to its capacity, and counts all that ever was."""
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


def draws_all_that_it_holds_and_nothing_else(suite: _Suite) -> None:
    """Before it is full, it draws what was added; then the newest: the oldest makes way."""
    for count in (1, 3, _CAPACITY, _CAPACITY + 3, 4 * _CAPACITY - 1):
        expected = set(range(max(0, count - _CAPACITY), count))
        found = {int(number) for number in _rewards(suite.filled(count))}
        if found != expected:
            raise ContractViolation(
                "the newest transitions are drawn, and only they",
                f"numbers {sorted(found)} of {count} added with capacity {_CAPACITY}",
                str(sorted(expected)),
            )


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


def masks_are_zero_for_terminated_alone(suite: _Suite) -> None:
    """The bootstrap mask is 0 where the episode terminated, and 1 where it goes on or was truncated."""
    replay = suite.filled(_CAPACITY)
    for _ in range(4):
        columns = _columns(replay.sample(_CAPACITY))
        for number, mask in zip(columns["rewards"], columns["bootstrap_masks"], strict=True):
            status = suite.numbered([int(number)])[0].status
            if mask != status.bootstrap_mask:
                raise ContractViolation(
                    "masks tell terminated from truncated", f"{mask} for {status}", str(status.bootstrap_mask)
                )


def extending_is_adding_one_by_one(suite: _Suite) -> None:
    """Extend comes to the same as adding each in order, also beyond the capacity."""
    for counts in ((3, 4), (_CAPACITY - 1, 3), (2, 2 * _CAPACITY + 1), (0, 5)):
        one, other = suite.factory(_CAPACITY, 0), suite.factory(_CAPACITY, 0)
        experiences = suite.numbered(range(sum(counts)))
        for experience in experiences:
            one.add(experience)
        other.extend(experiences[: counts[0]])
        other.extend(experiences[counts[0] :])
        if problem := difference(_state(one), _state(other), "state"):
            raise ContractViolation(f"extending by {counts} is adding one by one", problem, "equal states")


def what_is_added_is_copied(suite: _Suite) -> None:
    """What is done to an array after it was added, or to a batch after it was drawn, does not show."""
    replay = suite.factory(_CAPACITY, 0)
    experiences = suite.numbered(range(_CAPACITY))
    replay.extend(experiences[1:])
    replay.add(experiences[0])
    before = _state(replay)
    for experience in experiences:
        experience.observation[...] = -1.0
        experience.next_observation[...] = -1.0
    if problem := difference(before, _state(replay), "state"):
        raise ContractViolation("what is added is copied", problem, "as it was added")
    batch = replay.sample(_CAPACITY)
    held = _without_generators(replay)
    for name in _COLUMNS:
        getattr(batch, name)[...] = -1
    if problem := difference(held, _without_generators(replay), "state"):
        raise ContractViolation("a batch is the learner's own", problem, "a replay as it was")


def the_seed_decides_what_is_drawn(suite: _Suite) -> None:
    """The same transitions, calls and seed give the same batches; another seed gives others."""
    one, same, other = (_rewards(suite.filled(_CAPACITY, seed=seed), 3) for seed in (3, 3, 4))
    if not np.array_equal(one, same):
        raise ContractViolation("one seed, one sequence of batches", "another one", "the same batches")
    if np.array_equal(one, other):
        raise ContractViolation("another seed draws otherwise", "the same batches", "others")


def what_cannot_be_drawn_is_refused(suite: _Suite) -> None:
    """Drawing none, or more than are held, is a ConfigError and changes nothing."""
    for count, batch_size in ((0, 1), (3, 0), (3, -1), (3, 4)):
        replay = suite.filled(count)
        before = _state(replay)
        what = f"sampling {batch_size} of {count}"
        _is_refused(what, lambda replay=replay, size=batch_size: replay.sample(size))
        if problem := difference(before, _state(replay), "state"):
            raise ContractViolation(f"{what} changes nothing", problem, "an equal state")


def a_resume_draws_bit_equal(suite: _Suite) -> None:
    """A replay that loaded a state draws, takes in and makes way as the one that gave it."""
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
            if problem := difference(drawn, again, "batch"):
                raise ContractViolation(
                    f"with {count} transitions, a resume goes on bit by bit", problem, "the same batches"
                )


def a_deep_copy_is_a_replay_of_its_own(suite: _Suite) -> None:
    """If copy.deepcopy takes it, the copy draws and takes in as the replay would, in its own memory."""
    replay, uncopied = (suite.filled(_CAPACITY + 3, seed=5) for _ in range(2))
    for each in (replay, uncopied):
        each.sample(2)
    try:
        copied = copy.deepcopy(replay)
    except Exception:  # noqa: BLE001 - whatever it is: it cannot be copied, and says so
        return
    before = _state(replay)
    for _ in range(3):
        for each in (copied, uncopied):
            each.extend(suite.numbered(range(50, 53)))
        drawn, expected = (_columns(each.sample(2)) for each in (copied, uncopied))
        if problem := difference(drawn, expected, "batch"):
            raise ContractViolation("a deep copy goes on bit by bit", problem, "the same batches, or no copy")
    if problem := difference(before, _state(replay), "state"):
        raise ContractViolation("a deep copy has its own memory", problem, "a replay as it was")


def a_foreign_state_is_refused(suite: _Suite) -> None:
    """A state that is none, or that lacks something, is a ConfigError and changes nothing."""
    replay = suite.filled(_CAPACITY + 2)
    before = _state(replay)
    lacking = {key: value for key, value in before.items() if key != min(before)}
    for what, state in (("something else", {"weights": 1}), ("a state with a part missing", lacking)):
        _is_refused(f"loading {what}", lambda state=state: replay.load_state_dict(state))
        if problem := difference(before, _state(replay), "state"):
            raise ContractViolation(f"loading {what} changes nothing", problem, "an equal state")


_CHECKS = [
    counts_what_it_holds,
    draws_all_that_it_holds_and_nothing_else,
    the_parts_of_a_transition_stay_together,
    masks_are_zero_for_terminated_alone,
    extending_is_adding_one_by_one,
    what_is_added_is_copied,
    the_seed_decides_what_is_drawn,
    what_cannot_be_drawn_is_refused,
    a_resume_draws_bit_equal,
    a_deep_copy_is_a_replay_of_its_own,
    a_foreign_state_is_refused,
]

_COLUMNS = ("observations", "actions", "rewards", "next_observations", "bootstrap_masks")


def _columns(batch: Any) -> dict[str, Any]:
    return {name: np.asarray(getattr(batch, name).cpu()) for name in _COLUMNS}


def _rewards(replay: SampledReplay, batch_size: int | None = None) -> Any:
    size = len(replay) if batch_size is None else batch_size
    return np.concatenate([_columns(replay.sample(size))["rewards"] for _ in range(_DRAWS)])


def _state(replay: SampledReplay) -> dict[str, Any]:
    """As it comes back from a checkpoint."""
    return through_file(replay.state_dict())


def _without_generators(replay: SampledReplay) -> dict[str, Any]:
    """What it holds, whatever drawing has changed of the rest."""
    return {name: value for name, value in _state(replay).items() if name in _COLUMNS}


def _is_refused(what: str, call: Callable[[], Any]) -> None:
    try:
        call()
    except ConfigError:
        return
    except Exception as error:
        raise ContractViolation(
            f"{what} is refused", f"{type(error).__name__}: {error}", "a ConfigError"
        ) from error
    raise ContractViolation(f"{what} is refused", "nothing was raised", "a ConfigError")
