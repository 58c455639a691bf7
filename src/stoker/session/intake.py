"""The acceptance rule of a session: checks, the step limit, and the policy extras of each action.

Everything here is plain code on the caller's side of the queue; a refused call has changed nothing.

An interruption (Ctrl-C) may come between any two bytecodes. So an event is in once one call of a C function,
``append``, has put it there, and the number of accepted steps can be computed again from what is in.

The log-probability of one action must never be learned with another action or observation: that teaches the
opposite of what happened. So a decision is kept, as copies, until the experience that it belongs to.
"""

from __future__ import annotations

import copy
import operator
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from stoker.agents.protocol import ChecksInput, LearningAgent
from stoker.errors import ActorConflict, InvalidExperience
from stoker.journal import EpisodeEnded, EpisodeStarted
from stoker.lru import MAX_ACTORS, LRUDict
from stoker.nested import is_same
from stoker.plain import check_actor_id, finite_float, plain_count, shown
from stoker.session.acting import Answer
from stoker.session.config import SessionConfig
from stoker.stats import EpisodeRecord, check_record
from stoker.types import ActMode, ActorId, EpisodeStatus, Experience

__all__ = ["NO_LIMIT", "Accepted", "Decision", "Intake", "RememberedDecision"]

NO_LIMIT: Final = sys.maxsize
"""Of steps. Not infinity: comparing an int with a float costs ``observe`` twice as much."""


class Decision(msgspec.Struct, frozen=True, eq=False):
    """An action, and what its experience must carry: ``Experience(..., policy_extras, policy_version)``.

    It can be pickled if its values can; those of DQN and PPO can.

    Attributes:
        action: what to do.
        policy_extras: what the policy remembered about the action (log-probability, value, ...), or None.
        policy_version: the agent's optimization steps when the policy was published.
    """

    action: Any
    policy_extras: Any
    policy_version: int


class RememberedDecision:
    """A decision that waits for its experience; ``policy_version`` is None where it is not counted."""

    __slots__ = ("_keys", "action", "observation", "policy_extras", "policy_version")

    def __init__(self, observation: Any, action: Any, policy_extras: Any, policy_version: int | None) -> None:
        self.observation, self.action = _copied(observation), _copied(action)
        self._keys = _key(observation), _key(action)
        self.policy_extras = policy_extras
        self.policy_version = policy_version

    def mismatch(self, experience: Experience) -> str | None:
        """The field in which an experience differs from this decision; None: it is its outcome."""
        observation_key, action_key = self._keys
        if not _matches(self.action, action_key, experience.action):
            return "action"
        if not _matches(self.observation, observation_key, experience.observation):
            return "observation"
        return None

    def joined(self, experience: Experience) -> Experience:
        """The experience with the policy extras and the version of this decision."""
        version = experience.policy_version
        return msgspec.structs.replace(
            experience,
            policy_extras=self.policy_extras,
            policy_version=self.policy_version if version is None else version,
        )


Accepted = tuple[Experience, RememberedDecision | None]
"""An experience that passed the checks, and the decision whose policy extras were joined to it."""


