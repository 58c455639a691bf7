"""A replay that was saved, copied or rebuilt at any point goes on as the one that it came from."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple
from hypothesis import given, settings, strategies as st

from stoker.errors import ConfigError
from stoker.nested import difference
from stoker.replay.prioritized import PrioritizedReplay
from stoker.replay.ring import UniformReplay
from stoker.replay.sum_tree import SumTree
from stoker.testing.contract import through_file
from stoker.types import EpisodeStatus, Experience

Replay = UniformReplay | PrioritizedReplay

OBSERVATIONS: list[Space[Any]] = [
    Box(-1, 1, ()),
    Box(-1, 1, (3,), np.float64),
    Box(0, 255, (2, 3), np.uint8),
    Box(0, 255, (2, 2, 3), np.uint8),
    Discrete(4, start=2),
    MultiBinary(3),
    Dict({"camera": Box(0, 255, (2, 2), np.uint8), "arm": Tuple((Box(-1, 1, (2,)), Discrete(3)))}),
    Tuple((Box(-1, 1, (1,)), MultiDiscrete([2, 3]))),
]
ACTIONS: list[Space[Any]] = [Discrete(3), Box(-1, 1, ()), Box(-1, 1, (2, 2)), MultiDiscrete([2, 5])]
CAPACITY = 5


def transitions(observations: Space[Any], actions: Space[Any], count: int) -> list[Experience]:
    observations.seed(1)
    actions.seed(2)
    return [
        Experience(
            observations.sample(),
            actions.sample(),
            float(at),
            observations.sample(),
            list(EpisodeStatus)[at % 3],
        )
        for at in range(count)
    ]


def use(replay: Replay, batch_size: int = 3) -> Any:
    """Draw, learn priorities of what was drawn, and return what was drawn."""
    if len(replay) < batch_size:
        return None
    batch = replay.sample(batch_size)
    if isinstance(replay, PrioritizedReplay):
        replay.update_priorities(batch.indices, batch.rewards % 7)
    return list(batch)


def go_on(replay: Replay, rest: list[Experience]) -> list[Any]:
    drawn: list[Any] = []
    for each in rest:
        replay.add(each)
        drawn.append(use(replay))
    return [*drawn, use(replay), use(replay), through_file(replay.state_dict())]


@given(
    kind=st.sampled_from([UniformReplay, PrioritizedReplay]),
    observations=st.sampled_from(OBSERVATIONS),
    actions=st.sampled_from(ACTIONS),
    at=st.integers(0, 12),
)
@settings(max_examples=120, deadline=None)
def test_saved_copied_or_rebuilt_at_any_point(
    kind: type[Replay], observations: Space[Any], actions: Space[Any], at: int
) -> None:
    def make(seed: int) -> Replay:
        return kind.for_spaces(observations, actions, CAPACITY, seed=seed)

    given_ = transitions(observations, actions, 16)
    replay = make(3)
    for each in given_[:at]:
        replay.add(each)
        use(replay)
    loaded, rebuilt = make(4), make(4)
    loaded.load_state_dict(through_file(replay.state_dict()))
    rebuilt.begin_rebuild(replay.reference(), max(at - CAPACITY, 0))
    for each in given_[max(at - CAPACITY, 0) : at]:
        rebuilt.add(each)
    rebuilt.end_rebuild(through_file(replay.reference()))
    others = [loaded, rebuilt, copy.deepcopy(replay), pickle.loads(pickle.dumps(replay))]
    expected = go_on(replay, given_[at:])
    for other in others:
        assert difference(go_on(other, given_[at:]), expected) is None


@pytest.mark.parametrize("kind", [UniformReplay, PrioritizedReplay])
def test_a_memory_mapped_replay_is_copied_too(kind: type[Replay], tmp_path: Path) -> None:
    replay = kind(CAPACITY, (2,), memory_map=tmp_path)
    given_ = transitions(Box(-1, 1, (2,)), Discrete(3), 12)
    replay.extend(given_[:7])
    use(replay)
    copied = copy.deepcopy(replay)
    expected = go_on(replay, given_[7:])
    assert difference(go_on(copied, given_[7:]), expected) is None


@pytest.mark.parametrize("make", [SumTree, lambda n: SumTree(n, most_at_top=2)])
def test_a_copied_tree_sums_what_is_written_to_it(make: Callable[[int], SumTree]) -> None:
    tree = make(100)
    tree.set(np.arange(100), np.ones(100))
    copied = copy.deepcopy(tree)
    copied.set(np.array([7]), 5.0)
    assert (tree.total, copied.total) == (100, 104)
    assert copied.leaves[7] == 5


@pytest.mark.parametrize("kind", [UniformReplay, PrioritizedReplay])
def test_a_shallow_copy_is_refused_because_it_would_share_rows(kind: type[Replay]) -> None:
    with pytest.raises(ConfigError, match=rf"copy.copy of a {kind.__name__} .*use copy.deepcopy"):
        copy.copy(kind(CAPACITY, (2,)))


@pytest.mark.parametrize("kind", [UniformReplay, PrioritizedReplay])
def test_an_empty_replay_is_saved_whatever_the_addresses_of_its_arrays(kind: type[Replay]) -> None:
    """``torch.save`` refuses tensors of two dtypes at one address, which arrays without memory may have."""
    state = kind(CAPACITY, (2,)).state_dict()
    empty = [each for each in state.values() if isinstance(each, torch.Tensor) and not each.numel()]
    assert len(empty) >= 5
    assert {each.untyped_storage().data_ptr() for each in empty} == {0}
