from __future__ import annotations

import io
import itertools
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from stoker.errors import ConfigError
from stoker.replay import Batch, UniformReplay
from stoker.replay.storage import Storage
from stoker.types import EpisodeStatus, Experience
from stoker.writer import StagingArea, stage

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


def add_each(replay: UniformReplay, experiences: list[Experience]) -> None:
    for experience in experiences:
        replay.add(experience)


def extend_columns(replay: UniformReplay, experiences: list[Experience]) -> None:
    replay.extend_columns(*columns_of(experiences))


WAYS = [add_each, UniformReplay.extend, extend_columns]


def columns_of(experiences: list[Experience]) -> list[np.ndarray]:
    return [
        np.array([e.observation for e in experiences], np.float32).reshape(-1, 2),
        np.array([e.action for e in experiences], np.int64),
        np.array([e.reward for e in experiences], np.float32),
        np.array([e.next_observation for e in experiences], np.float32).reshape(-1, 2),
        np.array([e.status.bootstrap_mask for e in experiences], np.float32),
    ]


class PlainReplay:
    """What a replay does, column by column and without haste."""

    def __init__(self, capacity: int, seed: int) -> None:
        self.capacity, self.size, self.position = capacity, 0, 0
        self.columns = Batch(
            torch.zeros(capacity, 2),
            torch.zeros(capacity, dtype=torch.int64),
            torch.zeros(capacity),
            torch.zeros(capacity, 2),
            torch.zeros(capacity),
        )
        self.generator = torch.Generator().manual_seed(seed)

    def add(self, experience: Experience) -> None:
        for column, value in zip(self.columns, columns_of([experience]), strict=True):
            column[self.position] = torch.as_tensor(value[0])
        self.position = (self.position + 1) % self.capacity
        self.size = min(self.size + 1, self.capacity)

    def sample(self, batch_size: int) -> Batch:
        rows = torch.randint(self.size, (batch_size,), generator=self.generator)
        return Batch(*(column[rows] for column in self.columns))


def on_a_device(replay: UniformReplay) -> UniformReplay:
    """The same replay, storing and sampling as it does on another device, which here is the CPU too."""
    replay._storage = Storage(replay._spec, replay._storage._rows, is_host=False)
    replay._put_one = replay._storage.put_one
    return replay


def at_each_place(capacity: int, shape: tuple[int, ...], **settings: Any) -> list[UniformReplay]:
    """Equal replays: in memory, in a file, and as on a device."""
    return [place(capacity, shape, **settings) for place in PLACES.values()]


def in_memory(capacity: int, shape: tuple[int, ...], *args: Any, **settings: Any) -> UniformReplay:
    return UniformReplay(capacity, shape, *args, **settings)


def in_a_file(capacity: int, shape: tuple[int, ...], *args: Any, **settings: Any) -> UniformReplay:
    return UniformReplay(capacity, shape, *args, **settings, memory_map=tempfile.gettempdir())


def as_on_a_device(capacity: int, shape: tuple[int, ...], *args: Any, **settings: Any) -> UniformReplay:
    return on_a_device(UniformReplay(capacity, shape, *args, **settings))


PLACES = {"host": in_memory, "file": in_a_file, "device": as_on_a_device}
somewhere = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)


def assert_same(left: Batch, right: Batch) -> None:
    for name, ours, theirs in zip(Batch._fields, left, right, strict=True):
        assert ours.dtype == theirs.dtype, name
        assert torch.equal(ours, theirs), name


