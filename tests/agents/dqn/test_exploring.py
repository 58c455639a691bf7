"""What is explored, against tables, and that it does not depend on how rows are grouped."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stoker.agents.dqn.exploring import action_probabilities, epsilon_greedy, softmax_actions

LN2 = math.log(2)

# values of a row, temperature, probabilities
TABLE = [
    ([0.0, 0.0, 0.0, 0.0], 1.0, [0.25, 0.25, 0.25, 0.25]),
    ([LN2, 0.0], 1.0, [2 / 3, 1 / 3]),
    ([LN2, 0.0], 0.5, [4 / 5, 1 / 5]),
    ([LN2, 0.0], 0.25, [16 / 17, 1 / 17]),
    ([0.0, LN2, 2 * LN2], 1.0, [1 / 7, 2 / 7, 4 / 7]),
    ([3 * LN2 + 500, 500.0], 1.0, [8 / 9, 1 / 9]),  # only differences count
    ([-1e4, 0.0, 1e4], 1.0, [0.0, 0.0, 1.0]),  # exp(1e4) is no float
    ([1.0, 1.0 + 1e-3], 1e-6, [0.0, 1.0]),
    ([-3e38, 3e38], 1.0, [0.0, 1.0]),
    ([1.0, -1.0], 1e9, [0.5, 0.5]),
    ([7.0], 1.0, [1.0]),
]


@pytest.mark.parametrize(
    ("values", "temperature", "expected"), TABLE, ids=[f"{v} at {t:g}" for v, t, _ in TABLE]
)
def test_probabilities_are_those_of_the_table(
    values: list[float], temperature: float, expected: list[float]
) -> None:
    rows = np.array([values, values], np.float32)
    found = action_probabilities(rows, temperature)
    assert found.dtype == np.float64
    assert found == pytest.approx(np.array([expected, expected]), rel=1e-4, abs=1e-8)
    assert found.sum(axis=1) == pytest.approx([1.0, 1.0], rel=1e-12)


def test_actions_come_as_often_as_they_are_likely() -> None:
    rows = np.tile(np.array([[0.0, LN2, 2 * LN2]], np.float32), (30_000, 1))
    actions = softmax_actions(rows, 1.0, np.random.default_rng(0))
    assert {type(action) for action in actions} == {int}
    shares = np.bincount(actions, minlength=3) / len(actions)
    assert shares == pytest.approx([1 / 7, 2 / 7, 4 / 7], abs=0.01)


class Draws:
    """A generator that gives the same number each time."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, self.value)


@pytest.mark.parametrize("n_actions", [1, 3, 7, 10, 49])
def test_the_least_and_the_largest_draw_give_the_first_and_the_last_action(n_actions: int) -> None:
    rows = np.zeros((1, n_actions), np.float32)
    assert softmax_actions(rows, 1.0, Draws(0.0)) == [0]
    assert softmax_actions(rows, 1.0, Draws(math.nextafter(1.0, 0.0))) == [n_actions - 1]


def test_an_action_without_any_probability_is_never_taken() -> None:
    rows = np.array([[0.0, 1e5, 0.0]], np.float32)
    for draw in (0.0, 0.5, math.nextafter(1.0, 0.0)):
        assert softmax_actions(rows, 1.0, Draws(draw)) == [1]


@pytest.mark.parametrize("explored", [epsilon_greedy, softmax_actions], ids=["epsilon", "softmax"])
@pytest.mark.parametrize("rate", [0.1, 0.9])
def test_grouping_does_not_change_what_a_row_draws(explored: object, rate: float) -> None:
    rows = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    together = explored(rows, rate, np.random.default_rng(1))
    generator, apart = np.random.default_rng(1), []
    for start, stop in [(0, 1), (1, 2), (2, 30), (30, 30), (30, 47), (47, 200)]:
        apart += explored(rows[start:stop], rate, generator)
    assert apart == together
    assert len(set(together)) == 5


def test_epsilon_is_the_share_of_random_actions() -> None:
    rows = np.tile(np.array([[0.0, 1.0, 0.0, 0.0]], np.float32), (20_000, 1))
    for epsilon in (0.0, 0.4, 1.0):
        actions = np.array(epsilon_greedy(rows, epsilon, np.random.default_rng(0)))
        assert (actions != 1).mean() == pytest.approx(epsilon * 3 / 4, abs=0.01)
