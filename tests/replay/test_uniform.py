from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.errors import ConfigError
from stoker.replay import Batch, UniformReplay
from stoker.types import EpisodeStatus, Experience
from stoker.writer import stage

STATUSES = [EpisodeStatus.CONTINUING, EpisodeStatus.TERMINATED, EpisodeStatus.TRUNCATED]


def transition(number: int) -> Experience:
    """A transition that can be told apart, in every column, from those of other numbers."""
    return Experience(
        observation=np.array([number, -number], np.float32),
        action=number,
        reward=number / 2,
        next_observation=np.array([number + 1, number + 2], np.float32),
        status=STATUSES[number % 3],
    )


def assert_row(batch: Batch, row: int, number: int) -> None:
    assert batch.observations[row].tolist() == [number, -number]
    assert batch.actions[row].item() == number
    assert batch.rewards[row].item() == number / 2
    assert batch.next_observations[row].tolist() == [number + 1, number + 2]
    assert batch.bootstrap_masks[row].item() == (0.0 if number % 3 == 1 else 1.0)


def held(replay: UniformReplay) -> list[int]:
    """The numbers of the transitions it holds, oldest first."""
    state = replay.state_dict()
    rows = state["actions"].tolist()
    if state["size"] < state["capacity"]:
        return rows
    return rows[state["position"] :] + rows[: state["position"]]


