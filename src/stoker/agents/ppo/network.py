"""The networks of PPO, from observations to values and distributions, and the distributions of actions.

Acting is done in numpy and learning in torch, by the same formulas. An action is a row of numbers here: the
index of a discrete one, or a continuous one before it is clipped to its bounds. Each row draws the same count
of random numbers, so that the grouping of rows into calls does not change any action.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stoker.agents.networks import MLP, NatureCNN, ObservationNetwork, as_floats, seeded
from stoker.agents.ppo.config import PPOConfig
from stoker.errors import ConfigError

__all__ = ["BODIES", "ActorCritic", "Categorical", "DiagGaussian", "SharedTrunk", "Towers", "checked_body"]

_POLICY_GAIN = 0.01  # small: at first all actions are about as likely, whatever the observation
_VALUE_GAIN = 1.0

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class Evaluation(NamedTuple):
    """What a distribution says of actions.

    Attributes:
        log_probs: their log-probabilities ``[B]``.
        entropies: of the distributions, ``[B]``, or ``[1]`` if it is the same for all.
        gradients: given the gradients of a loss by each of the log-probabilities ``[B]`` and by each row's
            entropy, those by the parameters ``[B, n_parameters]`` and by ``log_std``, if there is one. Call
            it once.
    """

    log_probs: torch.Tensor
    entropies: torch.Tensor
    gradients: Callable[[torch.Tensor, float], tuple[torch.Tensor, torch.Tensor | None]]


class Categorical:
    """One of ``n`` actions; the parameters per observation are the logits.

    Attributes:
        n_parameters: per observation.
        action_size: how many numbers an action is.
        learned_dtype: of the actions that ``evaluate`` takes.
        log_std: no trained parameter besides the network's outputs.
    """

    action_size = 1
    learned_dtype = np.int64
    log_std = None

    def __init__(self, n: int) -> None:
        self.n_parameters = n

    def draw(
        self, parameters: NDArray[np.float32], generator: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """An action of each row, ``[B, 1]``, and its log-probability, ``[B]``; one random number per row."""
        logits = parameters.astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        cumulated = np.exp(logits).cumsum(axis=1)
        totals = cumulated[:, -1]
        thresholds = generator.random(len(logits)) * totals
        actions = (cumulated <= thresholds[:, None]).sum(axis=1)
        log_probs = logits[np.arange(len(logits)), actions] - np.log(totals)
        return actions[:, None].astype(np.float64), log_probs

    def mode(self, parameters: NDArray[np.float32]) -> NDArray[np.float64]:
        """The likeliest action of each row, ``[B, 1]``."""
        return parameters.argmax(axis=1)[:, None].astype(np.float64)

    def evaluate(self, parameters: torch.Tensor, actions: torch.Tensor) -> Evaluation:
        """For actions int64 ``[B, 1]``."""
        # An action ruled out by a logit of -inf adds nothing to the entropy. All of it is ``[n, B]`` here.
        logits, chosen = parameters.t(), actions.t()
        log_probs = logits.log_softmax(dim=0).clamp_(min=torch.finfo(parameters.dtype).min)
        probs = log_probs.exp()
        entropies = (probs * log_probs).sum(dim=0).neg_()

        def gradients(by_log_prob: torch.Tensor, by_entropy: float) -> tuple[torch.Tensor, None]:
            by_logit = probs * by_log_prob.neg()
            by_logit.scatter_add_(0, chosen, by_log_prob[None])
            if by_entropy:
                by_logit.sub_(probs * (log_probs + entropies), alpha=by_entropy)
            return by_logit.t(), None

        return Evaluation(log_probs.gather(0, chosen)[0], entropies, gradients)


class DiagGaussian:
    """An independent normal distribution for each of ``size`` numbers; the parameters are the means.

    ``log_std``, trained with the network, holds the logarithms of the standard deviations ``[size]``, which
    do not depend on the state.
    """

    learned_dtype = np.float32

    def __init__(self, size: int, log_std_init: float) -> None:
        self.n_parameters = self.action_size = size
        self.log_std = nn.Parameter(torch.full((size,), float(log_std_init)))

    def draw(
        self, parameters: NDArray[np.float32], generator: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Actions ``[B, size]`` that are float32 numbers, and the logarithms of their densities, ``[B]``."""
        means = parameters.astype(np.float64)
        log_stds = self.log_std.detach().cpu().numpy().astype(np.float64)
        stds = np.exp(log_stds)
        # Rounded before their densities are computed: the learner sees float32.
        noise = generator.standard_normal(means.shape)
        actions = (means + stds * noise).astype(np.float32).astype(np.float64)
        deviations = (actions - means) / stds
        log_probs = (-0.5 * deviations**2 - log_stds - _LOG_SQRT_2PI).sum(axis=1)
        return actions, log_probs

    def mode(self, parameters: NDArray[np.float32]) -> NDArray[np.float64]:
        """The likeliest actions: the means, ``[B, size]``."""
        return parameters.astype(np.float64)

    def evaluate(self, parameters: torch.Tensor, actions: torch.Tensor) -> Evaluation:
        """For actions float32 ``[B, size]``; the probabilities are densities, the entropy is differential."""
        precisions = (-self.log_std).exp()
        deviations = (actions - parameters).mul_(precisions)
        squares = deviations.square()
        log_probs = squares.sum(dim=1).mul_(-0.5).sub_((self.log_std + _LOG_SQRT_2PI).sum())
        entropy = (self.log_std + (0.5 + _LOG_SQRT_2PI)).sum(dim=0, keepdim=True)

        def gradients(by_log_prob: torch.Tensor, by_entropy: float) -> tuple[torch.Tensor, torch.Tensor]:
            by_mean = deviations.mul_(precisions).mul_(by_log_prob[:, None])
            by_log_std = by_log_prob @ squares.sub_(1.0)
            return by_mean, by_log_std.add_(by_entropy * len(actions))

        return Evaluation(log_probs, entropy, gradients)


