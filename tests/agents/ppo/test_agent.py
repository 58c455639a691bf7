from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

from stoker.agents import PPO, ChecksInput, HasReplay, LearningAgent, PPOConfig
from stoker.agents.networks import seeded
from stoker.agents.protocol import settings_of
from stoker.errors import ConfigError, InvalidExperience, TrainingDiverged
from stoker.nested import difference
from stoker.types import ActMode, EpisodeStatus, Experience

MakeAgent = Callable[..., PPO]
Play = Callable[..., list[Experience]]

METRICS = {
    "loss", "policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction", "learning_rate",
    "clip_range", "n_epochs", "explained_variance",
}  # fmt: skip


def weights(agent: PPO) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in agent._network.parameters()])


def replaced(experience: Experience, **changes: Any) -> Experience:
    return Experience(**{**{f: getattr(experience, f) for f in experience.__struct_fields__}, **changes})


def test_it_keeps_the_protocols(make_agent: MakeAgent) -> None:
    agent: LearningAgent = make_agent()
    assert isinstance(agent, ChecksInput)
    assert not isinstance(agent, HasReplay)
    assert agent.needs_policy_extras


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_it_learns_when_the_rollout_is_full_and_only_then(
    make_agent: MakeAgent, play: Play, kind: str
) -> None:
    agent = make_agent(kind)
    before = weights(agent)
    for count, experience in enumerate(play(agent, 40, (0, "b", 2)), start=1):
        agent.observe([experience])
        assert agent.total_steps == count
        metrics = agent.learn()
        assert (metrics is not None) == (count in (20, 40))
        assert torch.equal(weights(agent), before) == (count < 20)
        if metrics is not None:
            assert {*metrics} == METRICS | ({"std"} if kind == "continuous" else set())
            assert all(type(value) is float and math.isfinite(value) for value in metrics.values())
            assert metrics["n_epochs"] == 3
            assert agent.opt_steps == count // 20
    assert agent.learn() is None


def test_all_that_came_in_is_taken_where_learning_is_asked_for_seldom(
    make_agent: MakeAgent, play: Play
) -> None:
    agent = make_agent()
    agent.observe(play(agent, 33))
    assert agent.learn() is not None
    assert len(agent._rollout) == 0
    agent.observe(play(agent, 19))
    assert agent.learn() is None


def test_slices_of_transitions_count_like_single_ones(make_agent: MakeAgent, play: Play) -> None:
    one_by_one, sliced = make_agent(normalize_rewards=True), make_agent(normalize_rewards=True)
    experiences = play(make_agent(), 20)
    for experience in experiences:
        one_by_one.observe([experience])
    sliced.observe(experiences[:0])
    sliced.observe(experiences[:13])
    sliced.observe(experiences[13:])
    assert one_by_one.learn() == sliced.learn()
    assert torch.equal(weights(one_by_one), weights(sliced))


def test_same_seed_and_order_same_weights(make_agent: MakeAgent, play: Play) -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    agents = [make_agent(seed=seed) for seed in (1, 1, 2)]
    assert not torch.equal(weights(agents[0]), weights(agents[2]))
    found = []
    for agent in agents:
        agent.observe(play(agent, 20))
        found.append(agent.learn())
    assert found[0] == found[1] != found[2]
    assert torch.equal(weights(agents[0]), weights(agents[1]))
    assert torch.equal(torch_before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])


def test_acting_to_evaluate_leaves_the_rollout_alone(make_agent: MakeAgent, play: Play) -> None:
    quiet, evaluated = make_agent(), make_agent()
    for agent in (quiet, evaluated):
        for experience in play(agent, 20):
            agent.observe([experience])
            if agent is evaluated:
                agent.policy().act([experience.next_observation] * 3, ActMode.EXPLOIT)
    assert quiet.learn() == evaluated.learn()
    assert torch.equal(weights(quiet), weights(evaluated))


