"""A service on a real training, a client's records, and the ledger that a run's journal holds."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Literal

import anyio
import gymnasium
import numpy as np

from stoker import DQN, PPO, DQNConfig, Experience, PPOConfig, TrainingRun, TrainingSession
from stoker.journal import EpisodeEnded, EpisodeStarted, StreamEnded, StreamMoved
from stoker.protocol import ActorAnswer, Record, SpaceCodec, StepAnswer, StepMessage
from stoker.service import Holder, Limits, StepService
from stoker.telemetry.reading import ServiceCounts

BOX = gymnasium.spaces.Box(-9, 9, (2,), np.float32)
CHOICES = gymnasium.spaces.Discrete(3)
FORCES = gymnasium.spaces.Box(-2, 2, (2,), np.float32)
CLIENT = Holder("client")


def agent_of(kind: str = "dqn") -> DQN | PPO:
    """A small agent that learns soon."""
    if kind.startswith("ppo"):
        actions = FORCES if kind == "ppo-box" else CHOICES
        return PPO(BOX, actions, PPOConfig(hidden_sizes=(8,), rollout_steps=16, batch_size=8), seed=3)
    config = DQNConfig(hidden_sizes=(8,), batch_size=4, learning_starts=10, buffer_size=200)
    return DQN(BOX, CHOICES, config, seed=3)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def serving(
    run: TrainingRun | None = None,
    kind: str = "dqn",
    *,
    limits: Limits | None = None,
    clock: Clock | None = None,
    learns: bool = True,
    **settings: Any,
) -> AsyncGenerator[tuple[StepService, TrainingSession]]:
    """A service with its background tasks on an open session."""
    async with TrainingSession(agent_of(kind), run, numbered=True, keep_journal="all", **settings) as session:
        limits = limits or Limits(max_wait_s=30)
        service = StepService(
            session,
            SpaceCodec(BOX, FORCES if kind == "ppo-box" else CHOICES),
            limits,
            has_disk=run is not None,
            learns=learns,
            counts=ServiceCounts(),
            clock=clock or Clock(),
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(service.run)
            try:
                yield service, session
            finally:
                tasks.cancel_scope.cancel()


def start(actor: str, seq: int, seen: float = 0.0, **fields: Any) -> Record:
    """The record that begins an episode."""
    return Record(actor, seq, [seen, 0.5], start=True, **fields)


def record(actor: str, seq: int, seen: float = 0.0, reward: float = 1.0, **fields: Any) -> Record:
    """A record of a step."""
    return Record(actor, seq, [seen, 0.5], reward=reward, **fields)


async def send(
    service: StepService,
    *records: Record,
    ack: Literal["accepted", "durable"] = "accepted",
    holder: Holder = CLIENT,
) -> ActorAnswer:
    """Send a message; the answer to its last record."""
    answer: StepAnswer = await service.step(StepMessage(list(records), ack), holder)
    return answer.actors[records[-1].actor]


def ledger_of(run: TrainingRun) -> dict[str, list[Any]]:
    """What the journal of a run holds of each actor, in order: numbers of records, and what has no number."""
    found: dict[str, list[Any]] = {}
    for _, event in run.journal.read(0, run.journal.n_events()):
        match event:
            case Experience(actor_id=actor, seq=seq) | StreamMoved(actor, seq):
                entry: Any = seq
            case EpisodeStarted(actor, seq=seq):
                entry = "abandoned" if seq is None else seq
            case EpisodeEnded(_, actor):
                entry = "ended"
            case StreamEnded(actor):
                entry = "gone"
            case _:
                continue
        found.setdefault(str(actor), []).append(entry)
    return found