class Intake:
    """The checks, the limit on steps, and what policies remember between an action and its outcome.

    Args:
        agent: its own checks are used if it is ``ChecksInput``.
        config: the session's settings.
        accepted_steps: experiences accepted before, in other attempts.
        count_put: how many experiences were ever put where the learner gets them, in all attempts.
    """

    def __init__(
        self, agent: LearningAgent, config: SessionConfig, accepted_steps: int, count_put: Callable[[], int]
    ) -> None:
        checks = agent if isinstance(agent, ChecksInput) else None
        self.check_experience: Callable[[Experience], None] | None = checks and checks.check_experience
        """The agent's own check, if it has one; raises what ``check`` does."""
        self._check_observation: Callable[[Any], None] | None = checks and checks.check_observation
        self.limit = NO_LIMIT if config.max_steps is None else config.max_steps
        """No experience is accepted once ``accepted_steps`` is there."""
        self.accepted_steps = accepted_steps
        """Experiences that are in, and those of callers who wait for room."""
        self.count_put = count_put
        self._needs_policy_extras = agent.needs_policy_extras
        self._keeps_versions = config.keeps_versions
        self.is_plain = not (self._needs_policy_extras or config.keeps_versions or config.lockstep)
        """Whether an experience only needs to be checked, counted and put into the queue."""
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
        self.limit = -1
        for call in self.on_end:
            call()

    # Experiences ----------------------------------------------------------------------------------

    def check(self, experience: Experience) -> Experience:
        """Refuse what cannot be consumed; return the experience with plain numbers."""
        if type(experience) is not Experience:
            raise InvalidExperience(
                f"observe takes an Experience, not {shown(experience)}; for several use observe_many"
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
        return experience

    def admitted(self, experience: Experience, used: Collection[RememberedDecision] = ()) -> Accepted:
        """Check an experience and join to it what the policy remembered about its action.

        Policy extras of an action are never joined to another action, nor to another observation, nor twice:
        decisions that are ``used`` have an outcome.
        """
        experience = self.check(experience)
        needs_extras = self._needs_policy_extras
        if experience.policy_extras is not None or (
            experience.policy_version is not None and not needs_extras
        ):
            return experience, None
        remembered = self._remembered.get(experience.actor_id)
        if remembered is None or remembered in used:
            if needs_extras:
                raise _not_remembered(experience)
        elif (field := remembered.mismatch(experience)) is None:
            return remembered.joined(experience), remembered
        elif needs_extras:
            raise _mismatched(experience, remembered, field)
        return experience, None

    def admitted_all(self, experiences: Iterable[Experience]) -> list[Accepted]:
        """The same for several experiences: all of them, or none."""
        try:
            batch = list(experiences)
        except TypeError:
            raise InvalidExperience(f"observe_many takes Experiences, not {shown(experiences)}") from None
        found: list[Accepted] = []
        used: set[RememberedDecision] = set()
        for i, experience in enumerate(batch):
            try:
                found.append(self.admitted(experience, used))
            except InvalidExperience as error:
                raise InvalidExperience(f"experience {i} of {len(batch)}: {error}; none was taken") from error
            if (remembered := found[-1][1]) is not None:
                used.add(remembered)
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

    # Actions --------------------------------------------------------------------------------------

    def check_acting(self, observation: Any, mode: ActMode, actor_id: ActorId) -> None:
        """Refuse an observation, mode or actor_id that cannot be used."""
        if type(mode) is not ActMode:
            raise InvalidExperience(f"mode={shown(mode)}: use ActMode.EXPLORE or ActMode.EXPLOIT")
        check_actor_id(actor_id)
        if self._check_observation is not None:
            self._check_observation(observation)

    def checked_acting(
        self, observations: Iterable[Any], actor_ids: Iterable[ActorId], mode: ActMode
    ) -> list[tuple[ActorId, Any]]:
        """The same for several actors, each once; their ids and observations."""
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

    def remember_all(self, batch: Sequence[tuple[ActorId, Any]], answer: Answer) -> None:
        """The same for several actors and their observations, answered in one pass."""
        actions, extras, version = answer
        for i, (actor_id, observation) in enumerate(batch):
            decision = Decision(actions[i], None if extras is None else extras[i], version)
            self.remember(actor_id, observation, decision)

    # Episodes -------------------------------------------------------------------------------------

    def episode_started(self, actor_id: ActorId, seed: int | None) -> EpisodeStarted:
        """The event that begins an episode; call ``forget`` once it is in the queue."""
        check_actor_id(actor_id)
        try:
            return EpisodeStarted(actor_id, None if seed is None else operator.index(seed))
        except TypeError:
            raise InvalidExperience(f"seed={shown(seed)}: give an int or None") from None

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
        check_actor_id(actor_id)
        extras: Any = {} if env_extras is None else env_extras
        record = check_record(EpisodeRecord(total_reward, steps, status, extras))
        return None if actor_id in self._cut else EpisodeEnded(record, actor_id)

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
    if field == "action":
        expected = "the action that the policy chose last"
        advice = "observe the action that act returned, whatever the environment made of it"
    else:
        expected = "the observation that the last action was chosen on"
        advice = "observe that one, a copy of it if the environment writes into its arrays"
    return InvalidExperience(
        f"actor {experience.actor_id!r}: {field}={given} is not {expected}, {kept}: {advice}; for several "
        "open decisions use session.decide(observation) and pass on the policy_extras of each"
    )


_ARRAY: type[Any] = np.ndarray


def _copied(value: Any) -> Any:
    """A copy that nobody else writes to; the value itself if it cannot be copied."""
    if type(value) is _ARRAY:
        return value.copy()
    if type(value) is int:
        return value
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001 - a lock, a tensor of a graph: then it is compared as it is
        return value


def _key(value: Any) -> Any:
    """What is equal for equal values, and quick to compare: of an int or an array; None of all else."""
    if type(value) is _ARRAY:
        return value.tobytes(), value.dtype, value.shape
    return value if type(value) is int else None


def _matches(kept: Any, key: Any, given: Any) -> bool:
    return (key is not None and _key(given) == key) or is_same(kept, given)
