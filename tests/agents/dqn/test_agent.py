from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from stoker.agents import DQN, ChecksInput, DQNConfig, HasReplay, LearningAgent
from stoker.agents.dqn.agent import td_loss, td_targets
from stoker.errors import ConfigError, InvalidExperience, TrainingDiverged
from stoker.replay import Batch, PrioritizedReplay, UniformReplay
from stoker.types import ActMode, EpisodeStatus, Experience

MakeAgent = Callable[..., DQN]
MakeExperiences = Callable[..., list[Experience]]


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def train(agent: DQN, experiences: list[Experience]) -> list[float]:
    losses = []
    for experience in experiences:
        agent.observe([experience])
        if (metrics := agent.learn()) is not None:
            losses.append(metrics["loss"])
    return losses


def test_it_keeps_the_protocols(make_agent: MakeAgent) -> None:
    agent: LearningAgent = make_agent()
    assert isinstance(agent, HasReplay)
    assert isinstance(agent, ChecksInput)


def test_the_target_starts_as_an_equal_copy(make_agent: MakeAgent) -> None:
    agent = make_agent()
    assert torch.equal(weights(agent._network), weights(agent._target.network))
    assert not {p.data_ptr() for p in agent._network.parameters()} & {
        p.data_ptr() for p in agent._target.network.parameters()
    }


@pytest.mark.parametrize(
    ("settings", "first"),
    [
        ({"learning_starts": 20}, 20),
        ({"learning_starts": 3}, 8),
        ({"learning_starts": 0, "batch_size": 5}, 5),
    ],
)
def test_learning_starts_when_the_replay_holds_enough(
    make_agent: MakeAgent, make_experiences: MakeExperiences, settings: dict[str, int], first: int
) -> None:
    agent = make_agent(**settings)
    before = weights(agent._network)
    for count, experience in enumerate(make_experiences(first), start=1):
        assert agent.opt_steps == 0
        agent.observe([experience])
        assert agent.total_steps == count
        assert (agent.learn() is not None) == (count == first)
        assert torch.equal(weights(agent._network), before) == (count < first)
    assert agent.opt_steps == 1


def test_the_target_is_copied_at_every_500th_step_and_at_no_other(
    make_agent: MakeAgent, make_experiences: MakeExperiences
) -> None:
    agent = make_agent(hidden_sizes=(4,))
    assert agent.config.target_update_interval == 500
    agent.observe(make_experiences(30))
    held = weights(agent._target.network)
    for step in range(1, 1_002):
        agent.learn()
        if step in (500, 1_000):
            assert torch.equal(weights(agent._target.network), weights(agent._network))
            assert not torch.equal(weights(agent._target.network), held)
            held = weights(agent._target.network)
        else:
            assert torch.equal(weights(agent._target.network), held)


def test_the_target_follows_softly_at_every_step(
    make_agent: MakeAgent, make_experiences: MakeExperiences
) -> None:
    agent = make_agent(tau=0.1, target_update_interval=2)
    agent.observe(make_experiences(30))
    for _ in range(5):
        before = weights(agent._target.network)
        agent.learn()
        expected = 0.1 * weights(agent._network) + 0.9 * before
        assert torch.allclose(weights(agent._target.network), expected, atol=1e-7)
        assert not torch.equal(weights(agent._target.network), before)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize(("max_grad_norm", "delta"), [(None, 0.5), (0.05, None)])
