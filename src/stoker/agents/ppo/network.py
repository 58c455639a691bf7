"""The networks of PPO, from observations to values and to the parameters of the actions' distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import torch
from torch import nn

from stoker.agents.actions import Actions, BoxActions
from stoker.agents.encoders import Encoder
from stoker.agents.networks import MLP, ObservationNetwork, as_floats, seeded
from stoker.agents.observations import Observations, PackedObservations
from stoker.agents.ppo.config import PPOConfig
from stoker.agents.ppo.distributions import Categorical, DiagGaussian, MultiCategorical
from stoker.agents.ppo.exploration import StateDependentGaussian
from stoker.errors import ConfigError

_POLICY_GAIN = 0.01  # small: at first all actions are about as likely, whatever the observation
_VALUE_GAIN = 1.0

_LOG_STD_INIT, _LOG_STD_INIT_OF_FEATURES = 0.0, -2.0

Distribution: TypeAlias = Categorical | MultiCategorical | DiagGaussian | StateDependentGaussian


class Towers(nn.Module):
    """One perceptron for the policy and one for the value, with nothing in common; inputs are flattened.

    ``shows_features``: the features that the policy's last layer sees follow its outputs, without a gradient.
    """

    def __init__(
        self, observations: Observations, n_parameters: int, config: PPOConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.shows_features: bool = config.state_dependent_exploration
        self._n_inputs = observations.n_inputs
        sizes = (self._n_inputs, *config.hidden_sizes)
        self.policy: MLP = MLP((*sizes, n_parameters), config.activation, generator, _POLICY_GAIN)
        self.value: MLP = MLP((*sizes, 1), config.activation, generator, _VALUE_GAIN)

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Parameters ``[B, n_parameters]`` and values ``[B]`` of observations ``[B, ...]``."""
        inputs = as_floats(observations).reshape(-1, self._n_inputs)
        parameters, features = self.policy.with_features(inputs)
        if self.shows_features:
            parameters = torch.cat((parameters, features.detach()), dim=1)
        return parameters, self.value(inputs).squeeze(1)


