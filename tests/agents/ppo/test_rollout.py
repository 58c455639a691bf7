from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch

from stoker.agents.ppo.rollout import Rollout, generalized_advantages
from stoker.types import EpisodeStatus, Experience

ON, TERMINATED, TRUNCATED = EpisodeStatus
N_EXTRAS = 4  # log-probability, value, version, action


def rollout(capacity: int = 2) -> Rollout:
    """One that must grow; an observation is a number, and so is its value."""
    return Rollout((1,), np.float32, N_EXTRAS, capacity)


def add(
    to: Rollout, reward: float, value: float, status: EpisodeStatus, next_value: float, actor_id: Any = 0
) -> None:
    observation, next_observation = np.array([value], np.float32), np.array([next_value], np.float32)
    extras = np.array([-0.5, value, 3, 1])
    to.add(Experience(observation, 1, reward, next_observation, status, actor_id, extras), reward)


def advantages(of: Rollout) -> list[float]:
    """By gamma 0.5 and lambda 0.5; what is seen last is worth its own number."""
    return of.advantages(of.policy_extras[:, 1], of.successors()[:, 0], 0.5, 0.5).tolist()


def test_a_terminated_episode_has_no_future() -> None:
    ours = rollout()
    add(ours, 2, 1, ON, 99)
    add(ours, 4, 2, TERMINATED, 99)
    assert ours.successors().tolist() == []
    assert advantages(ours) == [2 + 1 - 1 + 0.25 * 2, 4 - 2]


def test_a_truncated_episode_goes_on_with_what_its_last_observation_is_worth() -> None:
    ours = rollout()
    add(ours, 2, 1, ON, 99)
    add(ours, 4, 2, TRUNCATED, 8)
    assert ours.successors().tolist() == [[8]]
    assert advantages(ours) == [2 + 1 - 1 + 0.25 * 6, 4 + 0.5 * 8 - 2]


def test_a_running_episode_goes_on_with_what_it_sees_now() -> None:
    ours = rollout()
    add(ours, 2, 1, ON, 99)
    add(ours, 4, 2, ON, 8)
    assert ours.successors().tolist() == [[8]]
    assert advantages(ours) == [3.5, 6]


def test_an_episode_that_is_given_up_does_not_leak_into_the_next() -> None:
    ours = rollout()
    add(ours, 2, 1, ON, 4)
    ours.give_up(0)
    add(ours, 4, 2, TERMINATED, 99)
    assert advantages(ours) == [2 + 0.5 * 4 - 1, 2], "the first does not see the value 2 of the new episode"
    leaking = rollout()
    add(leaking, 2, 1, ON, 4)
    add(leaking, 4, 2, TERMINATED, 99)
    assert advantages(leaking) != advantages(ours)


@pytest.mark.parametrize("status", [TERMINATED, TRUNCATED], ids=["terminated", "truncated"])
def test_giving_up_what_has_ended_or_never_began_changes_nothing(status: EpisodeStatus) -> None:
    ours = rollout()
    add(ours, 2, 1, status, 4)
    before = advantages(ours)
    ours.give_up(0)
    ours.give_up("nobody")
    assert advantages(ours) == before


def test_interleaved_actors_get_what_each_would_get_alone() -> None:
    rng = np.random.default_rng(0)
    together = rollout()
    alone = {actor_id: rollout() for actor_id in (0, 1, "c")}
    places: dict[Any, list[int]] = {actor_id: [] for actor_id in alone}
    for place in range(60):
        actor_id = (0, 1, "c")[rng.integers(3)]
        reward, value, next_value = rng.normal(size=3).round(2)
        status = (ON, ON, ON, TERMINATED, TRUNCATED)[rng.integers(5)]
        for one in (together, alone[actor_id]):
            if status is ON and reward > 1:
                one.give_up(actor_id)
            add(one, reward, value, status, next_value, actor_id)
        places[actor_id].append(place)
    found = np.array(advantages(together))
    assert len(together) == 60
    for actor_id, own in alone.items():
        assert found[places[actor_id]].tolist() == advantages(own)


def test_the_next_rollout_begins_with_nothing() -> None:
    ours, fresh = rollout(), rollout()
    add(ours, 2, 1, ON, 4)
    ours.clear()
    assert len(ours) == 0
    assert advantages(ours) == []
    for one in (ours, fresh):
        add(one, 1, 2, ON, 3)
    assert advantages(ours) == advantages(fresh)


def test_what_is_saved_of_episodes_of_one_step_is_what_they_were() -> None:
    ours = rollout()
    for last in (3.0, 5.0):
        add(ours, 1, 2, TERMINATED, last)
    assert ours.state_dict()["successors"].tolist() == [[3], [5]]


def test_arrays_are_copied() -> None:
    ours = rollout()
    observation, next_observation, extras = np.ones(1, np.float32), np.ones(1, np.float32), np.ones(N_EXTRAS)
    ours.add(Experience(observation, 1, 0.0, next_observation, ON, 0, extras), 0.0)
    for array in (observation, next_observation, extras):
        array.fill(7)
    assert ours.observations.tolist() == ours.successors().tolist() == [[1]]
    assert ours.policy_extras.tolist() == [[1] * N_EXTRAS]


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("count", [0, 1, 40])
def test_a_saved_one_goes_on_as_it_would_have(count: int) -> None:
    rng = np.random.default_rng(1)
    first, second = rollout(), rollout()
    for _ in range(count):
        status = (ON, ON, TERMINATED, TRUNCATED)[rng.integers(4)]
        add(first, *rng.normal(size=2), status, rng.normal(), ("a", 2, 3)[rng.integers(3)])
    add(second, 9, 9, ON, 9)  # what it held is forgotten
    second.load_state_dict(through_a_file(first.state_dict()))
    for one in (first, second):
        for actor_id in ("a", 2, 3):
            add(one, 1, 2, ON, 3, actor_id)
    assert len(second) == count + 3
    assert advantages(second) == advantages(first)
    assert np.array_equal(second.observations, first.observations)
    assert np.array_equal(second.policy_extras, first.policy_extras)


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


def test_a_loaded_rollout_leaves_the_state_as_it_is() -> None:
    ours, loaded = rollout(), rollout()
    add(ours, 2, 1, ON, 7)
    state = {
        name: part.clone() if isinstance(part, torch.Tensor) else part
        for name, part in ours.state_dict().items()
    }
    loaded.load_state_dict(state)
    add(loaded, 4, 2, TERMINATED, 9)
    assert state["successors"].tolist() == [[7]]
    assert state["has_future"].tolist() == [True]
    assert state["rewards"].tolist() == [2]
    assert loaded.successors().tolist() == []
