"""The acceptance rule of a session: checks, the step limit, and the policy extras of each action.

Everything here is plain code on the caller's side of the queue; a refused call has changed nothing.

An interruption (Ctrl-C) may come between any two bytecodes. So an event is in once one call of a C function,
``append``, has put it there, and the number of accepted steps can be computed again from what is in.

A policy's decision is kept until the experience that it belongs to; ``decisions`` compares the two.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set as AbstractSet
from typing import Any, Final

import msgspec
import numpy as np

from stoker.agents.protocol import ChecksBatches, ChecksInput, LearningAgent
from stoker.errors import ActorConflict, InvalidExperience
from stoker.journal import EpisodeEnded, EpisodeStarted
from stoker.lru import MAX_ACTORS, LRUDict
from stoker.plain import check_actor_id, finite_float, plain_count, plain_seed, shown
from stoker.session.actor_ids import CheckedIds, KnownIds, in_order
from stoker.session.batches import checked_batch
from stoker.session.config import SessionConfig
from stoker.session.decisions import (
    Decision,
    RememberedBatch,
    RememberedBatches,
    RememberedDecision,
    mismatched,
    not_remembered,
    remembered_batch,
)
from stoker.session.eventlog import Refusals
from stoker.session.publishing import Answer
from stoker.stats import EpisodeRecord, check_record
from stoker.types import ActMode, ActorId, EpisodeStatus, Experience, ExperienceBatch

NO_LIMIT: Final = sys.maxsize
"""Of steps. Not infinity: comparing an int with a float costs ``observe`` twice as much."""

_ARRAY: type[Any] = np.ndarray

Accepted = tuple[Experience, RememberedDecision | None]
"""An experience that passed the checks, and the decision whose policy extras were joined to it."""


class Intake:
    """The checks, the limit on steps, and what policies remember between an action and its outcome.

    Args:
        agent: its own checks are used if it is ``ChecksInput``.
        config: the session's settings.
        accepted_steps: experiences accepted before, in other attempts.
        count_put: how many experiences were ever put where the learner gets them, in all attempts.
        refusals: counts what is refused here.
    """

    def __init__(
        self,
        agent: LearningAgent,
        config: SessionConfig,
        accepted_steps: int,
        count_put: Callable[[], int],
        refusals: Refusals,
    ) -> None:
        self.refusals = refusals
        checks = agent if isinstance(agent, ChecksInput) else None
        self.check_experience: Callable[[Experience], None] | None = checks and checks.check_experience
        """The agent's own check, if it has one; raises what ``check`` does."""
        self._check_observation: Callable[[Any], None] | None = checks and checks.check_observation
        self.is_numbered: bool = config.numbered
        """Whether each experience must have a ``seq``."""
        self._checks_batches = agent if isinstance(agent, ChecksBatches) else None
        self.limit: int = NO_LIMIT if config.max_steps is None else config.max_steps
        """No experience is accepted once ``accepted_steps`` is there."""
        self.accepted_steps: int = accepted_steps
        """Experiences that are in, and those of callers who wait for room."""
        self.count_put = count_put
        self._needs_policy_extras = agent.needs_policy_extras
        self.keeps_versions: bool = config.keeps_versions
        """Whether a decision's version is remembered where it has no policy extras."""
        self.is_plain: bool = not (
            self._needs_policy_extras or config.keeps_versions or config.lockstep or config.numbered
        )
        """Whether an experience only needs to be checked, counted and put into the queue."""
        self.is_stopped: bool = False
        """Whether ``stop`` was called."""
        self.on_end: list[Callable[[], None]] = []
        """Called when no more experiences are accepted, other than by reaching ``max_steps``."""
        self.n_refused: int = 0
        """Experiences that came after the limit or after ``stop``: neither learned nor counted."""
        self._remembered: LRUDict[ActorId, RememberedDecision] = LRUDict()
        self._batches = RememberedBatches()
        self.acting: set[ActorId] = set()
        """Actors that wait for an exploring action, other than those of ``acting_together``."""
        self.acting_together: frozenset[ActorId] = frozenset()
        """Those of one call of ``act_many``: often the only one, so that nobody is added one by one."""
        self.observing: dict[ActorId, int] = {}
        """Actors that wait for room in the queue, and for how many experiences."""
        self._ids = KnownIds()
        self.cut_actors: set[ActorId] = set()
        """Actors whose episode lost a transition to the limit."""

    @property
    def is_full(self) -> bool:
        """Whether no more experiences will be accepted."""
        return self.accepted_steps >= self.limit

    def stop(self) -> None:
        """Accept no more experiences."""
        self.is_stopped = True
        self.end()

    def end(self) -> None:
        """The same, because the training has come to its end."""
        self.limit = -1
        for call in self.on_end:
            call()

    # Experiences ----------------------------------------------------------------------------------

    def check(self, experience: Experience) -> Experience:
        """Refuse what cannot be consumed; return the experience with plain numbers."""
        if type(experience) is not Experience:
            raise InvalidExperience(
                f"observe takes an Experience, not {shown(experience)}; for several use observe_many",
                field="experience",
            )
        if type(experience.status) is not EpisodeStatus:
            choices = ", ".join(str(status) for status in EpisodeStatus)
            raise InvalidExperience(f"status={shown(experience.status)} is none of {choices}")
        reward = experience.reward
        if type(reward) is not float or reward - reward != 0.0:
            experience = msgspec.structs.replace(experience, reward=finite_float("reward", reward))
        check_actor_id(experience.actor_id)
        if self.check_experience is not None:
            self.check_experience(experience)
        version = experience.policy_version
        if version is not None and (plain := plain_count("policy_version", version)) is not version:
            experience = msgspec.structs.replace(experience, policy_version=plain)
        seq = experience.seq
        if seq is not None and (plain := plain_count("seq", seq)) is not seq:
            experience = msgspec.structs.replace(experience, seq=plain)
        if seq is None and self.is_numbered:
            raise InvalidExperience(
                f"seq=None of actor {experience.actor_id!r}: this session numbers its events; give the "
                "number of the step in its actor's stream, or train with numbered=False"
            )
        return experience

    def admitted(self, experience: Experience, used: Collection[RememberedDecision] = ()) -> Accepted:
        """Check an experience and join to it what the policy remembered about its action.

        Policy extras of an action are never joined to another action, nor to another observation, nor twice:
        decisions that are ``used`` have an outcome.
        """
        try:
            return self._admitted(experience, used)
        except InvalidExperience as refusal:
            self.refusals.count(refusal)
            raise

    def _admitted(self, experience: Experience, used: Collection[RememberedDecision]) -> Accepted:
        experience = self.check(experience)
        needs_extras = self._needs_policy_extras
        if experience.policy_extras is not None or (
            experience.policy_version is not None and not needs_extras
        ):
            return experience, None
        if self._batches:
            self._take_apart({experience.actor_id})
        remembered = self._remembered.get(experience.actor_id)
        if remembered is None or remembered in used:
            if needs_extras:
                raise not_remembered(experience)
        elif (field := remembered.mismatch(experience)) is None:
            return remembered.joined(experience), remembered
        elif needs_extras:
            raise mismatched(experience, remembered, field)
        return experience, None

    def admitted_all(self, experiences: Iterable[Experience], each: str = "experience") -> list[Accepted]:
        """The same for several experiences: all of them, or none; ``each`` is what an error calls one."""
        with self.refusals:
            try:
                batch = list(experiences)
            except TypeError:
                raise InvalidExperience(f"observe_many takes Experiences, not {shown(experiences)}") from None
        if self.is_plain:
            with contextlib.suppress(InvalidExperience):  # comes again, with its place
                return [(self.check(experience), None) for experience in batch]
        found: list[Accepted] = []
        used: set[RememberedDecision] = set()
        for i, experience in enumerate(batch):
            try:
                found.append(self.admitted(experience, used))
            except InvalidExperience as error:
                raise InvalidExperience(f"{each} {i} of {len(batch)}: {error}; none was taken") from error
            if (remembered := found[-1][1]) is not None:
                used.add(remembered)
        return found

    def reserve(self, actor_id: ActorId) -> bool:
        """Count one experience as accepted; past the limit count it as refused and return False.

        This, ``recount`` and ``settle`` are the acceptance rule. ``TrainingSession.observe`` repeats the
        usual case without a call, because it is the hot path.
        """
        if self.is_full:
            self.refuse((actor_id,))
            return False
        self.accepted_steps += 1
        return True

    def recount(self) -> None:
        """Count again after an interruption or a cancellation: an experience is in, or is not."""
        self.accepted_steps = self.count_put() + sum(self.observing.values())

    def settle(self, actor_id: ActorId, remembered: RememberedDecision | None) -> None:
        """Forget a decision whose outcome is in."""
        if remembered is not None and self._remembered.get(actor_id) is remembered:
            del self._remembered[actor_id]

    def waiting(self) -> set[ActorId]:
        """The actors that wait for the session, in ``act`` or in ``observe``."""
        return self.acting | self.acting_together | self.observing.keys()

    def check_idle(self, actors: frozenset[ActorId]) -> None:
        """Raise ``ActorConflict`` if one of these actors waits for an exploring action."""
        if taken := (actors & self.acting) or (actors & self.acting_together):
            raise ActorConflict(next(iter(taken)), "act_many()")

    def begin_acting(self, actors: frozenset[ActorId]) -> None:
        """Note that these actors, which were idle, wait for an exploring action, until ``end_acting``."""
        if self.acting_together:
            self.acting |= actors
        else:
            self.acting_together = actors

    def end_acting(self, actors: frozenset[ActorId]) -> None:
        """Note that these actors wait no more, if they did."""
        if self.acting_together is actors:
            self.acting_together = frozenset()
        else:
            self.acting -= actors

    def admitted_batch(
        self, batch: ExperienceBatch
    ) -> tuple[ExperienceBatch, RememberedBatch | None] | list[Accepted]:
        """Check a batch and join to it what the policy remembered: as a whole, or if need be row by row."""
        with self.refusals:
            if type(batch) is not ExperienceBatch:
                raise InvalidExperience(f"observe_batch takes an ExperienceBatch, not {shown(batch)}")
            if self.is_numbered:
                raise InvalidExperience(
                    "seq: this session numbers its events, and a batch has no numbers; use observe_events"
                )
            known = self._ids.checked(batch.actor_ids)
            batch = checked_batch(batch, known.rows)
            checks, needs_extras = self._checks_batches, self._needs_policy_extras
            is_checked = self.check_experience is None or (checks is not None and checks.check_batch(batch))
        if is_checked:
            if batch.policy_extras is not None or (batch.policy_versions is not None and not needs_extras):
                return batch, None
            remembered = self._batches.get(batch.actor_ids)
            if remembered is not None and remembered.is_of(batch):
                return remembered.joined(batch), remembered
            if not (needs_extras or self._remembers_any(known.actors)):
                return batch, None
        return self.admitted_all(batch.experiences(), "row")

    def _remembers_any(self, actors: AbstractSet[ActorId]) -> bool:
        """Whether a decision of one of these actors waits for its outcome."""
        if not (self._remembered or self._batches):
            return False
        return bool(self._batches.of_any(actors)) or not actors.isdisjoint(self._remembered)

    def reserve_rows(self, n_rows: int) -> int:
        """Count the first of several experiences as accepted, up to the limit; return how many.

        ``refuse`` the rest once these are in.
        """
        n_fit = int(max(0, min(n_rows, self.limit - self.accepted_steps)))
        self.accepted_steps += n_fit
        return n_fit

    def refuse(self, actor_ids: Sequence[ActorId]) -> None:
        """Count experiences of these actors as refused."""
        self.n_refused += len(actor_ids)
        for actor_id in actor_ids:
            if len(self.cut_actors) < MAX_ACTORS:
                self.cut_actors.add(actor_id)

    def settle_batch(self, remembered: RememberedBatch | None) -> None:
        """Forget the decisions of a batch whose outcomes are in."""
        if remembered is not None:
            self._batches.remove(remembered)

    def _take_apart(self, actors: AbstractSet[ActorId]) -> None:
        """Remember the decisions of batches one by one, where one of these actors is in them."""
        for remembered in self._batches.of_any(actors):
            self._batches.remove(remembered)
            for actor_id, decision in zip(remembered.actor_ids, remembered.decisions(), strict=True):
                self._remembered.put(actor_id, decision)

    # Actions --------------------------------------------------------------------------------------

    def check_acting(self, observation: Any, mode: ActMode, actor_id: ActorId) -> None:
        """Refuse an observation, mode or actor_id that cannot be used; the error says whose, and when."""
        try:
            if type(mode) is not ActMode:
                problem = f"mode={shown(mode)}: use ActMode.EXPLORE or ActMode.EXPLOIT"
                raise InvalidExperience(problem)  # noqa: TRY301 - a call would cost every actor
            if type(actor_id) is not int or not -1 < actor_id < 1_000_000_000:  # larger ints compare slowly
                check_actor_id(actor_id)
            if self._check_observation is not None:
                self._check_observation(observation)
        except InvalidExperience as refusal:
            self.refusals.count(refusal)
            refusal.args = (f"actor {actor_id!r:.60}, step {self.accepted_steps}: {refusal}",)
            raise

    def can_act_on(self, observations: Any, mode: ActMode) -> bool:
        """Whether ``check_acting`` surely passes each row of an array of observations."""
        checks = self._checks_batches
        return (
            type(observations) is _ARRAY
            and type(mode) is ActMode
            and checks is not None
            and checks.check_observations(observations)
        )

    def checked_acting(
        self, observations: Iterable[Any], actor_ids: Iterable[ActorId], mode: ActMode
    ) -> tuple[CheckedIds, Sequence[Any]]:
        """The same for several actors, each once; their ids and observations."""
        given: Any = observations
        is_array = type(given) is _ARRAY and given.ndim
        with self.refusals:
            known = self._ids.checked(actor_ids)
            ids = known.rows
            shown_to: Sequence[Any] = (
                given
                if is_array
                else list(in_order("act_many: observations", given, "give one of each actor, or an array"))
            )
            if len(shown_to) != len(ids):
                raise InvalidExperience(
                    f"act_many: {len(shown_to)} observations for {len(ids)} actor_ids: give one for each"
                )
        if not self.can_act_on(shown_to, mode):
            for row, (actor_id, observation) in enumerate(zip(ids, shown_to, strict=True)):
                try:
                    self.check_acting(observation, mode, actor_id)
                except InvalidExperience as error:
                    raise InvalidExperience(f"act_many: row {row} of {len(ids)}: {error}") from error
        if len(known.actors) < len(ids):
            twice = next(actor_id for actor_id in ids if ids.count(actor_id) > 1)
            raise ActorConflict(twice, "act_many()")
        return known, shown_to

    def remember(self, actor_id: ActorId, observation: Any, decision: Decision) -> None:
        """Keep a decision until its experience, or until this actor's next decision or episode."""
        extras = decision.policy_extras
        if extras is not None or self.keeps_versions:
            self.is_plain = False  # from now on experiences are joined
            if self._batches:
                self._take_apart({actor_id})
            version = decision.policy_version if self.keeps_versions else None
            self._remembered.put(actor_id, RememberedDecision(observation, decision.action, extras, version))

    def remember_all(self, ids: CheckedIds, observations: Sequence[Any], answer: Answer) -> None:
        """The same for several actors and their observations, answered in one pass."""
        actions, extras, version = answer
        actor_ids = ids.rows
        if extras is None and not self.keeps_versions:
            return
        batch = remembered_batch(actor_ids, observations, answer, keeps_version=self.keeps_versions)
        if batch is not None:
            self.is_plain = False
            if (same := self._batches.get(actor_ids)) is not None:
                self._batches.remove(same)
            if self._batches:
                self._take_apart(ids.actors)
            for actor_id in actor_ids if self._remembered else ():
                self._remembered.pop(actor_id, None)  # it has decided anew
            self._batches.put(batch)
            return
        for i, (actor_id, observation) in enumerate(zip(actor_ids, observations, strict=True)):
            decision = Decision(actions[i], None if extras is None else extras[i], version)
            self.remember(actor_id, observation, decision)

    # Episodes -------------------------------------------------------------------------------------

    def episode_started(self, actor_id: ActorId, seed: int | None) -> EpisodeStarted:
        """The event that begins an episode; call ``forget`` once it is in the queue."""
        with self.refusals:
            check_actor_id(actor_id)
            return EpisodeStarted(actor_id, plain_seed(seed))

    def check_observation(self, observation: Any) -> None:
        """Refuse an observation that the agent cannot take."""
        if self._check_observation is not None:
            self._check_observation(observation)

    def episode_ended(
        self,
        total_reward: float,
        steps: int,
        status: EpisodeStatus,
        env_extras: Mapping[str, float] | None,
        actor_id: ActorId,
    ) -> EpisodeEnded | None:
        """The event of an episode's end, or None if the limit took some of its transitions.

        ``forget`` the episode, once the event is in.
        """
        extras: Any = {} if env_extras is None else env_extras
        with self.refusals:
            check_actor_id(actor_id)
            record = check_record(EpisodeRecord(total_reward, steps, status, extras))
        return None if actor_id in self.cut_actors else EpisodeEnded(record, actor_id)

    def forget(self, actor_id: ActorId) -> None:
        """An actor's episode is over: nothing of it is kept."""
        if self._batches:
            self._take_apart({actor_id})
        self._remembered.pop(actor_id, None)
        self.cut_actors.discard(actor_id)
