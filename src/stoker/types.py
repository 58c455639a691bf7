"""The shared vocabulary, in Gymnasium's words: a transition, the status of an episode, the mode of acting."""

from __future__ import annotations

import enum
import os
from typing import Any, Literal

import msgspec

__all__ = ["ActMode", "ActorId", "AnyPath", "EpisodeStatus", "Experience", "PlaceName"]

ActorId = int | str
"""Names one stream of episodes: one episode at a time, in order."""

AnyPath = str | os.PathLike[str]

PlaceName = Literal["tasks", "threads", "processes"]
"""Where actors play.

- ``"tasks"``: on the session's event loop; environments are stepped as ``stepping`` says.
- ``"threads"``: each on its own thread, with its environment and a copy of the policy.
- ``"processes"``: each in its own process, for environments that hold the interpreter lock, or crash. A
  script that starts processes needs its ``if __name__ == "__main__":``. They cannot start processes with
  ``multiprocessing``.
"""


class EpisodeStatus(enum.Enum):
    """The status of an episode after a transition.

    Terminated and truncated are never merged: only a terminated episode has no future to bootstrap
    from (Sutton & Barto 2018, section 3.4; Pardo et al. 2018, "Time Limits in Reinforcement Learning").
    """

    CONTINUING = "Continuing"
    TERMINATED = "Terminated"
    TRUNCATED = "Truncated"

    @classmethod
    def of(cls, terminated: bool, truncated: bool) -> EpisodeStatus:
        """The status for the two flags of Gymnasium's ``step``; terminated wins when both are set."""
        if terminated:
            return cls.TERMINATED
        return cls.TRUNCATED if truncated else cls.CONTINUING

    @property
    def is_done(self) -> bool:
        """Whether the episode is over, for either reason."""
        return self is not EpisodeStatus.CONTINUING

    @property
    def is_terminal(self) -> bool:
        """Whether the episode reached a terminal state of the environment."""
        return self is EpisodeStatus.TERMINATED

    @property
    def is_truncated(self) -> bool:
        """Whether the episode was cut off, by a time limit or from outside."""
        return self is EpisodeStatus.TRUNCATED

    @property
    def bootstrap_mask(self) -> float:
        """The factor of the next observation's value: 0.0 for Terminated, else 1.0."""
        return 0.0 if self is EpisodeStatus.TERMINATED else 1.0


class ActMode(enum.Enum):
    """Whether an action is chosen to explore or to maximize the reward."""

    EXPLORE = "Explore"
    EXPLOIT = "Exploit"


class Experience(msgspec.Struct, frozen=True, eq=False, gc=False, tag=True, array_like=True):
    """One transition: observation, action, reward, next observation and status.

    Compared by identity, because observations are arrays. The struct is not tracked by the garbage
    collector: an observation must not refer back to its experience.

    Attributes:
        observation: the observation that the action was chosen for, shape ``[*observation_shape]``.
        action: the action.
        reward: the reward, finite.
        next_observation: the observation after the action; at an episode's end the last observation of
            that episode, never the first of the next one.
        status: the status of the episode after this transition.
        actor_id: the stream of episodes that this transition continues.
        policy_extras: what the policy recorded about the action (log-probability, value, ...). Callers leave
            it None: the session adds what ``act`` kept for this actor.
        policy_version: the agent's optimization steps when the policy that chose the action was published;
            None if unknown. The session fills it in for actions of ``act`` if it counts staleness.
    """

    observation: Any
    action: Any
    reward: float
    next_observation: Any
    status: EpisodeStatus
    actor_id: ActorId = 0
    policy_extras: Any = None
    policy_version: int | None = None
