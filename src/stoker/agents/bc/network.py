"""The network of BC: from observations to the parameters of an action."""

from __future__ import annotations

import torch

from stoker.agents.bc.heads import Head
from stoker.agents.config import AgentConfig
from stoker.agents.encoded import EncodedPerceptron
from stoker.agents.observations import Observations


class Imitator(EncodedPerceptron):
    """Outputs the parameters that its head makes actions of."""

    def __init__(
        self, observations: Observations, head: Head, config: AgentConfig, generator: torch.Generator
    ) -> None:
        super().__init__(observations, head.n_parameters, config, generator)
        self.head: Head = head

    def greedy(self, observations: torch.Tensor) -> torch.Tensor:
        """The likeliest action of each row: its indices, or its numbers, ``[B, size]``."""
        return self.head.likeliest(self.limited(self(observations), observations))

    def described(self, observations: torch.Tensor) -> dict[str, torch.Tensor]:
        """``logits``, -inf for forbidden choices, or the ``mean`` before it is squashed."""
        return self.head.described(self.limited(self(observations), observations))
