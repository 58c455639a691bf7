"""Whole episodes of a pinned policy, played greedily in environments of their own.

    seeds --> one environment per episode --> observations --> one forward pass for all that wait
                                          <-- actions ------------'

Neither the actors' episodes nor the agent are touched: the policy is a copy that nobody writes to, and no
generator is drawn from but those that the environments seed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import anyio

from stoker.actors.episodes import (
    EnvFactory,
    EnvironmentFailed,
    FailureCount,
    FailureLimit,
    opened_env,
    play_episode,
)
from stoker.envs import PlayedEnv, Stepping, episode_seed
from stoker.envs.protocol import ResetResult, StepResult
from stoker.exits import single_error
from stoker.session import PolicySnapshot
from stoker.session.inference import Inference
from stoker.session.policies import PinnedPolicy
from stoker.stats import EpisodeRecord
from stoker.trainer.evaluation import Evaluation
from stoker.trainer.evaluation_settings import EvaluationSettings
from stoker.types import ActMode, EpisodeStatus

__all__ = ["evaluate", "play_greedily"]

logger = logging.getLogger("stoker.trainer")


async def evaluate(
    snapshot: PolicySnapshot,
    factory: EnvFactory,
    n_episodes: int = 20,
    *,
    seed: int = 0,
    stepping: Stepping = "auto",
    limit: FailureLimit | None = None,
    max_episode_steps: int | None = None,
    concurrency: int | None = None,
) -> Evaluation:
    """Play whole episodes greedily, all at the same time; the i-th with the i-th seed.

    What comes of it depends on the policy and the seed, not on ``concurrency`` or timing, as far as the
    policy answers an observation alike whatever others share its forward pass. A matrix product of another
    number of rows may round its last bit otherwise: with ``concurrency=1`` each pass has one observation,
    and nothing is left to that.

    Args:
        snapshot: the policy.
        factory: makes one environment per episode.
        n_episodes: how many.
        seed: the evaluation's own; the same seed gives the same episodes.
        stepping: where plain environments are stepped.
        limit: how many failures of one environment are put up with.
        max_episode_steps: an episode that has not ended after so many steps counts as truncated there.
        concurrency: how many episodes, and so environments, there are at the same time; None: all.

    Raises:
        ActorFailed: An environment failed too often.
        ConfigError: An argument is out of range, or the factory's environments cannot be played.
    """
    EvaluationSettings(
        n_episodes=n_episodes, seed=seed, max_episode_steps=max_episode_steps, concurrency=concurrency
    )  # refuses
    records = await play_greedily(
        snapshot,
        factory,
        [episode_seed(seed, index, 0, stream="evaluation") for index in range(n_episodes)],
        stepping=stepping,
        limit=limit,
        max_episode_steps=max_episode_steps,
        concurrency=concurrency,
    )
    return Evaluation(snapshot.total_steps, records)


async def play_greedily(
    snapshot: PolicySnapshot,
    factory: EnvFactory,
    seeds: Sequence[int],
    *,
    stepping: Stepping = "auto",
    limit: FailureLimit | None = None,
    max_episode_steps: int | None = None,
    concurrency: int | None = None,
) -> tuple[EpisodeRecord, ...]:
    """Play one episode for each seed and return their records, in the order of the seeds.

    Args:
        snapshot: the policy.
        factory: makes one environment per episode.
        seeds: what they are reset with.
        stepping: where plain environments are stepped.
        limit: how many failures of one environment are put up with.
        max_episode_steps: an episode that has not ended after so many steps counts as truncated there.
        concurrency: how many episodes, and so environments, there are at the same time; None: all.

    Raises:
        ActorFailed: An environment failed too often.
        ConfigError: The factory's environments cannot be played.
    """
    inference = Inference(PinnedPolicy(snapshot.policy), "auto")
    records: list[EpisodeRecord | None] = [None] * len(seeds)
    waiting = iter(enumerate(seeds))

    async def play(index: int, seed: int) -> None:
        name = f"evaluation env {index}"
        failures = FailureCount(f"evaluation {index}", limit or FailureLimit())
        while records[index] is None:
            try:
                async with opened_env(factory, stepping, name) as env:
                    played = env if max_episode_steps is None else _Capped(env, max_episode_steps)
                    records[index] = await play_episode(played, _Greedy(inference), seed)
            except EnvironmentFailed as failure:
                cause = failure.__cause__ or failure
                logger.warning("evaluation %d: its environment failed (%s); played again", index, cause)
                await anyio.sleep(failures.add(cause))

    async def play_in_turn() -> None:
        for index, seed in waiting:  # one iterator for all: each takes the next that nobody has
            await play(index, seed)

    try:
        with single_error():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(inference.run)
                async with anyio.create_task_group() as players:
                    for _ in range(min(len(seeds), concurrency or len(seeds))):
                        players.start_soon(play_in_turn)
                tasks.cancel_scope.cancel()
    finally:
        inference.close(RuntimeError)
    return tuple(record for record in records if record is not None)


class _Greedy:
    """Acts greedily and learns nothing."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    async def may_step(self) -> bool:
        return True

    async def act(self, observation: Any, /) -> Any:
        action, _ = await self._inference.act(observation, ActMode.EXPLOIT)
        return action

    async def observe(
        self, observation: Any, action: Any, reward: float, next_observation: Any, status: EpisodeStatus, /
    ) -> None:
        pass


class _Capped:
    """An environment whose episodes are truncated after so many steps."""

    def __init__(self, env: PlayedEnv, max_episode_steps: int) -> None:
        self._env = env
        self._max_episode_steps = max_episode_steps
        self._steps = 0

    @property
    def observation_space(self) -> Any:
        return self._env.observation_space

    @property
    def action_space(self) -> Any:
        return self._env.action_space

    @property
    def busy_s(self) -> float:
        return self._env.busy_s

    async def reset(self, seed: int | None = None) -> ResetResult:
        self._steps = 0
        return await self._env.reset(seed)

    async def step(self, action: Any) -> StepResult:
        observation, reward, terminated, truncated, info = await self._env.step(action)
        self._steps += 1
        if self._steps == self._max_episode_steps:
            truncated = True  # where the environment terminates at this very step, that goes first
        return observation, reward, terminated, truncated, info

    async def episode_extras(self) -> dict[str, float]:
        return await self._env.episode_extras()

    async def close(self) -> None:
        await self._env.close()
