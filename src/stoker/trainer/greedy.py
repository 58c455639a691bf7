"""Greedy episodes of a pinned policy, on one environment per episode or many on a vector environment.

All agents of a joint environment act with the policy. The score of an episode is the mean of its agents'
total rewards, and each of these is an extra, ``reward_`` and the agent's name.

    seeds --> environments --> observations --> one forward pass for all that wait
                           <-- actions ------------'

Guarantee: which episodes count is decided before any is played, so short ones are not preferred. On a vector
environment of N, the i-th sub-environment plays the episodes i, N + i, 2 N + i and so on: one in each wave,
which begins with a seeded reset of all of them and ends with the last episode that counts. What a
sub-environment plays between its own end and that of the wave does not count.
"""

from __future__ import annotations

import contextlib
import logging
import statistics
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple, cast

import anyio
from gymnasium.vector import VectorEnv

from stoker.actors import EnvFactory, FailureLimit
from stoker.actors.episodes import (
    Choice,
    EnvCalls,
    EnvironmentFailed,
    EpisodeTally,
    FailureCount,
    check_factory,
    opened_env,
    play_episode,
)
from stoker.envs import PlayedEnv, Stepping, episode_seed
from stoker.envs.joint import JointStep
from stoker.envs.pettingzoo import is_joint, joint_env
from stoker.envs.results import then
from stoker.envs.vector import Moves, VectorRounds
from stoker.errors import InvalidExperience
from stoker.exits import single_error
from stoker.raising import described
from stoker.session import PolicySnapshot
from stoker.session.acting import Inference
from stoker.stats import EpisodeRecord, check_record
from stoker.trainer.evaluation import CONFIRMATION, EvaluationSettings
from stoker.types import ActMode, ActorId, EpisodeStatus, Experience

_logger = logging.getLogger("stoker.trainer")