def test_a_step_equals_the_textbook(
    make_agent: MakeAgent,
    make_experiences: MakeExperiences,
    double: bool,
    max_grad_norm: float | None,
    delta: float | None,
) -> None:
    """Two steps written out with a plain network, a loop over rows, and Adam by its formulas."""
    settings = {"double": double, "max_grad_norm": max_grad_norm, "learning_rate": 0.01, "gamma": 0.9}
    agent = make_agent(**settings, huber_delta=delta)
    with torch.no_grad():  # else the target would equal the online network and double change nothing
        for parameter in agent._target.network.parameters():
            parameter.neg_()
    experiences = make_experiences(8)
    agent.observe(experiences)

    def plain(network: nn.Module) -> nn.Sequential:
        copy = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
        copy.load_state_dict(dict(zip(copy.state_dict(), network.state_dict().values(), strict=True)))
        return copy

    torch_state = torch.get_rng_state()
    online, target = plain(agent._network), plain(agent._target.network)
    torch.set_rng_state(torch_state)
    sampler = torch.Generator()
    sampler.set_state(agent.replay.state_dict()["generator"])
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in online.parameters()]
    for step in (1, 2):
        rows = torch.randint(8, (8,), generator=sampler).tolist()
        losses, q_values = [], []
        for row in rows:
            e = experiences[row]
            next_observation = torch.from_numpy(e.next_observation)
            with torch.no_grad():
                chosen = (online if double else target)(next_observation).argmax()
                future = target(next_observation)[chosen]
            value = torch.tensor(e.reward)
            if e.status is not EpisodeStatus.TERMINATED:
                value = value + 0.9 * future
            q_value = online(torch.from_numpy(e.observation))[e.action + 1]
            error = (q_value - value).abs()
            is_square = delta is None or error < delta
            losses.append(0.5 * error**2 if is_square else delta * (error - 0.5 * delta))
            q_values.append(q_value.detach())
        loss = torch.stack(losses).mean()
        online.zero_grad()
        loss.backward()
        gradients = [p.grad.clone() for p in online.parameters()]
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        if max_grad_norm is not None:
            assert norm > max_grad_norm, "else clipping is not tested"
            gradients = [g * max_grad_norm / norm for g in gradients]
        with torch.no_grad():
            for p, g, (m, v) in zip(online.parameters(), gradients, moments, strict=True):
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g**2)
                p.sub_(0.01 * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8))
        metrics = agent.learn()
        assert metrics == pytest.approx(
            {"loss": loss.item(), "q_mean": torch.stack(q_values).mean().item()}, rel=1e-5
        )
        assert torch.allclose(weights(agent._network), weights(online), atol=2e-5)


@pytest.mark.parametrize("network", [{}, {"dueling": True, "double": True}], ids=["plain", "dueling"])
def test_a_prioritized_step_equals_the_textbook(
    make_agent: MakeAgent, make_experiences: MakeExperiences, network: dict[str, bool]
) -> None:
    """Weighted losses by autograd, and |error| as the new priority; a twin shows what the agent will draw."""
    settings = {"max_grad_norm": None, "gamma": 0.9, "priority_beta": 0.7, "prioritized": True, **network}
    agent, twin = make_agent(**settings), make_agent(**settings)
    for each in (agent, twin):
        each.observe(make_experiences(20))
        first = each.replay.sample(8).indices
        each.replay.update_priorities(first, np.arange(8.0))  # uneven, else all weights are one
    with torch.no_grad():  # else double changes nothing
        for parameter in agent._target.network.parameters():
            parameter.neg_()
    batch = twin.replay.sample(8)
    assert batch.weights.min() < 0.9
    with torch.no_grad():
        next_values = agent._target.network(batch.next_observations)
        chooser = agent._network if network else agent._target.network
        future = next_values.gather(1, chooser(batch.next_observations).argmax(1, keepdim=True)).squeeze(1)
        targets = batch.rewards + 0.9 * batch.bootstrap_masks * future
    taken = agent._network(batch.observations).gather(1, (batch.actions + 1).unsqueeze(1)).squeeze(1)
    losses = torch.nn.functional.huber_loss(taken, targets, reduction="none")
    loss = (batch.weights * losses).mean()
    parts = torch.autograd.grad(loss, list(agent._network.parameters()))
    twin.replay.update_priorities(batch.indices, (taken - targets).abs())

    assert agent.learn() == pytest.approx({"loss": loss.item(), "q_mean": taken.mean().item()}, rel=1e-5)
    assert torch.allclose(agent._weights.gradients, torch.cat([part.flatten() for part in parts]), atol=1e-6)
    priorities, expected = (each.replay.reference()["priorities"] for each in (agent, twin))
    assert torch.allclose(priorities, expected, rtol=1e-4)
    assert not torch.allclose(priorities, torch.ones(20, dtype=torch.float64), rtol=0.1)


def test_same_seed_and_order_same_weights(make_agent: MakeAgent, make_experiences: MakeExperiences) -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    agents = [make_agent(seed=seed) for seed in (1, 1, 2)]
    initial = [weights(agent._network) for agent in agents]
    losses = [train(agent, make_experiences(60)) for agent in agents]
    assert torch.equal(initial[0], initial[1])
    assert losses[0] == losses[1]
    assert torch.equal(weights(agents[0]._network), weights(agents[1]._network))
    assert not torch.equal(initial[0], initial[2])
    assert losses[0] != losses[2]
    assert torch.equal(torch_before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])


