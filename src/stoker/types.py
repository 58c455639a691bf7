"""The shared vocabulary, in Gymnasium's words: a transition, the status of an episode, the mode of acting."""

from __future__ import annotations

import enum
import os
from typing import Any, Literal, cast

import msgspec

ActorId = int | str
"""Names one stream of episodes: one episode at a time, in order."""

AnyPath = str | os.PathLike[str]

PlaceName = Literal["tasks", "threads", "processes", "ray"]
"""Where actors play.

- ``"tasks"``: on the session's event loop; environments are stepped as ``stepping`` says.
- ``"threads"``: each on its own thread, with its environment and a copy of the policy.
- ``"processes"``: each in its own process, for environments that hold the interpreter lock, or crash. A
  script that starts processes needs its ``if __name__ == "__main__":``. They cannot start processes with
  ``multiprocessing``.
- ``"ray"``: in the workers of a Ray cluster, on any of its machines; see ``stoker.distributed.RayPlace``.
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
        seq: the number of this step among its actor's, as the client counts that played it; None: it does
            not count. The journal keeps it.
    """

    observation: Any
    action: Any
    reward: float
    next_observation: Any
    status: EpisodeStatus
    actor_id: ActorId = 0
    policy_extras: Any = None
    policy_version: int | None = None
    seq: int | None = None


class ExperienceBatch(msgspec.Struct, frozen=True, eq=False, gc=False, tag=True, array_like=True):
    """Transitions as columns, one row for each, in the order in which they are to be learned.

    Arrays of a vector environment go through the session as they are. Row by row it means what the
    ``Experience`` of ``experiences()`` mean, and is learned to the same bits.

    Attributes:
        observations: an array ``[N, *observation_shape]``, or a dict of such.
        actions: ``[N, *action_shape]``.
        rewards: float64 ``[N]``, finite.
        next_observations: as ``observations``; where an episode ends, its own last observation.
        terminated: bool ``[N]``.
        truncated: bool ``[N]``; a terminated episode is not truncated, too.
        actor_ids: the stream of episodes of each row. An actor may have several rows, which are in order.
        policy_extras: float64 ``[N, size]``, or None, as for ``Experience``.
        policy_versions: int64 ``[N]``, or None, as for ``Experience``.
    """

    observations: Any
    actions: Any
    rewards: Any
    next_observations: Any
    terminated: Any
    truncated: Any
    actor_ids: tuple[ActorId, ...]
    policy_extras: Any = None
    policy_versions: Any = None

    def __len__(self) -> int:
        return len(self.actor_ids)

    def __getitem__(self, rows: slice) -> ExperienceBatch:
        """Some of the transitions; they share their memory with the batch."""
        if rows.indices(len(self)) == (0, len(self), 1):
            return self
        return ExperienceBatch(*(_rows(getattr(self, name), rows) for name in self.__struct_fields__))

    def experiences(self) -> list[Experience]:
        """Each transition by itself; arrays share the batch's memory."""
        extras, versions = self.policy_extras, self.policy_versions
        discrete = getattr(self.actions, "ndim", 0) == 1
        actions = self.actions.tolist() if discrete else self.actions
        return [
            Experience(
                _row(self.observations, row),
                actions[row] if discrete else _row(actions, row),
                reward,
                _row(self.next_observations, row),
                EpisodeStatus.of(terminated, truncated),
                self.actor_ids[row],
                None if extras is None else extras[row],
                None if versions is None else int(versions[row]),
            )
            for row, (reward, terminated, truncated) in enumerate(
                zip(self.rewards.tolist(), self.terminated.tolist(), self.truncated.tolist(), strict=True)
            )
        ]


def _rows(column: Any, rows: slice) -> Any:
    if isinstance(column, dict):
        return {key: _rows(part, rows) for key, part in cast("dict[Any, Any]", column).items()}
    return None if column is None else column[rows]


def _row(column: Any, row: int) -> Any:
    if isinstance(column, dict):
        return {key: _row(part, row) for key, part in cast("dict[Any, Any]", column).items()}
    return column[row]
