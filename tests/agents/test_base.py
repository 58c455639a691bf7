"""The base of stoker's agents: an agent saved at any point resumes bit for bit; other states are refused."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, Space
from hypothesis import given, settings, strategies as st
from msgspec.structs import replace

from stoker.agents import (
    BC,
    DQN,
    IQN,
    PPO,
    BCConfig,
    DiscreteCQL,
    DiscreteCQLConfig,
    DQNConfig,
    IQNConfig,
    LearningAgent,
    PPOConfig,
)
from stoker.agents.base import available_devices, generator_state, resolve_device, seeded_generator
from stoker.errors import ConfigError
from stoker.nested import difference
from stoker.testing.agent_driving import feed, load_state, state_of
from stoker.testing.contract import through_file
from stoker.types import ActMode, EpisodeStatus, Experience
from stoker.writer import stage

STEPS = 130  # more than the 100 observations that moments are taken over at once
OBSERVATIONS = [
    Box(-1, 1, ()),
    Box(-1, 1, (3,)),
    Box(-1, 1, (3,), np.float64),
    Box(0, 255, (4,), np.uint8),
    Box(-9, 9, (1,), np.int64),
    Box(-1, 1, (2, 3)),
    Box(0, 255, (2, 2, 3), np.uint16),
]
DISCRETE = Discrete(3, start=-1)
ACTIONS: list[Space[Any]] = [DISCRETE, Box(-1, 1, ()), Box(-1, 1, (1,)), Box(-1, 1, (2, 3), np.float64)]

dqn_settings = st.fixed_dictionaries(
    {
        "normalize_observations": st.booleans(),
        "normalize_rewards": st.booleans(),
        "n_step": st.sampled_from([1, 3]),
        "prioritized": st.booleans(),
        "clip_rewards": st.sampled_from([None, 2.0]),
        "tau": st.sampled_from([None, 0.1]),
        "target_update_interval": st.sampled_from([7, 500]),
        "double": st.booleans(),
        "dueling": st.booleans(),
        "exploration": st.sampled_from(["epsilon", "softmax"]),
    }
)
ppo_settings = st.fixed_dictionaries(
    {
        "normalize_observations": st.booleans(),
        "normalize_rewards": st.booleans(),
        "clip_rewards": st.sampled_from([None, 3.0]),
        "target_kl": st.sampled_from([None, 0.01]),
        "learning_rate_schedule": st.sampled_from(["constant", "linear"]),
    }
)


def play(agent: LearningAgent, observations: Space[Any], steps: int) -> list[Experience]:
    """What two interleaved actors do with the agent's first policy, in short episodes of both endings."""
    observations.seed(5)
    policy, seen = agent.policy(), [observations.sample(), observations.sample()]
    experiences: list[Experience] = []
    for at in range(steps):
        actor, after = at % 2, observations.sample()
        actions, memories = policy.act([seen[actor]], ActMode.EXPLORE)
        status = EpisodeStatus.of(at % 9 == 8, at % 13 == 12)
        extras = None if memories is None else memories[0]
        experiences.append(Experience(seen[actor], actions[0], at % 4, after, status, actor, extras))
        seen[actor] = after
    return experiences


def assert_a_save_leaves_no_trace(make: Any, observations: Space[Any], at: int) -> None:
    experiences = play(make(), observations, STEPS)
    agent, resumed = make(), make()
    feed(agent, experiences[:at])
    load_state(resumed, state_of(agent))
    said = [feed(each, experiences[at:]) for each in (agent, resumed)]
    assert difference(*said) is None
    acted = [
        each.policy().act([experiences[0].observation] * 3, ActMode.EXPLORE) for each in (agent, resumed)
    ]
    assert difference(*acted) is None
    assert difference(state_of(agent), state_of(resumed)) is None


@given(observations=st.sampled_from(OBSERVATIONS), at=st.integers(0, STEPS), chosen=dqn_settings)
@settings(max_examples=15, deadline=None)
def test_dqn(observations: Space[Any], at: int, chosen: dict[str, Any]) -> None:
    config = DQNConfig(learning_starts=20, batch_size=8, buffer_size=50, hidden_sizes=(8,), **chosen)
    assert_a_save_leaves_no_trace(lambda: DQN(observations, DISCRETE, config, seed=2), observations, at)