def test_slices_of_transitions_count_like_single_ones(
    make_agent: MakeAgent, make_experiences: MakeExperiences
) -> None:
    one_by_one, sliced = make_agent(), make_agent()
    experiences = make_experiences(70)
    for experience in experiences:
        one_by_one.observe([experience])
    sliced.observe(experiences[:0])
    sliced.observe(experiences[:33])
    sliced.observe(experiences[33:])
    assert one_by_one.total_steps == sliced.total_steps == 70
    assert len(one_by_one.replay) == len(sliced.replay) == 64
    assert one_by_one.learn() == sliced.learn()


def test_extras_of_interleaved_actors_are_kept_apart(
    make_agent: MakeAgent, make_experiences: MakeExperiences
) -> None:
    agent = make_agent()
    agent.observe(make_experiences(8, actor_id="warm-up"))
    own: dict[str, list[float]] = {"a": [], "b": []}
    for number, experience in enumerate(make_experiences(40)):
        actor_id = "a" if number % 3 else "b"
        other = "b" if actor_id == "a" else "a"
        agent.observe(
            [
                Experience(*[getattr(experience, f) for f in experience.__struct_fields__[:5]], who)
                for who in (other, actor_id)  # the last of the slice is whose loss it is
            ]
        )
        own[actor_id].append(agent.learn()["loss"])
    for actor_id, losses in own.items():
        assert agent.episode_extras(actor_id) == pytest.approx(
            {
                "epsilon": agent.exploration_rate,
                "loss_mean": np.mean(losses),
                "loss_std": np.std(losses),
                "loss_max": max(losses),
            }
        )
    assert agent.episode_extras("warm-up") == {"epsilon": agent.exploration_rate}


def test_an_episode_start_clears_that_actor_only(
    make_agent: MakeAgent, make_experiences: MakeExperiences
) -> None:
    agent = make_agent()
    agent.observe(make_experiences(8))
    for actor_id in ("a", "b"):
        agent.observe(make_experiences(1, actor_id))
        agent.learn()
    agent.on_episode_start("a")
    assert agent.episode_extras("a") == {"epsilon": agent.exploration_rate}
    assert {*agent.episode_extras("b")} == {"epsilon", "loss_mean", "loss_max"}


def test_reading_extras_clears_them_so_that_endless_actor_ids_cost_nothing(
    make_agent: MakeAgent, make_experiences: MakeExperiences
) -> None:
    agent = make_agent()
    agent.observe(make_experiences(8))
    for number in range(100):
        agent.on_episode_start(f"actor {number}")
        agent.observe(make_experiences(1, f"actor {number}"))
        agent.learn()
        assert "loss_mean" in agent.episode_extras(f"actor {number}")
        assert agent.episode_extras(f"actor {number}") == {"epsilon": agent.exploration_rate}
    assert agent._losses.state_dict()["running"] == {}


def test_a_diverged_loss_is_raised_before_it_reaches_the_weights(
    make_agent: MakeAgent, make_experiences: MakeExperiences
) -> None:
    agent = make_agent()
    agent.observe(make_experiences(8))
    with torch.no_grad():
        agent._target.network.mlp.layers[-1].bias.fill_(torch.inf)
    before = weights(agent._network)
    with pytest.raises(
        TrainingDiverged, match=r"step 1 has the loss (inf|nan).*lower learning_rate \(0.0003\)"
    ):
        agent.learn()
    assert torch.equal(weights(agent._network), before)
    assert agent.opt_steps == 0


def test_a_diverged_gradient_is_raised_also_where_the_loss_is_finite(make_agent: MakeAgent) -> None:
    agent = make_agent(max_grad_norm=10.0)
    before = weights(agent._network)
    agent._weights.gradients.fill_(torch.nan)
    with pytest.raises(TrainingDiverged, match=r"step 1 has the loss 0.5 and a gradient of norm nan"):
        agent._descend(0.5)
    assert torch.equal(weights(agent._network), before)
    assert agent.opt_steps == 0


