"""What a session takes in, and from whom: checked where the caller can still be told.

Everything here is plain code on the caller's side of the queue; what is refused has changed nothing.
"""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from stoker.agents.protocol import ChecksInput, LearningAgent
from stoker.errors import ActorConflict, InvalidExperience
from stoker.plain import check_actor_id, shown
from stoker.stats import EpisodeRecord, check_record
from stoker.types import ActMode, ActorId, EpisodeStatus, Experience

__all__ = ["Intake", "checked_batch", "checked_number"]


class Intake:
    """The checks, the limit on steps, and what policies remember between an action and its outcome.

    Args:
        agent: brings checks of its own, if it is ``ChecksInput``.
        accepted_steps: experiences accepted before, in other attempts.
        max_steps: how many may ever be accepted; None: no limit.
        keeps_versions: whether experiences are told which policy chose their action.
    """

    def __init__(
        self,
        agent: LearningAgent,
        accepted_steps: int,
        max_steps: int | None,
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
        self._remembered: dict[ActorId, tuple[Any, int | None]] = {}  # and the version that chose the action
        self._acting: set[ActorId] = set()
        self._observing: set[ActorId] = set()
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
        if (
            self._needs_policy_extras
            and experience.policy_extras is None
            and experience.actor_id not in self._remembered
        ):
            raise _not_remembered(experience)
        return experience

    def check_all(self, batch: list[Experience]) -> None:
        """Refuse experiences one of which cannot be consumed, and make their rewards floats in place.

        Raises:
            InvalidExperience: The message says which, and why.
        """
        followed: set[ActorId] = set()  # actors of which one action, at most, is remembered
        for i, experience in enumerate(batch):
            try:
                batch[i] = self.check(experience)
                if self._needs_policy_extras and experience.policy_extras is None:
                    if experience.actor_id in followed:
                        raise _not_remembered(experience)
                    followed.add(experience.actor_id)
            except InvalidExperience as error:
                raise InvalidExperience(f"experience {i} of {len(batch)}: {error}; none was taken") from error

    def reserve(self, actor_id: ActorId) -> bool:
        """Count one experience as accepted, unless the limit is reached; whoever drops it counts that."""
        if self.is_full:
            if len(self._cut) < _ACTORS:
                self._cut.add(actor_id)
            return False
        self.accepted_steps += 1
        return True

    def take_back(self, experience: Experience) -> None:
        """Undo ``reserve`` and ``joined`` for an experience that did not get in."""
        self.accepted_steps -= 1
        if experience.policy_extras is not None or experience.policy_version is not None:
            kept = (experience.policy_extras, experience.policy_version)
            self._remembered.setdefault(experience.actor_id, kept)

    def joined(self, experience: Experience) -> Experience:
        """The experience with what the policy remembered about its action."""
        actor_id = experience.actor_id
        if not self._remembered or actor_id not in self._remembered:
            return experience
        extras, version = self._remembered.pop(actor_id)
        return Experience(
            experience.observation,
            experience.action,
            experience.reward,
            experience.next_observation,
            experience.status,
            actor_id,
            extras if experience.policy_extras is None else experience.policy_extras,
            version if experience.policy_version is None else experience.policy_version,
        )

    def begin_observing(self, actor_id: ActorId) -> None:
        """Note that this actor waits for room in the queue.

        Raises:
            ActorConflict: It already does.
        """
        if actor_id in self._observing:
            raise ActorConflict(actor_id, "observe()")
        self._observing.add(actor_id)

    def end_observing(self, actor_id: ActorId) -> None:
        """The wait is over."""
        self._observing.discard(actor_id)

    def is_waiting(self, actor_id: ActorId) -> bool:
        """Whether this actor waits for the session, in ``act`` or in ``observe``."""
        return actor_id in self._acting or actor_id in self._observing

    # Actions --------------------------------------------------------------------------------------

    def begin_acting(self, observation: Any, mode: ActMode, actor_id: ActorId) -> None:
        """Check what is to be acted on, and note that this actor waits for its action.

        Raises:
            InvalidExperience: The observation, mode or actor_id cannot be used.
            ActorConflict: Another task waits for an exploring action under this id: what the policy
                remembers could not be told apart. Exploiting leaves nothing behind and may overlap.
        """
        if type(mode) is not ActMode:
            raise InvalidExperience(f"mode={shown(mode)}: use ActMode.EXPLORE or ActMode.EXPLOIT")
        check_actor_id(actor_id)
        if self._check_observation is not None:
            self._check_observation(observation)
        if mode is _EXPLORE:
            if actor_id in self._acting:
                raise ActorConflict(actor_id, "act()")
            self._acting.add(actor_id)

    def end_acting(self, mode: ActMode, actor_id: ActorId) -> None:
        """The wait is over, one way or the other."""
        if mode is _EXPLORE:
            self._acting.discard(actor_id)

    def remember(self, actor_id: ActorId, extras: Any, opt_steps: int) -> None:
        """Keep what the policy wants to remember, and its version, until this actor's next experience."""
        if extras is not None or self._keeps_versions:
            self.is_plain = False  # from now on experiences are joined
            self._remembered.pop(actor_id, None)
            self._remembered[actor_id] = (extras, opt_steps if self._keeps_versions else None)
            if len(self._remembered) > _ACTORS:  # actors that went away without a word
                del self._remembered[next(iter(self._remembered))]

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

    @contextlib.contextmanager
    def forgetting(self, actor_id: ActorId) -> Generator[None]:
        """The same for what takes a while: if the block is cancelled, all is kept."""
        extras, is_cut = self._remembered.get(actor_id), actor_id in self._cut
        self.forget(actor_id)
        try:
            yield
        except BaseException:
            if extras is not None:
                self._remembered.setdefault(actor_id, extras)
            if is_cut:
                self._cut.add(actor_id)
            raise


_EXPLORE = ActMode.EXPLORE

_ACTORS = 10_000
"""How many absent actors are kept in mind: ids without end must not fill the memory."""


def checked_batch(intake: Intake, experiences: Iterable[Experience]) -> Sequence[Experience]:
    """The experiences as a list, all of which can be taken.

    Raises:
        InvalidExperience: One of them cannot; the message says which.
    """
    try:
        batch = list(experiences)
    except TypeError:
        raise InvalidExperience(f"observe_many takes Experiences, not {shown(experiences)}") from None
    intake.check_all(batch)
    return batch


def _not_remembered(experience: Experience) -> InvalidExperience:
    return InvalidExperience(
        f"actor {experience.actor_id!r}: the agent learns only from actions that its policy chose and "
        "remembers: choose each one with session.act(observation, actor_id=...) before observe"
    )


def checked_number(name: str, value: Any) -> float:
    """What Python takes for one number, such as a numpy scalar, a tensor without axes or a bool, as a float.

    Raises:
        InvalidExperience: It is not one finite number.
    """
    try:
        number = None if isinstance(value, (str, bytes)) or getattr(value, "shape", ()) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = None
    if number is None:
        raise InvalidExperience(f"{name}={shown(value)} is not a number: give one float")
    if not math.isfinite(number):
        raise InvalidExperience(f"{name}={number} is not finite: clip it, or correct what computes it")
    return number
