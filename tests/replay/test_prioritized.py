from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from stoker.errors import ConfigError
from stoker.replay import Batch, PrioritizedBatch, PrioritizedReplay, UniformReplay
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


def transitions(first: int, end: int) -> list[Experience]:
    return [transition(number) for number in range(first, end)]


def filled(count: int, capacity: int = 100, **settings_: Any) -> PrioritizedReplay:
    replay = PrioritizedReplay(capacity, (2,), **settings_)
    replay.extend(transitions(0, count))
    return replay


def ranked(**settings_: Any) -> PrioritizedReplay:
    """Four transitions; with alpha 1/2 and epsilon 1 their ``p**alpha`` are 1, 2, 3 and 4: 10 in all."""
    replay = filled(4, alpha=0.5, epsilon=1.0, **settings_)
    assert replay.update_priorities([0, 1, 2, 3], [0.0, 3.0, 8.0, 15.0]) == 4
    return replay


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(stage(state), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_same(left: PrioritizedBatch, right: PrioritizedBatch) -> None:
    for name, ours, theirs in zip(PrioritizedBatch._fields, left, right, strict=True):
        assert ours.dtype == theirs.dtype, name
        assert torch.equal(ours, theirs), name


def by_number(replay: PrioritizedReplay) -> dict[int, float]:
    """What it holds: the number of each transition and its ``p**alpha``."""
    state = replay.state_dict()
    return dict(zip(state["actions"].tolist(), state["priorities"].tolist(), strict=True))


# Priorities to probabilities to weights, by hand: (N P)**-beta with N = 4 and P = 0.1, 0.2, 0.3, 0.4

SHARES = [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize(
    ("beta", "plain"),
    [
        (1.0, [2.5, 1.25, 0.83333333, 0.625]),
        (0.5, [1.58113883, 1.11803399, 0.91287093, 0.79056942]),
        (0.0, [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_weights_have_one_of_1_in_each_batch(beta: float, plain: list[float]) -> None:
    replay = ranked(beta=beta, final_beta=beta)
    assert [(4 * share) ** -beta for share in SHARES] == pytest.approx(plain)
    for batch_size in (1, 2, 3, 4) * 10:
        batch = replay.sample(batch_size)
        found = [plain[number] for number in batch.actions.tolist()]
        assert batch.weights.dtype == torch.float32
        assert batch.weights.tolist() == pytest.approx([weight / max(found) for weight in found])
        assert batch.weights.max() == 1.0


def test_one_transition_is_drawn_from_each_stretch_of_the_total() -> None:
    """Of [0, 10) in stretches of 2.5, where the four have [0, 1), [1, 3), [3, 6) and [6, 10)."""
    replay = ranked()
    drawn = torch.stack([replay.sample(4).actions for _ in range(200)])
    assert [set(column.tolist()) for column in drawn.T] == [{0, 1}, {1, 2}, {2, 3}, {3}]
    assert torch.equal(drawn[:, -1], torch.full((200,), 3))


def test_a_single_draw_follows_the_probabilities() -> None:
    replay = ranked(seed=3)
    counts = torch.bincount(torch.cat([replay.sample(1).actions for _ in range(4_000)]), minlength=4)
    expected = 4_000 * torch.tensor(SHARES)
    assert ((counts - expected) ** 2 / expected).sum() < 16.27, "chi-square, 3 degrees of freedom, 0.1 %"


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_batches_follow_the_probabilities(alpha: float) -> None:
    replay = filled(200, 200, alpha=alpha, seed=1)
    priorities = np.random.default_rng(0).exponential(size=200) + 0.05
    replay.update_priorities(np.arange(200), priorities)
    counts = np.bincount(torch.cat([replay.sample(50).actions for _ in range(1_000)]), minlength=200)
    expected = 50_000 * priorities**alpha / (priorities**alpha).sum()
    assert ((counts - expected) ** 2 / expected).sum() < 268, "chi-square, 199 degrees of freedom, 0.1 %"


def test_beta_goes_along_a_line_with_each_sample_and_stays_at_its_end() -> None:
    replay = ranked(beta=0.4, final_beta=1.0, beta_steps=3)
    seen: list[float] = []
    for _ in range(5):
        seen.append(replay.beta)
        batch = replay.sample(4)
        drawn = batch.actions + 1
        assert batch.weights.tolist() == pytest.approx(((drawn.min() / drawn) ** seen[-1]).tolist())
    assert seen == pytest.approx([0.4, 0.6, 0.8, 1.0, 1.0])
    with pytest.raises(ConfigError, match="batch size"):
        replay.sample(0)
    assert replay._n_samples == 5, "what was refused does not count"


# What enters


def add_each(replay: PrioritizedReplay, experiences: list[Experience]) -> None:
    for experience in experiences:
        replay.add(experience)


def extend_columns(replay: PrioritizedReplay, experiences: list[Experience]) -> None:
    replay.extend_columns(
        np.array([e.observation for e in experiences], np.float32).reshape(-1, 2),
        np.array([e.action for e in experiences], np.int64),
        np.array([e.reward for e in experiences], np.float32),
        np.array([e.next_observation for e in experiences], np.float32).reshape(-1, 2),
        np.array([e.status.bootstrap_mask for e in experiences], np.float32),
    )


WAYS = {"add": add_each, "extend": PrioritizedReplay.extend, "columns": extend_columns}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@ways
def test_a_new_transition_has_the_highest_priority_so_far(way: Callable[..., None]) -> None:
    """1.0 at first; what was once the highest stays so when it is lowered, or has made way."""
    replay = PrioritizedReplay(4, (2,), alpha=1.0, epsilon=0.5)
    way(replay, transitions(0, 2))
    assert by_number(replay) == {0: 1.5, 1: 1.5}
    replay.update_priorities([0, 1], [0.25, 0.5])
    way(replay, transitions(2, 3))
    assert by_number(replay) == {0: 0.75, 1: 1.0, 2: 1.5}
    replay.update_priorities([1], [7.0])
    way(replay, transitions(3, 4))
    replay.update_priorities([1, 3], [0.0, 2.0])
    way(replay, transitions(4, 6))
    assert by_number(replay) == {4: 7.5, 5: 7.5, 2: 1.5, 3: 2.5}


@ways
def test_what_was_added_before_an_update_does_not_get_what_the_update_brought(
    way: Callable[..., None],
) -> None:
    """Although its priority is entered later: nobody has asked for it yet."""
    replay = filled(2, alpha=1.0, epsilon=0.5)
    way(replay, transitions(2, 4))
    replay.update_priorities([0], [9.0])
    way(replay, transitions(4, 5))
    assert by_number(replay) == {0: 9.5, 1: 1.5, 2: 1.5, 3: 1.5, 4: 9.5}


@given(
    capacity=st.integers(1, 12),
    steps=st.lists(
        st.one_of(
            st.integers(0, 30),
            st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 5)), max_size=6),
        ),
        max_size=12,
    ),
    way=st.sampled_from([*WAYS.values()]),
)
@settings(max_examples=150)
def test_priorities_are_those_of_a_plain_list(
    capacity: int,
    steps: list[int | list[tuple[int, float]]],
    way: Callable[..., None],
) -> None:
    """A whole number adds so many; a list updates: indices of all that was ever added, held or not."""
    replay = PrioritizedReplay(capacity, (2,), alpha=1.0, epsilon=0.25)
    plain: list[float] = []  # of all that was ever added
    highest = 1.0
    for step in steps:
        first_held = max(len(plain) - capacity, 0)
        if isinstance(step, int):
            way(replay, transitions(len(plain), len(plain) + step))
            plain += [highest + 0.25] * step
        elif plain:
            updates = [(index % len(plain), priority) for index, priority in step]
            n_updated = replay.update_priorities([i for i, _ in updates], [value for _, value in updates])
            assert n_updated == sum(index >= first_held for index, _ in updates)
            for index, priority in updates:
                plain[index] = priority + 0.25
            highest = max([highest, *(priority for index, priority in updates if index >= first_held)])
        first_held = max(len(plain) - capacity, 0)
        expected = {number: plain[number] for number in range(first_held, len(plain))}
        assert by_number(replay) == expected
        if plain:
            batch = replay.sample(len(replay))
            assert torch.equal(batch.indices, batch.actions)
            assert set(batch.actions.tolist()) <= expected.keys()


# What is drawn


def test_a_batch_is_whole_rows_of_what_is_held_and_knows_how_each_is_called() -> None:
    """Also where the ring has wrapped, and with terminated and truncated ends told apart."""
    replay = filled(23, 8)
    for _ in range(20):
        batch = replay.sample(8)
        assert batch.indices.dtype == torch.int64
        assert torch.equal(batch.indices, batch.actions)
        for row, number in enumerate(batch.actions.tolist()):
            assert 15 <= number < 23
            assert batch.observations[row].tolist() == [number, -number]
            assert batch.rewards[row] == number / 2
            assert batch.next_observations[row].tolist() == [number + 1, number + 2]
            assert batch.bootstrap_masks[row] == (0.0 if number % 3 == 1 else 1.0)
        assert isinstance(batch.transitions, Batch)
        assert batch.transitions.rewards is batch.rewards


def test_a_mask_of_several_steps_is_kept() -> None:
    replay = PrioritizedReplay(3, (2,))
    replay.add(transition(0), 0.81)
    assert replay.sample(1).bootstrap_masks.item() == pytest.approx(0.81)


def test_draws_are_seeded_and_leave_global_generators_alone() -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, same, other = (filled(50, seed=seed) for seed in (5, 5, 6))
    assert_same(first.sample(50), same.sample(50))
    assert not torch.equal(first.sample(10).actions, other.sample(10).actions)
    assert torch.equal(torch_before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])


def in_a_file(count: int, capacity: int, **settings_: Any) -> PrioritizedReplay:
    return filled(count, capacity, **settings_, memory_map=tempfile.gettempdir())


def as_on_a_device(count: int, capacity: int, **settings_: Any) -> PrioritizedReplay:
    replay = PrioritizedReplay(capacity, (2,), **settings_)
    replay._storage = Storage(replay._spec, replay._storage._rows, is_host=False)
    replay._put_one = replay._storage.put_one
    replay.extend(transitions(0, count))
    return replay


def test_batches_are_the_same_wherever_rows_lie() -> None:
    replays = [place(30, 20, seed=2) for place in (filled, in_a_file, as_on_a_device)]
    for step in range(30, 60):
        batches = [replay.sample(7) for replay in replays]
        for replay, batch in zip(replays, batches, strict=True):
            assert_same(batch, batches[0])
            replay.update_priorities(batch.indices, batch.rewards % 3)
            replay.add(transition(step))


@pytest.mark.parametrize(("count", "batch_size"), [(0, 1), (3, 4), (3, 0), (3, -1)])
def test_unfit_samples_are_refused(count: int, batch_size: int) -> None:
    replay = filled(count)
    with pytest.raises(ConfigError, match=f"cannot sample {batch_size} "):
        replay.sample(batch_size)


# Updates


def test_an_update_takes_tensors_arrays_and_lists() -> None:
    replay = filled(3, alpha=1.0, epsilon=0.5)
    replay.update_priorities(torch.tensor([0]), torch.tensor([2.0], requires_grad=True))
    replay.update_priorities(np.array([1], np.uint8), np.array([3], np.int32))
    replay.update_priorities([2], torch.tensor([4.0], dtype=torch.bfloat16))
    assert replay.update_priorities([], []) == 0
    assert by_number(replay) == {0: 2.5, 1: 3.5, 2: 4.5}


def test_of_an_index_that_comes_twice_the_last_priority_counts() -> None:
    replay = filled(3, alpha=1.0, epsilon=0.5)
    assert replay.update_priorities([1, 2, 1], [5.0, 6.0, 7.0]) == 3
    assert by_number(replay) == {0: 1.5, 1: 7.5, 2: 6.5}


def test_what_has_made_way_since_it_was_drawn_is_told_and_its_row_keeps_what_it_has() -> None:
    """The updates that are for others of the same batch are followed."""
    replay = filled(4, 4, alpha=1.0, epsilon=0.5)
    batch = replay.sample(4)
    replay.extend(transitions(4, 6))  # in the rows of 0 and 1
    assert replay.update_priorities([0, 1, 2, 3], [9.0, 9.0, 2.0, 3.0]) == 2
    assert by_number(replay) == {4: 1.5, 5: 1.5, 2: 2.5, 3: 3.5}
    replay.add(transition(6))
    assert by_number(replay)[6] == 3.5, "nor is the highest priority one of them"
    replay.extend(transitions(7, 20))
    assert replay.update_priorities(batch.indices, np.ones(4)) == 0


BAD_PRIORITIES = [
    (float("nan"), r"priorities\[2\], of transition 7, is nan"),
    (float("inf"), r"priorities\[2\], of transition 7, is inf"),
    (float("-inf"), r"priorities\[2\], of transition 7, is -inf"),
    (-0.5, r"priorities\[2\], of transition 7, is -0.5"),
    (1e39, r"priorities\[2\], of transition 7, is 1e\+39: .*finite as float32"),
]


@pytest.mark.parametrize(("bad", "named"), BAD_PRIORITIES, ids=lambda value: str(value)[:8])
def test_an_unfit_priority_is_named_and_nothing_is_changed(bad: float, named: str) -> None:
    """The first of them, also where others are behind it."""
    replay = filled(10, seed=4)
    replay.update_priorities(range(10), range(10))
    twin = filled(10, seed=4)
    twin.update_priorities(range(10), range(10))
    for values in (
        np.array([50.0, 2.0, bad, -1.0]),
        torch.tensor([50.0, 2.0, bad, -1.0], dtype=torch.float64),
    ):
        with pytest.raises(ConfigError, match=named):
            replay.update_priorities([0, 3, 7, 9], values)
    for one in (replay, twin):
        one.add(transition(10))
    assert by_number(replay) == by_number(twin)
    assert_same(replay.sample(10), twin.sample(10))


@pytest.mark.parametrize(
    ("indices", "priorities", "named"),
    [
        ([0, 10], [1.0, 1.0], r"indices\[1\] is 10, but 10 transitions were ever added"),
        ([-1, 3], [1.0, 1.0], r"indices\[0\] is -1, but 10"),
        ([0, 1], [1.0], r"indices have shape \[2\] and priorities \[1\]"),
        ([[0], [1]], [[1.0], [1.0]], r"indices have shape \[2, 1\]"),
        (3, 1.0, r"indices have shape \[\]"),
        ([0.0, 1.0], [1.0, 1.0], "indices are float64"),
        ([True, False], [1.0, 1.0], "indices are bool"),
        ([0, 1], ["a", "b"], "priorities are str"),
        ([0, 1], [1.0, None], "priorities are object"),
        ([0, 1], [[1.0], [1.0, 2.0]], "cannot be read as arrays"),
    ],
)
def test_unfit_updates_are_refused_and_nothing_is_changed(indices: Any, priorities: Any, named: str) -> None:
    replay = filled(10)
    before = by_number(replay)
    with pytest.raises(ConfigError, match=named):
        replay.update_priorities(indices, priorities)
    assert by_number(replay) == before


def test_priorities_of_very_different_sizes_give_finite_weights() -> None:
    replay = filled(1_000, 1_000, alpha=1.0)
    replay.update_priorities(range(1_000), [3e38] + [0.0] * 500 + [1.0] * 498 + [3e38])
    batch = replay.sample(64)
    assert set(batch.indices.tolist()) <= {0, 999}
    assert torch.isfinite(batch.weights).all()
    assert (batch.weights >= 0).all()


@pytest.mark.parametrize(
    ("setting", "value", "named"),
    [
        ("alpha", -0.1, "alpha must be from 0 to 1, got -0.1"),
        ("alpha", 1.5, "alpha must be from 0 to 1, got 1.5"),
        ("alpha", float("nan"), "alpha must be from 0 to 1, got nan"),
        ("beta", 2.0, "beta must be from 0 to 1, got 2.0"),
        ("final_beta", -1.0, "final_beta must be from 0 to 1"),
        ("beta_steps", 0, "beta_steps must be at least 1, got 0"),
        ("epsilon", 0.0, "epsilon must be above 0"),
        ("epsilon", float("nan"), "epsilon must be above 0"),
        ("capacity", 0, "capacity must be at least 1, got 0"),
    ],
)
def test_unfit_settings_are_refused(setting: str, value: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        PrioritizedReplay(**{"capacity": 5, "observation_shape": (2,), setting: value})


# States


def lived(count: int, capacity: int, **settings_: Any) -> PrioritizedReplay:
    """A replay that was added to, drawn from and updated, with an addition last."""
    replay = PrioritizedReplay(capacity, (2,), **settings_)
    for number in range(count):
        replay.add(transition(number))
        if number % 3 == 0:
            batch = replay.sample(min(number + 1, 3, capacity))
            replay.update_priorities(batch.indices, (batch.rewards * 7 + number) % 5)
    return replay


def go_on(replay: PrioritizedReplay, first: int, batch_size: int) -> list[PrioritizedBatch]:
    batches: list[PrioritizedBatch] = []
    for number in range(first, first + 12):
        batches.append(replay.sample(batch_size))
        replay.update_priorities(batches[-1].indices, (batches[-1].rewards + number) % 4)
        replay.add(transition(number))
    return batches


counts = pytest.mark.parametrize(
    "count", [3, 8, 13, 29], ids=["part full", "full", "wrapped", "twice wrapped"]
)


@counts
def test_a_loaded_replay_goes_on_to_the_bit(count: int) -> None:
    replay = lived(count, 8, seed=1, beta_steps=20)
    state = through_a_file(replay.state_dict())
    resumed = lived(30, 8, seed=2, beta_steps=20)
    resumed.load_state_dict(state)
    assert resumed.beta == replay.beta
    assert resumed.n_added == count
    for ours, theirs in zip(go_on(replay, count, 3), go_on(resumed, count, 3), strict=True):
        assert_same(ours, theirs)


def test_a_staged_state_does_not_change_with_the_replay() -> None:
    replay, area = lived(8, 8), StagingArea()
    staged, reference = area.stage(replay.state_dict()), replay.reference()
    kept = staged["priorities"].clone()
    go_on(replay, 8, 3)
    assert torch.equal(staged["priorities"], kept)
    assert torch.equal(reference["priorities"], kept)
    assert staged["priorities"].shape == (8,)


@given(count=st.integers(0, 25), capacity=st.integers(1, 10), new_capacity=st.integers(1, 14))
@settings(max_examples=60)
def test_in_another_capacity_the_newest_keep_their_priorities(
    count: int, capacity: int, new_capacity: int
) -> None:
    replay = lived(count, capacity)
    other = PrioritizedReplay(new_capacity, (2,))
    other.load_state_dict(replay.state_dict())
    expected = dict(sorted(by_number(replay).items())[-new_capacity:])
    assert by_number(other) == expected
    for one in (replay, other):
        one.add(transition(count))
    assert by_number(other)[count] == by_number(replay)[count], "new ones enter alike"
    batch = other.sample(len(other))
    assert torch.equal(batch.indices, batch.actions), "indices go on counting"


@pytest.mark.parametrize("n_known", [0, 5, 21])
def test_a_rebuilt_replay_goes_on_to_the_bit(n_known: int) -> None:
    """From 29 transitions of which the last 8 are held, added again from some point before these on."""
    replay = lived(29, 8, seed=1)
    reference = through_a_file(replay.reference())
    rebuilt = PrioritizedReplay(8, (2,), seed=3)
    rebuilt.begin_rebuild(reference, n_known)
    rebuilt.extend(transitions(n_known, 29))
    rebuilt.end_rebuild(reference)
    assert stage_equal(rebuilt.state_dict(), replay.state_dict())
    for ours, theirs in zip(go_on(replay, 29, 3), go_on(rebuilt, 29, 3), strict=True):
        assert_same(ours, theirs)


def test_a_rebuild_of_a_part_full_ring() -> None:
    replay = lived(5, 8, seed=1)
    reference = replay.reference()
    rebuilt = PrioritizedReplay(8, (2,), seed=3)
    rebuilt.begin_rebuild(reference, 0)
    add_each(rebuilt, transitions(0, 5))
    rebuilt.end_rebuild(reference)
    assert stage_equal(rebuilt.state_dict(), replay.state_dict())


def stage_equal(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(value, right[name]) if isinstance(value, torch.Tensor) else value == right[name]
        for name, value in left.items()
    )


@pytest.mark.parametrize("capacity", [3, 7, 20])
def test_a_rebuild_in_another_capacity_gives_each_the_priority_it_had(capacity: int) -> None:
    """What a larger ring has from before those that were held is as new."""
    replay = lived(29, 8, seed=1, alpha=1.0, epsilon=0.5)
    reference = replay.reference()
    rebuilt = PrioritizedReplay(capacity, (2,), alpha=1.0, epsilon=0.5)
    rebuilt.begin_rebuild(reference, 10)
    rebuilt.extend(transitions(10, 29))
    rebuilt.end_rebuild(reference)
    before = by_number(replay)
    new = reference["max_priority"] + 0.5
    held = range(max(10, 29 - capacity), 29)
    assert by_number(rebuilt) == {number: before.get(number, new) for number in held}
    assert rebuilt.beta == replay.beta


def test_a_rebuild_from_too_few_is_refused() -> None:
    reference = lived(12, 8).reference()
    rebuilt = PrioritizedReplay(8, (2,))
    rebuilt.begin_rebuild(reference, 4)
    rebuilt.extend(transitions(4, 10))
    with pytest.raises(ConfigError, match="rebuilt from 10 transitions where 12 had been added"):
        rebuilt.end_rebuild(reference)


@pytest.mark.parametrize(
    ("saved", "alpha", "expected"),
    [
        (0.5, 1.0, [1.0, 4.0, 9.0, 16.0]),
        (0.5, 0.25, [1.0, 2**0.5, 3**0.5, 2.0]),
        (0.5, 0.0, [1.0, 1.0, 1.0, 1.0]),
        (0.0, 0.5, [4.0, 4.0, 4.0, 4.0]),
    ],
)
def test_with_another_alpha_saved_priorities_count_as_it_says(
    saved: float, alpha: float, expected: list[float]
) -> None:
    replay = filled(4, alpha=saved, epsilon=1.0)
    replay.update_priorities(range(4), [0.0, 3.0, 8.0, 15.0])
    other = PrioritizedReplay(9, (2,), alpha=alpha, epsilon=1.0)
    other.load_state_dict(replay.state_dict())
    assert list(by_number(other).values()) == pytest.approx(expected)


def test_a_state_of_a_uniform_replay_is_refused_and_the_other_way_round_it_is_taken() -> None:
    uniform, prioritized = UniformReplay(8, (2,)), lived(5, 8)
    before = stage(prioritized.state_dict())
    with pytest.raises(
        ConfigError, match="PrioritizedReplay: it lacks alpha, max_priority, n_samples, prior"
    ):
        prioritized.load_state_dict(uniform.state_dict())
    with pytest.raises(ConfigError, match="PrioritizedReplay: it lacks alpha"):
        prioritized.begin_rebuild(uniform.reference(), 0)
    assert stage_equal(prioritized.state_dict(), before)
    uniform.load_state_dict(before)
    assert uniform.n_added == 5


@pytest.mark.parametrize(
    "priorities",
    [torch.ones(4), torch.tensor([1.0, 0.0, 1, 1, 1]), torch.tensor([1.0, torch.nan, 1, 1, 1])],
    ids=["too few", "none", "not finite"],
)
def test_a_damaged_state_is_refused_and_nothing_is_changed(priorities: torch.Tensor) -> None:
    replay, other = lived(5, 8), lived(7, 8)
    before = stage(other.state_dict())
    with pytest.raises(ConfigError, match="saved priorities are not 5 finite numbers above 0"):
        other.load_state_dict({**replay.state_dict(), "priorities": priorities})
    assert stage_equal(other.state_dict(), before)
