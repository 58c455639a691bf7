"""DQN (Mnih et al. 2015) and its improvements, each of them a setting.

Double targets (van Hasselt et al. 2016), a dueling network (Wang et al. 2016), prioritized replay (Schaul et
al. 2016) and n-step targets, as Hessel et al. (2018, "Rainbow") put them together.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import torch

from stoker.agents.config import chosen_network
from stoker.agents.dqn.config import DQNConfig
from stoker.agents.dqn.losses import td_loss, td_targets
from stoker.agents.dqn.network import QNetwork, make_q_network
from stoker.agents.dqn.policy import DQNPolicy
from stoker.agents.off_policy import OffPolicyAgent, TargetNetwork, Update
from stoker.agents.seeds import AgentSeeds, resolve_device
from stoker.agents.spaces import AgentSpaces, DiscreteActions
from stoker.errors import ConfigError
from stoker.replay import Batch
from stoker.types import ActorId

__all__ = ["DQN"]


class DQN(OffPolicyAgent[DQNConfig, QNetwork, DQNPolicy]):
    """A Q-network, its target network, Adam and a replay.

    The target network starts as an equal copy. Epsilon is a function of ``total_steps`` alone.

    Args:
        observation_space: a Box of any shape; an image for the convolutional network.
        action_space: a Discrete space, of any ``start``.
        config: the settings; the defaults when left out.
        seed: at least 0; all generators of the agent derive from it.
        device: where to compute and to keep the replay, as torch names it: ``"cpu"``, ``"cuda:1"``, ...

    Attributes: those of ``BaseAgent``.

    Raises:
        ConfigError: A space, the seed or the device cannot be used.
    """

    name = "DQN"
    _kept_settings = ("network", "dueling", "normalize_observations")

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        config: DQNConfig | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        spaces = AgentSpaces("DQN", observation_space, action_space, [DiscreteActions])
        shape, dtype = spaces.observations.shape, spaces.observations.dtype.name
        config = chosen_network("DQN", config or DQNConfig(), shape, dtype)
        if config.network == "nature_cnn" and dtype != "uint8":
            raise ConfigError(
                f"network='nature_cnn' takes uint8 images, and observations are {dtype} {list(shape)}: use "
                "network='mlp'"
            )
        self._actions = spaces.actions
        seeds = AgentSeeds.of(seed)
        network = make_q_network(shape, self._actions.n, config, seeds.for_weights())
        network = network.to(resolve_device(device))
        super().__init__(spaces, config, seeds, network, DQNPolicy)
        self._target = TargetNetwork(network, self._weights, config.tau, config.target_update_interval)
        self._parts["target"] = self._target.network

    @property
    def exploration_rate(self) -> float:
        """Epsilon, or the temperature of the softmax, as of ``total_steps``."""
        return self.config.exploration_rate_at(self.total_steps)

    @property
    def _published(self) -> dict[str, float]:
        return {self.config.exploration_rate_name: self.exploration_rate}

    def _update(self, batch: Batch, weights: torch.Tensor | None) -> Update:
        """Learn from a batch; metrics ``loss`` (Huber, weighted mean) and ``q_mean`` (of its actions)."""
        config, network = self.config, self._network
        actions = batch.actions - self._actions.first if self._actions.first else batch.actions
        with torch.no_grad():
            targets = td_targets(
                network.forward, self._target.network.forward, batch, config.gamma, double=config.double
            )
            activations = network.activations(batch.observations)
            found = td_loss(activations[-1], actions, targets, weights)
            network.backward(activations, found.gradient)
            loss = found.loss.item()
            norm = 0.0 if config.max_grad_norm is None else float(self._optimizer.clip())
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise self._diverged(loss, norm or float(self._optimizer.clip()))
            self._optimizer.step(config.learning_rate_at(self.total_steps))
            self.opt_steps += 1
            self._target.follow(self.opt_steps)
        return Update(found.errors, {"loss": loss, "q_mean": found.q_mean.item()})

    def episode_extras(self, actor_id: ActorId) -> dict[str, float]:
        """``epsilon`` or ``temperature``, and ``loss_mean``, ``loss_std``, ``loss_max`` over the episode.

        Reading them clears the actor's losses: a second call gives the exploration rate alone. Without a
        loss in the episode the loss keys are absent; ``loss_std`` needs two.
        """
        return {**self._published, **super().episode_extras(actor_id)}
