"""PPO (Schulman et al. 2017) with generalised advantages (Schulman et al. 2016), discrete and continuous.

It learns on-policy from rollouts of any number of interleaved actors. Called by a session as
``LearningAgent`` describes. The same seed and the same order of calls give the same weights: its generators
are its own, for the first weights, for shuffling and for exploring.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, NoReturn

import gymnasium
import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stoker.agents.devices import resolve_device
from stoker.agents.images import chosen_network
from stoker.agents.packing import PackedWeights
from stoker.agents.ppo.config import PPOConfig
from stoker.agents.ppo.losses import Samples
from stoker.agents.ppo.network import ActorCritic, checked_body, make_body
from stoker.agents.ppo.optimizer import ClippingAdam
from stoker.agents.ppo.policy import ACTION, LOG_PROB, VALUE, PPOPolicy, extras_size
from stoker.agents.ppo.rollout import Rollout
from stoker.agents.ppo.spaces import PPOSpaces
from stoker.agents.ppo.state import check_state
from stoker.agents.ppo.update import update
from stoker.agents.protocol import Policy
from stoker.agents.seeds import generator_state, seeded_generator, spawn_seeds
from stoker.agents.spaces import shown
from stoker.agents.states import refuse_shallow_copy
from stoker.errors import ConfigError, InvalidExperience
from stoker.processing.moments import RunningMoments
from stoker.processing.rewards import RewardScaler
from stoker.types import ActorId, Experience

__all__ = ["PPO"]

_TOLD = ("policy_loss", "value_loss", "entropy", "approx_kl")
"""Of the last update's metrics, those that are logged with each episode."""


