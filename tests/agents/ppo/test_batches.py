"""Batches of columns: to the bit what single experiences come to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from stoker.agents import PPO
from stoker.errors import InvalidExperience
from stoker.types import ActorId, EpisodeStatus, Experience, ExperienceBatch

MakeAgent = Callable[..., PPO]
Play = Callable[..., list[Experience]]


def batch_of(experiences: Sequence[Experience], actor_ids: tuple[ActorId, ...]) -> ExperienceBatch:
    return ExperienceBatch(
        np.stack([each.observation for each in experiences]),
        np.array([each.action for each in experiences]),
        np.array([each.reward for each in experiences]),
        np.stack([each.next_observation for each in experiences]),
        np.array([each.status is EpisodeStatus.TERMINATED for each in experiences]),
        np.array([each.status is EpisodeStatus.TRUNCATED for each in experiences]),
        actor_ids,
        np.stack([each.policy_extras for each in experiences]),
    )


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("kind", ["discrete", "continuous", "several"])
@pytest.mark.parametrize("settings", [{}, {"clip_rewards": 1.0}, {"normalize_rewards": True}], ids=str)
@pytest.mark.parametrize("actor_ids", [(0, 1, 2, 3, 4), ("a", 1, "a", 2)], ids=["distinct", "one-twice"])
def test_batches_are_learned_to_the_bits_of_single_experiences(
    make_agent: MakeAgent, play: Play, kind: str, settings: dict[str, Any], actor_ids: tuple[ActorId, ...]
) -> None:
    single, batched, mixed = (make_agent(kind, rollout_steps=60, **settings) for _ in range(3))
    size = len(actor_ids)
    rng = np.random.default_rng(1)
    for seed in range(3):  # rollouts
        experiences = play(single, 60, actor_ids, seed)
        for start in range(0, 60, size):
            rows = experiences[start : start + size]
            batch = batch_of(rows, actor_ids)
            single.observe(rows)
            batched.observe_batch(batch)
            if rng.random() < 0.5:
                mixed.observe(rows)
            else:
                mixed.observe_batch(batch)
            for agent in (single, batched, mixed):
                for each in rows:
                    if each.status.is_done:  # as a session says
                        agent.on_episode_start(each.actor_id)
                if start % 20 == 0:
                    agent.on_episode_start(actor_ids[1])  # gives an episode up
            assert batched.steps_to_learn == single.steps_to_learn == 60 - start - size
        learned = [agent.learn() for agent in (single, batched, mixed)]
        assert learned[0] is not None
        assert same(learned[0], learned[1]), "a batch is learned otherwise"
        assert same(learned[0], learned[2]), "batches and single experiences do not mix"
        states = [agent.state_dict() | {"explore_generator": None} for agent in (single, batched, mixed)]
        assert same(states[0], states[1])
        assert same(states[0], states[2])


@pytest.mark.parametrize("kind", ["discrete", "continuous", "several"])
def test_a_batch_with_its_extras_passes_as_a_whole_unless_a_row_of_them_is_another_actions(
    make_agent: MakeAgent, play: Play, kind: str
) -> None:
    agent = make_agent(kind)
    rows = play(agent, 5, (0, 1, 2, 3, 4), 0)
    batch = batch_of(rows, (0, 1, 2, 3, 4))
    assert agent.check_batch(batch)
    assert agent.check_batch(replace(batch, policy_extras=None))
    extras = batch.policy_extras
    of_another, odd = extras.copy(), extras.copy()
    of_another[3, -1] = -of_another[3, -1] - 0.01 if kind == "continuous" else 1 - of_another[3, -1]
    odd[3, 0] = np.nan
    for given in (of_another, odd, extras[:, :-1], extras.astype(np.float32)):
        assert not agent.check_batch(replace(batch, policy_extras=given))
    for given in (of_another, odd):
        with pytest.raises(InvalidExperience, match="policy_extras"):
            for each in replace(batch, policy_extras=given).experiences():
                agent.check_experience(each)
