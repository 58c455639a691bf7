"""The service's core: messages of records in, accepted events and actions out, each record exactly once.

    message --> its turn --> a plan of events --> accepted together --> streams move --> actions

Nothing here reads a socket or a file. A message is taken whole or not at all. Streams move in the same step
of the event loop in which the session accepts the events, so that a cancellation leaves both in step; an
action whose caller was cancelled is chosen when its record is sent again.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import anyio
import msgspec
from anyio.lowlevel import checkpoint

from stoker.errors import InvalidExperience, SessionError
from stoker.journal import EpisodeEnded, StreamEnded, StreamEvent
from stoker.protocol import (
    ActorAnswer,
    ActorState,
    EpisodeAnswer,
    EpisodeMessage,
    ProtocolError,
    Record,
    SpaceCodec,
    StepAnswer,
    StepMessage,
    encode_memo,
)
from stoker.protocol.messages import TrainingState
from stoker.service.answers import answer_to, ended, invalid, no_disk, standing_of, state_of, training_done
from stoker.service.backend import Backend
from stoker.service.durability import GroupCommit
from stoker.service.episodes import episode_error, episode_records
from stoker.service.holders import Holder, claim, refuse_others
from stoker.service.limits import KEPT_EPISODES, Limits
from stoker.service.liveness import Liveness
from stoker.service.planning import Draft, Plan
from stoker.service.streams import Answered
from stoker.service.table import EPISODE_PREFIX, Stream, StreamTable, forbidden
from stoker.service.turns import queue_up
from stoker.telemetry.reading import ServiceCounts
from stoker.types import ActMode

__all__ = ["StepService"]

T = TypeVar("T")

_AT_ONCE = 1024
"""Records that are planned before other tasks have their turn."""

_MODES = {"explore": ActMode.EXPLORE, "exploit": ActMode.EXPLOIT}


class StepService:
    """Takes the messages of all clients; used on one event loop, by any number of tasks.

    Messages that share an actor are taken one after the other, in the order of the calls; others run
    concurrently. ``run`` must run beside them: it makes records durable, and abandons silent actors.

    Args:
        backend: the training, open.
        codec: of its spaces.
        limits: what clients may ask for.
        has_disk: whether the training has a run, in which records become durable.
        learns: whether there is a training; False: a fixed policy, whose streams need no past.
        counts: counts repeats and refusals.
        clock: the time in seconds.
    """

    def __init__(
        self,
        backend: Backend,
        codec: SpaceCodec,
        limits: Limits,
        *,
        has_disk: bool,
        learns: bool = True,
        counts: ServiceCounts | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.backend = backend
        self.codec = codec
        self.limits = limits
        self.has_disk = has_disk
        self.learns = learns
        self.counts = counts if counts is not None else ServiceCounts()
        self.counts.actors = self._count_actors
        self.n_accepted = 0
        """Records that were taken, in this process."""
        self._n_in_flight = 0
        self._clock = clock
        self.table = StreamTable(backend.streams, limits.actors, clock())
        self._commits = GroupCommit(backend.flush, limits.flush_interval_s)
        self._liveness = Liveness(backend, self.table, limits.actor_timeout_s, clock, learns=learns)
        self.training: TrainingState = self._training()
        """How the training stood at the last message."""

    @property
    def n_silent(self) -> int:
        """Episodes that were abandoned because their actors were silent, in this process."""
        return self._liveness.n_silent

    # Messages -------------------------------------------------------------------------------------

    async def step(self, message: StepMessage, holder: Holder) -> StepAnswer:
        """Take a message and answer it. Cancelled: it is taken or it is not, as the streams then say.

        Raises:
            ProtocolError: Nothing was taken, but where an accepted message did not become durable in time.
                ``actors`` says where the streams of the message stand.
        """
        streams: Mapping[str, Stream] = {}
        try:
            streams = self.table.of([record.actor for record in message.steps], holder)
            self._check_ack(message.ack)
            planned = await self._take(message.steps, streams, holder)
            answers = {actor: answer_to(draft) for actor, draft in planned.drafts.items()}
            if message.ack == "durable":
                await self._become_durable(streams.values())
                answers = {
                    actor: msgspec.structs.replace(answer, durable=streams[actor].durable)
                    for actor, answer in answers.items()
                }
        except ProtocolError as refusal:
            self.counts.refused[refusal.kind] += 1
            if refusal.actors is None:
                refusal.actors = {actor: standing_of(stream) for actor, stream in streams.items()}
            raise
        return StepAnswer(answers, self.training, message.id)

    async def actor(self, name: str) -> ActorState:
        """Where an actor's stream stands, once its messages in flight are taken.

        Raises:
            ProtocolError: 404, the actor has no stream.
        """
        stream = self.table.get(name)
        if stream is None:
            raise ProtocolError("unknown-actor", f"actor {name!r} has sent no record yet: begin with 1")
        turn = queue_up((stream,))
        try:
            await self._in_time(turn.wait(), "its messages in flight are not taken yet")
            if stream.accepted == 0:
                raise ProtocolError("unknown-actor", f"actor {name!r} was ended")
            return state_of(stream)
        finally:
            turn.end()
            self.table.release((stream,))

    async def end(self, name: str, holder: Holder) -> None:
        """End an actor's stream: a running episode is abandoned, and its number is forgotten.

        Raises:
            ProtocolError: 404, the actor has no stream; 409, another connection plays it.
        """
        if name not in self.table:
            raise ProtocolError(
                "unknown-actor", f"actor {name!r} has no stream: it was ended, or never began"
            )
        streams = self.table.of((name,), holder)
        turn = queue_up(streams.values())
        try:
            await self._in_time(turn.wait(), "its messages in flight are not taken yet")
            stream = streams[name]
            refuse_others(stream, holder)
            if stream.accepted:
                await self._observe((StreamEnded(name),))
                stream.forget()
        finally:
            turn.end()
            self.table.release(streams.values())

    async def take_over(self, holder: Holder, actors: Iterable[str]) -> dict[str, ActorAnswer]:
        """Let a connection play these actors, and fence those that did; say where their streams stand then.

        A message of a connection before that waits for room is waited for: it may still be taken. Unknown
        actors are left out.

        Raises:
            ProtocolError: 409, the connection may not take one; 429, such a message waits for too long.
        """
        known = {actor: self.table[actor] for actor in actors if actor in self.table}
        streams = [stream for actor, stream in known.items() if actor.startswith(holder.prefix)]
        for stream in streams:
            refuse_others(stream, holder)
        for stream in streams:
            claim(stream, holder)
        turn = queue_up(streams)
        try:
            await self._in_time(turn.wait(), "messages of the connection before are in flight")
            return {stream.name: standing_of(stream) for stream in streams if stream.accepted}
        finally:
            turn.end()
            self.table.release(streams)

    async def episode(self, message: EpisodeMessage, holder: Holder) -> EpisodeAnswer:
        """Take a whole episode, once for each id among the last ``KEPT_EPISODES``.

        Raises:
            ProtocolError: Nothing was taken, but where it did not become durable in time.
        """
        try:
            name, stream = EPISODE_PREFIX + message.episode_id, None
            if not message.episode_id.startswith(holder.prefix):
                raise forbidden(f"episode {message.episode_id!r}", holder)
            self._check_ack(message.ack)
            records = episode_records(message, name)
            stream = self.table.episode(name)
            planned = await self._take(records, {name: stream}, holder)
            await self._forget_episodes()
            if message.ack == "durable":
                await self._become_durable((stream,))
        except ProtocolError as refusal:
            self.counts.refused[refusal.kind] += 1
            raise episode_error(refusal) from refusal
        return EpisodeAnswer(
            message.episode_id,
            length=stream.accepted - 1,
            repeated=planned.n_repeats == len(records),
            durable=stream.durable >= stream.accepted,
            training=self.training,
        )

    async def abandon_silent(self) -> int:
        """Abandon the running episodes of actors that are silent by now; return how many. ``run`` does it."""
        return await self._liveness.abandon_silent()

    async def run(self) -> None:
        """Make records durable and abandon silent actors, until cancelled or until the session ends."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._liveness.run)
            if self.has_disk:
                tasks.start_soon(self._commits.run)

    # The way of a message -------------------------------------------------------------------------

    async def _take(self, records: Sequence[Record], streams: Mapping[str, Stream], holder: Holder) -> Plan:
        turn = queue_up(streams.values())
        self._n_in_flight += 1
        try:
            deadline = None
            if turn.behind:
                deadline = self._deadline()
                await self._in_time(
                    turn.wait(), "earlier messages of the same actors are in flight", deadline
                )
            planned = Plan(streams, holder, self.codec, learns=self.learns)
            if len(records) <= _AT_ONCE:
                planned.add(records)
            else:
                for first in range(0, len(records), _AT_ONCE):
                    planned.add(records[first : first + _AT_ONCE])
                    await checkpoint()
            drafts = planned.drafts.values()
            if planned.events:
                await self._accept(planned, deadline)
            now = self._clock()
            for draft in drafts:
                stream = draft.stream
                stream.seen_at = now
                if stream.holder is not holder:
                    claim(stream, holder)
            self.counts.duplicates += planned.n_repeats
            wanting = [draft for draft in drafts if draft.wants_action]
            if wanting:
                await self._decide(wanting)
            self.training = self._training()
            return planned
        finally:
            self._n_in_flight -= 1
            turn.end()
            self.table.release(streams.values())

    async def _accept(self, planned: Plan, deadline: float | None) -> None:
        """Let the session accept the events of a message, and move its streams at once."""
        if self.training == "done" and not all(type(event) is EpisodeEnded for event in planned.events):
            await self._observe(())  # raises the cause, if it has failed
            raise training_done()
        try:
            n_accepted = await self._observe(planned.events, deadline)
        except InvalidExperience as refusal:
            raise invalid(refusal, planned) from refusal
        moved = planned.commit(n_accepted)
        if not moved:
            self.training = self._training()
            raise training_done()
        self.n_accepted += moved
        for draft in planned.drafts.values():
            stream = draft.stream
            if self.has_disk:
                self._commits.note(stream)
            elif not self.learns:
                stream.durable = stream.accepted  # there is nothing to lose

    async def _observe(self, events: Sequence[StreamEvent], deadline: float | None = None) -> int:
        try:
            n_accepted = self.backend.offer_events(events)
            if n_accepted is not None:
                return n_accepted
            waiting = self.backend.observe_events(events)
            return await self._in_time(waiting, "the learner has no room for more", deadline)
        except SessionError as error:
            raise ended(error) from error

    async def _decide(self, wanting: Sequence[Draft]) -> None:
        """Choose an action for each of these; those in one mode share a forward pass."""
        mode = wanting[0].record.mode
        others = [draft for draft in wanting if draft.record.mode != mode]
        drafts = [draft for draft in wanting if draft.record.mode == mode] if others else wanting
        streams = [draft.stream for draft in drafts]
        seen = [stream.state.observation for stream in streams]
        try:
            decisions = await self.backend.decide_many(
                seen, [stream.name for stream in streams], _MODES[mode]
            )
        except InvalidExperience as refusal:
            raise ProtocolError("invalid", f"taken, but there is no action for it: {refusal}") from refusal
        except SessionError as error:
            raise ended(error) from error
        encode = self.codec.encode_action
        for stream, decision in zip(streams, decisions, strict=True):
            action, version = decision.action, decision.policy_version
            memo = encode_memo(version, action, decision.policy_extras)
            stream.answered = Answered(encode(action), memo, version, decision)
        if others:
            await self._decide(others)

    async def _forget_episodes(self) -> None:
        """Forget the oldest whole episodes beyond those that are kept."""
        episodes = self.table.episodes
        while len(episodes) > KEPT_EPISODES:
            oldest = next(iter(episodes.values()))
            turn = queue_up((oldest,))
            try:
                await self._in_time(turn.wait(), "another message is in flight")
                if oldest.accepted:
                    await self._observe((StreamEnded(oldest.name),))
                    oldest.forget()
            finally:
                turn.end()
                self.table.release((oldest,))

    def _check_ack(self, ack: str) -> None:
        if ack == "durable" and self.learns and not self.has_disk:
            raise no_disk()

    async def _become_durable(self, streams: Iterable[Stream]) -> None:
        if any(stream.durable < stream.accepted for stream in streams):
            try:
                await self._in_time(self._commits.wait(), "the disk did not catch up")
            except SessionError as error:
                raise ended(error) from error

    def _deadline(self) -> float:
        return anyio.current_time() + self.limits.max_wait_s

    async def _in_time(self, call: Awaitable[T], problem: str, deadline: float | None = None) -> T:
        with anyio.CancelScope(deadline=deadline if deadline is not None else self._deadline()):
            return await call
        raise ProtocolError(
            "busy", f"{problem}, within {self.limits.max_wait_s:g} s: send it again", retry_after=1.0
        )

    def _training(self) -> TrainingState:
        if not self.learns:
            return "off"
        return "done" if self.backend.is_done else "running"

    def _count_actors(self) -> Mapping[str, int]:
        return {"known": self.table.n_actors, "in_flight": self._n_in_flight}