def test_an_episode_that_is_given_up_cuts_the_trace(make_agent: MakeAgent, play: Play) -> None:
    """As if its last transition had been truncated; the end of one that is over changes nothing."""
    running = [replaced(e, status=EpisodeStatus.CONTINUING) for e in play(make_agent(), 20)]
    truncated = [*running[:9], replaced(running[9], status=EpisodeStatus.TRUNCATED), *running[10:]]
    found = {}
    for name, experiences, gives_up in (
        ("leaking", running, False),
        ("given up", running, True),
        ("truncated", truncated, False),
        ("both", truncated, True),
    ):
        agent = make_agent(normalize_rewards=True)
        agent.observe(experiences[:10])
        if gives_up:
            agent.on_episode_start(0)
        agent.on_episode_start("somebody else")
        agent.observe(experiences[10:])
        found[name] = agent.learn()
    assert found["given up"] == found["truncated"] == found["both"] != found["leaking"]


def test_extras_are_those_of_the_last_update_for_every_actor(make_agent: MakeAgent, play: Play) -> None:
    agent = make_agent()
    assert agent.episode_extras(0) == {}
    assert agent.entropy == 0.0
    agent.observe(play(agent, 20))
    metrics = agent.learn()
    assert metrics is not None
    names = ("policy_loss", "value_loss", "entropy", "approx_kl")
    for actor_id in (0, "new", 0):
        assert agent.episode_extras(actor_id) == {name: metrics[name] for name in names}
    assert agent.entropy == metrics["entropy"] > 0


def test_explained_variance_by_hand(make_agent: MakeAgent, play: Play) -> None:
    """With gamma 0 a return is the reward."""
    rewards = [1.0, 2.0, 3.0, 6.0]
    for values, expected in (([1.0, 2.0, 3.0, 6.0], 1.0), ([0.0] * 4, 0.0), ([2.0, 2.0, 4.0, 4.0], 8 / 14)):
        agent = make_agent(rollout_steps=4, gamma=0.0)
        for e, reward, value in zip(play(agent, 4), rewards, values, strict=True):
            extras = e.policy_extras.copy()
            extras[1] = value
            agent.observe([replaced(e, reward=reward, policy_extras=extras)])
        metrics = agent.learn()
        assert metrics is not None
        assert metrics["explained_variance"] == pytest.approx(expected)
    agent = make_agent(rollout_steps=4, gamma=0.0)
    agent.observe([replaced(e, reward=1.0) for e in play(agent, 4)])
    metrics = agent.learn()
    assert metrics is not None
    assert metrics["explained_variance"] == 0.0, "returns that do not vary"


def test_rewards_are_clipped_and_scaled_before_they_are_learned(make_agent: MakeAgent, play: Play) -> None:
    large = [replaced(e, reward=1e6 * e.reward) for e in play(make_agent(), 20)]
    small = [replaced(e, reward=math.copysign(2.0, e.reward)) for e in large]
    clipping, plain = make_agent(clip_rewards=2.0), make_agent()
    clipping.observe(large)
    plain.observe(small)
    assert clipping.learn() == plain.learn()
    scaled = make_agent(normalize_rewards=True, clip_rewards=10.0)
    scaled.observe(large)
    metrics = scaled.learn()
    assert metrics is not None
    assert metrics["value_loss"] < 100


