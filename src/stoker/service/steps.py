"""The service's core: messages of records in, accepted events and actions out, each record exactly once.

Nothing here reads a socket or a file. A message is taken whole or not at all (``ingestion``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

import anyio
import msgspec

from stoker.protocol import (
    ActorAnswer,
    ActorState,
    EpisodeAnswer,
    EpisodeMessage,
    ProtocolError,
    SpaceCodec,
    StepAnswer,
    StepMessage,
)
from stoker.protocol.messages import TrainingState
from stoker.service.answers import answer_to, standing_of, state_of
from stoker.service.backend import Backend
from stoker.service.episodes import episode_error, episode_records
from stoker.service.holders import Holder, claim, refuse_others
from stoker.service.ingestion import Ingestion
from stoker.service.limits import KEPT_EPISODES, Limits
from stoker.service.liveness import Liveness
from stoker.service.table import EPISODE_PREFIX, Stream, StreamTable, forbidden
from stoker.telemetry.reading import ServiceCounts


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
        self.counts: ServiceCounts = counts if counts is not None else ServiceCounts()
        self.counts.actors = self._count_actors
        self.table: StreamTable = StreamTable(backend.streams, limits.actors, clock())
        self._ingestion = Ingestion(
            backend, codec, limits, self.table, self.counts, clock, has_disk=has_disk, learns=learns
        )
        self._liveness = Liveness(backend, self.table, limits.actor_timeout_s, clock, learns=learns)

    @property
    def n_silent(self) -> int:
        """Episodes that were abandoned because their actors were silent, in this process."""
        return self._liveness.n_silent

    @property
    def n_accepted(self) -> int:
        """Records that were taken, in this process."""
        return self._ingestion.n_accepted

    @property
    def training(self) -> TrainingState:
        """How the training stood at the last message."""
        return self._ingestion.training

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
            self._ingestion.check_ack(message.ack)
            planned = await self._ingestion.take(message.steps, streams, holder)
            answers = {actor: answer_to(draft) for actor, draft in planned.drafts.items()}
            if message.ack == "durable":
                await self._ingestion.become_durable(streams.values())
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
        async with self._ingestion.turn((stream,)):
            if stream.accepted == 0:
                raise ProtocolError("unknown-actor", f"actor {name!r} was ended")
            return state_of(stream)

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
        async with self._ingestion.turn(streams.values()):
            refuse_others(streams[name], holder)
            await self._ingestion.end(streams[name])

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
        async with self._ingestion.turn(streams, "messages of the connection before are in flight"):
            return {stream.name: standing_of(stream) for stream in streams if stream.accepted}

    async def episode(self, message: EpisodeMessage, holder: Holder) -> EpisodeAnswer:
        """Take a whole episode, once for each id among the last ``KEPT_EPISODES``.

        Raises:
            ProtocolError: Nothing was taken, but where it did not become durable in time.
        """
        try:
            name, stream = EPISODE_PREFIX + message.episode_id, None
            if not message.episode_id.startswith(holder.prefix):
                raise forbidden(f"episode {message.episode_id!r}", holder)
            self._ingestion.check_ack(message.ack)
            records = episode_records(message, name)
            stream = self.table.episode(name)
            planned = await self._ingestion.take(records, {name: stream}, holder)
            await self._forget_episodes()
            if message.ack == "durable":
                await self._ingestion.become_durable((stream,))
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
            if self._ingestion.has_disk:
                tasks.start_soon(self._ingestion.commits.run)

    async def _forget_episodes(self) -> None:
        """Forget the oldest whole episodes beyond those that are kept."""
        episodes = self.table.episodes
        while len(episodes) > KEPT_EPISODES:
            oldest = next(iter(episodes.values()))
            async with self._ingestion.turn((oldest,)):
                await self._ingestion.end(oldest)

    def _count_actors(self) -> Mapping[str, int]:
        return {"known": self.table.n_actors, "in_flight": self._ingestion.n_in_flight}
