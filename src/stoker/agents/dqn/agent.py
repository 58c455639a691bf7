"""DQN (Mnih et al. 2015), and what has been found to improve it since, each when asked for.

Double targets (van Hasselt et al. 2016), a dueling network (Wang et al. 2016), prioritized replay (Schaul et
al. 2016) and n-step targets, as Hessel et al. (2018, "Rainbow") put them together. It learns off-policy.
Called by a session as ``LearningAgent`` describes; the replay is saved apart (``HasReplay``). The same seed
and the same order of calls give the same weights: its generators are its own, for the first weights, for
sampling and for exploring.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import gymnasium
import msgspec
import numpy as np
import torch

from stoker.agents.devices import resolve_device
from stoker.agents.dqn.build import make_network, make_replay
from stoker.agents.dqn.config import DQNConfig
from stoker.agents.dqn.losses import EpisodeLosses
from stoker.agents.dqn.network import frozen_copy
from stoker.agents.dqn.policy import DQNPolicy
from stoker.agents.dqn.spaces import DQNSpaces
from stoker.agents.dqn.state import check_state
from stoker.agents.dqn.targets import td_loss, td_targets
from stoker.agents.images import chosen_network
from stoker.agents.packing import PackedAdam, PackedWeights
from stoker.agents.protocol import Policy
from stoker.agents.seeds import generator_state, spawn_seeds
from stoker.agents.states import refuse_shallow_copy
from stoker.errors import ConfigError, TrainingDiverged
from stoker.processing.moments import RunningMoments
from stoker.processing.n_step import Transition
from stoker.processing.steps import StepProcessor
from stoker.replay.batch import PrioritizedBatch
from stoker.replay.prioritized import PrioritizedReplay
from stoker.replay.uniform import UniformReplay
from stoker.types import ActorId, Experience

__all__ = ["DQN"]

_WHAT_REPLAYS_HOLD = ("n_step", "normalize_rewards", "clip_rewards", "prioritized")
"""Settings without which a replay cannot be rebuilt to what it was."""


class DQN:
    """A Q-network, its target network, Adam and a replay.

    The target network starts as an equal copy. Learning begins when the replay holds ``learning_starts``
    transitions and at least one batch. Epsilon is a function of ``total_steps`` alone. Rewards are clipped
    or scaled only as it learns from them.

    Args:
        observation_space: a Box of any shape; an image for the convolutional network.
        action_space: a Discrete space, of any ``start``.
        config: the settings; the defaults when left out.
        seed: at least 0; all generators of the agent derive from it.
        device: where to compute and to keep the replay, as torch names it: ``"cpu"``, ``"cuda:1"``, ...

    Attributes:
        acting_state: the entries of ``state_dict`` that acting changes and learning does not.
        needs_policy_extras: False: it learns from any action.
        config: the settings; ``network`` is the one that ``"auto"`` came to.
        total_steps: transitions observed, ever.
        opt_steps: optimization steps done, ever.

    Raises:
        ConfigError: A space, the seed or the device cannot be used.
    """

    acting_state = frozenset({"explore_generator"})
    needs_policy_extras = False

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        config: DQNConfig | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        config = DQNConfig() if config is None else config
        self.total_steps = 0
        self.opt_steps = 0
        self._spaces = spaces = DQNSpaces(observation_space, action_space)
        chosen = chosen_network(
            "DQN", config.network, spaces.observation_shape, is_uint8=spaces.observation_dtype is torch.uint8
        )
        self.config = config = msgspec.structs.replace(config, network=chosen)
        self._device = resolve_device(device)
        for_weights, for_replay, for_exploring = spawn_seeds(seed, 3)
        self._explore = np.random.Generator(np.random.PCG64(for_exploring))
        first_weights = torch.Generator().manual_seed(for_weights)
        self._online = make_network(config, spaces, first_weights).to(self._device)
        self._moments = RunningMoments(math.prod(spaces.observation_shape))
        self._target = frozen_copy(self._online)
        self._weights = PackedWeights(self._online, has_gradients=True)
        self._target_weights = PackedWeights(self._target)
        self._optimizer = PackedAdam(self._weights)
        self._replay = make_replay(config, spaces, self._device, for_replay)
        self._learning_from = max(config.learning_starts, config.batch_size)
        self._steps = StepProcessor(
            config.n_step,
            config.gamma,
            normalize_rewards=config.normalize_rewards,
            clip_rewards=config.clip_rewards,
        )
        self._losses = EpisodeLosses()
        self._last_actor: ActorId | None = None

    def __copy__(self) -> NoReturn:
        refuse_shallow_copy(self)

    @property
    def replay(self) -> UniformReplay | PrioritizedReplay:
        """The replay memory, which ``state_dict`` leaves out."""
        return self._replay

    @property
    def exploration_rate(self) -> float:
        """How much is explored, as of ``total_steps``: epsilon, or the temperature of the softmax."""
        return self.config.exploration_rate_at(self.total_steps)

    @property
    def epsilon(self) -> float | None:
        """The share of random actions when exploring, as of ``total_steps``; None: it explores otherwise."""
        return self.exploration_rate if self.config.exploration == "epsilon" else None

    def policy(self) -> DQNPolicy:
        """A new acting copy with its own weights.

        All policies of one agent share its exploring generator, so that checkpoints hold it: let one
        thread at a time act with any of them.
        """
        network = frozen_copy(self._online)
        return DQNPolicy(self.config, self._spaces, network, self._explore, self.exploration_rate)

    def publish(self, policy: Policy) -> None:
        """Copy the weights and the present exploration rate into a policy that this agent made.

        Raises:
            ConfigError: It is not a DQN policy.
        """
        if not isinstance(policy, DQNPolicy):
            raise ConfigError(
                f"a DQN agent publishes to the policies it made, not to a {type(policy).__name__}"
            )
        policy.follow(self._weights, self.exploration_rate)

    def rebuild_point(self) -> dict[str, Any]:
        """The number of transitions added so far, and what steps are processed with."""
        return {"n_added": self._replay.n_added, **self._steps.state_dict()}

    def replay_reference(self) -> dict[str, Any]:
        """Where the replay stands, without its transitions."""
        settings = {name: getattr(self.config, name) for name in (*_WHAT_REPLAYS_HOLD, "gamma")}
        return {**self._replay.reference(), **settings}

    def begin_rebuild(self, point: Mapping[str, Any], reference: Mapping[str, Any]) -> None:
        """Be at that point, with a replay that expects what comes behind it.

        Raises:
            ConfigError: A setting that decides what the replay holds is another one, such as ``n_step``: it
                would not be what it was.
        """
        defaults = DQNConfig()  # as it was for what earlier versions had no setting for
        for name in _WHAT_REPLAYS_HOLD:
            own, saved = getattr(self.config, name), reference.get(name, getattr(defaults, name))
            if saved != own:
                raise ConfigError(
                    f"{name}={own}: this run's replay was made with {saved} and is rebuilt from its journal: "
                    "resume with that, or fork the run without its replay"
                )
        discounts = self.config.n_step > 1 or self.config.normalize_rewards
        if discounts and (saved := reference.get("gamma", self.config.gamma)) != self.config.gamma:
            raise ConfigError(
                f"gamma={self.config.gamma}: this run's replay was made with {saved} and is rebuilt from its "
                "journal: resume with that, or fork the run without its replay"
            )
        self._steps.load_state_dict(point)
        self._replay.begin_rebuild(reference, int(point["n_added"]))

    def end_rebuild(self, reference: Mapping[str, Any]) -> None:
        """Say that everything up to where ``reference`` stands was observed again.

        Raises:
            ConfigError: It was not so many transitions.
        """
        self._replay.end_rebuild(reference)

    def check_experience(self, experience: Experience) -> None:
        """Refuse a transition that ``observe`` could not take.

        Raises:
            InvalidExperience: An observation, the action or the reward is unfit; the message names it.
        """
        self._spaces.check_experience(experience)

    def check_observation(self, observation: Any) -> None:
        """Refuse an observation that the policy could not act on.

        Raises:
            InvalidExperience: Its shape, dtype or a value is unfit; the message names it.
        """
        self._spaces.check_observation(observation)

    def observe(self, experiences: Sequence[Experience]) -> None:
        """Copy transitions into the replay, in order. They are taken as checked by ``check_experience``."""
        if experiences:
            if self.config.normalize_observations:
                self._normalize(experiences)
            if self._steps.changes_steps:
                for experience in experiences:
                    self._remember(self._steps.process(experience))
            else:
                self._replay.extend(experiences)
            self.total_steps += len(experiences)
            self._last_actor = experiences[-1].actor_id

    def learn(self) -> dict[str, float] | None:
        """Do one optimization step; with a prioritized replay, new priorities are the errors found in it.

        The loss counts towards the running episode of the actor whose transition was observed last.

        Returns:
            ``loss`` (Huber, mean over the batch, weighted where the replay is prioritized) and ``q_mean``
            (mean value of the actions in the batch); None before learning starts.

        Raises:
            TrainingDiverged: The loss is not finite: learning diverged. The weights stay as they were.
        """
        if len(self._replay) < self._learning_from:
            return None
        config = self.config
        replay = self._replay
        drawn = replay.sample(config.batch_size)
        is_prioritized = isinstance(drawn, PrioritizedBatch)
        batch, weights = (drawn.transitions, drawn.weights) if is_prioritized else (drawn, None)
        actions = batch.actions - self._spaces.first_action if self._spaces.first_action else batch.actions
        with torch.no_grad():
            targets = td_targets(
                self._online.forward, self._target.forward, batch, config.gamma, double=config.double
            )
            activations = self._online.activations(batch.observations)
            found = td_loss(activations[-1], actions, targets, weights)
            loss_value = found.loss.item()
            if not math.isfinite(loss_value):
                raise TrainingDiverged(
                    f"DQN diverged: the loss of optimization step {self.opt_steps + 1} is {loss_value}; "
                    f"lower learning_rate ({config.learning_rate:g}), set max_grad_norm "
                    f"({config.max_grad_norm}), clip_rewards or normalize_rewards, and resume from an "
                    "earlier checkpoint"
                )
            self._online.backward(activations, found.gradient)
            self._limit_gradients()
            self._optimizer.step(config.learning_rate_at(self.total_steps))
            self.opt_steps += 1
            self._follow()
            if is_prioritized and isinstance(replay, PrioritizedReplay):
                replay.update_priorities(drawn.indices, found.errors.abs())
        if self._last_actor is not None:
            self._losses.add(self._last_actor, loss_value)
        return {"loss": loss_value, "q_mean": found.q_mean.item()}

    def episode_extras(self, actor_id: ActorId) -> dict[str, float]:
        """``epsilon`` or ``temperature``, and ``loss_mean``, ``loss_std``, ``loss_max`` over the episode.

        Reading them clears the actor's losses, so that nothing is kept for actors that do not come back:
        a second call gives the exploration rate alone. Without a loss in the episode the loss keys are
        absent, and ``loss_std`` is so below two.
        """
        return {self.config.exploration_rate_name: self.exploration_rate, **self._losses.take(actor_id)}

    def on_episode_start(self, actor_id: ActorId) -> None:
        """End that actor's episode before, if it was given up: what it did still counts, its losses don't."""
        self._losses.drop(actor_id)
        if actor_id == self._last_actor:
            self._last_actor = None  # what is learned from now on belongs to no episode of its
        self._remember(self._steps.give_up(actor_id))

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer, exploring generator, counters, settings, spaces, and running episodes.

        The replay, with its generator, is left out. Weights and moments share the agent's memory.
        """
        return {
            "agent": "dqn",
            "config": msgspec.to_builtins(self.config),
            **self._spaces.describe(),
            "online": dict(self._online.state_dict()),
            "target": dict(self._target.state_dict()),
            "optimizer": self._optimizer.state_dict(),
            "explore_generator": generator_state(self._explore),
            "total_steps": self.total_steps,
            "opt_steps": self.opt_steps,
            **self._steps.state_dict(),
            "moments": self._moments.state_dict(),
            "losses": self._losses.state_dict(),
            "last_actor": self._last_actor,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Become what ``state_dict`` described; publish to policies afterwards.

        The settings stay those that this agent was made with, so that a resume may change, say, the
        learning rate; the sizes of the network may not differ.

        Raises:
            ConfigError: The state is of another kind of agent, of other spaces or sizes; nothing was changed.
        """
        check_state(state, self.state_dict())
        self._online.load_state_dict(state["online"])
        self._target.load_state_dict(state["target"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._explore.bit_generator.state = state["explore_generator"]
        self.total_steps = int(state["total_steps"])
        self.opt_steps = int(state["opt_steps"])
        self._steps.load_state_dict(state)
        self._moments.load_state_dict(state["moments"])
        self._losses.load_state_dict(state["losses"])
        self._last_actor = state["last_actor"]

    def _remember(self, transitions: Sequence[Transition]) -> None:
        for transition, mask in transitions:
            self._replay.add(transition, mask)

    def _normalize(self, experiences: Sequence[Experience]) -> None:
        """Take the observations into the statistics; the target network gets them with its next weights."""
        for experience in experiences:
            if self._moments.add(experience.observation):
                self._online.set_moments(self._moments.mean(), self._moments.scale())

    def _limit_gradients(self) -> None:
        """Scale the gradients down where their norm is beyond ``max_grad_norm``."""
        most = self.config.max_grad_norm
        if most is not None:
            gradients = self._weights.gradients
            norm = float(torch.linalg.vector_norm(gradients))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
            if not math.isfinite(norm):
                raise TrainingDiverged(
                    f"DQN diverged: the gradient of optimization step {self.opt_steps + 1} has the norm "
                    f"{norm}; scale observations and rewards, and resume from an earlier checkpoint"
                )
            if norm > most:
                gradients.mul_(most / norm)

    def _follow(self) -> None:
        """Bring the target network after the online network, as the settings say."""
        if self.config.tau is not None:
            self._target_weights.blend_from(self._weights, self.config.tau)
        elif self.opt_steps % self.config.target_update_interval == 0:
            self._target_weights.copy_from(self._weights)