@pytest.mark.parametrize(("counts", "rate"), [("total_steps", 0.02), ("opt_steps", 0.08)])
def test_the_schedule_counts_as_it_is_told(make_agent: MakeAgent, counts: Any, rate: float) -> None:
    agent = make_agent(
        learning_rate=0.1, learning_rate_schedule="linear", schedule_steps=10, schedule_counts=counts
    )
    agent.total_steps, agent.opt_steps = 8, 2
    agent._weights.gradients.fill_(1.0)
    before = agent._weights.values.clone()
    agent._descend(0.5)
    # Adam's first step is as long as the learning rate.
    assert (before - agent._weights.values).tolist() == pytest.approx([rate] * len(before), rel=1e-3)


def test_input_is_checked(make_agent: MakeAgent, make_experiences: MakeExperiences) -> None:
    agent = make_agent()
    (good,) = make_experiences(1)
    agent.check_experience(good)
    agent.check_observation(good.observation)
    with pytest.raises(InvalidExperience, match=r"shape \[5\]"):
        agent.check_observation(np.zeros(5))
    with pytest.raises(InvalidExperience, match="action=2 is out of range: give an int from -1 to 1"):
        agent.check_experience(Experience(good.observation, 2, 0.0, good.observation, good.status))


def test_the_settings_choose_the_replay(make_agent: MakeAgent, tmp_path: Path) -> None:
    assert type(make_agent().replay) is UniformReplay
    agent = make_agent(
        prioritized=True,
        priority_alpha=0.5,
        priority_beta=0.25,
        priority_final_beta=0.75,
        priority_beta_steps=4,
    )
    assert type(agent.replay) is PrioritizedReplay
    assert agent.replay.reference()["alpha"] == 0.5
    assert agent.replay.beta == 0.25
    with pytest.raises(ConfigError, match=str(tmp_path / "missing")):
        make_agent(memory_map=str(tmp_path / "missing"))


@pytest.mark.parametrize("prioritized", [False, True], ids=["uniform", "prioritized"])
def test_a_mapped_replay_is_as_good_as_one_in_memory(
    make_agent: MakeAgent, make_experiences: MakeExperiences, tmp_path: Path, prioritized: bool
) -> None:
    inside = make_agent(prioritized=prioritized)
    mapped = make_agent(prioritized=prioritized, memory_map=str(tmp_path))
    experiences = make_experiences(80)
    assert train(mapped, experiences) == train(inside, experiences)
    assert torch.equal(weights(mapped._network), weights(inside._network))


def test_beta_reaches_its_end_with_the_optimization_steps(
    make_agent: MakeAgent, make_experiences: MakeExperiences
) -> None:
    agent = make_agent(prioritized=True, priority_beta=0.2, priority_final_beta=1.0, priority_beta_steps=4)
    agent.observe(make_experiences(10))
    betas = []
    for _ in range(6):
        betas.append(agent.replay.beta)
        agent.learn()
    assert betas == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


def test_rewards_are_clipped_for_the_replay_alone(make_agent: MakeAgent) -> None:
    agent = make_agent(clip_rewards=1.5)
    rewards = [-7.0, -1.0, 0.0, 1.5, 20.0]
    observation = np.zeros(4, np.float32)
    given = [Experience(observation, 0, reward, observation, EpisodeStatus.CONTINUING) for reward in rewards]
    agent.observe(given)
    assert agent.replay.state_dict()["rewards"].tolist() == [-1.5, -1.0, 0.0, 1.5, 1.5]
    assert [experience.reward for experience in given] == rewards


def test_rewards_are_scaled_for_the_replay(make_agent: MakeAgent, make_experiences: MakeExperiences) -> None:
    plain, scaled = make_agent(), make_agent(normalize_rewards=True)
    experiences = make_experiences(64)
    louder = [msgspec.structs.replace(each, reward=each.reward * 1_000) for each in experiences]
    plain.observe(experiences)
    scaled.observe(louder)
    before, after = (agent.replay.state_dict()["rewards"] for agent in (plain, scaled))
    assert torch.equal(before.sign(), after.sign())
    assert after[32:].std() == pytest.approx(1.0, abs=0.4)


