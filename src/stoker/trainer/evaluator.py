"""Evaluation beside the actors: the same seeds each time, greedy, on a pinned policy.

The evaluator has environments of its own; neither the actors' episodes nor the agent's state are touched.
What it finds best is what is saved: the weights that were evaluated, not what the learner has since become.
"""

from __future__ import annotations

import logging
import statistics
from typing import Any

import anyio
import msgspec

from stoker.actors import (
    EnvFactory,
    EnvironmentFailed,
    FailureCount,
    FailureLimit,
    close_played,
    open_played,
    play_episode,
)
from stoker.envs import PlayedEnv, Stepping, episode_seed
from stoker.errors import ConfigError, first_error
from stoker.session import PolicySnapshot, TrainingSession
from stoker.session.inference import Inference
from stoker.session.policies import PinnedPolicy
from stoker.stats import EpisodeRecord
from stoker.types import ActMode, EpisodeStatus

__all__ = ["Evaluation", "Evaluator", "evaluate"]

logger = logging.getLogger("stoker.trainer")


class Evaluation(msgspec.Struct, frozen=True):
    """What an evaluation came to.

    Attributes:
        total_steps: environment steps behind the policy.
        records: one per episode, in the order of their seeds.
        mean_reward: the mean of their total rewards.
        is_best: whether it was the best so far, ever.
    """

    total_steps: int
    records: tuple[EpisodeRecord, ...]
    mean_reward: float
    is_best: bool = False


async def evaluate(
    snapshot: PolicySnapshot,
    factory: EnvFactory,
    n_episodes: int = 20,
    *,
    seed: int = 0,
    stepping: Stepping = "auto",
    limit: FailureLimit | None = None,
) -> Evaluation:
    """Play whole episodes greedily, all at the same time; the i-th with the i-th seed.

    Args:
        snapshot: the policy.
        factory: makes one environment per episode.
        n_episodes: how many.
        seed: the evaluation's own; the same seed gives the same episodes.
        stepping: where plain environments are stepped.
        limit: how many failures of one environment are put up with.

    Raises:
        ActorFailed: An environment failed too often.
        ConfigError: ``n_episodes`` is below 1, or the factory's environments cannot be played.
    """
    if n_episodes < 1:
        raise ConfigError(f"n_episodes={n_episodes}: evaluate at least 1")
    inference = Inference(PinnedPolicy(snapshot.policy), "auto")
    records: list[EpisodeRecord | None] = [None] * n_episodes

    async def play(index: int) -> None:
        name = f"evaluation env {index}"
        failures = FailureCount(f"evaluation {index}", limit or FailureLimit())
        while records[index] is None:
            env: PlayedEnv | None = None
            try:
                env = await open_played(factory, stepping, name)
                episode = episode_seed(seed, index, 0, stream="evaluation")
                records[index] = await play_episode(env, _Greedy(inference), episode)
            except EnvironmentFailed as failure:
                cause = failure.__cause__ or failure
                logger.warning("evaluation %d: its environment failed (%s); played again", index, cause)
                await anyio.sleep(failures.add(cause))
            finally:
                if env is not None:
                    await close_played(env, name)

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(inference.run)
            async with anyio.create_task_group() as episodes:
                for index in range(n_episodes):
                    episodes.start_soon(play, index)
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        error = first_error(group)
        raise error from error.__cause__
    finally:
        inference.close(RuntimeError)
    played = tuple(record for record in records if record is not None)
    return Evaluation(snapshot.total_steps, played, statistics.fmean(r.total_reward for r in played))


class _Greedy:
    """Acts greedily and learns nothing."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    async def goes_on(self) -> bool:
        return True

    async def act(self, observation: Any, /) -> Any:
        action, _ = await self._inference.act(observation, ActMode.EXPLOIT)
        return action

    async def observe(
        self, observation: Any, action: Any, reward: float, next_observation: Any, status: EpisodeStatus, /
    ) -> None:
        pass


class Evaluator:
    """Evaluates a session's policy whenever that is due, logs the episodes and keeps the best.

    Args:
        session: whose policy; its ``eval_freq`` says when.
        factory: makes the evaluation's own environments.
        n_episodes, seed, stepping: as for ``evaluate``.
        stop_at_reward: stop the session when an evaluation reaches this mean.
    """

    def __init__(
        self,
        session: TrainingSession,
        factory: EnvFactory,
        n_episodes: int = 20,
        *,
        seed: int = 0,
        stepping: Stepping = "auto",
        stop_at_reward: float | None = None,
    ) -> None:
        self._session = session
        self._factory = factory
        self._n_episodes = n_episodes
        self._seed = seed
        self._stepping: Stepping = stepping
        self._stop_at_reward = stop_at_reward
        self._turn = anyio.Lock()
        self.last: Evaluation | None = None
        """The last evaluation of this process."""
        self.reached_goal = False
        """Whether ``stop_at_reward`` was reached."""

    async def run(self) -> None:
        """Evaluate each snapshot that is due, until cancelled.

        Raises:
            ActorFailed, SessionError: As for ``evaluate`` and the session.
        """
        while True:
            snapshot = await self._session.next_evaluation()
            async with self._turn:
                await self._evaluate(snapshot)

    async def finish(self) -> None:
        """Wait for the evaluation under way, and evaluate what the training ended with, if that is new.

        Not when the session was stopped: whoever stopped it wants it to end.
        """
        async with self._turn:
            if self._session.is_stopped:
                return
            snapshot = await self._session.snapshot()
            if self.last is None or self.last.total_steps < snapshot.total_steps:
                await self._evaluate(snapshot)

    async def _evaluate(self, snapshot: PolicySnapshot) -> None:
        found = await evaluate(
            snapshot, self._factory, self._n_episodes, seed=self._seed, stepping=self._stepping
        )
        for record in found.records:
            await self._session.on_eval_episode(record, snapshot)
        is_best = await self._session.maybe_save_best(found.mean_reward, snapshot)
        self.last = msgspec.structs.replace(found, is_best=is_best)
        if self._stop_at_reward is not None and found.mean_reward >= self._stop_at_reward:
            self.reached_goal = True
            self._session.stop()
