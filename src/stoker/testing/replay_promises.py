"""The promises of a replay memory, as checks to run on your own: storing, sampling, saving.

A replay has ``UniformReplay``'s calls: ``add``, ``extend``, ``sample``, ``len``, ``capacity``, ``n_added``,
``state_dict`` and ``load_state_dict``. The suite numbers its transitions and writes the number into every
column, so that a mixed-up row shows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from stoker.errors import ConfigError
from stoker.testing.contract import Contract, expect, expect_error, expect_same, through_file
from stoker.types import EpisodeStatus, Experience

_CAPACITY = 8
_DRAWS = 80
"""Enough batches to draw every transition: the chance to miss one is negligible."""
_COLUMNS = ("observations", "actions", "rewards", "next_observations", "bootstrap_masks")


class ReplaySuite(NamedTuple):
    """What the checks of a replay share.

    Attributes:
        make_replay: makes a replay from a capacity and a seed, for float32 observations and Discrete actions.
        observation_shape: the shape of one observation.
    """

    make_replay: Callable[[int, int], Any]
    observation_shape: Sequence[int] = (2,)

    def numbered(self, numbers: Iterable[int]) -> list[Experience]:
        """The transitions with these numbers."""
        statuses = list(EpisodeStatus)
        return [
            Experience(
                np.full(self.observation_shape, number, np.float32),
                number % 5,
                float(number),
                np.full(self.observation_shape, number + 0.5, np.float32),
                statuses[number % 3],
            )
            for number in numbers
        ]

    def filled(self, count: int, capacity: int = _CAPACITY, seed: int = 0) -> Any:
        """A replay with this many transitions added."""
        replay = self.make_replay(capacity, seed)
        replay.extend(self.numbered(range(count)))
        return replay


check_replay = Contract(ReplaySuite)
"""Checks every promise of a replay that a learner relies on; ``ReplaySuite`` lists the arguments."""


# Promises -----------------------------------------------------------------------------------------


@check_replay.promise
def counts_what_it_holds(suite: ReplaySuite) -> None:
    """The replay counts what it holds, up to its capacity, and all that was ever added."""
    replay = suite.make_replay(_CAPACITY, 0)
    for number, experience in enumerate(suite.numbered(range(3 * _CAPACITY)), 1):
        replay.add(experience)
        expected = {"length": min(number, _CAPACITY), "n_added": number, "capacity": _CAPACITY}
        found = {"length": len(replay), "n_added": replay.n_added, "capacity": replay.capacity}
        expect(found == expected, f"{found} after {number} transitions", str(expected))


@check_replay.promise
def draws_all_that_it_holds_and_nothing_else(suite: ReplaySuite) -> None:
    """The replay draws the newest transitions, up to its capacity, and no others."""
    for count in (1, 3, _CAPACITY, _CAPACITY + 3, 4 * _CAPACITY - 1):
        expected = set(range(max(0, count - _CAPACITY), count))
        found = {int(number) for number in _rewards(suite.filled(count))}
        seen = f"numbers {sorted(found)} of {count} added with capacity {_CAPACITY}"
        expect(found == expected, seen, str(sorted(expected)))


@check_replay.promise
def the_parts_of_a_transition_stay_together(suite: ReplaySuite) -> None:
    """Each row has the observation, action, reward and next observation of one transition."""
    columns = _columns(suite.filled(2 * _CAPACITY - 3).sample(_CAPACITY))
    drawn = suite.numbered(int(number) for number in columns["rewards"])
    for column, part in zip(
        _COLUMNS[:4], ("observation", "action", "reward", "next_observation"), strict=True
    ):
        expected = np.array([getattr(experience, part) for experience in drawn])
        expect_same(expected.tolist(), columns[column].tolist(), column, "the parts of one transition")


@check_replay.promise
def masks_are_zero_for_terminated_alone(suite: ReplaySuite) -> None:
    """The bootstrap mask is 0 where the episode terminated, and 1 where it continues or was truncated."""
    replay = suite.filled(_CAPACITY)
    for _ in range(4):
        columns = _columns(replay.sample(_CAPACITY))
        for number, mask in zip(columns["rewards"], columns["bootstrap_masks"], strict=True):
            status = suite.numbered([int(number)])[0].status
            expect(mask == status.bootstrap_mask, f"{mask} for {status}", str(status.bootstrap_mask))


@check_replay.promise
def extending_is_adding_one_by_one(suite: ReplaySuite) -> None:
    """Extend equals adding each transition in order, also beyond the capacity."""
    for first, more in ((3, 4), (_CAPACITY - 1, 3), (2, 2 * _CAPACITY + 1), (0, 5)):
        one, other = suite.make_replay(_CAPACITY, 0), suite.make_replay(_CAPACITY, 0)
        experiences = suite.numbered(range(first + more))
        for experience in experiences:
            one.add(experience)
        other.extend(experiences[:first])
        other.extend(experiences[first:])
        expect_same(_state(one), _state(other), f"extended by {first} and {more}, state", "equal states")


@check_replay.promise
def what_is_added_is_copied(suite: ReplaySuite) -> None:
    """Changing an array after it was added, or a batch after it was drawn, does not change the replay."""
    replay = suite.make_replay(_CAPACITY, 0)
    experiences = suite.numbered(range(_CAPACITY))
    replay.extend(experiences[1:])
    replay.add(experiences[0])
    before = _state(replay)
    for experience in experiences:
        experience.observation[...] = -1.0
        experience.next_observation[...] = -1.0
    expect_same(before, _state(replay), "after changing an array, state")
    batch = replay.sample(_CAPACITY)
    stored = _state(replay)
    for name in _COLUMNS:
        getattr(batch, name)[...] = -1
    expect_same(stored, _state(replay), "after changing a batch, state")


@check_replay.promise
def the_seed_decides_what_is_drawn(suite: ReplaySuite) -> None:
    """The same transitions, calls and seed give the same batches; another seed gives others."""
    one, same, other = (_rewards(suite.filled(_CAPACITY, seed=seed), 3) for seed in (3, 3, 4))
    expect_same(one, same, "rewards drawn with one seed", "the same batches")
    expect(not np.array_equal(one, other), "the same batches for another seed", "others")


@check_replay.promise
def what_cannot_be_drawn_is_refused(suite: ReplaySuite) -> None:
    """Drawing none, or more than the replay holds, is a ConfigError and changes nothing."""
    for count, batch_size in ((0, 1), (3, 0), (3, -1), (3, 4)):
        replay = suite.filled(count)
        _expect_refused(f"sampling {batch_size} of {count}", replay, partial(replay.sample, batch_size))


@check_replay.promise
def a_resume_draws_the_same_batches(suite: ReplaySuite) -> None:
    """A replay that loaded a state holds, draws and drops the same as the one that gave it."""
    for count in (0, 3, _CAPACITY, 2 * _CAPACITY + 3):
        replay = suite.filled(count, seed=5)
        if count:
            replay.sample(1)
        resumed = suite.make_replay(_CAPACITY, 6)
        resumed.load_state_dict(_state(replay))
        found, expected = ({"length": len(each), "n_added": each.n_added} for each in (resumed, replay))
        expect(found == expected, str(found), str(expected))
        for each in (replay, resumed):
            each.extend(suite.numbered(range(count, count + 3)))
        for _ in range(3):
            drawn, again = (_columns(each.sample(len(each))) for each in (replay, resumed))
            expect_same(drawn, again, f"resumed with {count} transitions, batch")


@check_replay.promise
def a_deep_copy_is_independent(suite: ReplaySuite) -> None:
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
        expect_same(expected, drawn, "the copy's batch", "the same as without copying, or no copy")
    expect_same(before, _state(replay), "after the copy was used, state")


@check_replay.promise
def a_foreign_state_is_refused(suite: ReplaySuite) -> None:
    """A foreign state, or one that lacks a part, is a ConfigError and changes nothing."""
    replay = suite.filled(_CAPACITY + 2)
    own = _state(replay)
    lacking = {key: value for key, value in own.items() if key != min(own)}
    for what, state in (("something else", {"weights": 1}), ("a state with a part missing", lacking)):
        _expect_refused(f"loading {what}", replay, partial(replay.load_state_dict, state))


def _columns(batch: Any) -> dict[str, Any]:
    return {name: np.asarray(getattr(batch, name).cpu()) for name in _COLUMNS}


def _rewards(replay: Any, batch_size: int | None = None) -> Any:
    size = len(replay) if batch_size is None else batch_size
    return np.concatenate([_columns(replay.sample(size))["rewards"] for _ in range(_DRAWS)])


def _state(replay: Any) -> dict[str, Any]:
    """The state, read back from a file."""
    return through_file(replay.state_dict())


def _expect_refused(what: str, replay: Any, call: Callable[[], Any]) -> None:
    before = _state(replay)
    expect_error(ConfigError, what, call)
    expect_same(before, _state(replay), f"after {what}, state")
