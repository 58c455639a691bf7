"""What a session remembers of an action until its outcome comes: of one actor, or of a batch of actors.

The log-probability of one action must never be learned with another action or observation: that teaches the
opposite of what happened. So decisions are kept as copies, and compared with the experience that is given.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.errors import InvalidExperience
from stoker.lru import MAX_ACTORS
from stoker.nested import is_same
from stoker.plain import shown
from stoker.session.publishing import Answer
from stoker.types import ActorId, Experience, ExperienceBatch

Ids = tuple[ActorId, ...]


class Decision(msgspec.Struct, frozen=True, eq=False):
    """An action, and what its experience must carry: ``Experience(..., policy_extras, policy_version)``.

    It can be pickled if its values can; those of DQN and PPO can.

    Attributes:
        action: what to do.
        policy_extras: what the policy remembered about the action (log-probability, value, ...), or None.
        policy_version: the optimization steps behind the policy that chose it.
    """

    action: Any
    policy_extras: Any
    policy_version: int


def decisions_of(answer: Answer) -> list[Decision]:
    """Each decision of one forward pass by itself."""
    actions: Any
    actions, extras, version = answer
    if type(actions) is _ARRAY and actions.ndim == 1:
        actions = actions.tolist()
    if extras is None:
        return [Decision(action, None, version) for action in actions]
    return [Decision(*both, version) for both in zip(actions, extras, strict=True)]


class RememberedDecision:
    """A decision that waits for its experience; ``policy_version`` is None where it is not counted."""

    __slots__ = ("_keys", "action", "observation", "policy_extras", "policy_version")

    def __init__(self, observation: Any, action: Any, policy_extras: Any, policy_version: int | None) -> None:
        self.observation: Any = _copied(observation)
        self.action: Any = _copied(action)
        self._keys = _key(observation), _key(action)
        self.policy_extras: Any = policy_extras
        self.policy_version: int | None = policy_version

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


def not_remembered(experience: Experience) -> InvalidExperience:
    """The error for an experience whose action no decision was remembered for."""
    return InvalidExperience(
        f"actor {experience.actor_id!r}: the agent learns only from actions that its policy chose and "
        "remembers, each once: choose each with session.act(observation, actor_id=...) before observe, or "
        "with session.decide(observation) and pass on its policy_extras",
        field="policy_extras",
    )


def mismatched(experience: Experience, remembered: RememberedDecision, field: str) -> InvalidExperience:
    """The error for an experience that differs in a field from the decision that was remembered."""
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


class RememberedBatch:
    """The decisions of one ``act_many`` on an array, which wait for their batch of experiences.

    Args:
        actor_ids: who acted, each once.
        observations: ``[N, *observation_shape]``, not copied.
        actions: ``[N, *action_shape]``, not copied.
        policy_extras: ``[N, size]``, or None.
        policy_version: as for ``RememberedDecision``.
    """

    __slots__ = ("_actions", "_observations", "_policy_extras", "_policy_version", "actor_ids")

    def __init__(
        self,
        actor_ids: tuple[ActorId, ...],
        observations: NDArray[Any],
        actions: NDArray[Any],
        policy_extras: NDArray[Any] | None,
        policy_version: int | None,
    ) -> None:
        self.actor_ids: tuple[ActorId, ...] = actor_ids
        self._observations = observations
        self._actions = actions
        self._policy_extras = policy_extras
        self._policy_version = policy_version

    def is_of(self, batch: ExperienceBatch) -> bool:
        """Whether a batch is surely the outcome of these decisions, row by row."""
        given, kept = batch.observations, self._observations
        return (
            type(given) is _ARRAY
            and given.dtype == kept.dtype
            and given.shape == kept.shape
            and given.tobytes() == kept.tobytes()
            and np.array_equal(self._actions, batch.actions)
        )

    def joined(self, batch: ExperienceBatch) -> ExperienceBatch:
        """The batch with the policy extras and the version of these decisions."""
        version, versions = self._policy_version, batch.policy_versions
        if versions is None and version is not None:
            versions = np.full(len(batch), version, np.int64)
        return msgspec.structs.replace(batch, policy_extras=self._policy_extras, policy_versions=versions)

    def decisions(self) -> list[RememberedDecision]:
        """Each decision by itself."""
        actions, extras, version = self._actions, self._policy_extras, self._policy_version
        each = actions.tolist() if actions.ndim == 1 else actions
        return [
            RememberedDecision(observation, action, None if extras is None else extras[row], version)
            for row, (observation, action) in enumerate(zip(self._observations, each, strict=True))
        ]


def in_columns(observations: Sequence[Any], answer: Answer) -> Answer:
    """The answer, with its actions as an array if the observations are one and actions can be."""
    if type(observations) is not _ARRAY:
        return answer
    given, extras, version = answer
    actions: Any = given
    if type(actions) is not _ARRAY:
        kinds = {*map(type, actions)}
        if len(kinds) != 1 or not issubclass(kinds.pop(), _NUMBERS):
            return answer  # an array would hold others: 1.0 for 1, or a row for a tuple
        try:
            actions = np.array(actions)
        except ValueError:  # of different shapes
            return answer
    return answer if actions.dtype.hasobject else (actions, extras, version)


class RememberedBatches(OrderedDict[Ids, RememberedBatch]):
    """The batches of decisions that wait for their outcomes, by their actors; no actor is in two of them.

    Outcomes may never come, so the last one is kept, and those before it of up to ``2 * MAX_ACTORS`` actors.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ids_of: dict[ActorId, Ids] = {}  # of the last batch of an actor, which may no longer wait
        self._last: Ids = ()  # put

    def of_any(self, actor_ids: Iterable[ActorId]) -> list[RememberedBatch]:
        """The batches that have one of these actors."""
        found = dict.fromkeys(map(self._ids_of.get, actor_ids))
        return [self[ids] for ids in found if ids is not None and ids in self]

    def put(self, batch: RememberedBatch) -> None:
        """Keep a batch of actors that are in no other one."""
        ids = batch.actor_ids
        if ids is not self._last:
            self._ids_of |= dict.fromkeys(ids, ids)
            self._last = ids
        self[ids] = batch
        if len(self._ids_of) > 2 * MAX_ACTORS:
            while sum(map(len, self)) > MAX_ACTORS and len(self) > 1:
                self.popitem(last=False)
            self._ids_of = {actor_id: ids for ids in self for actor_id in ids}

    def remove(self, batch: RememberedBatch) -> None:
        """Forget a batch, if it is kept."""
        if self.get(batch.actor_ids) is batch:
            del self[batch.actor_ids]


def remembered_batch(
    actor_ids: tuple[ActorId, ...], observations: Any, answer: Answer, *, keeps_version: bool
) -> RememberedBatch | None:
    """Copies of the decisions of one pass as columns; None unless observations, actions and extras are."""
    actions: Any
    extras: Any
    actions, extras, version = answer
    if type(actions) is not _ARRAY or not (extras is None or type(extras) is _ARRAY):
        return None
    kept = observations.copy(), actions.copy(), extras
    return RememberedBatch(actor_ids, *kept, version if keeps_version else None)


_ARRAY: type[Any] = np.ndarray
_NUMBERS = (int, float, np.generic, np.ndarray)


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
