"""The acceptance rule of a session: checks, the step limit, and what each actor must hand back.

Everything here is plain code on the caller's side of the queue; a refused call has changed nothing.

An interruption (Ctrl-C) may come between any two bytecodes. So an event is in once one call of a C function,
``append``, has put it there, and the number of accepted steps can be computed again from what is in.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from stoker.agents.protocol import ChecksInput, LearningAgent
from stoker.errors import ActorConflict, InvalidExperience
from stoker.lru import MAX_ACTORS, LRUDict
from stoker.plain import as_float, check_actor_id, plain_count, shown
from stoker.session.decisions import Decision, RememberedDecision
from stoker.stats import EpisodeRecord, check_record
from stoker.types import ActMode, ActorId, EpisodeStatus, Experience

__all__ = ["Accepted", "Intake", "checked_number"]

Accepted = tuple[Experience, RememberedDecision | None]
"""An experience that passed the checks, and the decision whose policy extras were joined to it."""


class Intake:
    """The checks, the limit on steps, and what policies remember between an action and its outcome.

    Args:
        agent: its own checks are used if it is ``ChecksInput``.
        accepted_steps: experiences accepted before, in other attempts.
        max_steps: how many may ever be accepted; None: no limit.
        count_put: how many experiences were ever put where the learner gets them, in all attempts.
        keeps_versions: whether experiences carry the version of the policy that chose their action.
    """

    def __init__(
        self,
        agent: LearningAgent,
        accepted_steps: int,
        max_steps: int | None,
        count_put: Callable[[], int],
        *,
        keeps_versions: bool = False,
    ) -> None:
        checks = agent if isinstance(agent, ChecksInput) else None
        self.check_experience: Callable[[Experience], None] | None = checks and checks.check_experience
        """The agent's own check, if it has one; raises what ``check`` does."""
        self._check_observation: Callable[[Any], None] | None = checks and checks.check_observation
        self.limit = math.inf if max_steps is None else max_steps
        """No experience is accepted once ``accepted_steps`` is there."""
        self.accepted_steps = accepted_steps
        """Experiences that are in, and those of callers who wait for room."""
        self.count_put = count_put
        self._needs_policy_extras = agent.needs_policy_extras
        self._keeps_versions = keeps_versions
        self.is_plain = not (self._needs_policy_extras or keeps_versions)
        """Whether all there is to do with an experience is to check it, to count it and to let it in."""
        self.is_stopped = False
        """Whether ``stop`` was called."""
        self.on_end: list[Callable[[], None]] = []
        """Called when no more experiences are accepted, other than by reaching ``max_steps``."""
        self.n_refused = 0
        """Experiences that came after the limit or after ``stop``: neither learned nor counted."""
        self._remembered: LRUDict[ActorId, RememberedDecision] = LRUDict()
        self.acting: set[ActorId] = set()
        """Actors that wait for an exploring action."""
        self.observing: set[ActorId] = set()
        """Actors that wait for room in the queue."""
        self._cut: set[ActorId] = set()  # actors whose episode lost a transition to the limit

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
        self.limit = -math.inf
        for tell in self.on_end:
            tell()

    # Experiences ----------------------------------------------------------------------------------

    def check(self, experience: Experience) -> Experience:
        """Refuse what cannot be consumed.

        Returns:
            The experience with its reward as a float.

        Raises:
            InvalidExperience: The message names the field and its value.
        """
        if type(experience) is not Experience:
            raise InvalidExperience(
                f"observe takes an Experience, not {shown(experience)}; for several use observe_many"
            )
        if type(experience.status) is not EpisodeStatus:
            choices = ", ".join(str(status) for status in EpisodeStatus)
            raise InvalidExperience(f"status={shown(experience.status)} is none of {choices}")
        reward = experience.reward
        if type(reward) is not float or reward - reward != 0.0:
            experience = msgspec.structs.replace(experience, reward=checked_number("reward", reward))
        check_actor_id(experience.actor_id)
        if self.check_experience is not None:
            self.check_experience(experience)
        if experience.policy_version is not None:
            plain_count("policy_version", experience.policy_version)
        return experience

    def admitted(self, experience: Experience) -> Accepted:
        """Check an experience and join to it what the policy remembered about its action.

        Policy extras of an action are never joined to another action, nor to another observation.

        Raises:
            InvalidExperience: It cannot be consumed, or the agent needs policy extras and there are none.
        """
        experience = self.check(experience)
        if experience.policy_extras is not None:
            return experience, None
        needs_extras = self._needs_policy_extras
        if experience.policy_version is not None and not needs_extras:
            return experience, None
        remembered = self._remembered.get(experience.actor_id)
        if remembered is None:
            if needs_extras:
                raise _not_remembered(experience)
            return experience, None
        if (field := remembered.mismatch(experience)) is not None:
            if needs_extras:
                raise _mismatched(experience, remembered, field)
            return experience, None
        return remembered.joined(experience), remembered

    def admitted_all(self, experiences: Iterable[Experience]) -> list[Accepted]:
        """The same for several experiences: all of them, or none.

        Raises:
            InvalidExperience: The message says which one, and why.
        """
        try:
            batch = list(experiences)
        except TypeError:
            raise InvalidExperience(f"observe_many takes Experiences, not {shown(experiences)}") from None
        found: list[Accepted] = []
        used: set[int] = set()  # a decision has one outcome
        for i, experience in enumerate(batch):
            try:
                accepted, remembered = self.admitted(experience)
                if remembered is not None:
                    if id(remembered) in used:
                        if self._needs_policy_extras:
                            raise _not_remembered(experience)
                        accepted, remembered = self.check(experience), None
                    used.add(id(remembered))
            except InvalidExperience as error:
                raise InvalidExperience(f"experience {i} of {len(batch)}: {error}; none was taken") from error
            found.append((accepted, remembered))
        return found

    def reserve(self, actor_id: ActorId) -> bool:
        """Count one experience as accepted; past the limit count it as refused and return False.

        This, ``recount`` and ``settle`` are the acceptance rule. ``TrainingSession.observe`` repeats the
        usual case without a call, because it is the hot path.
        """
        if self.is_full:
            self.n_refused += 1
            if len(self._cut) < MAX_ACTORS:
                self._cut.add(actor_id)
            return False
        self.accepted_steps += 1
        return True

    def recount(self) -> None:
        """Count again after an interruption or a cancellation: an experience is in, or is not."""
        self.accepted_steps = self.count_put() + len(self.observing)

    def settle(self, actor_id: ActorId, remembered: RememberedDecision | None) -> None:
        """Forget a decision whose outcome is in."""
        if remembered is not None and self._remembered.get(actor_id) is remembered:
            del self._remembered[actor_id]

    def waiting(self) -> set[ActorId]:
        """The actors that wait for the session, in ``act`` or in ``observe``."""
        return self.acting | self.observing

    def is_waiting(self, actor_id: ActorId) -> bool:
        """Whether this actor waits for the session, in ``act`` or in ``observe``."""
        return actor_id in self.acting or actor_id in self.observing

    # Actions --------------------------------------------------------------------------------------

    def check_acting(self, observation: Any, mode: ActMode, actor_id: ActorId) -> None:
        """Refuse what cannot be acted on.

        Raises:
            InvalidExperience: The observation, mode or actor_id cannot be used.
        """
        if type(mode) is not ActMode:
            raise InvalidExperience(f"mode={shown(mode)}: use ActMode.EXPLORE or ActMode.EXPLOIT")
        check_actor_id(actor_id)
        if self._check_observation is not None:
            self._check_observation(observation)

    def checked_acting(
        self, observations: Iterable[Any], actor_ids: Iterable[ActorId], mode: ActMode
    ) -> list[tuple[ActorId, Any]]:
        """The same for several actors; their ids and observations.

        Raises:
            InvalidExperience: One of them cannot act, or there is not one observation per actor.
            ActorConflict: An actor is there twice.
        """
        shown_to, ids = list(observations), list(actor_ids)
        if len(shown_to) != len(ids):
            raise InvalidExperience(
                f"act_many: {len(shown_to)} observations for {len(ids)} actor_ids: give one for each"
            )
        for actor_id, observation in zip(ids, shown_to, strict=True):
            self.check_acting(observation, mode, actor_id)
        if len({*ids}) < len(ids):
            twice = next(actor_id for actor_id in ids if ids.count(actor_id) > 1)
            raise ActorConflict(twice, "act_many()")
        return list(zip(ids, shown_to, strict=True))

    def remember(self, actor_id: ActorId, observation: Any, decision: Decision) -> None:
        """Keep a decision until its experience, or until this actor's next decision or episode."""
        extras = decision.policy_extras
        if extras is not None or self._keeps_versions:
            self.is_plain = False  # from now on experiences are joined
            version = decision.policy_version if self._keeps_versions else None
            self._remembered.put(actor_id, RememberedDecision(observation, decision.action, extras, version))

    # Episodes -------------------------------------------------------------------------------------

    def begin_episode(self, actor_id: ActorId, seed: int | None) -> int | None:
        """Check that an actor may begin an episode; ``forget`` the one before then.

        Returns:
            The seed as an int.

        Raises:
            InvalidExperience: The actor_id or the seed cannot be used.
        """
        check_actor_id(actor_id)
        try:
            return None if seed is None else operator.index(seed)
        except TypeError:
            raise InvalidExperience(f"seed={shown(seed)}: give an int or None") from None

    def end_episode(
        self,
        total_reward: float,
        steps: int,
        status: EpisodeStatus,
        env_extras: Mapping[str, float] | None,
        actor_id: ActorId,
    ) -> EpisodeRecord | None:
        """The record of an episode; None where the limit took some of its transitions.

        ``forget`` the episode then.

        Raises:
            InvalidExperience: A value in it cannot be used.
        """
        check_actor_id(actor_id)
        extras: Any = {} if env_extras is None else env_extras
        record = check_record(EpisodeRecord(total_reward, steps, status, extras))
        return None if actor_id in self._cut else record

    def forget(self, actor_id: ActorId) -> None:
        """An actor's episode is over: nothing of it is kept."""
        self._remembered.pop(actor_id, None)
        self._cut.discard(actor_id)


