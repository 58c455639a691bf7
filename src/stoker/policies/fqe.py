"""Fitted Q evaluation: what a policy is worth, estimated from a data set without playing it.

It is Algorithm 3 of Le et al. (2019), "Batch Policy Learning under Constraints", which Voloshin et al. (2021)
found the most reliable of such estimators, with neural networks and a target network; the interval is that of
Hao et al. (2021), "Bootstrapping Fitted Q-Evaluation for Off-Policy Inference". All data are in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gymnasium
import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stoker.agents.base import AgentSeeds, resolve_device, seeded_generator
from stoker.agents.config import OffPolicyConfig
from stoker.agents.encoded import Features, encoder_of
from stoker.agents.encoders import chosen_network
from stoker.agents.networks import MLP, ObservationNetwork
from stoker.agents.observations import Observations, observations_of
from stoker.agents.off_policy import TargetNetwork
from stoker.agents.packing import PackedAdam, PackedWeights
from stoker.agents.passes import StackedPasses
from stoker.data import Dataset
from stoker.errors import ConfigError, InvalidExperience, TrainingDiverged
from stoker.journal.blocks import mapped
from stoker.policies.exported import LoadedPolicy
from stoker.protocol import Spaces
from stoker.replay.layout import from_numpy
from stoker.stats.intervals import t_quantile
from stoker.types import EpisodeStatus

_MEMBERS = 10
_SETTINGS = OffPolicyConfig(learning_rate=1e-3, batch_size=128, normalize_observations=True, tau=0.02)
_LAST_RATE = 0.05
"""The share of the learning rate at the end, to which it falls linearly."""
_WATCHED = 500
_TINY = 1e-6

Watch = Callable[[int, float], None]


class PolicyValue(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy is worth by a data set: discounted returns from the first observations of its episodes.

    Attributes:
        value: the estimate, a mean over the episodes.
        low: the lower end of its 95 % interval, which says how much it depends on these episodes and on
            chance in learning; not whether the data show what the policy would see.
        high: the upper end.
        gamma: the discount; with 1 returns are undiscounted.
        data_value: the mean discounted return of the episodes themselves, as far as they were recorded.
        data_return: their mean undiscounted return.
        n_episodes: how many there are.
        n_steps: how many transitions.
        n_updates: how many gradient steps were done.
    """

    value: float
    low: float
    high: float
    gamma: float
    data_value: float
    data_return: float
    n_episodes: int
    n_steps: int
    n_updates: int


def fitted_q_evaluation(
    policy: LoadedPolicy,
    dataset: Dataset,
    *,
    gamma: float = 0.99,
    n_updates: int = 20_000,
    seed: int = 0,
    device: str = "cpu",
    watch: Watch | None = None,
) -> PolicyValue:
    """Estimate the value of a greedy policy. Blocks; the same arguments give the same result.

    Ten networks learn at once, each from its own resample of the episodes (n of n, with replacement), which
    weighs their transitions. The estimate is the mean of their values, and its interval is Student's, by
    their standard deviation. A truncated episode, or one whose recording broke off, would have gone on.

    Args:
        policy: of ``load_policy``.
        dataset: episodes of the policy's environment, whoever played them.
        gamma: the discount, at most 1.
        n_updates: gradient steps; too few of them underestimate returns that are far away.
        seed: of the networks, the resamples and the batches.
        device: where to compute.
        watch: called now and then with the updates done and the present estimate.

    Raises:
        ConfigError: The data set is empty or does not fit the policy, or ``gamma`` is 1 and some of its
            episodes did not terminate: their returns may have no end.
        InvalidDataset: A value of the data set is invalid.
        TrainingDiverged: The values are not finite.
    """
    if not 0.0 <= gamma <= 1.0 or n_updates < 1:
        raise ConfigError(f"gamma={gamma}, n_updates={n_updates}: give 0 to 1, and at least 1")
    columns = _Columns(policy, dataset, gamma)
    fitting = _Fitting(columns, gamma, n_updates, seed, device)
    for done in range(n_updates):
        fitting.update(1.0 - (1.0 - _LAST_RATE) * done / n_updates)
        if watch is not None and (done + 1) % _WATCHED == 0:
            watch(done + 1, float(fitting.values().mean()))
    values = fitting.values()
    value, half = float(values.mean()), t_quantile(_MEMBERS - 1) * float(values.std(ddof=1))
    return PolicyValue(
        value=value,
        low=value - half,
        high=value + half,
        gamma=gamma,
        data_value=float(np.mean(columns.discounted)),
        data_return=float(np.mean(columns.returns)),
        n_episodes=len(columns.returns),
        n_steps=len(columns.rewards),
        n_updates=n_updates,
    )


