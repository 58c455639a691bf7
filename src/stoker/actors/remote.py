"""An actor whose environment and policy copy live with a worker: its side on the event loop.

To its group it is what ``Actor`` is: the same episodes, seeds, failures and reports. The messages of its
worker are processed in order; what is still in flight when the worker ends is lost, as a running step is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import anyio
import msgspec
from msgspec.structs import force_setattr

import stoker.actors.messages as messages
from stoker.actors.actor import Player, PlayerSettings, WorkerLost
from stoker.actors.episodes import EnvironmentFailed, PolicyFailed
from stoker.actors.messages import PlayedEvent, WorkerEvent
from stoker.actors.places import Link, Place
from stoker.actors.streams import ActorReport, ActorStream, PolicyFeed
from stoker.actors.timing import ACTING, ACTOR_STATES, OBSERVING, RESETTING, STEPPING
from stoker.actors.worker import Assignment
from stoker.errors import ConfigError
from stoker.journal import ActorEvent, EpisodeEnded, EpisodeStarted
from stoker.session import TrainingSession
from stoker.telemetry import TimeTally
from stoker.telemetry.clocks import Timed
from stoker.types import ActorId, Experience, ExperienceBatch

_START_S = 120.0
"""A worker that has not started after this time never will."""

_CLOSE_S = 5.0
"""How long a worker may take to close its environment, or ``actor_timeout_s`` if that is shorter."""

_KILL_S = 10.0
"""A killed worker is seen to end within this time, or not at all."""


class RemoteActor(Player):
    """Has an environment played by a worker until the session is done.

    Args:
        session: takes the experiences.
        actor_id: the stream of episodes that this actor is.
        settings: those of its group.
        place: where its workers play.
        feed: makes their copies of the policy.
        starting: limits how many workers start at a time.
    """

    def __init__(
        self,
        session: TrainingSession,
        actor_id: ActorId,
        settings: PlayerSettings,
        *,
        place: Place,
        feed: PolicyFeed,
        starting: anyio.CapacityLimiter,
    ) -> None:
        super().__init__(session, actor_id, settings)
        self._place = place
        self._feed = feed
        self._starting = starting
        self._asks = settings.gate is not None or session.config.max_staleness is not None
        self._tally = TimeTally(ACTOR_STATES)
        self.timed: Timed = self._tally
        self._syncs_before = 0  # of earlier workers
        self._sent = 0  # the version that the worker has, or that is in flight to it
        self._is_alive = False  # as far as is known
        self._acting_ids: tuple[ActorId, ...] = (actor_id,)

    # One worker ---------------------------------------------------------------------------------------

    async def _play_env(self) -> None:
        """Have one worker play, from its start to its end."""
        report, assignment = self._stream.report, self._assignment()
        self._tally.restart()
        self._syncs_before = report.syncs
        own = self._feed.fork(assignment.seed, self.actor_id, assignment.episode)
        own.agent_spaces = self._agent_spaces
        self._sent = own.version
        link = self._place.link(assignment, self._settings.factory, own)
        try:
            await self._start_worker(link)
            await self._serve(link)
        finally:
            since, limit_s = self.calls.since, self._session.config.actor_timeout_s
            is_late = since is not None and time.monotonic() - since >= limit_s
            # A worker whose ``Ready`` is here, read or not, may have an environment, which must be closed.
            is_unmade = self.is_starting and not len(link.messages)
            is_lost = self._life.cancel_called or is_late or is_unmade
            self.calls.since = None
            self._lose_actions()  # now: the worker may take long to end
            await self._end_worker(link, at_once=is_lost)

    def _assignment(self) -> Assignment:
        seed, episode = self._settings.seed, self._stream.next_episode
        return Assignment(actor_id=self.actor_id, seed=seed, episode=episode, asks=self._asks)

    async def _start_worker(self, link: Link) -> None:
        async with self._starting:
            if self._is_over:
                return
            link.open()
            self._is_alive = self.is_starting = True
            try:
                with anyio.fail_after(_START_S):
                    message = await self._next(link)
            except TimeoutError:
                raise EnvironmentFailed from WorkerLost(f"its worker did not start within {_START_S:.0f} s")
        while isinstance(message, messages.Waiting):  # others may start meanwhile
            message = await self._next(link)
        await self._handle(message, link)

    async def _serve(self, link: Link) -> None:
        while not self._is_over:
            await self._handle(await self._next_while_watched(link), link)
        # A message in flight may hold the end of an episode whose steps were all accepted.
        link.send(messages.Stop())
        while self._is_alive and not self._session.is_draining:
            message = await self._next_while_watched(link)
            if isinstance(message, messages.Played):
                await self._accept(message, link)

    async def _end_worker(self, link: Link, *, at_once: bool) -> None:
        """End the worker, if there is one, and wait for it, but not without bound."""
        with anyio.CancelScope(shield=True):
            link.send(messages.Stop())
            if not at_once:
                await self._wait_for_end(link, min(_CLOSE_S, self._session.config.actor_timeout_s))
            if self._is_alive:
                link.kill()
                await self._wait_for_end(link, _KILL_S)
            self._is_alive = False

    async def _wait_for_end(self, link: Link, timeout_s: float) -> None:
        with anyio.move_on_after(timeout_s):
            while self._is_alive:
                if isinstance(message := await self._next(link), messages.Played):
                    self._add_times(message)

    # Messages -----------------------------------------------------------------------------------------

    async def _next(self, link: Link) -> WorkerEvent:
        message = await link.messages.take()
        if isinstance(message, messages.WorkerExited):
            self._is_alive = False
        return message

    async def _next_while_watched(self, link: Link) -> WorkerEvent:
        """The same, counted as time in the environment: the worker waits for nothing of the session."""
        self.calls.since = time.monotonic()
        message = await self._next(link)
        self.calls.since = None
        return message

    async def _handle(self, message: WorkerEvent, link: Link) -> None:
        match message:
            case messages.Played():
                await self._accept(message, link)
            case messages.Failed(error, observation):
                if observation is not None:
                    raise PolicyFailed(observation) from error
                if isinstance(error, ConfigError):
                    raise error
                raise EnvironmentFailed from error
            case messages.WorkerExited(is_lost=is_lost):
                raise EnvironmentFailed from WorkerLost(message.in_words, counts=not is_lost)
            case messages.Waiting():
                pass
            case messages.Ready():
                self.is_starting = False
                self._send_weights(link)  # its start took a while

    async def _accept(self, played: messages.Played, link: Link) -> None:
        self._add_times(played)
        n_steps = await self._send(played.events)
        self._sent = max(self._sent, played.version)
        if not self._asks:
            link.send(messages.Credit(n_steps))
        if played.version == self._sent:  # weights are large: the next ones go out when these have arrived
            self._send_weights(link)
        if played.asks:
            await self._permit(link)

    async def _send(self, events: Sequence[PlayedEvent]) -> int:
        """Send events to the session in order, and return how many steps they are."""
        single = cast("Sequence[ActorEvent]", events)  # a worker sends batches of vector environments alone
        await self._stream.send(single)
        return sum(type(event) is Experience for event in single)

    def _add_times(self, played: messages.Played) -> None:
        report, tally = self._stream.report, self._tally
        tally.report(played.times_s)
        seconds = tally.seconds()
        report.env_s = seconds[RESETTING] + seconds[STEPPING]
        report.act_s, report.wait_s = seconds[ACTING], seconds[OBSERVING]
        report.syncs = self._syncs_before + played.syncs

    # Commands -----------------------------------------------------------------------------------------

    def _send_weights(self, link: Link, *, now: bool = False) -> None:
        """Send the newest weights if the worker's are due to be replaced, or ``now``."""
        if now or self._feed.is_due(self._sent):
            fresh = self._feed.newest() if now else self._feed.fresh()
            self._sent = fresh.version
            link.send(fresh)

    async def _permit(self, link: Link) -> None:
        """Let the worker do its next step, once the gate and the pacing allow it."""
        await self._pass_gate()
        if self._is_over:
            return
        if not await self._session.pacing.begin_many(self._acting_ids, self._sent):
            self._send_weights(link, now=True)
        if not self._is_over:
            link.send(messages.Credit(1))