@given(
    observations=st.sampled_from(OBSERVATIONS),
    actions=st.sampled_from(ACTIONS),
    at=st.integers(0, STEPS),
    chosen=ppo_settings,
)
@settings(max_examples=15, deadline=None)
def test_ppo(observations: Space[Any], actions: Space[Any], at: int, chosen: dict[str, Any]) -> None:
    config = PPOConfig(
        rollout_steps=30, batch_size=10, n_epochs=2, hidden_sizes=(8,), schedule_steps=400, **chosen
    )
    assert_a_save_leaves_no_trace(lambda: PPO(observations, actions, config, seed=2), observations, at)


BOX = Box(-1, 1, (4,))


def dqn(seen: Space[Any] = BOX, acted: Space[Any] = DISCRETE, seed: int = 0, **chosen: Any) -> DQN:
    small = {"learning_starts": 8, "batch_size": 8, "buffer_size": 64, "hidden_sizes": (16,)}
    return DQN(seen, acted, DQNConfig(**{**small, **chosen}), seed)


def ppo(seen: Space[Any] = BOX, acted: Space[Any] = DISCRETE, seed: int = 0, **chosen: Any) -> PPO:
    small = {"rollout_steps": 20, "batch_size": 8, "n_epochs": 2, "hidden_sizes": (16,)}
    return PPO(seen, acted, PPOConfig(**{**small, **chosen}), seed)


def iqn(seen: Space[Any] = BOX, acted: Space[Any] = DISCRETE, seed: int = 0, **chosen: Any) -> IQN:
    small = {"learning_starts": 8, "batch_size": 8, "buffer_size": 64, "hidden_sizes": (16,)}
    return IQN(seen, acted, IQNConfig(**{**small, **chosen}), seed)


def cql(seen: Space[Any] = BOX, acted: Space[Any] = DISCRETE, seed: int = 0, **chosen: Any) -> DiscreteCQL:
    small = {"learning_starts": 8, "batch_size": 8, "buffer_size": 64, "hidden_sizes": (16,)}
    return DiscreteCQL(seen, acted, DiscreteCQLConfig(**{**small, **chosen}), seed)


def bc(seen: Space[Any] = BOX, acted: Space[Any] = DISCRETE, seed: int = 0, **chosen: Any) -> BC:
    small = {"learning_rate": 3e-4, "batch_size": 8, "buffer_size": 64, "hidden_sizes": (16,)}
    return BC(seen, acted, BCConfig(**{**small, **chosen}), seed)


AGENTS: dict[str, Any] = {"dqn": dqn, "iqn": iqn, "ppo": ppo, "bc": bc, "cql": cql}


@pytest.mark.parametrize("kind", AGENTS)
def test_a_state_neither_follows_the_agent_nor_leads_it(kind: str) -> None:
    make = AGENTS[kind]
    experiences = play(make(), BOX, 90)
    agent, twin, other = make(), make(), make()
    feed(agent, experiences[:45])
    other.load_state_dict(agent.state_dict())  # not even copied, as a session does
    state = stage(agent.state_dict())
    frozen = through_file(state)
    load_state(twin, state_of(agent))
    twin.load_state_dict(state)
    for each in (agent, twin):
        feed(each, experiences[45:])
    assert difference(stage(state), frozen) is None
    assert difference(stage(other.state_dict()), frozen) is None
    assert difference(state_of(twin), state_of(agent)) is None


@pytest.mark.parametrize("kind", AGENTS)
def test_acting_changes_the_acting_state_and_nothing_else(kind: str) -> None:
    agent = AGENTS[kind]()
    before = stage(agent.state_dict())
    agent.policy().act([np.zeros(4, np.float32)], ActMode.EXPLORE)
    after = agent.state_dict()
    assert {name for name in after if difference(before[name], after[name])} == agent.acting_state