Distribution: TypeAlias = Categorical | DiagGaussian


class Towers(nn.Module):
    """One perceptron for the policy and one for the value, with nothing in common; inputs are flattened."""

    def __init__(
        self, shape: tuple[int, ...], n_parameters: int, config: PPOConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        self._n_inputs = math.prod(shape)
        sizes = (self._n_inputs, *config.hidden_sizes)
        self.policy = MLP((*sizes, n_parameters), config.activation, generator, _POLICY_GAIN)
        self.value = MLP((*sizes, 1), config.activation, generator, _VALUE_GAIN)

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Parameters ``[B, n_parameters]`` and values ``[B]`` of observations ``[B, ...]``."""
        inputs = as_floats(observations).reshape(-1, self._n_inputs)
        return self.policy(inputs), self.value(inputs).squeeze(1)


class SharedTrunk(nn.Module):
    """Convolutions that policy and value share (Schulman et al. 2017, section 5), and a layer for each."""

    def __init__(
        self, shape: tuple[int, ...], n_parameters: int, config: PPOConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.trunk = NatureCNN(shape, generator, is_orthogonal=True)
        n_features = NatureCNN.n_features
        self.policy = seeded(nn.Linear(n_features, n_parameters, device="meta"), generator, _POLICY_GAIN)
        self.value = seeded(nn.Linear(n_features, 1, device="meta"), generator, _VALUE_GAIN)

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Parameters ``[B, n_parameters]`` and values ``[B]`` of images ``[B, *image_shape]``."""
        features = self.trunk(as_floats(observations))
        return self.policy(features), self.value(features).squeeze(1)


BODIES = {"mlp": Towers, "nature_cnn": SharedTrunk}
"""The bodies by the setting ``network``."""


class ActorCritic(ObservationNetwork):
    """A body, the standard deviation of continuous actions, and the moments of observations.

    ``body`` maps observations to the parameters of ``distribution`` and to values. ``log_std`` is the
    distribution's.
    """

    def __init__(
        self,
        body: nn.Module,
        observation_shape: tuple[int, ...],
        distribution: Distribution,
        config: PPOConfig,
    ) -> None:
        super().__init__(observation_shape, normalizes=config.normalize_observations)
        self.body = body
        self.distribution: Distribution = distribution
        self.log_std = distribution.log_std

    @property
    def perceptrons(self) -> tuple[MLP, ...]:
        """Of the parameters and of the values, if the body is ``Towers``."""
        return (self.body.policy, self.body.value) if isinstance(self.body, Towers) else ()

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Parameters ``[B, n_parameters]`` and values ``[B]`` of observations ``[B, *observation_shape]``."""
        return self.body(self.prepared(observations))


def checked_body(body: Any, observations: torch.Tensor, distribution: Distribution) -> nn.Module:
    """A user's own body, tried out on some observations; ``ConfigError`` if PPO cannot train it."""
    n_rows = len(observations)
    parameters, values = f"float32 [{n_rows}, {distribution.n_parameters}]", f"float32 [{n_rows}]"
    asked = (
        f"it takes observations {_described(observations)} and returns a tuple of the distribution's "
        f"parameters {parameters} and of values {values}"
    )
    if not isinstance(body, nn.Module):
        raise ConfigError(f"network is a {type(body).__name__}, not a torch.nn.Module: {asked}")
    if problem := _problem_with(body):
        raise ConfigError(f"network, a {type(body).__name__}, has {problem}")
    try:
        with torch.no_grad():
            given: Any = body.to(observations.device)(observations)
    except Exception as error:
        raise ConfigError(f"network failed: {type(error).__name__}: {error}; {asked}") from error
    parts = list(map(_described, cast("tuple[Any, ...]", given))) if isinstance(given, tuple) else []
    if parts != [parameters, values]:
        raise ConfigError(f"network returned {_described(given)}: {asked}")
    return body


def _problem_with(body: nn.Module) -> str:
    """The part of a module that cannot be trained, and the way out; "": all of it can be."""
    parameters = list(body.parameters())
    dtypes = {str(each.dtype) for each in parameters}
    random_layers = [
        type(each).__name__
        for each in body.modules()
        if isinstance(each, _RANDOM_LAYERS) and getattr(each, "p", 1.0) > 0
    ]
    if any(isinstance(each, nn.UninitializedParameter) for each in parameters):
        return "lazy layers, which have no weights yet: call it once with observations before"
    if any(each.untyped_storage().nbytes() > each.nbytes for each in parameters):
        return "weights in memory that others use, such as another agent: give it copy.deepcopy(network)"
    if dtypes != {"torch.float32"}:
        return f"weights of {', '.join(sorted(dtypes)) or 'none'}: give it weights, all of torch.float32"
    if not any(each.requires_grad for each in parameters):
        return "only weights with requires_grad=False: call requires_grad_() on some of its layers"
    if random_layers:
        return (
            f"a {random_layers[0]}: its output depends on chance or on the batch; use LayerNorm, or nothing"
        )
    return ""


_RANDOM_LAYERS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm,
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
)  # fmt: skip


def _described(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, tuple | list):
        parts = cast("Sequence[Any]", value)
        return f"a {type(parts).__name__} of {', '.join(map(_described, parts)) or 'nothing'}"
    return f"a {type(value).__name__}"
