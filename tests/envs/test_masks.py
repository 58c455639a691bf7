"""Masks in the info of environments become a part of observations."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from stoker import DQN, PPO, ActionMaskObservation, ActMode, DQNConfig, make_gym
from stoker.envs.masks import with_action_mask, without_mask
from stoker.errors import ConfigError
from stoker.testing import ChainEnv
from stoker.trainer import TrainConfig
from stoker.trainer.making import env_for
from stoker.trainer.vectorizing import vector_env_for


class Informing(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A chain of 2 cells whose info has this mask, at resets and while an episode goes on."""

    def __init__(self, mask: Any, space: Any = None) -> None:
        super().__init__(ChainEnv(2))
        self.mask, self.action_space = mask, space or spaces.Discrete(2)
        self.resets = 0

    def reset(self, **settings: Any) -> Any:
        self.resets += 1
        return self.env.reset(**settings)[0], {"action_mask": self.mask}

    def step(self, action: Any) -> Any:
        *values, _ = self.env.step(int(np.ravel(action)[0]))
        return *values, {} if values[2] else {"action_mask": self.mask}


SEVERAL = spaces.MultiDiscrete([2, 3])


def test_the_mask_is_a_part_of_observations_and_may_be_missing_at_the_end() -> None:
    env = ActionMaskObservation(Informing(np.array([True, False])))
    assert env.observation_space["observation"] == ChainEnv(2).observation_space
    observation, _ = env.reset(seed=0)
    assert observation["action_mask"].tolist() == [1, 0]
    assert observation in env.observation_space
    observation, *_ = env.step(1)
    assert observation["action_mask"].tolist() == [1, 0]
    observation, _, is_over, _, info = env.step(1)
    assert (is_over, observation["action_mask"].tolist()) == (True, [1, 1])
    assert info["action_mask"].tolist() == [1, 1]
    assert observation in env.observation_space


def test_a_mask_of_several_numbers_may_be_a_tuple_as_gymnasium_samples_by() -> None:
    parts = (np.array([0, 1], np.int8), np.array([1, 1, 0], np.int8))
    for mask in (parts, np.concatenate(parts)):
        observation, _ = ActionMaskObservation(Informing(mask, SEVERAL)).reset()
        assert observation["action_mask"].tolist() == [0, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("mask", "space", "named"),
    [
        (
            [1, 1, 0],
            None,
            r"Env.reset has action_mask=\[1, 1, 0\].*0 or 1 for each of the 2 choices of Di",
        ),
        ("all", None, "action_mask='all'"),
        ((1, 1), spaces.MultiBinary(2), "each of the 4 choices of MultiBinary"),
    ],
)
def test_a_mask_of_another_form_is_refused(mask: Any, space: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        ActionMaskObservation(Informing(mask, space)).reset()


def test_a_mask_that_is_gone_and_actions_without_choices_are_refused() -> None:
    env = Informing([1, 1])
    masked = ActionMaskObservation(env)
    masked.reset()
    env.step = lambda action: (np.zeros(1, np.float32), 0.0, False, False, {})  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="step has no action_mask"):
        masked.step(0)
    with pytest.raises(ConfigError, match="needs Discrete, MultiDiscrete or MultiBinary actions, not Box"):
        ActionMaskObservation(gymnasium.make("Pendulum-v1"))


def test_only_an_environment_that_gives_a_mask_is_wrapped() -> None:
    masked = with_action_mask(Informing([1, 0]))
    assert isinstance(masked, ActionMaskObservation)
    assert with_action_mask(masked) is masked
    plain, box, no_env = ChainEnv(2), gymnasium.make("Pendulum-v1"), object()
    for env in (plain, box, no_env):
        assert with_action_mask(env) is env

    class Broken(ChainEnv):
        def reset(self, **settings: Any) -> Any:
            raise RuntimeError("no connection")

    class Older(ChainEnv):
        def reset(self, **settings: Any) -> Any:
            return super().reset(**settings)[0], None

    for broken in (Broken(), Older()):
        assert with_action_mask(broken) is broken, "its player meets the error"


def test_a_vector_form_with_a_mask_in_its_info_is_refused() -> None:
    vector = gymnasium.vector.SyncVectorEnv([lambda: Informing([1, 0])] * 2)
    with pytest.raises(ConfigError, match="vector form of env='X' has an action_mask.*use vectorize='sync'"):
        without_mask(vector, "X")
    assert vector.closed
    for make in (lambda: ChainEnv(2), lambda: ActionMaskObservation(Informing([1, 0]))):
        fine = gymnasium.vector.SyncVectorEnv([make] * 2)
        assert without_mask(fine, "X") is fine


def test_taxi_is_played_without_a_move_into_a_wall() -> None:
    env = make_gym("Taxi-v4")
    for agent in (
        DQN(env.observation_space, env.action_space, DQNConfig(learning_starts=32, batch_size=8)),
        PPO(env.observation_space, env.action_space),
    ):
        policy = agent.policy()
        observation, _ = env.reset(seed=1)
        for mode in [ActMode.EXPLORE] * 150 + [ActMode.EXPLOIT] * 20:
            [action], _ = policy.act([observation], mode)
            assert observation["action_mask"][action] == 1
            observation, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                observation, _ = env.reset()


def test_a_config_makes_masked_environments_for_agents_of_stoker_alone() -> None:
    config = TrainConfig(env="Taxi-v4", agent="ppo", num_envs=2, vectorize="sync")
    assert isinstance(env_for(config), ActionMaskObservation)
    vector = vector_env_for(config)
    observations, _ = vector.reset(seed=0)
    assert observations["action_mask"].shape == (2, 6)
    stacked = env_for(TrainConfig(env="Taxi-v4", agent="ppo", frame_stack=3))
    assert stacked.observation_space["observation"].shape == (3,)
    assert stacked.observation_space["action_mask"].shape == (6,)
    own = env_for(TrainConfig(env="Taxi-v4", agent="my:agent"))
    assert isinstance(own.observation_space, spaces.Discrete)