class SharedTrunk(nn.Module):
    """An encoder that policy and value share (Schulman et al. 2017, section 5), and a layer for each.

    ``shows_features`` as for ``Towers``.
    """

    def __init__(
        self, observations: Observations, n_parameters: int, config: PPOConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.shows_features: bool = config.state_dependent_exploration
        self.trunk: Encoder = Encoder(observations, config, config.activation, generator, is_orthogonal=True)
        n_features = self.trunk.n_features
        self.policy: nn.Linear = seeded(
            nn.Linear(n_features, n_parameters, device="meta"), generator, _POLICY_GAIN
        )
        self.value: nn.Linear = seeded(nn.Linear(n_features, 1, device="meta"), generator, _VALUE_GAIN)

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Parameters ``[B, n_parameters]`` and values ``[B]`` of observations ``[B, ...]``."""
        features = self.trunk(observations)
        parameters = self.policy(features)
        if self.shows_features:
            parameters = torch.cat((parameters, features.detach()), dim=1)
        return parameters, self.value(features).squeeze(1)


class PartsBody(nn.Module):
    """A user's body that takes the parts of packed observations by name."""

    def __init__(self, body: nn.Module, observations: PackedObservations) -> None:
        super().__init__()
        self.body = body
        self._observations = observations

    def forward(self, rows: torch.Tensor) -> Any:
        """What the body returns."""
        return self.body(self._observations.named(rows))


BODIES: dict[str, type[Towers | SharedTrunk]] = {"mlp": Towers, "cnn": SharedTrunk}
"""The bodies by the setting ``network``."""


def n_features_of(config: PPOConfig, observations: Observations) -> int:
    """How many features the policy's last layer sees, in the body for these observations."""
    if config.network == "cnn":
        return Encoder.n_features_of(observations, config)
    return config.hidden_sizes[-1] if config.hidden_sizes else observations.n_inputs


def distribution_of(actions: Actions, config: PPOConfig, n_features: int | None) -> Distribution:
    """The distribution that PPO draws such actions from.

    Args:
        actions: the kind of actions.
        config: the settings.
        n_features: what the network computes means from; None: that is not known.

    Raises:
        ConfigError: ``state_dependent_exploration`` is not for such actions, or not for such a network.
    """
    if config.state_dependent_exploration:
        if not isinstance(actions, BoxActions):
            raise ConfigError(
                "state_dependent_exploration=True adds noise to the actions of a Box; PPO draws those of "
                "other spaces by their probabilities: leave it out"
            )
        if n_features is None:
            raise ConfigError(
                "state_dependent_exploration=True needs the features that actions are computed from, which "
                "stoker knows of its own networks only: leave it out, or do not give a network"
            )
        given = config.log_std_init
        initial = _LOG_STD_INIT_OF_FEATURES if given is None else given
        return StateDependentGaussian(actions.size, n_features, initial)
    if isinstance(actions, BoxActions):
        return DiagGaussian(actions.size, config.log_std_init or _LOG_STD_INIT)
    return Categorical(*actions.counts) if len(actions.counts) == 1 else MultiCategorical(*actions.counts)


class ActorCritic(ObservationNetwork):
    """A body, the standard deviation of continuous actions, and the moments of observations.

    ``body`` maps observations to the parameters of ``distribution`` and to values. ``log_std`` is the
    distribution's.
    """

    def __init__(
        self,
        body: nn.Module,
        observations: Observations,
        distribution: Distribution,
        config: PPOConfig,
    ) -> None:
        is_flat = isinstance(body, Towers)
        super().__init__(observations, normalizes=config.normalize_observations, is_flat=is_flat)
        self.body = body
        self.distribution: Distribution = distribution
        self.log_std: nn.Parameter | None = distribution.log_std

    @property
    def perceptrons(self) -> tuple[MLP, ...]:
        """Of the parameters and of the values, if the body is ``Towers``."""
        return (self.body.policy, self.body.value) if isinstance(self.body, Towers) else ()

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Parameters and values ``[B]`` of observations ``[B, *observation_shape]``.

        Parameters are ``[B, n_parameters]``, with features behind them if the distribution is one that needs
        these.
        """
        return self.body(self.prepared(observations))

    def greedy(self, observations: torch.Tensor) -> torch.Tensor:
        """The likeliest action of each row: its index ``[B, 1]``, or its numbers ``[B, size]``."""
        return self.distribution.likeliest(self.limited(self(observations)[0], observations))

    def described(self, observations: torch.Tensor) -> dict[str, torch.Tensor]:
        """The distribution of the actions of each row, by the names of its parameters.

        The logits of choices that an action mask forbids are -inf.
        """
        return self.distribution.described(self.limited(self(observations)[0], observations))


def checked_body(
    body: Any, observations: torch.Tensor, distribution: Distribution, packed: PackedObservations | None
) -> nn.Module:
    """A user's own body, tried out on some observations; ``ConfigError`` if PPO cannot train it.

    Args:
        body: the module.
        observations: a few, as the agent keeps them.
        distribution: of actions.
        packed: gives the body the parts of observations by name; None: the body gets arrays.
    """
    n_rows = len(observations)
    seen = observations if packed is None else packed.named(observations)
    parameters, values = f"float32 [{n_rows}, {distribution.n_parameters}]", f"float32 [{n_rows}]"
    asked = (
        f"it takes observations {_described(seen)} and returns a tuple of the distribution's "
        f"parameters {parameters} and of values {values}"
    )
    if not isinstance(body, nn.Module):
        raise ConfigError(f"network is a {type(body).__name__}, not a torch.nn.Module: {asked}")
    if problem := _problem_with(body):
        raise ConfigError(f"network, a {type(body).__name__}, has {problem}")
    try:
        with torch.no_grad():
            given: Any = body.to(observations.device)(seen)
    except Exception as error:
        raise ConfigError(f"network failed: {type(error).__name__}: {error}; {asked}") from error
    parts = list(map(_described, cast("tuple[Any, ...]", given))) if isinstance(given, tuple) else []
    if parts != [parameters, values]:
        raise ConfigError(f"network returned {_described(given)}: {asked}")
    return body if packed is None else PartsBody(body, packed)


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
    if isinstance(value, dict):
        parts = cast("dict[str, Any]", value).items()
        return f"a dict of {', '.join(f'{name!r}: {_described(part)}' for name, part in parts)}"
    if isinstance(value, tuple | list):
        parts = cast("Sequence[Any]", value)
        return f"a {type(parts).__name__} of {', '.join(map(_described, parts)) or 'nothing'}"
    return f"a {type(value).__name__}"