class _Columns:
    """The transitions of a data set, with the actions that the policy takes behind them.

    Attributes:
        space: of pairs of an observation and an action.
        pairs: those of the data, packed, ``[N, width]``.
        following: the next observations and the policy's actions there.
        first: the first observations of the episodes and the policy's actions there, ``[E, width]``.
        rewards: float64 ``[N]``.
        masks: 0.0 where the episode terminated, else 1.0, ``[N]``.
        episodes: the number of each transition's episode, ``[N]``.
        returns: of each episode, ``[E]``.
        discounted: the same, discounted.
        scale: the standard deviation of discounted rewards to go, in which values are learned.
    """

    def __init__(self, policy: LoadedPolicy, dataset: Dataset, gamma: float) -> None:
        spaces = msgspec.convert(policy.description["spaces"], Spaces).gymnasium()
        both = gymnasium.spaces.Dict(dict(zip(("observation", "action"), spaces, strict=True)))
        self.space: Observations = observations_of("FQE", both)
        pairs: list[NDArray[Any]] = []
        following: list[NDArray[Any]] = []
        first: list[NDArray[Any]] = []
        rewards: list[NDArray[np.float64]] = []
        masks: list[NDArray[np.float64]] = []
        to_go: list[NDArray[np.float64]] = []
        self.returns: list[float] = []
        self.discounted: list[float] = []
        endless = 0
        for number, episode in enumerate(dataset.episodes()):
            try:
                chosen = np.asarray(policy.act(episode.observations))
                taken = self._packed(episode.observations, chosen, slice(None))
                pairs.append(self._packed(episode.observations, episode.actions, slice(-1)))
            except (InvalidExperience, ValueError) as error:
                raise ConfigError(f"episode {number} does not fit the policy: {error}") from error
            following.append(taken[1:])
            first.append(taken[:1])
            rewards.append(episode.rewards)
            mask = np.ones(len(episode))
            mask[-1] = episode.status.bootstrap_mask
            masks.append(mask)
            endless += episode.status is not EpisodeStatus.TERMINATED
            to_go.append(_discounted(episode.rewards, gamma))
            self.returns.append(episode.total_reward)
            self.discounted.append(float(to_go[-1][0]))
        if not pairs:
            raise ConfigError("the data set is empty: give at least one episode")
        if gamma == 1.0 and endless:
            raise ConfigError(
                f"gamma=1: {endless} of {len(pairs)} episodes did not terminate, so that their undiscounted "
                "returns may have no end: give a gamma below 1"
            )
        self.pairs, self.following, self.first = map(np.concatenate, (pairs, following, first))
        self.rewards, self.masks = np.concatenate(rewards), np.concatenate(masks)
        self.episodes = np.repeat(np.arange(len(pairs)), [len(each) for each in rewards])
        self.scale = max(float(np.concatenate(to_go).std()), float(np.abs(self.rewards).max()), _TINY)

    def _packed(self, observations: Any, actions: Any, rows: slice) -> NDArray[Any]:
        seen = mapped(lambda part: part[rows], observations)
        pairs: Any = {"observation": seen, "action": actions}
        return self.space.stack(pairs)


class _Network(ObservationNetwork):
    """Perceptrons from pairs of an observation and an action to their value; they share an encoder."""

    def __init__(
        self, space: Observations, config: OffPolicyConfig, n_members: int, generator: torch.Generator
    ) -> None:
        super().__init__(space, normalizes=True, is_flat=config.network != "cnn")
        self.encoder = encoder_of(space, config, generator)
        n_features = space.n_inputs if self.encoder is None else self.encoder.n_features
        sizes = (n_features, *config.hidden_sizes, 1)
        self.mlps = nn.ModuleList([MLP(sizes, "relu", generator) for _ in range(n_members)])

    def passes(self, weights: PackedWeights) -> StackedPasses:
        """Of its perceptrons, whose weights are packed."""
        mlps: Any = list(self.mlps)
        return StackedPasses(mlps, weights)


