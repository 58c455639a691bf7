"""Each step as it was accepted, for those who follow a training step by step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from stoker.agents.protocol import ReportsExploration
from stoker.exits import Contained
from stoker.types import ActorId, EpisodeStatus

if TYPE_CHECKING:
    from stoker.session import TrainingSession

__all__ = ["Gate", "OnStep", "StepMetrics", "StepTeller"]


class StepMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """One environment step that the session accepted.

    Attributes:
        actor_id: who did it.
        total_steps: environment steps accepted so far, over all actors and attempts.
        episode: the number of the episode within this actor, from 0.
        episode_step: the number of the step within the episode, from 1.
        reward: what it gave.
        episode_reward: the undiscounted sum of the episode's rewards so far.
        exploration: the agent's ``exploration_rate``; None: it has none.
        episode_over: whether the step ended the episode.
        status: how the episode stands.
    """

    actor_id: ActorId
    total_steps: int
    episode: int
    episode_step: int
    reward: float
    episode_reward: float
    exploration: float | None
    episode_over: bool
    status: EpisodeStatus


OnStep = Callable[[StepMetrics], Awaitable[None]]
"""Awaited after each step that was accepted; the actor goes on when it is back."""


class Gate(Protocol):
    """Asked by actors before each of their steps."""

    async def enter(self, actor_id: ActorId) -> bool:
        """Wait until this actor may do a step; False ends it."""
        ...

    def give_back(self, actor_id: ActorId) -> None:
        """The step that this actor was let do will not come: its environment failed, or it ends."""
        ...


class StepTeller:
    """Tells of one actor's steps.

    Args:
        session: which accepts them.
        actor_id: whose.
        on_step: called with the metrics of each step.
    """

    def __init__(self, session: TrainingSession, actor_id: ActorId, on_step: OnStep) -> None:
        self._session = session
        agent = session.agent
        self._agent = agent if isinstance(agent, ReportsExploration) else None
        self._actor_id = actor_id
        self._on_step = on_step
        self._episode = 0
        self._steps = 0
        self._reward = 0.0

    def begin(self, episode: int, steps: int = 0, reward: float = 0.0) -> None:
        """An episode begins, or goes on where so many steps gave so much reward."""
        self._episode, self._steps, self._reward = episode, steps, reward

    async def tell(self, reward: float, status: EpisodeStatus) -> None:
        """A step of that episode was accepted."""
        self._steps += 1
        self._reward += reward
        metrics = StepMetrics(
            actor_id=self._actor_id,
            total_steps=self._session.accepted_steps,
            episode=self._episode,
            episode_step=self._steps,
            reward=reward,
            episode_reward=self._reward,
            exploration=None if self._agent is None else float(self._agent.exploration_rate),
            episode_over=status.is_done,
            status=status,
        )
        with Contained(f"on_step for actor {self._actor_id!r}"):
            await self._on_step(metrics)
