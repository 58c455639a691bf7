from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from stoker.replay.sum_tree import SumTree

TOPS = [1, 5, 8192]
"""A tree of as many levels as there can be, one of some, and one that is all top."""

weights = st.floats(1e-3, 1e3)
writes = st.lists(st.lists(st.tuples(st.integers(0, 10**6), weights), max_size=30), max_size=6)


def whole(values: list[int]) -> np.ndarray:
    return np.array(values, np.int64)


@given(n_items=st.integers(1, 700), slices=writes, top=st.sampled_from(TOPS))
@settings(max_examples=150)
def test_sums_and_places_are_those_of_a_plain_list(
    n_items: int, slices: list[list[tuple[int, float]]], top: int
) -> None:
    tree = SumTree(n_items, most_at_top=top)
    plain = np.ones(n_items)
    tree.set(np.arange(n_items), 1.0)
    for written in [[], *slices]:
        items = whole([item % n_items for item, _ in written])
        tree.set(items, np.array([weight for _, weight in written]))
        for item, (_, weight) in zip(items, written, strict=True):
            plain[item] = weight
        np.testing.assert_array_equal(tree.leaves, plain)
        assert tree.total == pytest.approx(math.fsum(plain), rel=1e-13)
        middles = np.cumsum(plain) - plain / 2
        np.testing.assert_array_equal(tree.find(middles), np.arange(n_items))


@pytest.mark.parametrize("top", TOPS)
def test_a_point_falls_on_the_item_whose_stretch_begins_at_or_before_it(top: int) -> None:
    """Whole numbers, whose sums are exact: item 0 has [0, 3), 1 has [3, 4), 2 has [4, 6), 3 has [6, 10)."""
    tree = SumTree(40, most_at_top=top)
    tree.set(whole([3, 0, 2, 1]), np.array([4.0, 3.0, 2.0, 1.0]))
    assert tree.total == 10
    points = np.array([0, 2.9, 3, 3.9, 4, 5.9, 6, 9.9])
    assert tree.find(points).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert tree.find(points[::-1]).tolist() == [3, 3, 2, 2, 1, 1, 0, 0]
    assert tree.find(points[:0]).tolist() == []


@pytest.mark.parametrize("top", TOPS)
def test_a_point_beyond_the_total_falls_on_the_last_item_that_is_there(top: int) -> None:
    """As rounding may make of one just below it."""
    tree = SumTree(333, most_at_top=top)
    for n_there in (20, 17, 256, 333):
        tree.replace(np.full(n_there, 0.1))
        assert tree.find(np.array([tree.total, tree.total * 1.01, 1e9])).tolist() == [n_there - 1] * 3


@pytest.mark.parametrize("top", TOPS)
def test_the_last_one_counts_of_an_item_that_comes_twice(top: int) -> None:
    tree = SumTree(100, most_at_top=top)
    tree.set(whole([7, 8, 7]), np.array([5.0, 1.0, 3.0]))
    assert tree.total == 4
    tree.set(whole([8]), 9.0)
    tree.set(whole([8]), 6.0)
    assert tree.total == 9


@pytest.mark.parametrize("top", TOPS)
def test_what_is_replaced_is_gone(top: int) -> None:
    tree = SumTree(100, most_at_top=top)
    tree.set(np.arange(100), 0.5)
    tree.replace(np.array([2.0, 4.0]))
    assert tree.total == 6
    assert tree.leaves.tolist() == [2.0, 4.0] + [0.0] * 98
    tree.set(whole([2]), 1.0)
    assert tree.total == 7
    assert tree.find(np.array([0.0, 2.0, 6.5])).tolist() == [0, 1, 2]


@pytest.mark.parametrize("top", [8, 8192])
def test_a_million_updates_leave_no_error_behind(top: int) -> None:
    """Weights of very different sizes: what adding differences would drown in."""
    generator = np.random.default_rng(0)
    n_items = 100_000
    tree, plain = SumTree(n_items, most_at_top=top), np.zeros(n_items)
    for _ in range(1_000):
        items = generator.integers(0, n_items, 1_000)
        written = 10 ** generator.uniform(-9, 9, 1_000)
        tree.set(items, written)
        plain[items] = written
        assert tree.total > 0
    assert tree.total == pytest.approx(math.fsum(plain), rel=1e-13)
    tree.set(np.arange(n_items), 1e-9)
    assert tree.total == pytest.approx(1e-4, rel=1e-13), "nothing is left of what was larger"


@pytest.mark.parametrize("top", TOPS)
def test_equal_leaves_give_equal_sums_to_the_bit(top: int) -> None:
    """However they came: a tree that is loaded goes on as the one that was saved."""
    generator = np.random.default_rng(1)
    grown, loaded = SumTree(5_000, most_at_top=top), SumTree(5_000, most_at_top=top)
    for size in (1, 64, 3, 2_000, 64, 5_000, 1, 17):
        grown.set(generator.integers(0, 5_000, size), generator.random(size))
        loaded.replace(grown.leaves.copy())
        points = generator.random(500) * grown.total
        assert grown.total == loaded.total
        np.testing.assert_array_equal(grown.find(points), loaded.find(points))
        assert all(np.array_equal(a, b) for a, b in zip(grown._levels, loaded._levels, strict=True))
        np.testing.assert_array_equal(grown._before, loaded._before)


def test_writes_that_nobody_asks_about_do_not_pile_up() -> None:
    tree = SumTree(64)
    for _ in range(1_000):
        tree.set(np.arange(16), 1.0)
    assert sum(len(items) for items in tree._written) <= 64
    assert tree.total == 16