@pytest.mark.parametrize("kind", AGENTS)
def test_policies_made_before_a_load_explore_with_the_loaded_generator(kind: str) -> None:
    agent, saved = AGENTS[kind](seed=1), AGENTS[kind](seed=2)
    policy = agent.policy()
    agent.load_state_dict(saved.state_dict())
    agent.publish(policy)
    observations = [np.zeros(4, np.float32)] * 50
    assert difference(*(each.act(observations, ActMode.EXPLORE) for each in (policy, saved.policy()))) is None


@pytest.mark.parametrize("kind", AGENTS)
def test_a_resume_keeps_the_settings_that_the_agent_was_made_with(kind: str) -> None:
    saved, agent = AGENTS[kind](learning_rate=0.1), AGENTS[kind](learning_rate=1e-6)
    experiences = play(saved, BOX, 20)
    feed(saved, experiences[:7])
    load_state(agent, state_of(saved))
    assert agent.config.learning_rate == 1e-6
    moved: list[float] = []
    for each in (agent, saved):
        before = each.policy().weights()["weights"]
        feed(each, experiences[7:])
        moved.append(float((each.policy().weights()["weights"] - before).abs().max()))
    assert 0 < moved[0] < 1e-4 < moved[1]


@pytest.mark.parametrize("kind", AGENTS)
def test_images_that_the_user_has_scaled_are_learned_from_as_uint8_ones_are(kind: str) -> None:
    images, scaled = Box(0, 255, (36, 40, 1), np.uint8), Box(0, 1, (36, 40, 1), np.float32)
    agents = [AGENTS[kind](seen, network="cnn") for seen in (images, scaled)]
    experiences = play(agents[0], images, 24)
    feed(agents[0], experiences)
    changes = [
        {name: getattr(step, name) / np.float32(255) for name in ("observation", "next_observation")}
        for step in experiences
    ]
    feed(agents[1], [replace(step, **change) for step, change in zip(experiences, changes, strict=True)])
    assert agents[0].opt_steps > 0
    assert difference(*(agent.policy().weights() for agent in agents)) is None


OTHERS: dict[str, list[tuple[dict[str, Any], str]]] = {
    "dqn": [
        ({"seen": Box(0, 1, (2, 2))}, r"observation_space.*saved.*\[2, 2\].*here.*\[4\]"),
        ({"seen": Box(0, 9, (4,), np.uint8)}, r"observation_space.*saved.*uint8.*here.*float32"),
        ({"acted": Discrete(4)}, r"action_space.*saved.*'n': 4.*here.*'n': 3"),
        ({"acted": Discrete(3)}, r"action_space.*saved.*'start': 0.*here.*'start': -1"),
        ({"hidden_sizes": (8, 8)}, r"hidden_sizes.*saved \(8, 8\), here \(16,\)"),
        ({"normalize_observations": True}, "normalize_observations.*saved True, here False"),
    ],
    "ppo": [],
}
OTHERS["ppo"] = [
    *OTHERS["dqn"],
    ({"acted": Box(0, 1, (3,))}, r"action_space.*saved.*'shape': \[3\]"),
    ({"activation": "relu"}, "activation.*saved relu, here tanh"),
]
OTHERS["dqn"].append(({"dueling": True}, "dueling.*saved True, here False"))
OTHERS["iqn"] = [*OTHERS["dqn"], ({"n_cosines": 8}, "n_cosines.*saved 8, here 64")]
OTHERS["cql"] = OTHERS["dqn"]
OTHERS["bc"] = [*OTHERS["dqn"][:-1], OTHERS["ppo"][-2]]


