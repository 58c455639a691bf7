"""The spaces of an environment, as agents take them: shapes, dtypes, and the check of every input.

The checks run in the session's ``observe`` and ``act``, once per transition: an input that passes them can be
stored and learned from without a second look.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, cast

import numpy as np
from msgspec.structs import replace

from stoker.agents.actions import ActionsT
from stoker.agents.masks import ActionMask
from stoker.agents.observations import Observations, observations_of
from stoker.agents.plain_spaces import plain_space
from stoker.agents.registry import AGENTS, action_kinds
from stoker.errors import ConfigError, InvalidExperience
from stoker.plain import shown
from stoker.types import Experience, ExperienceBatch

if TYPE_CHECKING:
    import gymnasium

_FLOAT32_MIN, _FLOAT32_MAX = float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)
_ARRAY: type[Any] = np.ndarray


class AgentSpaces(Generic[ActionsT]):
    """The spaces that an agent observes and acts in.

    Args:
        agent: its name in messages.
        observation_space: of the environment.
        action_space: of the environment.
        kinds: the kinds of action space that the agent can act in.

    Attributes:
        observations: a Box as it is, stored as float32 for every kind of float and else in its own dtype; of
            other spaces one row for each, packed.
        actions: the action space.
        mask: the mask of actions in the observations; None: they have none.
        plain: both spaces, as ``space_from`` makes them again.

    Raises:
        ConfigError: A space is of another kind; the message says which kinds the agent takes.
    """

    def __init__(
        self,
        agent: str,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        kinds: Sequence[type[ActionsT]],
    ) -> None:
        kind = next((kind for kind in kinds if kind.fits(action_space)), None)
        if kind is None:
            playing = [name for name, entry in AGENTS.items() if not entry.offline_only]
            able = [name for name in playing if any(each.fits(action_space) for each in action_kinds(name))]
            way_out = f"use {' or '.join(map(str.upper, able))} (--agent {' or '.join(able)}), or "
            raise ConfigError(
                f"{agent} cannot act in {action_space}: it takes "
                f"{', or '.join(kind.described for kind in kinds)}; {way_out if able else ''}wrap the "
                "environment so that its action space is one of these"
            )
        self.actions: ActionsT = kind(cast("Any", action_space))
        self.observations: Observations = observations_of(agent, observation_space, self.actions.n_choices)
        self._first, self._last = self.actions.first, self.actions.last
        columns = self.observations.mask
        self.mask: ActionMask | None = None if columns is None else ActionMask(columns, self.actions)
        self.given: tuple[gymnasium.Space[Any], gymnasium.Space[Any]] = observation_space, action_space
        """The environment's, as they were given."""
        self.plain: dict[str, Any] = {
            "observation": plain_space(observation_space),
            "action": plain_space(action_space),
        }

    def are_valid(self, batch: ExperienceBatch) -> bool:
        """Whether ``check_experience`` surely passes each of the batch's experiences."""
        return (
            self.observations.are_valid(batch.observations)
            and self.observations.are_valid(batch.next_observations)
            and self.actions.are_valid(batch.actions)
            and bool((np.abs(batch.rewards) <= _FLOAT32_MAX).all())
            and (self.mask is None or self.mask.are_valid(batch))
        )

    def check_observation(self, observation: Any) -> None:
        """Raise ``InvalidExperience``, naming the value, for an observation that nobody can act on."""
        self.observations.check(observation, "observation")
        if self.mask is not None:
            self.mask.check(observation)

    def describe(self) -> dict[str, Any]:
        """The spaces in plain types, to be compared with those of a saved state."""
        return {
            "observation_space": self.observations.describe(),
            "action_space": self.actions.describe(),
        }

    def packed(self, experiences: Sequence[Experience]) -> Sequence[Experience]:
        """Checked experiences with each observation as one array."""
        observations = self.observations
        if observations.rows is None:
            return experiences
        pairs = [(experience.observation, experience.next_observation) for experience in experiences]
        rows = observations.stack([observation for pair in pairs for observation in pair])
        return [
            replace(experience, observation=before, next_observation=after)
            for experience, before, after in zip(experiences, rows[::2], rows[1::2], strict=True)
        ]

    def packed_batch(self, batch: ExperienceBatch) -> ExperienceBatch:
        """A checked batch with its observations as arrays, a row for each."""
        observations = self.observations
        if observations.rows is None:
            return batch
        seen, following = map(observations.stack, (batch.observations, batch.next_observations))
        return replace(batch, observations=seen, next_observations=following)

    def check_experience(self, experience: Experience) -> None:
        """Raise ``InvalidExperience``, which names the value, for a transition that cannot be stored."""
        observations, seen, following = self.observations, experience.observation, experience.next_observation
        if not (
            # What ``check`` does for two short vectors, without a call for each.
            observations.is_short
            and type(seen) is type(following) is _ARRAY
            and seen.dtype is following.dtype is observations.dtype
            and seen.shape == following.shape == observations.shape
            and (total := sum(following.tolist(), sum(seen.tolist()))) - total == 0.0
        ):
            observations.check(seen, "observation")
            observations.check(following, "next_observation")
        action = experience.action
        if type(action) is not int or not self._first <= action <= self._last:
            self.actions.check(action, "action")
        reward: Any = experience.reward
        if type(reward) is not float and not isinstance(reward, (int, float, np.integer, np.floating)):
            raise InvalidExperience(f"reward={shown(reward)} is not a number: give a float")
        if not _FLOAT32_MIN <= reward <= _FLOAT32_MAX:
            raise InvalidExperience(f"reward={reward!r} is not finite as float32: scale or clip rewards")
        if self.mask is not None:
            self.mask.check_experience(experience)
