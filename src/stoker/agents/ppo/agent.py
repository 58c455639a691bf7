"""PPO (Schulman et al. 2017) with generalized advantages (Schulman et al. 2016), discrete and continuous.

It learns on-policy from rollouts of any number of interleaved actors.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import nn

from stoker.agents.actions import Actions, BoxActions, DiscreteActions, MultiDiscreteActions
from stoker.agents.base import AgentSeeds, BaseAgent, resolve_device, seeded_generator
from stoker.agents.encoders import chosen_network
from stoker.agents.masks import limited
from stoker.agents.networks import predict
from stoker.agents.observations import PackedObservations
from stoker.agents.ppo.config import PPOConfig
from stoker.agents.ppo.distributions import DiagGaussian
from stoker.agents.ppo.exploration import ActorNoise, StateDependentGaussian
from stoker.agents.ppo.gradients import passes_of
from stoker.agents.ppo.losses import Losses, Samples, approximate_kl
from stoker.agents.ppo.network import (
    BODIES,
    ActorCritic,
    PartsBody,
    checked_body,
    distribution_of,
    n_features_of,
)
from stoker.agents.ppo.policy import ACTION, LOG_PROB, VALUE, PPOPolicy, StateDependentPolicy
from stoker.agents.ppo.rollout import Rollout
from stoker.agents.spaces import AgentSpaces
from stoker.errors import ConfigError, InvalidExperience
from stoker.plain import shown
from stoker.processing import RewardScaler
from stoker.types import ActorId, Experience, ExperienceBatch

if TYPE_CHECKING:
    import gymnasium

_LOGGED = ("policy_loss", "value_loss", "entropy", "approx_kl")
"""Of the last update's metrics, those that are logged with each episode."""


