"""Small agents, streams of transitions and runs, and a look at two of them to the bit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch

from stoker import (
    DQN,
    DQNConfig,
    EpisodeStatus,
    Experience,
    ExperienceBatch,
    SessionConfig,
    StatsTracker,
    TrainingRun,
    TrainingSession,
)
from stoker.session.learner import Learner
from stoker.writer import stage

BOX = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
SMALL: dict[str, Any] = {
    "hidden_sizes": (8,),
    "batch_size": 4,
    "learning_starts": 10,
    "buffer_size": 50,
    "epsilon_decay_steps": 100,
}


def dqn(seed: int = 3, **settings: Any) -> DQN:
    """An agent for the transitions below that learns from its tenth on."""
    return DQN(BOX, gymnasium.spaces.Discrete(2), DQNConfig(**{**SMALL, **settings}), seed=seed)


def transition(k: int, n_actors: int = 3, episode: int = 10) -> Experience:
    """The k-th transition of a stream in which actors come in turn and an episode ends now and then."""
    rng = np.random.default_rng(k)
    first, second = rng.uniform(-1, 1, (2, 3)).astype(np.float32)
    status = EpisodeStatus.TERMINATED if k % episode == episode - 1 else EpisodeStatus.CONTINUING
    return Experience(first, int(rng.integers(2)), float(rng.normal()), second, status, k % n_actors)


def batch_of(steps: Sequence[Experience], **columns: Any) -> ExperienceBatch:
    """Transitions as columns; some columns may be given."""
    found: dict[str, Any] = {
        "observations": np.stack([step.observation for step in steps]),
        "actions": np.array([step.action for step in steps]),
        "rewards": np.array([step.reward for step in steps]),
        "next_observations": np.stack([step.next_observation for step in steps]),
        "terminated": np.array([step.status is EpisodeStatus.TERMINATED for step in steps]),
        "truncated": np.array([step.status is EpisodeStatus.TRUNCATED for step in steps]),
        "actor_ids": tuple(step.actor_id for step in steps),
    }
    return ExperienceBatch(**{**found, **columns})


async def feed(session: TrainingSession, first: int, last: int) -> None:
    """Observe those transitions, with an episode's record behind each end."""
    for k in range(first, last):
        step = transition(k)
        await session.observe(step)
        if step.status.is_done:
            await session.on_episode(float(k), 10, step.status, actor_id=step.actor_id)


def bits(agent: DQN) -> dict[str, Any]:
    """A copy of all that makes the agent what it is, replay and generators included."""
    return stage({"agent": agent.state_dict(), "replay": agent.replay.state_dict()})


def unequal(one: Any, other: Any, where: str = "") -> Iterator[str]:
    """The places where two trees are not the same to the bit."""
    match one:
        case torch.Tensor():
            same = isinstance(other, torch.Tensor) and (one.dtype, one.shape) == (other.dtype, other.shape)
            if not same or one.numpy().tobytes() != other.numpy().tobytes():
                yield where
        case Mapping():
            if not isinstance(other, Mapping) or one.keys() != other.keys():
                yield f"{where} (keys)"
            else:
                for key in one:
                    yield from unequal(one[key], other[key], f"{where}[{key!r}]")
        case list() | tuple():
            if not isinstance(other, list | tuple) or len(one) != len(other):
                yield f"{where} (length)"
            else:
                for i, part in enumerate(one):
                    yield from unequal(part, other[i], f"{where}[{i}]")
        case _:
            if one != other:
                yield where


def restore_into(agent: DQN, state: Mapping[str, Any], run: TrainingRun) -> Learner:
    """Let a new agent become what that checkpoint holds, without a session."""
    learner = Learner(agent, SessionConfig(), StatsTracker(), run)
    learner.restore(run.latest_checkpoint_path, state, run.journal)
    return learner


def rows(run: TrainingRun) -> list[dict[str, Any]]:
    """The training rows without what depends on the time."""
    lines = (run.directory / "train_episodes.jsonl").read_text().splitlines()
    found: list[dict[str, Any]] = [json.loads(line) for line in lines]
    for row in found:
        del row["time"], row["crc"]
    return found
