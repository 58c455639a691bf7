"""Prior data of agents that learn from a replay: their share of each batch, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from stoker.agents import DQN
from stoker.agents.off_policy import Update
from stoker.agents.prior import rows_of_share
from stoker.agents.protocol import PriorData, UsesPriorData
from stoker.errors import ConfigError, InvalidExperience
from stoker.nested import difference
from stoker.replay import Batch, PrioritizedReplay
from stoker.types import EpisodeStatus, Experience, ExperienceBatch
from stoker.writer import stage

MakeAgent = Callable[..., DQN]
MakeExperiences = Callable[..., list[Experience]]


def as_columns(steps: list[Experience]) -> ExperienceBatch:
    return ExperienceBatch(
        np.stack([step.observation for step in steps]),
        np.array([step.action for step in steps]),
        np.array([step.reward for step in steps]),
        np.stack([step.next_observation for step in steps]),
        np.array([step.status.is_terminal for step in steps]),
        np.array([step.status.is_truncated for step in steps]),
        tuple(step.actor_id for step in steps),
    )


def marked(count: int, mark: float, status: EpisodeStatus = EpisodeStatus.TRUNCATED) -> list[Experience]:
    """Transitions whose observations say where they are from."""
    row = np.full(4, mark, np.float32)
    return [Experience(row, 0, mark, row, status) for _ in range(count)]


def batches_of(agent: DQN, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Batch, torch.Tensor | None]]:
    """The batches that the agent learns from, as they come."""
    seen: list[tuple[Batch, torch.Tensor | None]] = []
    update = agent._update

    def noting(batch: Batch, weights: torch.Tensor | None) -> Update:
        seen.append((batch, weights))
        return update(batch, weights)

    monkeypatch.setattr(agent, "_update", noting)
    return seen


@pytest.mark.parametrize("prioritized", [False, True])
@pytest.mark.parametrize(("mix", "n_prior"), [(0.5, 4), (0.2, 2), (0.9, 7)])
def test_each_batch_has_its_share_of_prior_data(
    make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch, mix: float, n_prior: int, prioritized: bool
) -> None:
    agent = make_agent(prioritized=prioritized, learning_starts=0)
    agent.use_prior([marked(20, 7.0)], 20, mix)
    seen = batches_of(agent, monkeypatch)
    agent.observe(marked(8 - n_prior - 1, 1.0))
    assert agent.learn() is None  # what is played has not its share yet
    agent.observe(marked(1, 1.0))
    assert agent.total_steps == 8 - n_prior
    assert agent.learn() is not None
    ((batch, weights),) = seen
    assert batch.rewards.tolist() == [1.0] * (8 - n_prior) + [7.0] * n_prior
    assert batch.observations[:, 0].tolist() == batch.rewards.tolist()
    if prioritized:
        assert weights is not None
        assert weights.tolist() == [1.0] * 8
        assert isinstance(agent.replay, PrioritizedReplay)
        assert len(agent.replay) == 8 - n_prior  # and only these have priorities


def test_learning_starts_counts_what_is_played(make_agent: MakeAgent) -> None:
    agent = make_agent(learning_starts=20)
    agent.use_prior([marked(50, 7.0)], 50, 0.5)
    agent.observe(marked(19, 1.0))
    assert agent.learn() is None
    agent.observe(marked(1, 1.0))
    assert agent.learn() is not None


def test_prior_rewards_are_clipped_and_summed_over_steps(
    make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = make_agent(n_step=3, clip_rewards=1.0, gamma=0.5, batch_size=10)
    seen = batches_of(agent, monkeypatch)
    steps = marked(4, 7.0, EpisodeStatus.CONTINUING)  # the data break off there
    agent.use_prior([as_columns(steps[:3]), as_columns(steps[3:])], 4, 0.4)
    assert agent.prior is not None
    assert agent.prior.size == 4
    agent.observe(marked(20, -2.0))
    drawn: set[tuple[float, float]] = set()
    for _ in range(20):
        agent.learn()
        rewards, masks = seen[-1][0].rewards, seen[-1][0].bootstrap_masks
        assert set(rewards[:6].tolist()) == {-1.0}
        drawn |= set(zip(rewards[6:].tolist(), masks[6:].tolist(), strict=True))
    assert drawn == {(1.75, 0.25), (1.5, 0.5), (1.0, 1.0)}


def test_prior_data_count_towards_the_statistics_of_observations(make_agent: MakeAgent) -> None:
    agent = make_agent(normalize_observations=True)
    agent.use_prior([marked(100, 1.0), marked(100, 3.0)], 200, 0.5)
    moments = agent.state_dict()["moments"]
    assert moments["count"] == 200
    assert moments["mean"].tolist() == [2.0] * 4


def test_rows_and_columns_are_the_same_data(make_agent: MakeAgent, make_experiences: MakeExperiences) -> None:
    steps = make_experiences(40)
    rows, columns, fewer = make_agent(), make_agent(seed=9), make_agent()
    rows.use_prior([steps[:10], steps[10:]], 40, 0.5)
    columns.use_prior([as_columns(steps)], 100, 0.5)
    fewer.use_prior([steps[1:]], 39, 0.5)
    assert isinstance(rows, UsesPriorData)
    assert rows.prior == columns.prior
    assert rows.prior != fewer.prior


@pytest.mark.parametrize("prioritized", [False, True])
def test_a_restored_agent_draws_the_same_prior_data(
    make_agent: MakeAgent, make_experiences: MakeExperiences, prioritized: bool
) -> None:
    prior, steps = make_experiences(30, seed=3), make_experiences(60, seed=4)

    def made(seed: int) -> DQN:
        agent = make_agent(seed=seed, prioritized=prioritized)
        agent.use_prior([prior], 30, 0.5)
        return agent

    def play(agent: DQN, first: int, last: int) -> None:
        for step in steps[first:last]:
            agent.observe([step])
            agent.learn()

    live, restored = made(1), made(2)
    play(live, 0, 30)
    assert set(live.state_dict()["prior"]) == {"digest", "generator"}
    restored.load_state_dict(stage(live.state_dict(), "agent"))
    restored.replay.load_state_dict(stage(live.replay.state_dict(), "replay"))
    play(live, 30, 60)
    play(restored, 30, 60)
    assert difference(restored.state_dict(), live.state_dict()) is None


def test_other_prior_data_than_those_of_a_state_are_refused(
    make_agent: MakeAgent, make_experiences: MakeExperiences
) -> None:
    saved, other, none = make_agent(), make_agent(), make_agent()
    saved.use_prior([make_experiences(10)], 10, 0.5)
    other.use_prior([make_experiences(11)], 11, 0.5)
    before = stage(other.state_dict(), "agent")
    with pytest.raises(ConfigError, match="the saved agent's prior data does not fit"):
        other.load_state_dict(saved.state_dict())
    with pytest.raises(ConfigError, match="incomplete: it lacks prior"):
        other.load_state_dict(none.state_dict())
    assert difference(other.state_dict(), before) is None
    none.load_state_dict(saved.state_dict())  # its policy needs none
    assert none.prior is None


def test_an_agent_with_other_settings_has_the_same_prior_data(
    make_agent: MakeAgent, make_experiences: MakeExperiences, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = make_agent()
    agent.use_prior([marked(20, 7.0)], 20, 0.25)
    for changed in ({"batch_size": 16}, {"buffer_size": 32, "batch_size": 16}):
        other = agent.with_settings({**msgspec.to_builtins(agent.config), **changed})
        assert other is not None
        assert other.prior == agent.prior
        seen = batches_of(other, monkeypatch)
        other.observe(make_experiences(16))
        other.learn()
        assert (seen[0][0].rewards == 7.0).sum() == 4
    with pytest.raises(ConfigError, match=r"mix=0.25: of batch_size=1 rows, 0 would be prior data"):
        agent.with_settings({**msgspec.to_builtins(agent.config), "batch_size": 1})


@pytest.mark.parametrize(
    ("settings", "data", "mix", "message"),
    [
        ({}, marked(5, 1.0), 0.0, r"mix=0.0: give the share of prior data in a batch, above 0 and below 1"),
        ({}, marked(5, 1.0), 1.0, "mix=1.0: give the share"),
        ({}, marked(5, 1.0), float("nan"), "mix=nan: give the share"),
        ({}, marked(5, 1.0), 0.99, "mix=0.99: of batch_size=8 rows, 8 would be prior data"),
        ({}, [], 0.5, "the prior data are empty"),
        ({}, marked(3, 1.0), 0.5, "3 prior transitions are fewer than the 4 that each batch draws"),
        ({"normalize_rewards": True}, marked(5, 1.0), 0.5, "normalize_rewards=True: .* leave it out"),
        ({"batch_size": 1}, marked(5, 1.0), 0.5, "of batch_size=1 rows, 0 would be"),
    ],
)
def test_what_cannot_be_mixed_is_refused(
    make_agent: MakeAgent, settings: dict[str, Any], data: list[Experience], mix: float, message: str
) -> None:
    agent = make_agent(**settings)
    with pytest.raises(ConfigError, match=message):
        agent.use_prior([data], len(data), mix)
    assert agent.prior is None


def test_a_transition_of_other_spaces_is_named(make_agent: MakeAgent) -> None:
    agent = make_agent()
    wrong = [*marked(3, 1.0), Experience(np.zeros(4, np.float32), 5, 0.0, np.zeros(4, np.float32),
                                         EpisodeStatus.TRUNCATED)]  # fmt: skip
    for batches in ([wrong], [wrong[:2], wrong[2:]], [as_columns(wrong)]):
        with pytest.raises(InvalidExperience, match="^transition 3: action=5") as caught:
            agent.use_prior(batches, 4, 0.5)
        assert caught.value.index == 3
        assert caught.value.field == "action"
    assert agent.prior is None


def test_there_is_one_set_of_prior_data_and_not_more_of_it_than_announced(make_agent: MakeAgent) -> None:
    agent = make_agent()
    with pytest.raises(ConfigError, match="of 4 prior transitions 5 came"):
        agent.use_prior([marked(5, 1.0)], 4, 0.5)
    agent.use_prior([marked(5, 1.0)], 5, 0.5)
    assert isinstance(agent.prior, PriorData)
    with pytest.raises(ConfigError, match="has prior data already"):
        agent.use_prior([marked(5, 1.0)], 5, 0.5)


def test_the_share_is_rounded() -> None:
    assert [rows_of_share(share, 7) for share in (0.1, 0.5, 0.6)] == [1, 4, 4]


@pytest.mark.parametrize("form", [list, as_columns])
def test_a_refused_transition_is_named_by_its_number_among_all(make_agent: MakeAgent, form: Any) -> None:
    batches = [marked(2, 1.0), marked(3, 1.0), marked(2, 1.0)]
    batches[-1][1] = msgspec.structs.replace(batches[-1][1], reward=np.nan)
    with pytest.raises(InvalidExperience, match="^transition 6: ") as refused:
        make_agent().use_prior([form(batch) for batch in batches], 7, 0.5)
    assert refused.value.index == 6


def test_data_of_other_values_are_other_data(make_agent: MakeAgent) -> None:
    agents = [make_agent() for _ in range(3)]
    for agent, mark in zip(agents, (1.0, 2.0, 1.0), strict=True):
        agent.use_prior([marked(20, mark)], 20, 0.5)
    one, other, same = (agent.prior for agent in agents)
    assert one == same != other


def test_prior_data_are_drawn_by_other_numbers_than_what_is_played(
    make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = make_agent(learning_starts=0)
    steps = [step for number in range(40) for step in marked(1, float(number))]
    agent.use_prior([steps], 40, 0.5)
    agent.observe(steps)
    seen = batches_of(agent, monkeypatch)
    for _ in range(5):
        assert agent.learn() is not None
    drawn = torch.stack([batch.rewards for batch, _ in seen])
    assert not torch.equal(drawn[:, :4], drawn[:, 4:])