@pytest.mark.parametrize("kind", AGENTS)
def test_states_that_do_not_fit_are_refused_and_change_nothing(kind: str) -> None:
    agent = AGENTS[kind]()
    before = stage(agent.state_dict())
    for other, named in OTHERS[kind]:
        with pytest.raises(ConfigError, match=named):
            agent.load_state_dict(through_file(AGENTS[kind](**other).state_dict()))
    with pytest.raises(ConfigError, match="normalize_observations does not fit: saved False, here True"):
        AGENTS[kind](normalize_observations=True).load_state_dict(through_file(agent.state_dict()))
    state = agent.state_dict()
    for unfit, named in (
        ({**state, "agent": "sac"}, f"a {kind} agent cannot load the state of a sac agent"),
        ({"weights": 1, 0: 1}, r"cannot load the state of no agent \(its keys: weights, 0\)"),
        ({}, r"no agent \(its keys: none\)"),
        ({k: v for k, v in state.items() if k != "optimizer"}, "incomplete: it lacks optimizer"),
        ({**state, "network": {}}, r"weights of network does not fit: saved \{\}, here \{'"),
        (
            {**state, "config": {**state["config"], "network": "cnn"}},
            "network does not fit: saved cnn, here mlp",
        ),
    ):
        with pytest.raises(ConfigError, match=named):
            agent.load_state_dict(unfit)
    assert difference(stage(agent.state_dict()), before) is None


def test_losses_of_running_episodes_are_saved_and_those_of_given_up_ones_forgotten() -> None:
    first, second, third = dqn(seed=1), dqn(seed=2), dqn(seed=3)
    feed(first, play(first, BOX, 12))
    for other in (second, third):
        other.load_state_dict(through_file(first.state_dict()))
    third.on_episode_start(1)  # as a session does after a resume that does not continue the episode
    extras = first.episode_extras(1)
    assert extras.keys() == {"epsilon", "loss_mean", "loss_max", "loss_std"}
    assert second.episode_extras(1) == extras
    assert third.episode_extras(1) == {"epsilon": first.exploration_rate}


@pytest.mark.parametrize("kind", AGENTS)
def test_unfit_seeds_are_refused(kind: str) -> None:
    for seed in (-1, 1.5, "x"):
        with pytest.raises(ConfigError, match=f"seed={seed!r}: give an int of at least 0"):
            AGENTS[kind](seed=seed)
        with pytest.raises(ConfigError, match=f"seed={seed!r}: give an int of at least 0"):
            AGENTS[kind]().policy().fork(seed)


@pytest.mark.parametrize("kind", AGENTS)
def test_only_its_own_kind_of_policy_is_published_to(kind: str) -> None:
    other = AGENTS["dqn" if kind == "ppo" else "ppo"]().policy()
    with pytest.raises(ConfigError, match=f"policies it made, not to a {type(other).__name__}"):
        AGENTS[kind]().publish(other)


def test_weights_of_a_policy_are_its_own_memory() -> None:
    policy = dqn().policy()
    sent, before = policy.weights(), policy.weights()["weights"]
    sent["weights"].fill_(0)
    assert torch.equal(policy.weights()["weights"], before)


N_CALLS, N_DRAWS = 20, 200_000


def test_a_generators_state_is_never_one_in_the_middle_of_a_call() -> None:
    other = seeded_generator(0)
    between = [generator_state(other)]
    for _ in range(N_CALLS):
        other.random(N_DRAWS)
        between.append(generator_state(other))
    generator = seeded_generator(0)
    begun = threading.Event()

    def draw() -> None:
        begun.set()
        for _ in range(N_CALLS):
            generator.random(N_DRAWS)

    thread = threading.Thread(daemon=True, target=draw)
    thread.start()
    assert begun.wait(20)
    seen = []
    while thread.is_alive():
        seen.append(generator_state(generator))
    thread.join()
    assert seen
    assert all(state in between for state in seen)
    assert generator_state(generator) == between[-1]


def test_every_available_device_can_hold_a_tensor() -> None:
    devices = available_devices()
    assert devices[0] == "cpu"
    for name in devices:
        device = resolve_device(name)
        assert torch.ones(1, device=device).device.type == device.type


def test_devices_are_taken_by_name_or_as_such() -> None:
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == torch.device("cpu")


def test_unfit_devices_are_refused_with_the_available_ones() -> None:
    for name in ["cuda:99", "meta", "gpu", "", "cuda:x"]:
        with pytest.raises(ConfigError, match=f"'{name}'.*available: cpu"):
            resolve_device(name)