class RemoteVectorActor(RemoteActor):
    """Has a vector environment played by a worker; its failures are those of the first actor.

    ``env_s`` of each report is the time of the whole environment; the first one alone has ``act_s``,
    ``wait_s`` and ``syncs`` of the worker.

    Args:
        session: takes the experiences.
        actor_ids: the actors, one per sub-environment.
        settings: those of its group; the factory makes a vector environment of that many.
        **where: as for ``RemoteActor``.
    """

    def __init__(
        self, session: TrainingSession, actor_ids: Sequence[ActorId], settings: PlayerSettings, **where: Any
    ) -> None:
        super().__init__(session, actor_ids[0], settings, **where)
        session.pacing.check_together(len(actor_ids), "sub-environments")
        self.streams.extend(ActorStream(session, actor_id) for actor_id in actor_ids[1:])
        self._acting_ids = tuple(actor_ids)
        self._stream_of = {stream.report.actor_id: stream for stream in self.streams}

    @property
    def reports(self) -> list[ActorReport]:
        """What each actor has done so far."""
        for stream in self.streams:
            stream.report.env_s = self._stream.report.env_s
        return super().reports

    def _assignment(self) -> Assignment:
        return msgspec.structs.replace(
            super()._assignment(),
            actor_ids=self._acting_ids,
            episodes=tuple(stream.next_episode for stream in self.streams),
            window_steps=max(64, 16 * len(self.streams)),
            batch_steps=max(16, 4 * len(self.streams)),
        )

    async def _send(self, events: Sequence[PlayedEvent]) -> int:
        n_steps = 0
        for event in events:
            match event:
                case EpisodeStarted(actor_id, seed):
                    await self._stream_of[actor_id].start_episode(seed)
                case EpisodeEnded(record, actor_id):
                    await self._stream_of[actor_id].end_episode(record)
                case Experience(actor_id=actor_id):
                    await self._stream_of[actor_id].observe(event)
                    n_steps += 1
                case ExperienceBatch(actor_ids=actor_ids):
                    if actor_ids == self._acting_ids:  # the same tuple each time need not be checked again
                        force_setattr(event, "actor_ids", self._acting_ids)
                    await self._session.observe_batch(event)
                    n_steps += len(actor_ids)
                    for actor_id in actor_ids:
                        self._stream_of[actor_id].report.steps += 1
        return n_steps
