"""What agents with action values share, whatever they learn of them: the target network and exploration.

``DQN`` learns the mean of the returns, ``stoker.agents.iqn`` their distribution.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from stoker.agents.actions import DiscreteActions
from stoker.agents.base import AgentSeeds, resolve_device
from stoker.agents.dqn.config import DQNConfig
from stoker.agents.dqn.network import ValueNetwork
from stoker.agents.dqn.policy import QPolicy
from stoker.agents.encoders import chosen_network
from stoker.agents.off_policy import OffPolicyAgent, TargetNetwork, Update
from stoker.agents.spaces import AgentSpaces
from stoker.replay import Batch
from stoker.types import ActorId

if TYPE_CHECKING:
    import gymnasium

ConfigT = TypeVar("ConfigT", bound=DQNConfig)
NetworkT = TypeVar("NetworkT", bound=ValueNetwork)


class QLearningAgent(OffPolicyAgent[ConfigT, NetworkT, QPolicy[Any]]):
    """A network of action values, its target network, Adam and a replay.

    The target network starts as an equal copy. Epsilon is a function of ``total_steps`` alone. A subclass
    names its ``_config_type``, makes its network and writes the gradients of its loss.

    Args:
        observation_space: a Box of any shape, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of
            these.
        action_space: a Discrete space, of any ``start``.
        config: the settings; the defaults when left out.
        seed: at least 0; all generators of the agent derive from it.
        device: where to compute and to keep the replay, as torch names it: ``"cpu"``, ``"cuda:1"``, ...

    Attributes: those of ``BaseAgent``.

    Raises:
        ConfigError: A space, the seed or the device cannot be used.
    """

    action_kinds: tuple[type[DiscreteActions]] = (DiscreteActions,)
    _config_type: type[ConfigT]
    _kept_settings = ("network", "dueling", "normalize_observations")

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        config: ConfigT | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        spaces = AgentSpaces(self.name, observation_space, action_space, self.action_kinds)
        config = chosen_network(self.name, config or self._config_type(), spaces.observations)
        self._actions = spaces.actions
        seeds = AgentSeeds.of(seed)
        network = self._network_for(spaces, config, seeds).to(resolve_device(device))
        super().__init__(spaces, config, seeds, network)
        self._target = TargetNetwork(network, self._weights, config.tau, config.target_update_interval)
        self._parts["target"] = self._target.network

    @abstractmethod
    def _network_for(
        self, spaces: AgentSpaces[DiscreteActions], config: ConfigT, seeds: AgentSeeds
    ) -> NetworkT:
        """A new network with weights from the seeds; ``config.network`` is not ``"auto"``."""

    @abstractmethod
    def _write_gradients(self, batch: Batch, weights: torch.Tensor | None) -> Update:
        """Overwrite the gradients of the network's weights by those of the loss of a batch.

        Without autograd; ``weights`` are those of ``_update``.
        """

    @property
    def exploration_rate(self) -> float:
        """Epsilon, or the temperature of the softmax, as of ``total_steps``."""
        return self.config.exploration_rate_at(self.total_steps)

    @property
    def _published(self) -> dict[str, float]:
        return {self.config.exploration_rate_name: self.exploration_rate}

    def _indices(self, batch: Batch) -> torch.Tensor:
        """The batch's actions, counted from zero, int64 ``[B]``."""
        return batch.actions - self._actions.first if self._actions.first else batch.actions

    @torch.no_grad()
    def _update(self, batch: Batch, weights: torch.Tensor | None) -> Update:
        """One step of Adam; the target network then follows."""
        update = self._write_gradients(batch, weights)
        self._descend(update.metrics["loss"])
        self._target.follow(self.opt_steps)
        return update

    def episode_extras(self, actor_id: ActorId) -> dict[str, float]:
        """``epsilon`` or ``temperature``, and ``loss_mean``, ``loss_std``, ``loss_max`` over the episode.

        Reading them clears the actor's losses: a second call gives the exploration rate alone. Without a
        loss in the episode the loss keys are absent; ``loss_std`` needs two.
        """
        return {**self._published, **super().episode_extras(actor_id)}