class PPO(BaseAgent[PPOConfig, ActorCritic, PPOPolicy]):
    """PPO (Schulman et al. 2017): a policy, a value function, Adam and the open rollout.

    An update takes all transitions observed so far once there are ``rollout_steps`` of them, over all actors.
    The advantages of an actor are estimated from its own transitions only. The ratios and returns of an
    update use the log-probability and the value that the policy recorded with each action.

    With ``normalize_observations`` a rollout enters the statistics after its update. Acting, bootstrapping
    and learning within one rollout therefore normalize alike, and the probabilities of its actions are
    unchanged at the first gradient step. The first rollout is not normalized.

    Args:
        observation_space: a Box of any shape, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of
            these.
        action_space: a Discrete, MultiDiscrete or MultiBinary space, of any ``start``, or a Box of floats.
            Actions in a Box are drawn from a normal distribution and clipped to the bounds on their way to
            the environment; each number of a MultiDiscrete action is drawn by itself.
        config: the settings; the defaults when left out.
        seed: at least 0; all generators of the agent derive from it.
        device: where to learn, as torch names it: ``"cpu"``, ``"cuda:1"``, ...
        network: your own, instead of the one that the settings name. It takes observations
            ``[B, *observation_shape]``, float32 (integers unchanged, unless ``normalize_observations``),
            and returns a tuple of the distribution's parameters float32 and values float32 ``[B]``. The
            parameters are the logits ``[B, n]`` of a Discrete space, those of all choices ``[B, sum(nvec)]``,
            number by number, of a MultiDiscrete (two for each number of a MultiBinary), or the means
            ``[B, size]`` of a Box's numbers, flattened; the standard deviations of these are the agent's own.
            Of observations that are not a Box it takes the parts by name, see ``PackedObservations.named``.
            The module becomes the agent's: moved to the device and trained, all of it. Its weights are
            float32, ``copy.deepcopy`` copies it, and it draws no random numbers (no dropout).

    Attributes: those of ``BaseAgent``; an optimization step is an update, ``n_epochs`` over a rollout.

    Raises:
        ConfigError: A space, the seed, the device or the network cannot be used.
    """

    name = "PPO"
    total_steps: int
    opt_steps: int
    action_kinds: tuple[type[Actions], ...] = (DiscreteActions, MultiDiscreteActions, BoxActions)
    _policy_type = PPOPolicy
    needs_policy_extras = True
    _kept_settings = ("network", "activation", "normalize_observations", "state_dependent_exploration")

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        config: PPOConfig | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
        network: nn.Module | None = None,
    ) -> None:
        spaces = AgentSpaces("PPO", observation_space, action_space, self.action_kinds)
        observations = spaces.observations
        config = config or PPOConfig()
        seeds, resolved = AgentSeeds.of(seed), resolve_device(device)
        if network is None:
            config = chosen_network("PPO", config, observations)
            distribution = distribution_of(spaces.actions, config, n_features_of(config, observations))
            body = BODIES[config.network](
                observations, distribution.n_parameters, config, seeds.for_weights()
            )
        else:
            distribution = distribution_of(spaces.actions, config, n_features=None)
            sample = torch.as_tensor(observations.blank(2)).to(resolved)
            packed = observations if isinstance(observations, PackedObservations) else None
            if packed is None and config.normalize_observations:
                sample = sample.float()
            body = checked_body(network, sample, distribution, packed)
        actor_critic = ActorCritic(body, observations, distribution, config).to(resolved)
        super().__init__(spaces, config, seeds, actor_critic, config.adam_eps)
        self._has_given_network = network is not None
        self._passes = passes_of(body, self._weights)
        self._shuffle = seeded_generator(seeds.learning)
        self._rewards = RewardScaler(
            config.gamma, normalize=config.normalize_rewards, clip=config.clip_rewards
        )
        self._extras_shape = (ACTION + distribution.action_size,)
        self._rollout = Rollout(
            observations.shape, observations.dtype, self._extras_shape[0], config.rollout_steps
        )
        self._last: dict[str, float] = {}  # metrics of the last update
        self._generators["shuffle_generator"] = self._shuffle
        self._parts |= {"rewards": self._rewards, "rollout": self._rollout}
        self._noise = None
        if isinstance(distribution, StateDependentGaussian):
            self._noise = self._parts["noise"] = ActorNoise(
                tuple(distribution.log_std.shape), config.sde_sample_freq, seeds.exploring
            )
            self._policy_type = StateDependentPolicy
            self.acting_state: frozenset[str] = self.acting_state | {"noise"}

    @property
    def entropy(self) -> float:
        """The policy's mean entropy in the last update, in nats; 0.0 before the first."""
        return self._last.get("entropy", 0.0)

    def _new_policy(self, network: ActorCritic) -> PPOPolicy:
        if self._noise is None:
            return super()._new_policy(network)
        return StateDependentPolicy(network, self._spaces, self._explore, {}, self._noise)

    def _made_with(self, config: PPOConfig) -> Self | None:
        kind = type(self)
        if kind.__init__ is not PPO.__init__:
            return None
        network = None
        if self._has_given_network:  # a copy of what it was before it learned, with the same weights frozen
            body = self._blank.body
            network = copy.deepcopy(body.body if isinstance(body, PartsBody) else body)
            for weight, own in zip(network.parameters(), self._network.body.parameters(), strict=True):
                weight.requires_grad_(own.requires_grad)
        return kind(*self.env_spaces, config, device=self._device, network=network)

    @property
    def _published(self) -> dict[str, float]:
        return {"version": self.opt_steps}

    def check_experience(self, experience: Experience) -> None:
        """Raise ``InvalidExperience``, naming the value, also for policy extras of another action.

        A transition without policy extras passes: the session adds those of the action.
        """
        self._spaces.check_experience(experience)
        actor_id, given = experience.actor_id, experience.policy_extras
        if given is None:
            return
        try:
            array = np.asarray(given, np.float64)  # a list, too: from a database, say
        except (TypeError, ValueError):
            array = np.empty(0)
        extras: list[float] = array.tolist() if array.shape == self._extras_shape else [math.nan]
        if not math.isfinite(sum(extras)):
            raise InvalidExperience(
                f"actor {actor_id!r}: policy_extras={shown(given)}: pass on the {self._extras_shape[0]} "
                "finite numbers of the Decision unchanged"
            )
        if not self._spaces.actions.is_chosen(experience.action, extras[ACTION:]):
            raise InvalidExperience(
                f"actor {actor_id!r}: action={shown(experience.action)} does not match its policy_extras, "
                f"which are of {shown(extras[ACTION:])}: observe both parts of one Decision unchanged"
            )

    def check_batch(self, batch: ExperienceBatch) -> bool:
        """As ``BaseAgent.check_batch``; each action must be that of its policy extras, if there are any."""
        if not super().check_batch(batch):
            return False
        extras = batch.policy_extras
        return extras is None or (
            extras.shape[1:] == self._extras_shape
            and extras.dtype == np.float64
            and bool(np.isfinite(extras).all())
            and self._spaces.actions.are_chosen(batch.actions, extras[:, ACTION:])
        )

    def observe(self, experiences: Sequence[Experience]) -> None:
        """Copy transitions, checked by ``check_experience``, into the rollout, in order.

        Raises:
            ConfigError: One of them lacks the policy extras of a PPO policy; none was taken.
        """
        for experience in experiences:
            extras: Any = experience.policy_extras
            if extras is None or np.shape(extras) != self._extras_shape:
                problem = "lacks" if extras is None else "has the wrong number of"
                raise ConfigError(
                    f"an experience of actor {experience.actor_id!r} {problem} policy extras: "
                    "choose each action with session.act(observation, actor_id=...)"
                )
        for experience in self._spaces.packed(experiences):
            self._rollout.add(experience, self._rewards.scaled(experience))
            if self._noise is not None and experience.status.is_done:
                self._noise.end_episode(experience.actor_id)
        self.total_steps += len(experiences)

    def observe_batch(self, batch: ExperienceBatch) -> None:
        """Copy a batch, checked by ``check_batch``, into the rollout, as ``observe`` does its experiences."""
        if batch.policy_extras is None or batch.policy_extras.shape[1:] != self._extras_shape:
            self.observe(batch.experiences())  # which refuses them
            return
        batch = self._spaces.packed_batch(batch)
        self._rollout.add_batch(batch, self._rewards.scaled_batch(batch))
        if self._noise is not None:
            for row in np.flatnonzero(batch.terminated | batch.truncated).tolist():
                self._noise.end_episode(batch.actor_ids[row])
        self.total_steps += len(batch)

    @property
    def steps_to_learn(self) -> int:
        """Transitions until the rollout is full; ``learn`` does nothing before."""
        return max(0, self.config.rollout_steps - len(self._rollout))

    def learn(self) -> dict[str, float] | None:
        """Do one update, if the rollout is full.

        Returns:
            The mean over all transitions that were learned from of ``loss``, ``policy_loss``, ``value_loss``,
            ``entropy`` and ``clip_fraction``, and of ``approx_kl`` over those of the last epoch; the
            ``learning_rate`` and ``clip_range`` that were used; ``n_epochs``, how many ran to their end;
            ``explained_variance``, the share of the returns' variance that the values predict (1 at best, 0
            if returns do not vary); and with Box actions ``std``, the mean of their standard deviations (with
            ``state_dependent_exploration`` their geometric mean over the transitions). None while the rollout
            fills up.

        Raises:
            TrainingDiverged: A loss or a gradient is not finite. Weights and optimizer stay as they were.
            ConfigError: The weights of the network were moved or replaced.
        """
        if len(self._rollout) < self.config.rollout_steps:
            return None
        self._weights.check_bound()
        torch.get_num_threads()  # see ``predict``, which is not called if every episode terminated
        samples, explained_variance = self._samples()
        metrics = self._update(samples)
        metrics["explained_variance"] = explained_variance
        match self._network.distribution:
            case DiagGaussian(log_std=log_std):
                metrics["std"] = log_std.detach().exp().mean().item()
            case StateDependentGaussian() as distribution:
                metrics["std"] = distribution.std_at(metrics["entropy"])
            case _:
                pass
        self.opt_steps += 1
        self._last = {name: metrics[name] for name in _LOGGED}
        if self.config.normalize_observations:
            self._take_in(self._rollout.observations)
        self._rollout.clear()
        return metrics

    def episode_extras(self, actor_id: ActorId) -> dict[str, float]:
        """``policy_loss``, ``value_loss``, ``entropy``, ``approx_kl`` of the last update; none before it."""
        return dict(self._last)

    def on_episode_start(self, actor_id: ActorId) -> None:
        """End the actor's unfinished episode, if any, as if it were truncated."""
        self._rollout.give_up(actor_id)
        self._rewards.give_up(actor_id)

    def state_dict(self) -> dict[str, Any]:
        """As ``BaseAgent.state_dict``, with the open rollout and the last update's metrics."""
        return {**super().state_dict(), "last": dict(self._last)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As ``BaseAgent.load_state_dict``."""
        super().load_state_dict(state)
        self._last = dict(state["last"])

    @torch.no_grad()
    def _update(self, samples: Samples) -> dict[str, float]:
        """Several epochs of minibatches over one rollout (Schulman et al. 2017, Algorithm 1).

        Each epoch goes through all samples, shuffled anew; its last minibatch may be smaller. With
        ``target_kl`` it ends before the first minibatch on which the policy has moved too far.
        """
        config, distribution, log_std = self.config, self._network.distribution, self._network.log_std
        learning_rate = config.learning_rate_at(self.total_steps)
        clip_range = config.clip_range_at(self.total_steps)
        tensors = [self._weights.values, *self._optimizer.state_dict().values()]
        before = [tensor.clone() for tensor in tensors]
        most_kl = None if config.target_kl is None else 1.5 * config.target_kl
        epochs: list[torch.Tensor] = []  # the losses of each, and the norm of its last gradient
        n_whole, size, has_masks = 0, len(samples.returns), samples.masks.shape[1] > 0
        for _ in range(config.n_epochs):
            shuffled = samples.shuffled(torch.as_tensor(self._shuffle.permutation(size)).to(self._device))
            if config.normalize_advantages:
                shuffled = shuffled.normalized(config.batch_size)
            seen: list[tuple[torch.Tensor, ...]] = []  # of each minibatch
            norms: list[torch.Tensor] = []
            is_whole = True
            for start in range(0, size, config.batch_size):
                batch = shuffled.rows(start, start + config.batch_size)
                parameters, values = self._passes.forward(batch.inputs)
                if has_masks:
                    parameters = limited(parameters, batch.masks)
                evaluation = distribution.evaluate(parameters, batch.actions)
                log_probs = evaluation.log_probs
                seen.append((log_probs, evaluation.entropies, values))
                is_whole = most_kl is None or approximate_kl(log_probs - batch.log_probs).item() <= most_kl
                if not is_whole:
                    break
                by_value = batch.value_gradient(values, config)
                by_parameter, by_log_std = evaluation.gradients(
                    batch.policy_gradient(log_probs, clip_range), -config.ent_coef / len(values)
                )
                self._passes.backward(by_parameter, by_value)
                if log_std is not None and log_std.grad is not None and by_log_std is not None:
                    log_std.grad.copy_(by_log_std)
                norms.append(self._optimizer.clip())
                self._optimizer.step(learning_rate)
            log_probs, entropies, values = (torch.cat(column) for column in zip(*seen, strict=True))
            learned = shuffled.rows(0, len(values))
            losses = learned.losses(log_probs, entropies, values, clip_range, config)
            norm = torch.stack(norms).sum() if norms else torch.zeros_like(losses.loss)
            epochs.append(torch.stack([*losses, norm]).cpu())  # the device is waited for once an epoch
            if not epochs[-1].isfinite().all():
                for tensor, saved in zip(tensors, before, strict=True):
                    tensor.copy_(saved)
                raise self._diverged(epochs[-1][0].item(), epochs[-1][-1].item())
            n_whole += is_whole
            if not is_whole:
                break
        columns = torch.stack(epochs).mean(dim=0)
        metrics = {name: columns[column].item() for column, name in enumerate(Losses._fields)}
        metrics["approx_kl"] = epochs[-1][Losses._fields.index("approx_kl")].item()
        return {
            **metrics,
            "learning_rate": learning_rate,
            "clip_range": clip_range,
            "n_epochs": float(n_whole),
        }

    def _samples(self) -> tuple[Samples, float]:
        """The rollout with its advantages and returns, and the explained variance of the values."""
        rollout, config = self._rollout, self.config
        extras = rollout.policy_extras
        values = extras[:, VALUE]
        successors = rollout.successors()
        successor_values = np.empty(0, np.float32)
        if len(successors):  # a user's network may fail on an empty batch
            successor_values = predict(self._network, successors, self._device)[1]
        advantages = rollout.advantages(values, successor_values, config.gamma, config.gae_lambda)
        returns = advantages + values
        learned = extras[:, ACTION:].astype(self._network.distribution.learned_dtype)
        with torch.no_grad():
            inputs = self._network.prepared(torch.as_tensor(rollout.observations).to(self._device))
        floats = (extras[:, LOG_PROB], values, advantages, returns)
        tensors = [torch.as_tensor(each.astype(np.float32)).to(self._device) for each in floats]
        variance = float(returns.var())
        explained = 1.0 - float((returns - values).var()) / variance if variance > 0.0 else 0.0
        columns = self._spaces.observations.mask
        allowed = np.empty((len(returns), 0)) if columns is None else rollout.observations[:, columns]
        masks = torch.as_tensor(allowed != 0).to(self._device)
        actions = torch.as_tensor(learned).to(self._device)
        return Samples(inputs, actions, *tensors, masks=masks), explained