class _Fitting:
    """The networks of an evaluation, and one step of their learning."""

    def __init__(self, columns: _Columns, gamma: float, n_updates: int, seed: int, device: str) -> None:
        seeds, resolved = AgentSeeds.of(seed), resolve_device(device)
        space = columns.space
        self._config = config = chosen_network("FQE", _SETTINGS, space)
        network = _Network(space, config, _MEMBERS, seeds.for_weights())
        _normalize(network, columns)
        self._network = network = network.to(resolved)
        self._weights = PackedWeights(network, has_gradients=True)
        self._adam = PackedAdam(self._weights)
        self._target = TargetNetwork(network, self._weights, config.tau, config.target_update_interval)
        self._passes, self._features = network.passes(self._weights), Features(network.encoder)
        slow = self._target.network
        self._slow_passes, self._slow_features = slow.passes(self._target.weights), Features(slow.encoder)
        self._draw = seeded_generator(seeds.learning)
        self._gamma, self._scale, self._updates = gamma, columns.scale, 0
        n_episodes = len(columns.returns)
        self._counts = self._draw.multinomial(n_episodes, np.full(n_episodes, 1 / n_episodes), size=_MEMBERS)
        self._pairs, self._following, self._first = (
            from_numpy(each).to(resolved) for each in (columns.pairs, columns.following, columns.first)
        )
        weights = self._counts[:, columns.episodes].astype(np.float32)
        rewards = (columns.rewards / columns.scale).astype(np.float32)
        self._row_weights, self._rewards, self._masks = (
            from_numpy(each).to(resolved) for each in (weights, rewards, columns.masks.astype(np.float32))
        )

    @torch.no_grad()
    def update(self, rate: float) -> None:
        """Learn from one batch, drawn with replacement.

        Args:
            rate: the share of the learning rate.

        Raises:
            TrainingDiverged: The loss is not finite.
        """
        n_rows = self._config.batch_size
        rows = from_numpy(self._draw.integers(0, len(self._rewards), n_rows)).to(self._rewards.device)
        following = self._slow_values(self._following[rows])
        targets = torch.addcmul(self._rewards[rows], self._masks[rows], following, value=self._gamma)
        inputs = self._features.tracked(self._network.prepared(self._pairs[rows]))
        errors = torch.cat(self._passes.forward(inputs), dim=1).t().sub_(targets)
        slopes = errors * self._row_weights[:, rows] / n_rows
        loss = 0.5 * float((slopes * errors).sum())
        self._updates += 1
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"the evaluation diverged: update {self._updates} has the loss {loss}; give a lower gamma"
            )
        self._passes.backward([slope.unsqueeze(1) for slope in slopes])
        self._features.backward(self._passes)
        self._adam.step(rate * self._config.learning_rate)
        self._target.follow(self._updates)

    @torch.no_grad()
    def values(self) -> NDArray[np.float64]:
        """What each member finds the policy worth, over its resample of the episodes."""
        found = [
            self._slow_values(self._first[start : start + self._config.batch_size])
            for start in range(0, len(self._first), self._config.batch_size)
        ]
        of_episodes = torch.cat(found, dim=1).double().cpu().numpy() * self._scale
        means: NDArray[np.float64] = (of_episodes * self._counts).sum(axis=1) / self._counts.sum(axis=1)
        return means

    def _slow_values(self, rows: torch.Tensor) -> torch.Tensor:
        """The values of pairs by the target network of each member, float32 ``[members, B]``."""
        inputs = self._slow_features.of(self._target.network.prepared(rows))
        return torch.cat(self._slow_passes.forward(inputs), dim=1).t()


def _normalize(network: _Network, columns: _Columns) -> None:
    """Normalize what the network sees by the moments of the data; what is constant there stays as it is."""
    if columns.space.rows is None:
        return
    floats = columns.space.rows.float_columns(columns.pairs)
    stds = floats.std(axis=0, dtype=np.float64)
    scale = 1.0 / np.where(stds > _TINY, stds, 1.0)
    mean = floats.mean(axis=0, dtype=np.float64)
    network.set_moments(torch.as_tensor(mean).float(), torch.as_tensor(scale).float())


def _discounted(rewards: NDArray[np.float64], gamma: float) -> NDArray[np.float64]:
    """The discounted sum of the rewards from each step on."""
    found, total = np.empty(len(rewards)), 0.0
    for step in range(len(rewards) - 1, -1, -1):
        total = rewards[step] + gamma * total
        found[step] = total
    return found