def batches_equal(left: Batch, right: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@given(capacity=st.integers(1, 12), slices=st.lists(st.integers(0, 15), max_size=8), staged=st.booleans())
@settings(max_examples=80, deadline=None)
def test_the_ring_holds_the_newest_in_order(capacity: int, slices: list[int], staged: bool) -> None:
    replay = UniformReplay(capacity, (2,))
    extend = replay._extend_staged if staged else replay.extend  # the way in on other devices than the CPU
    count = 0
    for length in slices:
        extend([transition(number) for number in range(count, count + length)])
        count += length
        assert len(replay) == min(count, capacity)
        assert held(replay) == list(range(max(0, count - capacity), count))


@given(capacity=st.integers(1, 12), slices=st.lists(st.integers(0, 15), max_size=8))
@settings(max_examples=40, deadline=None)
def test_staged_rows_lie_where_rows_written_one_by_one_lie(capacity: int, slices: list[int]) -> None:
    one_by_one, staged = UniformReplay(capacity, (2,), seed=3), UniformReplay(capacity, (2,), seed=3)
    count = 0
    for length in slices:
        experiences = [transition(number) for number in range(count, count + length)]
        one_by_one.extend(experiences)
        staged._extend_staged(experiences)
        count += length
    if count:
        assert batches_equal(one_by_one.sample(50), staged.sample(50))


@given(capacity=st.integers(1, 12), count=st.integers(1, 30), batch_size=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_samples_are_whole_rows_of_what_is_held(capacity: int, count: int, batch_size: int) -> None:
    replay = UniformReplay(capacity, (2,))
    for number in range(count):
        replay.add(transition(number))
    batch = replay.sample(batch_size)
    assert [column.shape[0] for column in batch] == [batch_size] * 5
    for row, number in enumerate(batch.actions.tolist()):
        assert number in held(replay)
        assert_row(batch, row, number)


@given(
    capacity=st.integers(1, 10),
    count=st.integers(0, 25),
    new_capacity=st.integers(1, 14),
    more=st.integers(0, 5),
)
@settings(max_examples=80, deadline=None)
def test_a_state_keeps_the_newest_that_fit(capacity: int, count: int, new_capacity: int, more: int) -> None:
    replay = UniformReplay(capacity, (2,))
    replay.extend([transition(number) for number in range(count)])
    other = UniformReplay(new_capacity, (2,), seed=9)
    other.load_state_dict(replay.state_dict())
    expected = held(replay)[-new_capacity:]
    assert held(other) == expected
    other.extend([transition(number) for number in range(count, count + more)])
    assert held(other) == [*expected, *range(count, count + more)][-new_capacity:]


@pytest.mark.parametrize("count", [3, 8, 13], ids=["half full", "full", "wrapped"])
def test_samples_after_a_load_are_those_of_the_uninterrupted_replay(count: int) -> None:
    replay = UniformReplay(8, (2,), seed=1)
    replay.extend([transition(number) for number in range(count)])
    replay.sample(5)
    file = io.BytesIO()
    torch.save(replay.state_dict(), file)
    file.seek(0)
    resumed = UniformReplay(8, (2,), seed=2)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for number in range(count, count + 10):
        assert batches_equal(replay.sample(16), resumed.sample(16))
        replay.add(transition(number))
        resumed.add(transition(number))


def test_a_state_is_the_filled_rows_only_in_the_replays_own_memory() -> None:
    replay = UniformReplay(100, (2,))
    replay.extend([transition(number) for number in range(4)])
    state = replay.state_dict()
    assert state["observations"].shape == (4, 2)
    assert state["actions"].tolist() == [0, 1, 2, 3]
    assert state["actions"].data_ptr() == replay.state_dict()["actions"].data_ptr(), "not a copy"
    kept = stage(state)
    assert kept["observations"].untyped_storage().nbytes() == 4 * 2 * 4, "nor is the empty rest copied"
    replay.load_state_dict(UniformReplay(100, (2,)).state_dict())
    replay.extend([transition(number) for number in range(50, 60)])
    assert kept["actions"].tolist() == [0, 1, 2, 3]
    assert state["actions"].tolist() == [50, 51, 52, 53]


def test_sampling_is_uniform_seeded_and_leaves_global_generators_alone() -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    replays = [UniformReplay(4, (2,), seed=seed) for seed in (5, 5, 6)]
    for replay in replays:
        replay.extend([transition(number) for number in range(4)])
    first, same, other = (replay.sample(4_000).actions for replay in replays)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert all(900 < count < 1_100 for count in torch.bincount(first, minlength=4).tolist())
    assert torch.equal(torch_before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])


def test_a_sample_does_not_change_when_the_ring_is_overwritten() -> None:
    replay = UniformReplay(2, (2,))
    replay.extend([transition(0), transition(1)])
    batch = replay.sample(10)
    before = batch.observations.clone()
    replay.extend([transition(8), transition(9)])
    assert torch.equal(batch.observations, before)


def test_what_is_added_is_copied() -> None:
    replay = UniformReplay(2, (2,))
    buffer = np.array([1, 2], np.float32)
    replay.add(Experience(buffer, 0, 0.0, buffer, EpisodeStatus.CONTINUING))
    buffer[:] = 7
    assert replay.sample(1).observations.tolist() == [[1, 2]]


def test_a_refused_transition_leaves_the_ring_as_it_was() -> None:
    replay = UniformReplay(3, (2,))
    replay.add(transition(0))
    wrong = Experience(np.zeros(3, np.float32), 0, 0.0, np.zeros(3, np.float32), EpisodeStatus.CONTINUING)
    with pytest.raises(ValueError, match="broadcast"):
        replay.add(wrong)
    replay.add(transition(1))
    assert held(replay) == [0, 1]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_observations_keep_their_dtype(dtype: torch.dtype) -> None:
    replay = UniformReplay(2, (1, 2), dtype)
    image = np.array([[3, 200]])
    replay.add(Experience(image, 0, 0.0, image, EpisodeStatus.TRUNCATED))
    batch = replay.sample(1)
    assert batch.observations.dtype == batch.next_observations.dtype == dtype
    assert batch.observations.tolist() == [[[3, 200]]]


@pytest.mark.parametrize(
    ("filled", "batch_size", "named"),
    [(0, 4, "sample 4 of 0 "), (3, 0, "sample 0 of 3 "), (3, -1, "sample -1 of 3 ")],
)
def test_unfit_samples_are_refused(filled: int, batch_size: int, named: str) -> None:
    replay = UniformReplay(5, (2,))
    replay.extend([transition(number) for number in range(filled)])
    with pytest.raises(ConfigError, match=named):
        replay.sample(batch_size)


@pytest.mark.parametrize("capacity", [0, -3])
def test_unfit_capacities_are_refused(capacity: int) -> None:
    with pytest.raises(ConfigError, match=f"got {capacity}"):
        UniformReplay(capacity, (2,))


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (UniformReplay(4, (3,)), r"torch.float32 \[1, 3\].*takes torch.float32 \[1, 2\]"),
        (UniformReplay(4, (2,), torch.uint8), r"torch.uint8 \[1, 2\].*takes torch.float32 \[1, 2\]"),
    ],
    ids=["shape", "dtype"],
)
def test_states_of_other_observations_are_refused(other: UniformReplay, named: str) -> None:
    observation = np.ones(other.state_dict()["observations"].shape[1:])
    other.add(Experience(observation, 0, 0.0, observation, EpisodeStatus.CONTINUING))
    replay = UniformReplay(4, (2,))
    replay.add(transition(1))
    with pytest.raises(ConfigError, match=named):
        replay.load_state_dict(other.state_dict())
    assert held(replay) == [1]


def test_what_is_no_replay_state_is_refused() -> None:
    with pytest.raises(ConfigError, match="lacks actions, bootstrap_masks"):
        UniformReplay(4, (2,)).load_state_dict({"position": 0})
