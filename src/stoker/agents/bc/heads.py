"""What the outputs of a cloning network mean: the logits of choices, or numbers within bounds.

Each kind of action has its loss, with the gradient written out, and says which action is the likeliest.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from stoker.agents.actions import Actions, BoxActions
from stoker.agents.ppo.distributions import Categorical, MultiCategorical
from stoker.agents.squashing import ActionScale


class CloningLoss(NamedTuple):
    """The loss of a batch.

    Attributes:
        of_rows: each transition's loss, float32 ``[B]``; their mean is minimized.
        gradient: of the mean by the outputs, float32 ``[B, n_parameters]``.
        metrics: ``loss``, and of choices ``entropy``.
    """

    of_rows: torch.Tensor
    gradient: torch.Tensor
    metrics: dict[str, float]


class Bounded:
    """An action of numbers within bounds: the outputs, squashed by tanh and scaled.

    It has the interface of PPO's distributions, and no randomness: the draw is the mode.

    Attributes:
        scale: between -1..1 and the bounds.
        n_parameters: as many as the action has numbers.
    """

    def __init__(self, scale: ActionScale) -> None:
        self.scale = scale
        self.n_parameters: int = scale.size

    def draw(
        self, parameters: NDArray[np.float32], generator: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The likeliest actions ``[B, size]``, and 0 for each; the generator is not used."""
        return self.mode(parameters), np.zeros(len(parameters))

    def mode(self, parameters: NDArray[np.float32]) -> NDArray[np.float64]:
        """The actions ``[B, size]``."""
        return self.scale.to_env(np.tanh(parameters.astype(np.float64)))

    def likeliest(self, parameters: torch.Tensor) -> torch.Tensor:
        """As ``mode``, of a tensor, in the dtype of the action space."""
        return self.scale.tensor_to_env(parameters.tanh())

    def described(self, parameters: torch.Tensor) -> dict[str, torch.Tensor]:
        """The ``mean`` of each number before it is squashed, float32 ``[B, size]``."""
        return {"mean": parameters}


Head: TypeAlias = Categorical | MultiCategorical | Bounded


def head_of(agent: str, actions: Actions) -> Head:
    """The head for a kind of actions; ``ConfigError`` for numbers without finite bounds."""
    if isinstance(actions, BoxActions):
        return Bounded(ActionScale(agent, actions))
    return Categorical(*actions.counts) if len(actions.counts) == 1 else MultiCategorical(*actions.counts)


def cloning_loss(head: Head, outputs: torch.Tensor, actions: torch.Tensor) -> CloningLoss:
    """The loss of a batch.

    Of choices it is the cross-entropy, the sum over an action's numbers; ``entropy`` is that of the policy.
    Of numbers within bounds it is the mean squared error of the squashed ones, which are from -1 to 1.

    Args:
        head: of the network.
        outputs: float32 ``[B, n_parameters]``, without gradient; -inf for forbidden choices.
        actions: of the data: int64 ``[B, size]``, counted from 0, or squashed ones, float32 ``[B, size]``.
    """
    n_rows = len(outputs)
    if isinstance(head, Bounded):
        squashed = outputs.tanh()
        errors = squashed - actions
        slopes = errors * (2.0 / errors.numel())
        of_rows = (slopes * errors).sum(dim=1).mul_(0.5 * n_rows)
        gradient = torch.addcmul(slopes, slopes, squashed.square_(), value=-1)
        return CloningLoss(of_rows, gradient, {"loss": float(of_rows.mean())})
    found = head.evaluate(outputs, actions)
    of_rows = found.log_probs.neg()
    gradient, _ = found.gradients(torch.full_like(of_rows, -1 / n_rows), 0.0)
    metrics = {"loss": float(of_rows.mean()), "entropy": float(found.entropies.mean())}
    return CloningLoss(of_rows, gradient, metrics)