def test_observations_are_seen_through_the_same_moments_within_a_rollout(
    make_agent: MakeAgent, play: Play
) -> None:
    settings = {"normalize_observations": True, "rollout_steps": 150, "n_epochs": 1, "batch_size": 150}
    agent, plain = make_agent(**settings), make_agent(**{**settings, "normalize_observations": False})
    found = []
    for one in (agent, plain):
        policy = one.policy()
        assert policy.network.normalizes == (one is agent)
        one.observe(play(one, 149))
        one.publish(policy)
        if one is agent:
            assert not policy.network.input_mean.any(), "not before the rollout is learned from"
        one.observe(play(one, 1))
        found.append(one.learn())
        one.publish(policy)
    assert found[0] == found[1], "the first rollout is seen as it is"
    rows = np.array([e.observation for e in play(make_agent(), 149)])[
        :100
    ]  # what is in a whole batch by then
    assert agent._network.input_mean.numpy() == pytest.approx(rows.mean(axis=0), abs=1e-6)
    assert agent._network.input_scale.numpy() == pytest.approx(1 / rows.std(axis=0), rel=1e-4)
    # The second is chosen and learned with these: at the first gradient step no probability has moved.
    experiences = play(agent, 150, seed=3)
    agent.observe(experiences)
    metrics = agent.learn()
    assert metrics is not None
    assert metrics["approx_kl"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["clip_fraction"] == 0.0
    assert not np.allclose(agent._network.input_mean.numpy(), rows.mean(axis=0))


@pytest.mark.parametrize(
    "extras", [None, (0.1, 0.2), np.zeros(3), 1.0], ids=["none", "tuple", "size", "number"]
)
def test_experience_without_its_policy_extras_is_refused_and_none_is_taken(
    make_agent: MakeAgent, play: Play, extras: Any
) -> None:
    agent = make_agent()
    good = play(agent, 3, ("left",))
    problem = "lacks" if extras is None else "has the wrong number of"
    bad = replaced(good[1], policy_extras=extras)
    with pytest.raises(ConfigError, match=rf"actor 'left' {problem} policy extras.*session.act\("):
        agent.observe([good[0], bad, good[2]])
    assert agent.total_steps == len(agent._rollout) == 0


@pytest.mark.parametrize("where", ["reward", "log-probability", "value", "weights"])
def test_a_diverged_update_is_raised_and_leaves_everything_as_it_was(
    make_agent: MakeAgent, play: Play, where: str
) -> None:
    agent = make_agent()
    agent.observe(play(agent, 20))
    agent.learn()  # Adam has moments by now
    experiences = play(agent, 20, seed=1)
    if where == "reward":
        experiences[4] = replaced(experiences[4], reward=1e30)
    elif where == "weights":
        with torch.no_grad():
            agent._network.body.value.layers[-1].bias.fill_(torch.nan)
    else:
        experiences[4].policy_extras[0 if where == "log-probability" else 1] = np.nan
    agent.observe(experiences)
    before = weights(agent)
    moments = copy.deepcopy(agent.state_dict()["optimizer"])
    with pytest.raises(
        TrainingDiverged, match=r"optimization step 2.*(inf|nan).*lower learning_rate \(0.0003\)"
    ):
        agent.learn()
    assert torch.equal(weights(agent).nan_to_num(7), before.nan_to_num(7))
    assert difference(agent.state_dict()["optimizer"], moments) is None
    assert agent.opt_steps == 1


def test_input_is_checked(make_agent: MakeAgent, play: Play) -> None:
    agent = make_agent()
    (good,) = play(agent, 1)
    agent.check_experience(replaced(good, policy_extras=None))  # it joins later
    agent.check_observation(good.observation)
    with pytest.raises(InvalidExperience, match=r"shape \[5\]"):
        agent.check_observation(np.zeros(5))
    with pytest.raises(InvalidExperience, match="action=2 is out of range: give an int from -1 to 1"):
        agent.check_experience(replaced(good, action=2))


def round_trip(agent: PPO, box: gymnasium.spaces.Box) -> dict[str, float]:
    """Act on random observations and learn from them."""
    rng = np.random.default_rng(0)
    rows = [(rng.random(box.shape) * 100).astype(box.dtype) for _ in range(8)]
    policy = agent.policy()
    for number in range(8):
        (action,), extras = policy.act(rows[number : number + 1], ActMode.EXPLORE)
        assert extras is not None
        status = EpisodeStatus.CONTINUING if number % 4 else EpisodeStatus.TERMINATED
        experience = Experience(rows[number], action, 0.5, rows[number - 1], status, 0, extras[0])
        agent.check_experience(experience)
        agent.observe([experience])
    metrics = agent.learn()
    assert metrics is not None
    agent.publish(policy)
    return metrics


@pytest.mark.parametrize("dtype", [np.uint8, np.float64, np.int32, np.bool_], ids=lambda kind: kind.__name__)
def test_observations_of_other_shapes_and_dtypes_are_learned_from(dtype: type) -> None:
    box = gymnasium.spaces.Box(0, 1 if dtype is np.bool_ else 100, (3, 2), dtype)
    config = PPOConfig(rollout_steps=8, batch_size=4, n_epochs=1, hidden_sizes=(8,))
    metrics = round_trip(PPO(box, gymnasium.spaces.Discrete(2), config), box)
    assert metrics["approx_kl"] == pytest.approx(0.0, abs=1e-4)


class NoEmptyBatches(nn.Module):
    """A network that cannot compute on no observations."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs = seeded(nn.Linear(4, 4, device="meta"), torch.Generator(), 1.0)

    def forward(self, observations: torch.Tensor) -> Any:
        assert len(observations)
        outputs = self.outputs(observations)
        return outputs[:, :3], outputs[:, 3]


def test_a_rollout_of_terminated_episodes_has_no_values_to_ask_for(play: Play) -> None:
    config = PPOConfig(rollout_steps=8, batch_size=4, n_epochs=1)
    box = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
    agent = PPO(box, gymnasium.spaces.Discrete(3, start=-1), config, network=NoEmptyBatches())
    agent.observe([replaced(e, status=EpisodeStatus.TERMINATED) for e in play(agent, 8)])
    assert agent.learn() is not None


def test_images_are_learned_from() -> None:
    box = gymnasium.spaces.Box(0, 255, (2, 36, 36), np.uint8)
    config = PPOConfig(rollout_steps=8, batch_size=8, n_epochs=2, network="cnn", learning_rate=1e-3)
    agent = PPO(box, gymnasium.spaces.Discrete(4), config)
    before = weights(agent)
    metrics = round_trip(agent, box)
    assert metrics["value_loss"] > 0
    assert not torch.equal(weights(agent), before)
    names = [name for name, _ in agent._network.named_parameters()]
    assert sum("trunk" in name for name in names) == 8, "one for both"


class Own(nn.Module):
    """Policy and value from one hidden layer; ``change`` spoils what it returns."""

    def __init__(self, n: int = 3, change: Callable[..., Any] = lambda *parts: parts) -> None:
        super().__init__()
        self.hidden, self.policy, self.value = nn.Linear(4, 8), nn.Linear(8, n), nn.Linear(8, 1)
        self.change = change
        self.seen: list[torch.dtype] = []

    def forward(self, observations: torch.Tensor) -> Any:
        self.seen.append(observations.dtype)
        hidden = torch.tanh(self.hidden(observations.float()))
        return self.change(self.policy(hidden), self.value(hidden).squeeze(1))


BOX = gymnasium.spaces.Box(0, 100, (4,), np.float32)
SMALL = PPOConfig(rollout_steps=8, batch_size=4, n_epochs=2)


@pytest.mark.parametrize(
    ("space", "n"),
    [(gymnasium.spaces.Discrete(3), 3), (gymnasium.spaces.Box(-1, 1, (2, 3)), 6)],
    ids=["discrete", "box"],
)
def test_a_network_of_ones_own_is_trained(space: Any, n: int) -> None:
    own = Own(n)
    before = own.hidden.weight.detach().clone()
    agent = PPO(BOX, space, SMALL, network=own)
    round_trip(agent, BOX)
    assert not torch.equal(own.hidden.weight, before)
    assert set(own.seen) == {torch.float32}
    assert ("log_std" in agent.state_dict()["network"]) == (n == 6)


@pytest.mark.parametrize("settings", [{"learning_rate": 1e-2}, {"rollout_steps": 6}])
def test_it_is_made_again_with_other_settings_and_a_copy_of_ones_own_network(
    settings: dict[str, Any],
) -> None:
    own = Own()
    own.hidden.requires_grad_(requires_grad=False)
    agent = PPO(BOX, gymnasium.spaces.Discrete(3), SMALL, network=own)
    round_trip(agent, BOX)
    other = agent.with_settings({**(settings_of(agent) or {}), **settings})
    assert other is not None
    other.load_state_dict(agent.state_dict())
    assert torch.equal(weights(other), weights(agent))
    before = weights(agent).clone()
    round_trip(other, BOX)
    assert torch.equal(weights(agent), before), "it is not shared"
    assert not torch.equal(weights(other), before)
    assert torch.equal(other._network.body.hidden.weight, own.hidden.weight), "what is frozen stays frozen"


def test_frozen_weights_stay_as_they_are() -> None:
    own = Own()
    own.hidden.requires_grad_(requires_grad=False)
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    agent = PPO(BOX, gymnasium.spaces.Discrete(3), SMALL, network=own)
    round_trip(copy.deepcopy(agent), BOX)
    round_trip(agent, BOX)
    moved = {name for name, tensor in own.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"policy.weight", "policy.bias", "value.weight", "value.bias"}


@pytest.mark.parametrize(
    ("normalizes", "dtype"), [(False, torch.uint8), (True, torch.float32)], ids=["plain", "normalized"]
)
def test_it_is_given_observations_as_they_are_unless_they_are_normalized(
    normalizes: bool, dtype: torch.dtype
) -> None:
    own = Own()
    config = PPOConfig(rollout_steps=8, normalize_observations=normalizes)
    box = gymnasium.spaces.Box(0, 100, (4,), np.uint8)
    round_trip(PPO(box, gymnasium.spaces.Discrete(3), config, network=own), box)
    assert set(own.seen) == {dtype}


@pytest.mark.parametrize(
    ("network", "named"),
    [
        (Own(2), r"returned a tuple of float32 \[2, 2\], float32 \[2\]"),
        (Own(change=lambda parameters, values: parameters), r"returned float32 \[2, 3\]"),
        (Own(change=lambda parameters, values: (parameters, values[:, None])), r"float32 \[2, 1\]"),
        (Own(change=lambda *parts: [*parts]), "returned a list of"),
        (Own(change=lambda *parts: ()), "returned a tuple of nothing"),
        (Own(change=lambda *parts: (*parts, 1)), "a int: it takes"),
        (Own(change=lambda *parts: (*parts, parts[1])), r"\[2\], float32 \[2\]: it takes"),
        (Own(change=lambda parameters, values: (parameters.double(), values)), r"float64 \[2, 3\]"),
        (nn.Linear(5, 3), "network failed: RuntimeError: mat1"),
        (nn.Flatten(), "has weights of none: give it weights"),
        (Own().double(), "has weights of torch.float64"),
        (Own().requires_grad_(requires_grad=False), "has only weights with requires_grad=False"),
        (nn.Sequential(nn.LazyLinear(4), Own()), "has lazy layers, which have no weights yet"),
        (lambda rows: rows, "network is a function, not a torch.nn.Module"),
        (nn.Sequential(nn.BatchNorm1d(4), Own()), "has a BatchNorm1d: its output"),
        (nn.Sequential(nn.Dropout(0.1), Own()), "has a Dropout: its output"),
    ],
)  # fmt: skip
def test_networks_that_do_not_fit_are_refused(network: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named) as refusal:
        PPO(BOX, gymnasium.spaces.Discrete(3), SMALL, network=network)
    if not any(said in named for said in ("weights", "its output")):
        assert "it takes observations float32 [2, 4] and returns a tuple" in str(refusal.value)
        assert "float32 [2, 3] and of values float32 [2]" in str(refusal.value)


class Keeping(Own):
    """Keeps a tensor of the graph, which cannot be copied."""

    def forward(self, observations: torch.Tensor) -> Any:
        self.kept = torch.tanh(self.hidden(observations.float()))
        return self.policy(self.kept), self.value(self.kept).squeeze(1)


def test_a_network_that_keeps_tensors_of_the_graph_gives_policies_all_along() -> None:
    agent = PPO(BOX, gymnasium.spaces.Discrete(3), SMALL, network=Keeping())
    round_trip(agent, BOX)
    policy = agent.policy()
    other = agent.policy()
    agent.publish(other)
    rows = [np.full(4, 3.0, np.float32)]
    assert policy.act(rows, ActMode.EXPLOIT)[0] == other.act(rows, ActMode.EXPLOIT)[0]
    for name, weight in policy.weights().items():
        if isinstance(weight, torch.Tensor):
            assert torch.equal(weight, other.weights()[name]), name


def test_an_action_that_is_ruled_out_adds_no_entropy_and_no_nan() -> None:
    def masked(parameters: torch.Tensor, values: torch.Tensor) -> Any:
        return torch.cat([parameters[:, :2], torch.full_like(parameters[:, :1], -torch.inf)], dim=1), values

    metrics = round_trip(PPO(BOX, gymnasium.spaces.Discrete(3), SMALL, network=Own(change=masked)), BOX)
    assert 0 < metrics["entropy"] <= np.log(2) + 1e-6