class PPO:
    """A policy, a value function, Adam and the open rollout.

    An update takes all transitions observed so far once there are ``rollout_steps`` of them, over all actors.
    The advantages of an actor are estimated from its own transitions only. What its policy remembered of each
    action, the log-probability and the value, is what learning starts from; an action that was replaced on
    its way to the environment still counts as the one that was chosen.

    With ``normalize_observations`` the statistics take in a rollout when its update is done. Until then
    acting, bootstrapping and learning see its observations through the same ones, else the probabilities of
    its actions would have changed before the first gradient step; the first rollout is seen as it is.

    Args:
        observation_space: a Box of any shape.
        action_space: a Discrete space, of any ``start``, or a Box of floats. Actions in a Box are drawn from
            a normal distribution and clipped to the bounds on their way to the environment.
        config: the settings; the defaults when left out.
        seed: at least 0; all generators of the agent derive from it.
        device: where to learn, as torch names it: ``"cpu"``, ``"cuda:1"``, ...
        network: your own, instead of the one that the settings name. It takes observations
            ``[B, *observation_shape]``, float32 (integers as they are, unless ``normalize_observations``),
            and returns a tuple of the distribution's parameters float32 and values float32 ``[B]``. The
            parameters are the logits ``[B, n]`` of a Discrete space, or the means ``[B, size]`` of a Box's
            numbers, flattened; the standard deviations of these are the agent's own. The module becomes the
            agent's: moved to the device and trained, all of it. Its weights are float32, ``copy.deepcopy``
            copies it, and it draws no random numbers (no dropout).

    Attributes:
        acting_state: the entries of ``state_dict`` that acting changes and learning does not.
        needs_policy_extras: it learns only from actions that its policy remembers.
        config: the settings; ``network`` is the one that ``"auto"`` came to.
        total_steps: transitions observed, ever.
        opt_steps: updates done, ever; each is ``n_epochs`` epochs over a rollout.

    Raises:
        ConfigError: A space, the seed, the device or the network cannot be used.
    """

    acting_state = frozenset({"explore_generator"})
    needs_policy_extras = True

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        config: PPOConfig | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
        network: nn.Module | None = None,
    ) -> None:
        config = PPOConfig() if config is None else config
        self.total_steps = 0
        self.opt_steps = 0
        self._spaces = spaces = PPOSpaces(observation_space, action_space)
        self._distribution = distribution = spaces.distribution
        if network is None:
            chosen = chosen_network(
                "PPO",
                config.network,
                spaces.observation_shape,
                is_uint8=spaces.observation_dtype is torch.uint8,
            )
            config = msgspec.structs.replace(config, network=chosen)
        self.config = config
        self._device = resolve_device(device)
        for_weights, for_shuffling, for_exploring = spawn_seeds(seed, 3)
        self._shuffle = seeded_generator(for_shuffling)
        self._explore = seeded_generator(for_exploring)
        if network is None:
            generator = torch.Generator().manual_seed(for_weights)
            body = make_body(spaces.observation_shape, distribution.n_parameters, config, generator)
        else:
            sample = spaces.sample_batch(self._device)
            body = checked_body(
                network, sample.float() if config.normalize_observations else sample, distribution
            )
        log_std = None
        if distribution.has_log_std:
            log_std = torch.full((distribution.action_size,), float(config.log_std_init))
        self._network = ActorCritic(
            body, spaces.observation_shape, log_std, normalizes=config.normalize_observations
        ).to(self._device)
        # What has learned cannot always be copied: a user's module may keep a tensor of the graph.
        self._blank = copy.deepcopy(self._network).requires_grad_(requires_grad=False)
        self._weights = PackedWeights(self._network, has_gradients=True)
        self._optimizer = ClippingAdam(self._weights, config.adam_eps, config.max_grad_norm)
        self._moments = None
        if config.normalize_observations:
            self._moments = RunningMoments(math.prod(spaces.observation_shape))
        self._rewards = RewardScaler(
            config.gamma, normalize=config.normalize_rewards, clip=config.clip_rewards
        )
        self._extras_shape = (extras_size(spaces),)
        self._rollout = Rollout(
            spaces.observation_shape, spaces.array_dtype, extras_size(spaces), config.rollout_steps
        )
        self._last: dict[str, float] = {}  # metrics of the last update

    def __copy__(self) -> NoReturn:
        refuse_shallow_copy(self)

    @property
    def entropy(self) -> float:
        """The policy's mean entropy in the last update, in nats; 0.0 before the first."""
        return self._last.get("entropy", 0.0)

    def policy(self) -> PPOPolicy:
        """A new acting copy with its own weights.

        All policies of one agent share its exploring generator, so that checkpoints hold it: let one
        thread at a time act with any of them.

        Raises:
            ConfigError: Somebody moved or replaced the weights of the network.
        """
        self._weights.check_bound()
        network = copy.deepcopy(self._blank)
        policy = PPOPolicy(network, self._spaces, self._explore, self.opt_steps, self._device)
        policy.packed.copy_from(self._weights)
        return policy

    def publish(self, policy: Policy) -> None:
        """Copy the weights, and the moments of observations, into a policy that this agent made.

        Raises:
            ConfigError: It is not a PPO policy.
        """
        if not isinstance(policy, PPOPolicy):
            raise ConfigError(
                f"a PPO agent publishes to the policies it made, not to a {type(policy).__name__}"
            )
        policy.packed.copy_from(self._weights)
        policy.version = self.opt_steps

    def check_experience(self, experience: Experience) -> None:
        """Refuse a transition that ``observe`` could not take, or whose policy extras are of another action.

        One without policy extras passes: the session joins those of the action to it.

        Raises:
            InvalidExperience: An observation, the action, the reward or the policy extras are unfit; the
                message names the value.
        """
        self._spaces.check_experience(experience)
        if experience.policy_extras is not None:
            self._check_extras(experience)

    def check_observation(self, observation: Any) -> None:
        """Refuse an observation that the policy could not act on.

        Raises:
            InvalidExperience: Its shape, dtype or a value is unfit; the message names it.
        """
        self._spaces.check_observation(observation)

    def observe(self, experiences: Sequence[Experience]) -> None:
        """Copy transitions into the rollout, in order. They are taken as checked by ``check_experience``.

        Raises:
            ConfigError: One of them has no policy extras that a PPO policy of these spaces made; none
                was taken.
        """
        for experience in experiences:
            extras: Any = experience.policy_extras
            if extras is None or np.shape(extras) != self._extras_shape:
                raise ConfigError(
                    f"an experience of actor {experience.actor_id!r} comes with "
                    f"{'no' if extras is None else 'an unfit'} policy extras: PPO learns from the "
                    "log-probability and the value that its policy remembered; choose each action with "
                    "session.act(observation, actor_id=...)"
                )
        for experience in experiences:
            self._rollout.add(experience, self._rewards.scaled(experience))
        self.total_steps += len(experiences)

    def learn(self) -> dict[str, float] | None:
        """Do one update, if the rollout is full.

        Returns:
            ``loss``, ``policy_loss``, ``value_loss``, ``entropy``, ``approx_kl``, ``clip_fraction``,
            ``learning_rate``, ``clip_range`` and ``n_epochs``, as ``update`` gives them;
            ``explained_variance``, the share of the returns' variance that the values foretold (1 at best, 0
            where returns do not vary); and with Box actions ``std``, the mean of their standard deviations.
            None while the rollout fills up.

        Raises:
            TrainingDiverged: A loss is not finite: learning diverged. The weights stay as they were.
            ConfigError: Somebody moved or replaced the weights of the network.
        """
        if len(self._rollout) < self.config.rollout_steps:
            return None
        self._weights.check_bound()
        # A thread that was never asked for it computes its first products with as many threads as there are
        # cores, whatever torch was set to, and rounds otherwise than a replay would.
        torch.get_num_threads()
        samples, explained_variance = self._samples()
        metrics = update(
            self._network,
            self._weights,
            self._optimizer,
            self._distribution,
            samples,
            self._shuffle,
            self.config,
            self.total_steps,
        )
        metrics["explained_variance"] = explained_variance
        if self._network.log_std is not None:
            metrics["std"] = self._network.log_std.detach().exp().mean().item()
        self.opt_steps += 1
        self._last = {name: metrics[name] for name in _TOLD}
        self._normalize()
        self._rollout.clear()
        return metrics

    def episode_extras(self, actor_id: ActorId) -> dict[str, float]:
        """``policy_loss``, ``value_loss``, ``entropy``, ``approx_kl`` of the last update; none before it."""
        return dict(self._last)

    def on_episode_start(self, actor_id: ActorId) -> None:
        """End that actor's episode before, if it was given up: what it did counts, up to where it had led."""
        self._rollout.give_up(actor_id)
        self._rewards.give_up(actor_id)

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer, generators, counters, settings, spaces, statistics and the open rollout.

        Its tensors share the agent's memory.
        """
        return {
            "agent": "ppo",
            "config": msgspec.to_builtins(self.config),
            **self._spaces.describe(),
            "network": dict(self._network.state_dict()),
            "optimizer": self._optimizer.state_dict(),
            "explore_generator": generator_state(self._explore),
            "shuffle_generator": generator_state(self._shuffle),
            "total_steps": self.total_steps,
            "opt_steps": self.opt_steps,
            "moments": None if self._moments is None else self._moments.state_dict(),
            "rewards": self._rewards.state_dict(),
            "rollout": self._rollout.state_dict(),
            "last": dict(self._last),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Become what ``state_dict`` described; publish to policies afterwards.

        The settings stay those that this agent was made with, so that a resume may change, say, the
        learning rate; those that shape the network may not differ.

        Raises:
            ConfigError: The state is of another kind of agent, of other spaces or sizes; nothing was changed.
        """
        check_state(state, self.state_dict())
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._explore.bit_generator.state = state["explore_generator"]
        self._shuffle.bit_generator.state = state["shuffle_generator"]
        self.total_steps = int(state["total_steps"])
        self.opt_steps = int(state["opt_steps"])
        if self._moments is not None:
            self._moments.load_state_dict(state["moments"])
        self._rewards.load_state_dict(state["rewards"])
        self._rollout.load_state_dict(state["rollout"])
        self._last = dict(state["last"])

    def _check_extras(self, experience: Experience) -> None:
        actor_id, given = experience.actor_id, experience.policy_extras
        extras: list[float] = []
        try:
            array = np.asarray(given, np.float64)  # a list, too: from a database, say
            if array.shape == self._extras_shape:
                extras = array.tolist()
        except (TypeError, ValueError):
            pass
        total = sum(extras)
        if not extras or total - total != 0.0:
            raise InvalidExperience(
                f"actor {actor_id!r}: policy_extras={shown(given)}: PPO takes the "
                f"{self._extras_shape[0]} finite numbers that its policy remembered: pass on those of "
                "the Decision as they are"
            )
        if not self._spaces.actions.is_chosen(experience.action, extras[ACTION:]):
            raise InvalidExperience(
                f"actor {actor_id!r}: action={shown(experience.action)} is not the action that its "
                f"policy_extras are of, {shown(extras[ACTION:])}: observe the action of the same Decision, "
                "whatever the environment made of it"
            )

    def _samples(self) -> tuple[Samples, float]:
        """The rollout with its advantages and returns, and the explained variance of the values."""
        rollout, config = self._rollout, self.config
        extras = rollout.policy_extras
        values = extras[:, VALUE]
        successor_values = self._values(rollout.successors())
        advantages = rollout.advantages(values, successor_values, config.gamma, config.gae_lambda)
        returns = advantages + values
        learned = self._distribution.learned(extras[:, ACTION:])
        with torch.no_grad():
            inputs = self._network.prepared(torch.as_tensor(rollout.observations).to(self._device))
        arrays = (learned, extras[:, LOG_PROB], values, advantages, returns)
        kinds = (learned.dtype, *[np.dtype(np.float32)] * 4)
        tensors = (
            torch.as_tensor(np.asarray(array, kind)).to(self._device)
            for array, kind in zip(arrays, kinds, strict=True)
        )
        return Samples(inputs, *tensors), _explained_variance(returns, values)

    def _values(self, observations: NDArray[Any]) -> NDArray[np.float32]:
        """By the present weights, in one pass, float32 ``[B]``."""
        if not len(observations):
            return np.empty(0, np.float32)
        with torch.inference_mode():
            # Copied to memory that torch aligned: on numpy's, sums may round otherwise from run to run.
            _, values = self._network(torch.tensor(observations, device=self._device))
            return values.cpu().numpy()

    def _normalize(self) -> None:
        """Take the rollout's observations into the statistics that the next one is seen through."""
        if self._moments is not None:
            has_changed = False
            for row in self._rollout.observations.reshape(len(self._rollout), -1):
                has_changed |= self._moments.add(row)
            if has_changed:
                self._network.set_moments(self._moments.mean(), self._moments.scale())


def _explained_variance(returns: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    variance = float(returns.var())
    return 1.0 - float((returns - values).var()) / variance if variance > 0.0 else 0.0