class GreedyEpisodes:
    """Plays the episodes of evaluations, of one evaluation at a time.

    A vector environment stays open for the next evaluation until ``close``, unless it fails or ``play`` is
    cancelled; single environments are closed after their episode.

    Args:
        factory: makes one environment per episode, or a vector environment for all of them.
        settings: which episodes; ``concurrency`` is that of single environments.
        stepping: where plain environments are stepped.
        limit: how many failures of one environment are tolerated.
    """

    def __init__(
        self,
        factory: EnvFactory,
        settings: EvaluationSettings,
        stepping: Stepping,
        limit: FailureLimit | None = None,
    ) -> None:
        check_factory(factory)
        self._factory = factory
        self._settings = settings
        self._stepping: Stepping = stepping
        self._limit = limit or FailureLimit()
        self._is_joint = False
        self._width = 0  # sub-environments; 0: the factory makes single environments
        self._vector: PlayedEnv | None = None
        self._kept = contextlib.AsyncExitStack()  # closes it

    async def play(self, snapshot: PolicySnapshot, *, confirms: bool = False) -> tuple[EpisodeRecord, ...]:
        """Play the episodes of one evaluation and return their records in the order of their seeds.

        The seeds follow from the settings. Episodes that confirm an evaluation are marked, and have other
        seeds at each environment step.

        Raises:
            ActorFailed: An environment failed too often.
            ConfigError: The factory's environments cannot be played.
        """
        stream, episode = (CONFIRMATION, snapshot.total_steps) if confirms else ("evaluation", 0)
        n_episodes, seed = self._settings.n_episodes, self._settings.seed
        seeds = [episode_seed(seed, index, episode, stream=stream) for index in range(n_episodes)]
        records: list[EpisodeRecord | None] = [None] * n_episodes
        inference = Inference(snapshot.answer, "auto")
        try:
            with single_error():
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(inference.run)
                    await self._play_all(inference, seeds, records)
                    tasks.cancel_scope.cancel()
        finally:
            inference.close(RuntimeError)
        marks = {CONFIRMATION: 1.0} if confirms else {}
        return tuple(record.with_extras(marks) for record in records if record is not None)

    async def close(self) -> None:
        """Close the vector environment, if one is open; the next evaluation makes another one."""
        kept, self._kept, self._vector = self._kept, contextlib.AsyncExitStack(), None
        await kept.aclose()

    async def _play_all(
        self, inference: Inference, seeds: list[int], records: list[EpisodeRecord | None]
    ) -> None:
        waiting = iter(range(len(seeds)))
        opened, max_steps = anyio.Event(), self._settings.max_episode_steps

        async def play() -> None:
            for index in waiting:  # an iterator that all share
                failures = FailureCount(f"evaluation {index}", self._limit)
                while records[index] is None:
                    try:
                        async with self._opened(index) as env:
                            opened.set()
                            if self._width:
                                first = index - index % self._width
                                await self._play_wave(env, first, seeds, records, inference)
                                continue
                            play_one = _play_together if self._is_joint else _play_alone
                            records[index] = await play_one(env, inference, index, seeds[index], max_steps)
                    except (EnvironmentFailed, InvalidExperience) as failure:
                        cause = failure.__cause__ or failure
                        text = "evaluation %d: its environment failed (%s); playing it again"
                        _logger.warning(text, index, described(cause))
                        await anyio.sleep(failures.add(cause))

        async with anyio.create_task_group() as players:
            players.start_soon(play)
            await opened.wait()  # only a made environment says whether it is a vector environment
            if not self._width:
                for _ in range(min(len(seeds), self._settings.concurrency or len(seeds)) - 1):
                    players.start_soon(play)

    @contextlib.asynccontextmanager
    async def _opened(self, index: int) -> AsyncGenerator[PlayedEnv]:
        if (env := self._vector) is None:
            async with contextlib.AsyncExitStack() as stack:
                opening = opened_env(self._make, self._stepping, f"evaluation env {index}")
                env = await stack.enter_async_context(opening)
                if not self._width:
                    yield env
                    return
                self._vector, self._kept = env, stack.pop_all()
        try:
            yield env
        except BaseException:  # it may be in the middle of a step
            await self.close()
            raise

    def _make(self) -> Any:
        return then(self._factory(), self._adapted)

    def _adapted(self, env: Any) -> Any:
        if is_joint(env):
            self._is_joint = True
            return joint_env(env)
        if not isinstance(env, VectorEnv):
            return env
        rounds = VectorRounds(env)  # pyright: ignore[reportUnknownArgumentType]
        self._width = rounds.num_envs
        return rounds

    async def _play_wave(
        self,
        env: PlayedEnv,
        first: int,
        seeds: list[int],
        records: list[EpisodeRecord | None],
        inference: Inference,
    ) -> None:
        """Play one wave, from the ``first`` episode on.

        Those that have a record, from before a failure, do not count again.

        Raises:
            EnvironmentFailed: The environment raised.
            InvalidExperience: It gave a value that the policy refuses, or a NaN reward.
        """
        last = min(first + self._width, len(seeds))
        running = {index - first for index in range(first, last) if records[index] is None}
        call, tally = EnvCalls(), EpisodeTally(self._width, self._settings.max_episode_steps)
        seed_of: Any = dict(enumerate(seeds[first:last])).get
        now, info = await call(env.reset(seed_of))
        while running:
            chosen, _, _ = await inference.ask_many(
                now.shown.of(now.acting, now.where), ActMode.EXPLOIT, now.acting
            )
            now, _, _, _, info = await call(env.step(Moves(now.spread(chosen))))
            for index, record in tally.add(now, info, among=running):
                running.remove(index)
                records[first + index] = record


async def _play_alone(
    env: PlayedEnv, inference: Inference, index: int, seed: int, max_steps: int | None
) -> EpisodeRecord | None:
    return await play_episode(env, _Greedy(inference), index, seed, max_steps=max_steps)


async def _play_together(
    env: PlayedEnv, inference: Inference, index: int, seed: int, max_steps: int | None
) -> EpisodeRecord:
    """Play one episode of a joint environment; its length is the number of joint steps."""
    call, totals, was_cut, n_steps = EnvCalls(), dict[str, float](), False, 0
    now: JointStep = cast("Any", await call(env.reset(seed)))
    while not now.is_over and n_steps != max_steps:
        ids: list[ActorId] = [f"{index}/{agent}" for agent in now.acting]
        actions, _, _ = await inference.ask_many([*now.acting.values()], ActMode.EXPLOIT, ids)
        now = cast("Any", await call(env.step(dict(zip(now.acting, actions, strict=True)))))
        n_steps += 1
        for agent, reward in now.rewards():
            totals[agent] = totals.get(agent, 0.0) + reward
        was_cut |= any(outcome.status.is_truncated for outcome in now.outcomes.values())
    status = EpisodeStatus.of(now.is_over and not was_cut, truncated=True)
    extras = {f"reward_{agent}": total for agent, total in sorted(totals.items())}
    return check_record(EpisodeRecord(statistics.fmean(totals.values() or (0.0,)), n_steps, status, extras))


class _Greedy(NamedTuple):
    """A listener that acts greedily and learns nothing."""

    inference: Inference

    async def may_step(self) -> bool:
        return True

    async def act(self, observation: Any, /) -> Choice:
        return (await self.inference.ask(observation, ActMode.EXPLOIT, 0))[0], None, None

    async def observe(self, step: Experience, /) -> None:
        pass
