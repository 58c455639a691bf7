"""An actor that is a task of the session's event loop, and the turns that such actors take in lockstep."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from stoker.actors.copies import OwnPolicy, PolicyFeed
from stoker.actors.episodes import Choice, play_episode
from stoker.actors.player import Player, PlayerSettings
from stoker.envs import PlayedEnv, episode_seed
from stoker.errors import InvalidExperience
from stoker.session import ResumePoint, RunningEpisode, TrainingSession
from stoker.types import ActorId, Experience

__all__ = ["Actor", "RoundRobin"]


class RoundRobin:
    """Gives each actor its turn, in the order of their ids; for lockstep.

    A turn is one step, with the start of an episode before it or the end of one after it. So the order of
    events, and with it the training, does not depend on time.

    Args:
        actor_ids: the actors in order.
        resume_point: where a resumed training stood.
    """

    def __init__(self, actor_ids: Iterable[ActorId], resume_point: ResumePoint) -> None:
        self._order = list(actor_ids)
        self._events = {actor_id: anyio.Event() for actor_id in self._order}
        self._current = self._order[0]
        last = resume_point.last_actor
        if last in self._order:
            # The last actor to step has had its turn, unless the end of its episode, or the first step after
            # the start of one, still belongs to that turn.
            running = resume_point.episodes.get(last)
            is_over = running is None or (bool(running.steps) and not running.is_done)
            self._current = self._after(last) if is_over else last
        self._events[self._current].set()

    async def take(self, actor_id: ActorId) -> None:
        """Wait for this actor's turn; returns at once during it."""
        await self._events[actor_id].wait()

    def pass_on(self, actor_id: ActorId) -> None:
        """End this actor's turn, if it has it."""
        if self._current == actor_id:
            self._events[actor_id] = anyio.Event()
            self._current = self._after(actor_id)
            self._events[self._current].set()

    def leave(self, actor_id: ActorId) -> None:
        """Take no more turns."""
        self.pass_on(actor_id)
        self._order.remove(actor_id)

    def _after(self, actor_id: ActorId) -> ActorId:
        return self._order[(self._order.index(actor_id) + 1) % len(self._order)]


class Actor(Player):
    """Plays an environment as a task of the session's event loop.

    Args:
        session: takes the experiences, and chooses the actions unless there is a feed.
        actor_id: the stream of episodes that this actor is.
        settings: those of its group.
        feed: gives it its own copy of the policy; None: the session's ``act`` chooses.
        running: the episode that it continues; None: it begins one.
        turns: it steps only in its turn; None: whenever it can.
    """

    def __init__(
        self,
        session: TrainingSession,
        actor_id: ActorId,
        settings: PlayerSettings,
        feed: PolicyFeed | None = None,
        running: RunningEpisode | None = None,
        turns: RoundRobin | None = None,
    ) -> None:
        super().__init__(session, actor_id, settings)
        self._feed = feed
        self._running = running
        self._turns = turns
        self._own: OwnPolicy | None = None

    async def run(self) -> None:
        """See ``Player.run``; then the others no longer wait for this actor's turn."""
        if self._feed is not None:
            self._own = self._feed.fork(self._settings.seed, self._actor_id, self._stream.next_episode)
        try:
            await super().run()
        finally:
            if self._turns is not None:
                self._turns.leave(self._actor_id)

    async def _play_env(self) -> None:
        async with self._opened_env() as env:
            await self._play(env)

    async def _play(self, env: PlayedEnv) -> None:
        report, earlier_s = self._stream.report, self._stream.report.env_s
        while await self._may_continue():
            running, self._running = self._running, None
            if running is None:
                seed, number = self._settings.seed, self._stream.next_episode
                running = RunningEpisode(
                    None if seed is None else episode_seed(seed, self._actor_id, number), ()
                )
                await self._stream.start_episode(running.seed)
            else:
                self._stream.resume_episode(running.steps)
            self.in_env_since = time.monotonic()
            try:
                record = await play_episode(env, self, self._actor_id, running.seed, running.steps)
            finally:
                self.in_env_since = None
                report.env_s = earlier_s + env.busy_s
            if record is not None:
                await self._stream.end_episode(record)
                self._pass_on()

    # The listener of an episode -----------------------------------------------------------------------

    async def may_step(self) -> bool:
        """Wait for this actor's turn and for the gate; False abandons the episode."""
        if self._settings.gate is not None and await self._may_continue():
            await self._pass_gate()
        return await self._may_continue()

    async def act(self, observation: Any, /) -> Choice:
        """Ask its own policy, or the session."""
        begun = time.perf_counter()
        if self._own is None:
            choice = await self._session.act(observation, actor_id=self._actor_id), None, None
        else:
            await self._wait_and_update(self._own)
            waited_s = time.perf_counter() - begun
            begun += waited_s
            self._stream.report.wait_s += waited_s
            try:
                choice = self._own.act(observation)
            except InvalidExperience:
                raise
            except Exception as error:
                raise self._refusal(observation, error) from error
        self._stream.report.act_s += time.perf_counter() - begun
        self.in_env_since = time.monotonic()
        return choice

    async def observe(self, step: Experience, /) -> None:
        """Send the step to the session."""
        self.in_env_since = None
        begun = time.perf_counter()
        is_accepted = await self._stream.observe(step)
        self._stream.report.wait_s += time.perf_counter() - begun
        if is_accepted:
            await self._stream.publish(step)
        if step.status.is_done:
            self.in_env_since = time.monotonic()  # the environment is asked for its extras
        else:
            self._pass_on()

    async def _wait_and_update(self, own: OwnPolicy) -> None:
        """Wait until the pacing allows an action of the copy, and update it if that is due."""
        feed = self._feed
        assert feed is not None  # noqa: S101 - it made the copy
        await checkpoint()  # the actors' steps mix, and none of them holds the event loop
        if feed.is_due(own.version):
            own.load(feed.newest())
        while not await self._session.pacing.begin(self._actor_id, own.version):
            own.load(feed.newest())
        self._stream.report.syncs = own.syncs

    # Turns ----------------------------------------------------------------------------------------------

    async def _may_continue(self) -> bool:
        self.in_env_since = None
        if self._turns is not None:
            await self._turns.take(self._actor_id)
        return not self._is_over

    def _pass_on(self) -> None:
        if self._turns is not None:
            self._turns.pass_on(self._actor_id)

    async def _recover(self, cause: BaseException) -> None:
        self._pass_on()
        await super()._recover(cause)
