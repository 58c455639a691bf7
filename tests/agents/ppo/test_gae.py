from __future__ import annotations

import numpy as np
import pytest

from stoker.agents.ppo.gae import generalized_advantages

# gamma 0.5 and lambda 0.5: a trace keeps a quarter per step. Worked by hand.
TABLE = {
    # rewards, values, next values, goes on -> advantages
    "one step that terminates": ([1], [3], [0], [False], [-2]),
    "one step that is cut off": ([1], [3], [4], [False], [0]),
    # deltas 2+0.5*2-1=2, 0+0.5*4-2=0, 4+0-4=0
    "three steps, terminated": ([2, 0, 4], [1, 2, 4], [2, 4, 0], [True, True, False], [2, 0, 0]),
    # deltas 2+1-1=2, 0+2-2=0, 4+0.5*16-4=8; 0+8/4=2; 2+2/4=2.5
    "three steps, cut off": ([2, 0, 4], [1, 2, 4], [2, 4, 16], [True, True, False], [2.5, 2, 8]),
    # two fragments: [4, 4 terminated], [8 cut off]; deltas 4+0.5*4-2=4, 4-4=0, 8+0.5*8-4=8
    "a trace stays in its fragment": ([4, 4, 8], [2, 4, 4], [4, 0, 8], [True, False, False], [4, 0, 8]),
    "nothing": ([], [], [], [], []),
}


@pytest.mark.parametrize("case", TABLE, ids=[name.replace(" ", "-") for name in TABLE])
def test_advantages_by_hand(case: str) -> None:
    rewards, values, next_values, goes_on, expected = (np.array(column, float) for column in TABLE[case])
    found = generalized_advantages(rewards, values, next_values, goes_on.astype(bool), 0.5, 0.5)
    assert found.dtype == np.float64
    assert found.tolist() == expected.tolist()


def test_lambda_0_looks_one_step_ahead_and_lambda_1_to_the_end() -> None:
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(2, 6))
    next_values = np.append(values[1:], 5.0)
    goes_on = np.arange(6) < 5
    one_step = generalized_advantages(rewards, values, next_values, goes_on, 0.9, 0.0)
    assert one_step == pytest.approx(rewards + 0.9 * next_values - values)
    whole = generalized_advantages(rewards, values, next_values, goes_on, 0.9, 1.0)
    for t in range(6):
        discounted = sum(0.9 ** (k - t) * rewards[k] for k in range(t, 6)) + 0.9 ** (6 - t) * 5.0
        assert whole[t] == pytest.approx(discounted - values[t])


def test_what_is_not_finite_stays_in_its_fragment() -> None:
    found = generalized_advantages(
        np.array([1.0, np.inf]), np.zeros(2), np.zeros(2), np.array([False, False]), 0.9, 0.9
    )
    assert found.tolist() == [1.0, np.inf]
