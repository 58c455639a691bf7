"""TrainingSession: experiences in, a trained agent and a run directory out.

    actors --> event queue --> session task --> writer queue --> writer task --> run directory
       ^                        (learner in its own thread)
       +--- policy snapshot <------+

Data goes one way; only the policy and back-pressure come back: a full queue makes ``observe`` wait. A part
that fails ends the session, and every waiting caller gets the cause.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from threading import get_ident
from typing import Any

from anyio.lowlevel import checkpoint

from stoker.agents.protocol import LearningAgent, check_agent
from stoker.errors import ActorConflict, ConfigError, InvalidExperience
from stoker.journal import StreamEvent
from stoker.recorders import Recorder, Recording
from stoker.runs import TrainingRun
from stoker.session.accepting import accept, accept_batch
from stoker.session.config import SessionConfig
from stoker.session.controls import Controls
from stoker.session.decisions import Decision, decisions_of, in_columns
from stoker.session.learner import Learner
from stoker.session.mixed import accept_events, admitted_events, check_decisions, offer_events
from stoker.settings import settings_from
from stoker.stats import StatsTracker
from stoker.types import ActMode, ActorId, EpisodeStatus, Experience, ExperienceBatch

_CONTINUING = EpisodeStatus.CONTINUING


class TrainingSession(Controls):
    """One training in progress: an async context manager, or between ``open`` and ``close``; opened once.

    Any number of tasks of the event loop that opened it may call it concurrently, each under its own
    ``actor_id``. A call raises ``SessionClosed`` or ``SessionFailed`` if the session does not run. Closing it
    drains the accepted events, makes them durable, writes a final checkpoint and raises the failure, if there
    was one.

    Given a resumed run, it starts where the run ended: weights, optimizer, replay, generators, counters,
    stats and best value come from the newest checkpoint that loads, and what the journal holds behind it is
    learned again. So a kill costs what was not durable yet, ``flush_interval_s`` at most, and nothing that
    ``flush`` confirmed. Without a journal it starts from the checkpoint.

    Args:
        agent: what learns. The session owns it while it runs.
        run: where episodes and checkpoints go; None: nowhere.
        recorders: where records of the metrics go beside the run's ``metrics.jsonl``, every
            ``record_interval`` optimization or ``record_freq`` environment steps; or a ``Recording``, which
            also defines how failures are handled.
        stats: what to keep over training episodes; None: mean reward and length.
        settings: the fields of ``SessionConfig``, by name: ``max_steps``, ``checkpoint_freq``, ...

    Raises:
        ConfigError: A setting cannot be used.
    """

    def __init__(
        self,
        agent: LearningAgent,
        run: TrainingRun | None = None,
        *,
        recorders: Sequence[Recorder] | Recording = (),
        stats: StatsTracker | None = None,
        **settings: Any,
    ) -> None:
        config = settings_from(settings, SessionConfig, "TrainingSession")
        check_agent(agent)
        if run is not None and not isinstance(run, TrainingRun):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f'run={run!r}: give a TrainingRun, such as `await TrainingRun.create("name")`')
        recording = recorders if isinstance(recorders, Recording) else Recording(recorders)
        stats = stats if stats is not None else StatsTracker()
        super().__init__(Learner(agent, config, stats, run, recording.statistics), recording)

    # Actors ---------------------------------------------------------------------------------------

    async def act(self, observation: Any, mode: ActMode = ActMode.EXPLORE, actor_id: ActorId = 0) -> Any:
        """Choose an action with the last published policy; calls that wait together share one pass.

        Args:
            observation: shape ``[*observation_shape]``, without a batch axis.
            mode: whether the action is to learn from or to score with.
            actor_id: who acts. The policy's extras are joined to this actor's next experience, if that is of
                this observation and action.

        Raises:
            InvalidExperience: The agent cannot act on this observation.
            ActorConflict: Another task waits for an exploring action under this ``actor_id``.
        """
        core = self.core
        if core.stage != "open" or self._parts.failure is not None or get_ident() != core.thread:
            self._open_parts("act")
        parts = self._parts
        intake = parts.intake
        intake.check_acting(observation, mode, actor_id)
        if mode is not ActMode.EXPLORE:
            return (await parts.inference.ask(observation, mode, actor_id))[0]
        if actor_id in (acting := intake.acting) or actor_id in intake.acting_together:
            raise ActorConflict(actor_id, "act()")
        try:
            acting.add(actor_id)
            if self._is_paced:
                await parts.pacing.begin(actor_id)
            action, extras, version = await parts.inference.ask(observation, mode, actor_id)
            if extras is not None or intake.keeps_versions:
                intake.remember(actor_id, observation, Decision(action, extras, version))
        except BaseException:
            parts.pacing.end(actor_id)
            raise
        finally:
            acting.discard(actor_id)
        return action

    async def act_many(
        self, observations: Iterable[Any], actor_ids: Iterable[ActorId], mode: ActMode = ActMode.EXPLORE
    ) -> Sequence[Any]:
        """Choose actions for several actors in one forward pass, as ``act`` does for one.

        Args:
            observations: one of each actor, or an array ``[N, *observation_shape]``.
            actor_ids: who acts, in the same order, each once.
            mode: whether the actions are to learn from or to score with.

        Returns:
            The actions in that order: a list, or for an array of observations an array
            ``[N, *action_shape]``, where actions are numbers or arrays of one shape.

        Raises:
            InvalidExperience: The agent cannot act on one of the observations, or there is not one per actor.
            ConfigError: This many actions at once may exceed ``max_staleness``.
            ActorConflict: As for ``act``.
        """
        parts = self._open_parts("act_many")
        intake = parts.intake
        ids, shown = intake.checked_acting(observations, actor_ids, mode)
        if not ids.rows:
            await checkpoint()
            return []
        if mode is not ActMode.EXPLORE:
            return in_columns(shown, await parts.inference.ask_many(shown, mode, ids.rows))[0]
        intake.check_idle(ids.actors)
        try:
            intake.begin_acting(ids.actors)
            if self._is_paced:
                await parts.pacing.begin_many(ids.rows)
            answer = in_columns(shown, await parts.inference.ask_many(shown, mode, ids.rows))
            intake.remember_all(ids, shown, answer)
        except BaseException:
            for actor_id in ids.rows:
                parts.pacing.end(actor_id)
            raise
        finally:
            intake.end_acting(ids.actors)
        return answer[0]

    async def decide(
        self, observation: Any, mode: ActMode = ActMode.EXPLORE, actor_id: ActorId = 0
    ) -> Decision:
        """Choose an action, and return the policy's extras with it instead of keeping them.

        For callers with several open decisions, or with rewards that come late: give ``policy_extras`` and
        ``policy_version`` of the decision to its ``Experience``. Any number of decisions may be open under
        one ``actor_id``. The arguments are those of ``act``.

        Raises:
            InvalidExperience: The agent cannot act on this observation.
            ConfigError: The session has ``max_staleness``, which must know of every action in flight.
        """
        self._require_decidable("decide", mode)
        self.intake.check_acting(observation, mode, actor_id)
        return Decision(*await self.engine.parts.inference.ask(observation, mode, actor_id))

    async def decide_many(
        self, observations: Sequence[Any], actor_ids: Sequence[ActorId], mode: ActMode = ActMode.EXPLORE
    ) -> list[Decision]:
        """Choose actions for several actors in one forward pass, as ``decide`` does for one.

        An actor may come several times. If passes are short, and no other one runs or is about to, it is
        computed at once, without a switch to another task.

        Raises:
            InvalidExperience: The agent cannot act on one of the observations (``index`` says which), or
                there is not one per actor.
            ConfigError: As for ``decide``.
        """
        self._require_decidable("decide_many", mode)
        check_decisions(self.intake, observations, actor_ids, mode)
        if not len(observations):
            await checkpoint()
            return []
        return decisions_of(await self.engine.parts.inference.ask_soon(observations, mode, actor_ids))

    async def observe(self, experience: Experience) -> None:
        """Accept one transition. Once this returns it will be consumed, in order, unless the process dies.

        Its observations and its action are the session's from then on: hand over copies of arrays, lists or
        dicts that you or the environment will change, because nothing is copied here. Waits while the queue
        is full. Cancelled: the transition is out; with ``lockstep``, which also waits until it is learned,
        it may be in. After ``max_steps`` or ``stop`` it is dropped quietly: not learned, not counted, but
        for ``refused_steps``.

        Raises:
            InvalidExperience: It cannot be consumed; the session continues without it.
            ActorConflict: Another task waits in ``observe`` under this ``actor_id``.
        """
        queue = self._queue
        # The common case, without a call: the checks of ``Intake.check`` and ``reserve``, and then
        # ``BatchQueue.offer``. An experience that fails one of them takes the slow path. That looks at the
        # caller's thread, too; here it would take a seventh of the time, and no credit lasts for long.
        try:
            if (
                (credit := queue.credit) > 0
                and (intake := self.intake).is_plain
                and type(experience) is Experience
                and ((status := experience.status) is _CONTINUING or type(status) is EpisodeStatus)
                and type(reward := experience.reward) is float
                and reward - reward == 0.0
                and type(actor_id := experience.actor_id) is int
                and -1 < actor_id < 1_000_000_000  # larger ints are compared more slowly
                and experience.policy_version is experience.seq is None
                and ((check := intake.check_experience) is None or check(experience) is None)
                and (accepted := intake.accepted_steps) < intake.limit
            ):
                try:
                    intake.accepted_steps = accepted + 1
                    queue.credit = credit - 1
                    queue.append(experience)
                except BaseException:  # Ctrl-C between two bytecodes
                    intake.recount()
                    raise
                return
        except InvalidExperience as refusal:
            self.intake.refusals.count(refusal)
            raise
        await accept(self._open_parts("observe"), (self.intake.admitted(experience),))

    async def observe_many(self, experiences: Iterable[Experience]) -> None:
        """Accept several transitions in order, of one or of many actors.

        Cancelled: some of the first are in, the rest is out.

        Raises:
            InvalidExperience: One of them cannot be consumed; none was accepted.
            ActorConflict: As for ``observe``.
        """
        await accept(self._open_parts("observe_many"), self.intake.admitted_all(experiences))

    async def observe_batch(self, batch: ExperienceBatch) -> None:
        """Accept a batch of transitions as columns, in the order of its rows.

        Row by row it means what ``observe_many(batch.experiences())`` does, at a fraction of the cost for an
        agent that takes batches. The arrays are copied, because vector environments write into their own.
        Waits while the queue is full, and goes in as a whole, also if it is larger than the queue.
        Cancelled: the batch is out; with ``lockstep``, it may be in. Of a batch that the agent must check row
        by row, some of the first may be in. At ``max_steps`` the first rows that fit are accepted.

        Raises:
            InvalidExperience: Columns do not fit together, or a row cannot be consumed; none was accepted.
                The error names the column, and the row if it is one.
            ActorConflict: As for ``observe``.
        """
        self._open_parts("observe_batch")
        admitted = self.intake.admitted_batch(batch)
        if isinstance(admitted, list):
            await accept(self.engine.parts, admitted)
        else:
            await accept_batch(self.engine.parts, *admitted)

    async def observe_events(self, events: Iterable[StreamEvent]) -> int:
        """Accept events of several kinds in order, of one or of many actors: all of them together.

        All are checked before any is accepted. Waits while the queue is full; then they go in as a whole,
        also if they are more than the queue has room for. Cancelled: all are out; with ``lockstep``, they may
        be in. At ``max_steps`` those before the first transition that comes after it are accepted, and the
        rest is dropped quietly.

        Returns:
            How many were accepted: the first ones, nearly always all.

        Raises:
            InvalidExperience: One of them cannot be consumed, ``index`` says which; none was accepted.
            ActorConflict: As for ``observe``.
        """
        parts = self._open_parts("observe_events")
        return await accept_events(parts, admitted_events(self.intake, events))

    def offer_events(self, events: Iterable[StreamEvent]) -> int | None:
        """The same at once, if that needs no wait. None: none was accepted; ``observe_events`` waits.

        For callers that put a time limit around their waits only.

        Raises:
            InvalidExperience: As for ``observe_events``.
        """
        parts = self._open_parts("offer_events")
        return offer_events(parts, admitted_events(self.intake, events))

    async def on_episode_start(self, actor_id: ActorId = 0, seed: int | None = None) -> None:
        """Begin an actor's episode and abandon an unfinished one; the journal keeps the reset's seed."""
        parts = self._open_parts("on_episode_start")
        event = self.intake.episode_started(actor_id, seed)
        parts.pacing.end(actor_id)
        await self._queue.put(event)
        self.intake.forget(actor_id)

    async def on_episode(
        self,
        total_reward: float,
        steps: int,
        status: EpisodeStatus,
        env_extras: Mapping[str, float] | None = None,
        actor_id: ActorId = 0,
    ) -> None:
        """End an actor's episode: it is counted, enters the stats and becomes a row.

        The agent adds its own extras and wins where a key is given by both. The actor's next episode
        begins with that. An episode of which ``max_steps`` or ``stop`` cut transitions is dropped quietly.

        Args:
            total_reward: undiscounted sum of its rewards.
            steps: its number of transitions.
            status: Terminated or Truncated.
            env_extras: more numbers for its row, from the environment.
            actor_id: who played it.

        Raises:
            InvalidExperience: A number is not finite, or the status is not that of an ended episode.
        """
        self._open_parts("on_episode")
        intake = self.intake
        event = intake.episode_ended(total_reward, steps, status, env_extras, actor_id)
        await (checkpoint() if event is None else self._queue.put(event))
        intake.forget(actor_id)

    def _require_decidable(self, what: str, mode: ActMode) -> None:
        self._open_parts(what)
        if self._is_paced and mode is ActMode.EXPLORE:
            raise ConfigError(
                f"{what}: max_staleness={self.config.max_staleness} makes actors wait for outcomes of "
                "actions, and a decision may stay open: use act, or no max_staleness"
            )
