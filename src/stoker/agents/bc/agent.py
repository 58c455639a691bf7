"""BC: behavior cloning (Pomerleau 1991, "Efficient Training of Neural Networks for Autonomous Navigation").

It learns to act as the data do, by supervised learning: it sees observations and actions alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from stoker.agents.actions import Actions, BoxActions, DiscreteActions, MultiDiscreteActions
from stoker.agents.base import AgentSeeds, resolve_device
from stoker.agents.bc.config import BCConfig
from stoker.agents.bc.heads import Bounded, cloning_loss, head_of
from stoker.agents.bc.network import Imitator
from stoker.agents.bc.policy import BCPolicy
from stoker.agents.encoded import Features
from stoker.agents.encoders import chosen_network
from stoker.agents.off_policy import OffPolicyAgent, Update
from stoker.agents.passes import StackedPasses
from stoker.agents.spaces import AgentSpaces
from stoker.replay import Batch

if TYPE_CHECKING:
    import gymnasium


class BC(OffPolicyAgent[BCConfig, Imitator, BCPolicy]):
    """Behavior cloning: a network, Adam and a replay that holds the data.

    Args:
        observation_space: any of a fixed size, see ``AgentSpaces``.
        action_space: Discrete, MultiDiscrete, MultiBinary, or a Box of floats with finite bounds.
        config: the settings; the defaults when left out.
        seed: at least 0; all generators of the agent derive from it.
        device: where to compute and to keep the replay, as torch names it: ``"cpu"``, ``"cuda:1"``, ...

    Attributes: those of ``BaseAgent``.

    Raises:
        ConfigError: A space, the seed or the device cannot be used.
    """

    name = "BC"
    action_kinds: tuple[type[Actions], ...] = (DiscreteActions, MultiDiscreteActions, BoxActions)
    _policy_type = BCPolicy

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        config: BCConfig | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        spaces = AgentSpaces(self.name, observation_space, action_space, self.action_kinds)
        config = chosen_network(self.name, config or BCConfig(), spaces.observations)
        head, seeds = head_of(self.name, spaces.actions), AgentSeeds.of(seed)
        network = Imitator(spaces.observations, head, config, seeds.for_weights())
        super().__init__(spaces, config, seeds, network.to(resolve_device(device)))
        self._passes = StackedPasses((network.mlp,), self._weights)
        self._features = Features(network.encoder)

    @torch.no_grad()
    def _update(self, batch: Batch, weights: torch.Tensor | None) -> Update:
        """One step of Adam; metrics ``loss`` and, of choices, ``entropy``."""
        network = self._network
        [outputs] = self._passes.forward(self._features.tracked(network.inputs(batch.observations)))
        outputs = network.limited(outputs, batch.observations)
        found = cloning_loss(network.head, outputs, self._learned(batch.actions))
        self._passes.backward([found.gradient])
        self._features.backward(self._passes)
        self._descend(found.metrics["loss"])
        return Update(found.of_rows, found.metrics)

    def _learned(self, actions: torch.Tensor) -> torch.Tensor:
        """Actions of the data as ``cloning_loss`` takes them."""
        head, kind = self._network.head, self._spaces.actions
        return head.scale.from_env(actions) if isinstance(head, Bounded) else kind.tensor_indices(actions)