def test_an_agent_that_explores_by_softmax_says_its_temperature(
    make_agent: MakeAgent, make_experiences: MakeExperiences
) -> None:
    greedy, soft = make_agent(), make_agent(exploration="softmax", softmax_temperature=0.25)
    for agent in (greedy, soft):
        agent.observe(make_experiences(7))
    assert greedy.exploration_rate == greedy.config.exploration_rate_at(7)
    assert greedy.episode_extras(0) == {"epsilon": greedy.exploration_rate}
    assert soft.exploration_rate == 0.25
    assert soft.episode_extras(0) == {"temperature": 0.25}
    actions, _ = soft.policy().act([np.zeros(4, np.float32)] * 100, ActMode.EXPLORE)
    assert set(actions) == {-1, 0, 1}


@pytest.mark.parametrize("shape", [(36, 40, 3), (3, 36, 40)], ids=["channels last", "channels first"])
@pytest.mark.parametrize(
    "settings", [{}, {"dueling": True, "prioritized": True, "double": True, "n_step": 2}]
)
def test_the_convolutional_network_learns_from_images(
    shape: tuple[int, ...], settings: dict[str, Any]
) -> None:
    box = gymnasium.spaces.Box(0, 255, shape, np.uint8)
    config = DQNConfig(
        network="cnn", batch_size=4, buffer_size=10, learning_starts=4, learning_rate=1e-3, **settings
    )
    agent = DQN(box, gymnasium.spaces.Discrete(2), config)
    policy = agent.policy()
    box.seed(0)
    for _ in range(6):
        experience = Experience(box.sample(), 1, 0.5, box.sample(), EpisodeStatus.TERMINATED)
        agent.check_experience(experience)
        agent.observe([experience])
    first, *_, last = [agent.learn()["loss"] for _ in range(12)]
    assert last < first / 2
    assert policy.act([box.sample()], ActMode.EXPLOIT)[0][0] in (0, 1)
    agent.publish(policy)
    assert torch.equal(weights(policy.network), weights(agent._network))


@pytest.mark.parametrize("dtype", [np.uint8, np.float64, np.int32])
def test_images_and_other_dtypes_learn(dtype: type) -> None:
    box = gymnasium.spaces.Box(0, 100, (3, 2), dtype)
    agent = DQN(box, gymnasium.spaces.Discrete(2), DQNConfig(batch_size=4, buffer_size=10, learning_starts=4))
    box.seed(0)
    for _ in range(4):
        experience = Experience(box.sample(), 1, 0.5, box.sample(), EpisodeStatus.CONTINUING)
        agent.check_experience(experience)
        agent.observe([experience])
    before = weights(agent._network)
    assert agent.learn() is not None
    assert not torch.equal(weights(agent._network), before)


def test_the_schedule_reaches_the_weights() -> None:
    """At its end an update moves nothing, and halfway half as far as without a schedule."""
    moved: dict[str, float] = {}
    for name, settings in {
        "constant": {},
        "half": {"learning_rate_schedule": "linear", "schedule_steps": 80},
        "end": {"learning_rate_schedule": "linear", "schedule_steps": 40},
    }.items():
        agent = DQN(
            gymnasium.spaces.Box(-1, 1, (3,), np.float32),
            gymnasium.spaces.Discrete(2),
            DQNConfig(learning_starts=0, batch_size=8, hidden_sizes=(8,), learning_rate=1e-3, **settings),
            seed=1,
        )
        rng = np.random.default_rng(0)
        rows = rng.uniform(-1, 1, (41, 3)).astype(np.float32)
        agent.observe(
            [Experience(rows[k], k % 2, 1.0, rows[k + 1], EpisodeStatus.CONTINUING) for k in range(40)]
        )
        before = agent._weights.values.clone()
        agent.learn()
        moved[name] = float((agent._weights.values - before).norm())
    assert moved["end"] == 0.0
    assert moved["half"] == pytest.approx(moved["constant"] / 2, rel=1e-4)


# Two states, three actions: what each network says of them.
ONLINE = torch.tensor([[1.0, 2.0, 0.0], [0.0, -1.0, 3.0]])
TARGET = torch.tensor([[5.0, 4.0, 0.0], [2.0, 7.0, 1.0]])

# state, action, reward, next state, mask | plain: the max of TARGET, double: TARGET where ONLINE is best
ROWS = [
    (0, 0, 1.0, 1, 1.0, 1.0 + 0.5 * 7.0, 1.0 + 0.5 * 1.0),  # continuing
    (0, 1, 0.0, 0, 1.0, 0.0 + 0.5 * 5.0, 0.0 + 0.5 * 4.0),  # truncated: bootstraps like continuing
    (1, 2, -2.0, 1, 0.0, -2.0, -2.0),  # terminated: the reward alone
    (1, 1, 10.0, 0, 0.0, 10.0, 10.0),
]


