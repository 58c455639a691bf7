"""The acting side of PPO: draws from the policy's distribution, and records what it drew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from stoker.agents.base import NetworkPolicy, seeded_generator
from stoker.agents.networks import NumpyPass, predict
from stoker.agents.ppo.exploration import ActorNoise, StateDependentGaussian
from stoker.agents.ppo.network import ActorCritic
from stoker.agents.spaces import AgentSpaces
from stoker.types import ActMode, ActorId

LOG_PROB, VALUE, VERSION, ACTION = range(4)
"""The places in the policy extras of an action; the action itself takes the rest."""


class PPOPolicy(NetworkPolicy[ActorCritic]):
    """Draws from the policy's distribution in EXPLORE, and takes the likeliest action in EXPLOIT.

    EXPLORE gives extras for each action: float64 ``[log-probability, value, version, *action]``, the action
    being the indices of a discrete one, or a continuous one before it was clipped to its bounds, of which the
    log-probability is. EXPLOIT draws no random number and gives no extras. The agent publishes the
    ``version``: the updates behind the weights. See ``NetworkPolicy``.
    """

    def act(self, observations: Sequence[Any], mode: ActMode) -> tuple[Any, Any]:
        """One action per checked observation, in the same order, and extras for each, or None with EXPLOIT.

        Actions are plain ints for a Discrete space, else arrays ``[*action_shape]``; for observations in
        an array they are one, too.
        """
        return self._act(observations, mode, None)

    def _act(
        self, observations: Sequence[Any], mode: ActMode, actor_ids: Sequence[ActorId] | None
    ) -> tuple[Any, Any]:
        actions, distribution = self._spaces.actions, self.network.distribution
        sent = actions.column if isinstance(observations, np.ndarray) else actions.for_env
        rows = self._spaces.observations.stack(observations)
        if mode is ActMode.EXPLOIT:
            parameters, _ = self._forward(rows, with_values=False)
            return sent(distribution.mode(parameters)), None
        parameters, values = self._forward(rows)
        chosen, log_probs = self._draw(parameters, actor_ids)
        extras = np.empty((len(rows), ACTION + distribution.action_size))
        extras[:, LOG_PROB] = log_probs
        extras[:, VALUE] = values
        extras[:, VERSION] = self.published["version"]
        extras[:, ACTION:] = chosen
        return sent(chosen), extras

    def _draw(
        self, parameters: NDArray[np.float32], actor_ids: Sequence[ActorId] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """An action of each row and its log-probability, for these actors if they are known."""
        return self.network.distribution.draw(parameters, self._explore)

    def _forward(
        self, rows: NDArray[Any], *, with_values: bool = True
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Parameters ``[B, n_parameters]``, -inf of forbidden choices, and, if asked for, values ``[B]``."""
        values: NDArray[np.float32] | None
        if self._small is None or len(rows) > self._small.most_rows:
            parameters, values = predict(self.network, rows, self._device)
        else:
            inputs = self._small.inputs(rows)
            values = self._small.outputs(inputs, 1)[:, 0] if with_values else None
            parameters = self._parameters(self._small, inputs)
        if (mask := self._spaces.mask) is not None:
            parameters = np.where(mask.allowed(rows), parameters, np.float32(-np.inf))
        return parameters, values

    def _parameters(self, small: NumpyPass, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        return small.outputs(inputs)


class StateDependentPolicy(PPOPolicy):
    """Explores with the noise of each actor in ``act_for``, and with one of its own for each row in ``act``.

    See ``ActsForActors``. Copies that an agent makes share the noise of their actors as they do the
    generator; a ``fork`` has its own.

    Args:
        network: its distribution is a ``StateDependentGaussian``.
        spaces, explore, published: as for ``NetworkPolicy``.
        noise: of its actors, ``[n_features, size]`` each.
    """

    def __init__(
        self,
        network: ActorCritic,
        spaces: AgentSpaces[Any],
        explore: np.random.Generator,
        published: Mapping[str, float],
        noise: ActorNoise,
    ) -> None:
        super().__init__(network, spaces, explore, published)
        self._noise = noise

    def act_for(
        self, observations: Sequence[Any], mode: ActMode, actor_ids: Sequence[ActorId]
    ) -> tuple[Any, Any]:
        """As ``act``, with the noise of these actors."""
        return self._act(observations, mode, actor_ids)

    def end_episode(self, actor_id: ActorId) -> None:
        """Let the actor's next episode begin with new noise."""
        self._noise.end_episode(actor_id)

    def fork(self, seed: int) -> Self:
        """An independent copy on the CPU, whose exploration is determined by the seed."""
        arguments: tuple[Any, ...] = (*super()._on_cpu(seeded_generator(seed)), self._noise.fork(seed))
        return type(self)(*arguments)

    def _on_cpu(self, explore: np.random.Generator) -> tuple[Any, ...]:
        return *super()._on_cpu(explore), self._noise

    def _draw(
        self, parameters: NDArray[np.float32], actor_ids: Sequence[ActorId] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        distribution = self.network.distribution
        if actor_ids is None or not isinstance(distribution, StateDependentGaussian):
            return super()._draw(parameters, actor_ids)
        return distribution.draw_with(parameters, self._noise.of(actor_ids))

    def _parameters(self, small: NumpyPass, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.concatenate(small.with_features(inputs), axis=1)