def batches_equal(left: Batch, right: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@given(
    capacity=st.integers(1, 12), slices=st.lists(st.integers(0, 40), max_size=8), way=st.sampled_from(WAYS)
)
@settings(max_examples=120, deadline=None)
def test_the_ring_holds_the_newest_in_order(
    capacity: int, slices: list[int], way: Callable[[UniformReplay, list[Experience]], None]
) -> None:
    replay = UniformReplay(capacity, (2,))
    count = 0
    for length in slices:
        way(replay, [transition(number) for number in range(count, count + length)])
        count += length
        assert len(replay) == min(count, capacity)
        assert replay.n_added == count
        assert held(replay) == list(range(max(0, count - capacity), count))


@given(capacity=st.integers(1, 12), slices=st.lists(st.integers(0, 40), max_size=8), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_batches_are_those_of_a_plain_ring_whichever_way_transitions_came(
    capacity: int, slices: list[int], seed: int
) -> None:
    plain = PlainReplay(capacity, seed)
    replays = [UniformReplay(capacity, (2,), seed=seed) for _ in WAYS]
    replays += at_each_place(capacity, (2,), seed=seed)
    count = 0
    for length in slices:
        experiences = [transition(number) for number in range(count, count + length)]
        count += length
        for experience in experiences:
            plain.add(experience)
        for replay, way in zip(replays, [*WAYS, *WAYS], strict=True):
            way(replay, experiences)
        if count:
            for batch_size in (1, plain.size, plain.size, -(-plain.size // 2)):
                expected = plain.sample(batch_size)
                for replay in replays:
                    assert_same(replay.sample(batch_size), expected)


@given(capacity=st.integers(1, 12), count=st.integers(1, 30), batch_size=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_samples_are_whole_rows_of_what_is_held(capacity: int, count: int, batch_size: int) -> None:
    replay = UniformReplay(capacity, (2,))
    for number in range(count):
        replay.add(transition(number))
    batch_size = min(batch_size, capacity, count)
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
    replay.sample(3)
    file = io.BytesIO()
    torch.save(replay.state_dict(), file)
    file.seek(0)
    resumed = UniformReplay(8, (2,), seed=2)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for number in range(count, count + 10):
        assert batches_equal(replay.sample(3), resumed.sample(3))
        replay.add(transition(number))
        resumed.add(transition(number))


@somewhere
@pytest.mark.parametrize(
    ("count", "n_known", "new_capacity"),
    [(5, 0, 8), (8, 0, 8), (29, 21, 8), (29, 4, 8), (29, 10, 3), (29, 10, 20)],
)
def test_a_replay_is_rebuilt_from_what_was_added_behind_some_point(
    count: int, n_known: int, new_capacity: int, place: Callable[..., UniformReplay]
) -> None:
    """In a ring of the same capacity it goes on to the bit; in another one it holds the newest that fit."""
    replay = place(8, (2,), seed=1)
    replay.extend([transition(number) for number in range(count)])
    replay.sample(3)
    reference = replay.reference()
    rebuilt = place(new_capacity, (2,), seed=2)
    rebuilt.begin_rebuild(reference, n_known)
    rebuilt.extend([transition(number) for number in range(n_known, count)])
    rebuilt.end_rebuild(reference)
    assert rebuilt.n_added == count
    assert held(rebuilt) == list(range(max(n_known, count - new_capacity), count))
    if new_capacity == 8:
        assert rebuilt.reference().keys() == reference.keys()
        for number in range(count, count + 10):
            assert batches_equal(replay.sample(3), rebuilt.sample(3))
            replay.add(transition(number))
            rebuilt.add(transition(number))


@pytest.mark.parametrize("until", [10, 13], ids=["too few", "too many"])
def test_a_rebuild_that_cannot_be_is_refused(until: int) -> None:
    replay = UniformReplay(8, (2,))
    replay.extend([transition(number) for number in range(12)])
    rebuilt = UniformReplay(8, (2,))
    with pytest.raises(ConfigError, match="not the state of a UniformReplay: it lacks capacity, generator"):
        rebuilt.begin_rebuild({"n_added": 12, "size": 8, "position": 4}, 4)
    rebuilt.begin_rebuild(replay.reference(), 4)
    rebuilt.extend([transition(number) for number in range(4, until)])
    with pytest.raises(ConfigError, match=f"rebuilt from {until} transitions where 12 had been added"):
        rebuilt.end_rebuild(replay.reference())


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
    first, same, other = (torch.cat([replay.sample(4).actions for _ in range(1_000)]) for replay in replays)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert all(900 < count < 1_100 for count in torch.bincount(first, minlength=4).tolist())
    assert torch.equal(torch_before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])


def test_a_sample_does_not_change_when_the_ring_is_overwritten() -> None:
    replay = UniformReplay(2, (2,))
    replay.extend([transition(0), transition(1)])
    batch = replay.sample(2)
    before = batch.observations.clone()
    replay.extend([transition(8), transition(9)])
    assert torch.equal(batch.observations, before)


def test_what_is_added_is_copied() -> None:
    replay = UniformReplay(2, (2,))
    buffer = np.array([1, 2], np.float32)
    replay.add(Experience(buffer, 0, 0.0, buffer, EpisodeStatus.CONTINUING))
    buffer[:] = 7
    assert replay.sample(1).observations.tolist() == [[1, 2]]


def refused(number: int, **wrong: Any) -> Experience:
    good = transition(number)
    values = {
        "observation": good.observation,
        "action": good.action,
        "reward": good.reward,
        "next_observation": good.next_observation,
        **wrong,
    }
    return Experience(**values, status=good.status)


REFUSED = [
    ({"observation": np.zeros(3, np.float32)}, ValueError, "broadcast"),
    ({"next_observation": np.zeros(3, np.float32)}, ValueError, "broadcast"),
    ({"next_observation": np.zeros((1, 2, 2), np.float32)}, ValueError, "broadcast"),
    ({"observation": [1.0, "one"]}, ValueError, "could not convert string"),
    ({"action": None}, TypeError, "NoneType"),
    ({"action": 2**63}, OverflowError, "too large"),
    ({"action": "left"}, ValueError, "left"),
    ({"reward": "much"}, ValueError, "much"),
    ({"reward": object()}, TypeError, "object"),
]


@somewhere
@pytest.mark.parametrize(("wrong", "error", "named"), REFUSED)
def test_a_refused_transition_leaves_the_ring_as_it_was(
    wrong: dict[str, Any], error: type[Exception], named: str, place: Callable[..., UniformReplay]
) -> None:
    """Also where the ring is full, and the refused one would have taken the place of one that is held."""
    replay = place(30, (2,))
    replay.extend([transition(number) for number in range(40)])
    before = stage(replay.state_dict())
    bad = refused(7, **wrong)
    for n_before in (0, 1, 20):  # alone, of two, of many
        with pytest.raises(error, match=named):
            replay.extend([*(transition(number) for number in range(40, 40 + n_before)), bad])
    with pytest.raises(error, match=named):
        replay.add(bad)
    after = replay.state_dict()
    assert all(
        torch.equal(after[name], value) if isinstance(value, torch.Tensor) else after[name] == value
        for name, value in before.items()
    )
    replay.add(transition(40))
    assert held(replay) == list(range(11, 41))


@pytest.mark.parametrize(
    ("given_values", "stored"),
    [
        ({"action": np.int32(3)}, ("actions", 3)),
        ({"action": np.array(3)}, ("actions", 3)),
        ({"action": np.array([3])}, ("actions", 3)),
        ({"action": torch.tensor(3)}, ("actions", 3)),
        ({"action": True}, ("actions", 1)),
        ({"action": 3.0}, ("actions", 3)),
        ({"reward": np.float64(0.1)}, ("rewards", np.float32(0.1))),
        ({"reward": 2}, ("rewards", 2.0)),
        ({"reward": torch.tensor(0.5)}, ("rewards", 0.5)),
        ({"observation": [1, 2]}, ("observations", [1, 2])),
        ({"observation": torch.tensor([1, 2])}, ("observations", [1, 2])),
        ({"observation": np.array([[1, 2]])}, ("observations", [1, 2])),
        ({"observation": 5}, ("observations", [5, 5])),
        ({"observation": np.arange(4.0)[::2]}, ("observations", [0, 2])),
    ],
)
def test_what_numpy_can_take_is_taken(given_values: dict[str, Any], stored: tuple[str, Any]) -> None:
    """Alone and among others, where transitions go in by columns: a number for an array is spread alike."""
    for n_more in (0, 20):
        replay = UniformReplay(50, (2,))
        replay.extend([refused(7, **given_values), *(transition(number) for number in range(n_more))])
        name, value = stored
        assert replay.state_dict()[name][0].tolist() == value
        assert replay.state_dict()["actions"][1:].tolist() == list(range(n_more))


@somewhere
@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        (torch.bool, ()),
        (torch.uint8, (84, 84, 4)),
        (torch.int8, (1,)),
        (torch.float16, (3,)),
        (torch.int32, (1, 2)),
        (torch.float32, ()),
        (torch.int64, (3,)),
        (torch.float64, (1, 2)),
    ],
    ids=str,
)
def test_observations_keep_their_dtype_and_shape(
    dtype: torch.dtype, shape: tuple[int, ...], place: Callable[..., UniformReplay]
) -> None:
    replay = place(3, shape, dtype)
    items = torch.arange(int(np.prod(shape))).reshape(shape)
    images = [(items % 7 + number).to(dtype).numpy() for number in range(4)]
    for first, second in itertools.pairwise(images):
        replay.add(Experience(first, 5, 0.25, second, EpisodeStatus.TERMINATED))
    replay.extend_columns([images[3]], [9], [1.5], [images[0]], [1.0])
    seen: set[tuple[int, float]] = set()
    for batch in [replay.sample(3) for _ in range(7)]:
        assert batch.observations.dtype == batch.next_observations.dtype == dtype
        assert batch.observations.shape == batch.next_observations.shape == (3, *shape)
        for row in range(3):
            before = [np.array_equal(batch.observations[row].numpy(), image) for image in images]
            after = [np.array_equal(batch.next_observations[row].numpy(), image) for image in images]
            assert any(a and b for a, b in zip(after, [before[-1], *before[:-1]], strict=True))
        seen |= set(zip(batch.actions.tolist(), batch.rewards.tolist(), strict=True))
    assert seen == {(5, 0.25), (9, 1.5)}


def test_a_large_batch_is_the_same_on_several_threads() -> None:
    """Where torch selects the rows, which it does with all its threads."""
    few, many = (UniformReplay(40, (84, 84), torch.uint8, seed=1) for _ in range(2))
    for replay in (few, many):
        generator = np.random.default_rng(0)
        for number in range(40):
            image = generator.integers(0, 256, (84, 84), np.uint8)
            replay.add(Experience(image, number, number / 2, image.T, EpisodeStatus.CONTINUING))
    n_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = few.sample(40)
        torch.set_num_threads(2)
        found = many.sample(40)
    finally:
        torch.set_num_threads(n_threads)
    assert_same(found, expected)


def test_columns_may_be_arrays_tensors_or_lists_of_any_fitting_dtype() -> None:
    replay = UniformReplay(4, (2,))
    replay.extend_columns(
        torch.tensor([[1, 2], [3, 4]], requires_grad=False),
        np.array([1, 2], np.uint8),
        [1, 2],
        np.array([[1.5, 2], [3, 4]], np.float64)[:, ::-1],
        np.array([True, False]),
    )
    state = replay.state_dict()
    assert state["observations"].tolist() == [[1, 2], [3, 4]]
    assert state["actions"].tolist() == [1, 2]
    assert state["rewards"].tolist() == [1, 2]
    assert state["next_observations"].tolist() == [[2, 1.5], [4, 3]]
    assert state["bootstrap_masks"].tolist() == [1, 0]


def test_a_batch_goes_from_one_replay_to_another() -> None:
    first, second = UniformReplay(20, (2,)), UniformReplay(50, (2,))
    first.extend([transition(number) for number in range(20)])
    batch = first.sample(20)
    second.extend_columns(*batch)
    held_rows = second.state_dict()
    assert_same(Batch(*(held_rows[name] for name in Batch._fields)), batch)


@pytest.mark.parametrize(
    ("column", "value", "named"),
    [
        ("observations", np.zeros((3, 3)), r"observations has shape \[3, 3\]: give float32 \[3, 2\]"),
        ("observations", np.zeros(()), "observations is one value: give one per transition"),
        ("actions", np.zeros((3, 1), int), r"actions has shape \[3, 1\]: give int64 \[3\]"),
        ("rewards", np.zeros(2), r"rewards has shape \[2\]: give float32 \[3\]"),
        ("rewards", 1.0, r"rewards has shape \[\]: give float32 \[3\]"),
        (
            "next_observations",
            np.zeros((4, 2)),
            r"next_observations has shape \[4, 2\]: give float32 \[3, 2\]",
        ),
        ("next_observations", [[1, 2], [3], [4, 5]], "next_observations cannot be read as an array"),
        ("actions", np.zeros(3), "actions is float64 and would not stay what it is: give int64"),
        ("actions", np.full(3, 2**63, np.uint64), "actions has values from 9223372036854775808 to"),
        ("bootstrap_masks", [1.0, None, 0.0], "bootstrap_masks is object"),
    ],
)
def test_unfit_columns_are_refused_and_nothing_is_added(column: str, value: Any, named: str) -> None:
    replay = UniformReplay(4, (2,))
    replay.extend([transition(number) for number in range(6)])
    good = columns_of([transition(number) for number in range(6, 9)])
    columns = {**dict(zip(Batch._fields, good, strict=True)), column: value}
    with pytest.raises(ConfigError, match=named):
        replay.extend_columns(**columns)
    assert held(replay) == [2, 3, 4, 5]
    assert replay.n_added == 6


def test_observations_that_numpy_lacks_a_dtype_for_are_refused() -> None:
    with pytest.raises(ConfigError, match="observations cannot be stored as torch.bfloat16"):
        UniformReplay(4, (2,), torch.bfloat16)


@somewhere
def test_a_staged_state_is_dense_and_of_the_filled_rows_only(place: Callable[..., UniformReplay]) -> None:
    """The columns of a state are strided views; what is kept and written of them must not be."""
    replay = place(1_000, (2,), seed=1)
    replay.extend([transition(number) for number in range(10)])
    area = StagingArea()
    for staged in (stage(replay.state_dict()), area.stage(replay.state_dict())):
        for name in Batch._fields:
            assert staged[name].is_contiguous()
            assert staged[name].untyped_storage().nbytes() == staged[name].nbytes
        file = io.BytesIO()
        torch.save(staged, file)
        assert file.tell() < 20_000, "10 rows of 32 bytes, a generator of 5 kB and names"
        file.seek(0)
        other = UniformReplay(1_000, (2,), seed=2)
        other.load_state_dict(torch.load(file, weights_only=True))
        replay._generator.set_state(staged["generator"])
        assert_same(other.sample(10), replay.sample(10))
    assert area.held_bytes == 10 * (8 + 4 + 4 + 8 + 8) + staged["generator"].nbytes


@pytest.mark.parametrize(
    ("filled", "batch_size", "named"),
    [
        (0, 1, "sample 1 of 0 transitions: wait for more, or lower the batch size"),
        (3, 4, "sample 4 of 3 transitions: wait for more"),
        (9, 6, "sample 6 of 5 transitions: raise capacity=5"),
        (3, 0, "sample 0 transitions: .*at least 1"),
        (0, 0, "sample 0 transitions: .*at least 1"),
        (3, -1, "sample -1 transitions: .*at least 1"),
    ],
)
def test_unfit_samples_are_refused(filled: int, batch_size: int, named: str) -> None:
    replay = UniformReplay(5, (2,))
    replay.extend([transition(number) for number in range(filled)])
    before = replay.state_dict()["generator"]
    with pytest.raises(ConfigError, match=named):
        replay.sample(batch_size)
    assert torch.equal(replay.state_dict()["generator"], before), "nothing was drawn"


@pytest.mark.parametrize("capacity", [0, -3])
def test_unfit_capacities_are_refused(capacity: int) -> None:
    with pytest.raises(ConfigError, match=f"got {capacity}"):
        UniformReplay(capacity, (2,))


@pytest.mark.parametrize("capacity", [10**15, 10**30], ids=["beyond all memory", "beyond all addresses"])
def test_a_capacity_that_no_memory_has_is_refused(capacity: int) -> None:
    with pytest.raises(
        ConfigError, match=f"take {32 * capacity:,} bytes.*lower buffer_size .*, or .*memory_map"
    ):
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