def online(observations: torch.Tensor) -> torch.Tensor:
    return ONLINE[observations[:, 0].long()]


def target(observations: torch.Tensor) -> torch.Tensor:
    return TARGET[observations[:, 0].long()]


@pytest.fixture
def batch() -> Batch:
    states, actions, rewards, next_states, masks, _, _ = zip(*ROWS, strict=True)
    return Batch(
        observations=torch.tensor(states, dtype=torch.float32).unsqueeze(1),
        actions=torch.tensor(actions),
        rewards=torch.tensor(rewards),
        next_observations=torch.tensor(next_states, dtype=torch.float32).unsqueeze(1),
        bootstrap_masks=torch.tensor(masks),
    )


@pytest.mark.parametrize(("double", "column"), [(False, 5), (True, 6)], ids=["plain", "double"])
def test_targets_are_those_worked_out_by_hand(batch: Batch, double: bool, column: int) -> None:
    targets = td_targets(online, target, batch, 0.5, double=double)
    assert targets.tolist() == [row[column] for row in ROWS]
    assert not targets.requires_grad


def test_weights_multiply_each_transitions_loss_and_gradient(batch: Batch) -> None:
    targets = torch.tensor([1.5, 2.5, -1.0, 1.0])  # errors: -0.5, -0.5, 4, -2
    weights = torch.tensor([1.0, 0.25, 0.5, 0.0])
    values = online(batch.observations).requires_grad_()
    found = td_loss(values.detach(), batch.actions, targets, weights)
    assert found.loss.item() == pytest.approx((0.125 + 0.25 * 0.125 + 0.5 * 3.5 + 0.0) / 4)
    assert found.errors.tolist() == [-0.5, -0.5, 4.0, -2.0], "errors are not weighted"
    taken = values.gather(1, batch.actions.unsqueeze(1)).squeeze(1)
    (weights * torch.nn.functional.huber_loss(taken, targets, reduction="none")).mean().backward()
    assert torch.equal(found.gradient, values.grad), "the gradient given is autograd's"
    assert weights.tolist() == [1.0, 0.25, 0.5, 0.0], "what was given is left as it was"


def test_weights_of_one_change_nothing(batch: Batch) -> None:
    values, targets = online(batch.observations), torch.tensor([1.5, 2.0, -1.0, 1.0])
    plain = td_loss(values, batch.actions, targets)
    weighted = td_loss(values, batch.actions, targets, torch.ones(4))
    assert all(torch.equal(left, right) for left, right in zip(plain, weighted, strict=True))


LOSSES: dict[float | None, list[float]] = {
    0.5: [0.125, 0.0, 0.5 * 3.75, 0.5 * 1.75],  # within delta e^2 / 2, else delta * (|e| - delta / 2)
    1.0: [0.125, 0.0, 3.5, 1.5],
    None: [0.125, 0.0, 8.0, 2.0],
}


@pytest.mark.parametrize("delta", LOSSES)
def test_the_loss_is_hubers_up_to_squared_errors(batch: Batch, delta: float | None) -> None:
    # Values of the taken actions: 1, 2, 3, -1. Errors: -0.5, 0, 4, -2.
    targets = torch.tensor([1.5, 2.0, -1.0, 1.0])
    values = online(batch.observations).requires_grad_()
    loss, slopes, errors, mean = td_loss(values.detach(), batch.actions, targets, delta=delta)
    assert mean.item() == pytest.approx((1.0 + 2.0 + 3.0 - 1.0) / 4)
    assert errors.tolist() == [-0.5, 0.0, 4.0, -2.0], "they stay as they were"
    assert loss.item() == pytest.approx(sum(LOSSES[delta]) / 4)
    taken = values.gather(1, batch.actions.unsqueeze(1)).squeeze(1)
    squares = torch.nn.functional.mse_loss(taken, targets) / 2
    (squares if delta is None else torch.nn.functional.huber_loss(taken, targets, delta=delta)).backward()
    assert torch.equal(slopes, values.grad), "the gradient given is autograd's"
