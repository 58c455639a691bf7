"""Decisions: an action with what its policy remembered about it, and the check that an experience is of it.

The log-probability of one action must never be learned with another action or observation: that teaches the
opposite of what happened. Copies are kept, because an environment may write into what it is given.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
import numpy as np

from stoker.types import Experience

__all__ = ["Decision", "RememberedDecision"]


class Decision(msgspec.Struct, frozen=True, eq=False):
    """An action, and what to hand back with its outcome: ``Experience(..., policy_extras, policy_version)``.

    It can be pickled if its values can; those of DQN and PPO can.

    Attributes:
        action: what to do.
        policy_extras: what the policy remembered about the action (log-probability, value, ...), or None.
        policy_version: the optimization steps behind the policy that chose it.
    """

    action: Any
    policy_extras: Any
    policy_version: int


class RememberedDecision:
    """A decision that waits for its experience.

    Args:
        observation: what the action was chosen on.
        action: the action.
        policy_extras: what the policy remembered about it, or None.
        policy_version: the optimization steps behind the policy; None: not counted.
    """

    __slots__ = (
        "_action_key",
        "_observation_key",
        "action",
        "observation",
        "policy_extras",
        "policy_version",
    )

    def __init__(self, observation: Any, action: Any, policy_extras: Any, policy_version: int | None) -> None:
        self.observation, self._observation_key = _copied(observation), _key(observation)
        self.action, self._action_key = _copied(action), _key(action)
        self.policy_extras = policy_extras
        self.policy_version = policy_version

    def mismatch(self, experience: Experience) -> str | None:
        """The field in which an experience differs from this decision; None: it is the outcome of it."""
        action, observation = experience.action, experience.observation
        key = _key(action)
        if (key is None or key != self._action_key) and not _is_same(self.action, action):
            return "action"
        key = _key(observation)
        if (key is None or key != self._observation_key) and not _is_same(self.observation, observation):
            return "observation"
        return None

    def joined(self, experience: Experience) -> Experience:
        """The experience with the policy extras and the version of this decision."""
        version = experience.policy_version
        return Experience(
            experience.observation,
            experience.action,
            experience.reward,
            experience.next_observation,
            experience.status,
            experience.actor_id,
            self.policy_extras,
            self.policy_version if version is None else version,
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


def _is_same(kept: Any, given: Any) -> bool:
    """Whether two values are equal; floats of different precision are compared in the lower one."""
    if kept is given:
        return True
    match kept, given:
        case (dict(), dict()):
            ours, theirs = cast("Mapping[Any, Any]", kept), cast("Mapping[Any, Any]", given)
            return ours.keys() == theirs.keys() and all(_is_same(ours[key], theirs[key]) for key in ours)
        case (tuple() | list(), tuple() | list()):
            parts, others = cast("Sequence[Any]", kept), cast("Sequence[Any]", given)
            return len(parts) == len(others) and all(map(_is_same, parts, others))
        case _:
            pass
    try:
        one, other = np.asarray(kept), np.asarray(given)
        if one.dtype.kind == other.dtype.kind == "f" and one.dtype != other.dtype:
            lower = min(one.dtype, other.dtype, key=lambda dtype: dtype.itemsize)
            one, other = one.astype(lower), other.astype(lower)
        if one.dtype.kind != "O" and other.dtype.kind != "O":
            return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
        return bool(kept == given)
    except Exception:  # noqa: BLE001 - values that do not compare are not known to be the same
        return False