def _not_remembered(experience: Experience) -> InvalidExperience:
    return InvalidExperience(
        f"actor {experience.actor_id!r}: the agent learns only from actions that its policy chose and "
        "remembers, each once: choose each with session.act(observation, actor_id=...) before observe, or "
        "with session.decide(observation) and pass on its policy_extras"
    )


def _mismatched(experience: Experience, remembered: RememberedDecision, field: str) -> InvalidExperience:
    given, kept = shown(getattr(experience, field)), shown(getattr(remembered, field))
    what = {
        "action": f"action={given} is not the action that the policy chose last, {kept}: observe the action "
        "that act returned, whatever the environment made of it",
        "observation": f"observation={given} is not the observation that the last action was chosen on, "
        f"{kept}: observe that one, a copy of it if the environment writes into its arrays",
    }[field]
    return InvalidExperience(
        f"actor {experience.actor_id!r}: {what}; for several open decisions use session.decide(observation) "
        "and pass on the policy_extras of each"
    )


def checked_number(name: str, value: Any) -> float:
    """What Python takes for one number, such as a numpy scalar, a tensor without axes or a bool, as a float.

    Raises:
        InvalidExperience: It is not one finite number.
    """
    number = as_float(value)
    if number is None:
        raise InvalidExperience(f"{name}={shown(value)} is not a number: give one float")
    if not math.isfinite(number):
        raise InvalidExperience(f"{name}={number} is not finite: clip it, or correct what computes it")
    return number
