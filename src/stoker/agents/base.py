"""What stoker's agents share: a network with packed weights and Adam, acting copies, and saved state.

``stoker.agents.off_policy`` adds a replay for the agents that learn from one. The same seed and the same
order of calls give the same weights: an agent has its own generators.
"""

from __future__ import annotations

import contextlib
import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, NoReturn, Self, TypeVar

import msgspec
import numpy as np
import torch
from torch import nn

from stoker.agents.config import AgentConfig
from stoker.agents.networks import NumpyPass, ObservationNetwork
from stoker.agents.packing import PackedAdam, PackedWeights
from stoker.agents.policy_module import PolicyModule
from stoker.agents.protocol import Policy, Stateful
from stoker.agents.spaces import AgentSpaces
from stoker.errors import ConfigError, TrainingDiverged
from stoker.processing import RunningMoments
from stoker.settings import settings_from
from stoker.types import ActMode, Experience, ExperienceBatch

ConfigT = TypeVar("ConfigT", bound=AgentConfig)
NetworkT = TypeVar("NetworkT", bound=ObservationNetwork)
PolicyT = TypeVar("PolicyT", bound="NetworkPolicy[Any]")


class NetworkPolicy(ABC, Generic[NetworkT]):
    """Acts with its own network, in one forward pass for all observations.

    The policies that an agent makes share its generator, so that a checkpoint holds it: let one thread at a
    time act with any of them. A ``fork`` has its own generator and may act anywhere; it can be pickled.

    Args:
        network: this policy's own, on the device to compute on.
        spaces: of the environment.
        explore: the generator of exploration.
        published: the numbers that the agent publishes besides weights, for example ``{"epsilon": 0.1}``.
    """

    def __init__(
        self,
        network: NetworkT,
        spaces: AgentSpaces[Any],
        explore: np.random.Generator,
        published: Mapping[str, float],
    ) -> None:
        self.network = network
        self.published: Mapping[str, float] = published
        self._packed = PackedWeights(network)
        self._device = self._packed.values.device
        self._spaces = spaces
        self._explore = explore
        is_small = self._device.type == "cpu" and network.perceptrons
        self._small = NumpyPass(network) if is_small else None

    @abstractmethod
    def act(self, observations: Sequence[Any], mode: ActMode) -> tuple[Sequence[Any], Sequence[Any] | None]:
        """Choose one action per observation, in the same order; see ``Policy``."""

    def follow(self, weights: PackedWeights, published: Mapping[str, float]) -> None:
        """Copy in the weights of an equal network, and take these numbers."""
        self._packed.copy_from(weights)
        self.published = published

    def fork(self, seed: int) -> Self:
        """An independent copy on the CPU, with an exploration generator made from the seed."""
        return type(self)(*self._on_cpu(seeded_generator(seed)))

    def weights(self) -> dict[str, Any]:
        """The network's weights, its moments if it normalizes, and the published numbers, by name."""
        return {**self._packed.named_copy(), **self.published}

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        """Act like the policy whose ``weights()`` these are; ``ConfigError`` if they do not fit."""
        for name in self.published:
            if not isinstance(weights.get(name), int | float):
                raise ConfigError(f"these weights lack {name}: load those of a policy with the same settings")
        self._packed.load_named(weights)
        self.published = {name: weights[name] for name in self.published}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._on_cpu(self._explore)

    def _on_cpu(self, explore: np.random.Generator) -> tuple[Any, ...]:
        """The constructor's arguments for a copy on the CPU."""
        # Its tensors are its own: multiprocessing moves them to memory shared with the other process.
        return copy.deepcopy(self.network).cpu(), self._spaces, explore, self.published


class BaseAgent(ABC, Generic[ConfigT, NetworkT, PolicyT]):
    """A network that acts and is trained, and all that a session needs from an agent except the learning.

    A subclass names its ``_policy_type`` and, in ``action_kinds``, the kinds of action spaces that it acts
    in. It makes its network, implements ``observe`` and ``learn``, and adds to ``_parts`` and ``_generators``
    whatever is saved and restored with it.

    Args:
        spaces: of the environment.
        config: the settings, with ``network="auto"`` replaced.
        seeds: of its generators.
        network: acts; the gradients of its weights are packed.
        adam_eps: what Adam adds to the root of the mean square of a gradient.

    Attributes:
        name: of the kind of agent.
        acting_state: the entries of ``state_dict`` that acting changes and learning does not.
        needs_policy_extras: whether it learns only from actions whose extras its policy recorded.
        config: the settings.
        total_steps: transitions observed, ever.
        opt_steps: optimization steps done, ever.
    """

    name: ClassVar[str]
    acting_state: frozenset[str] = frozenset({"explore_generator"})
    needs_policy_extras = False

    _policy_type: type[PolicyT]
    """The type of its acting copies."""

    _kept_settings: ClassVar[tuple[str, ...]] = ("network", "normalize_observations")
    """The settings that give the weights their meaning: a saved state fits only with the same."""

    def __init__(
        self,
        spaces: AgentSpaces[Any],
        config: ConfigT,
        seeds: AgentSeeds,
        network: NetworkT,
        adam_eps: float = 1e-8,
    ) -> None:
        self.config = config
        self.total_steps: int = 0
        self.opt_steps: int = 0
        self._spaces = spaces
        self._network = network
        # Copied now: after learning a user's module may keep a tensor of the graph, which cannot be.
        self._blank = copy.deepcopy(network).requires_grad_(requires_grad=False)
        self._weights = PackedWeights(network, has_gradients=True)
        self._device = self._weights.values.device
        self._optimizer = PackedAdam(self._weights, eps=adam_eps, max_grad_norm=config.max_grad_norm)
        self._moments = RunningMoments(spaces.observations.n_statistics)
        self._explore = seeded_generator(seeds.exploring)
        self._generators = {"explore_generator": self._explore}
        self._parts: dict[str, Stateful] = {"network": network, "optimizer": self._optimizer}
        if config.normalize_observations:
            self._parts["moments"] = self._moments

    def __copy__(self) -> NoReturn:
        raise ConfigError(f"copy.copy of a {self.name} would share its weights: use copy.deepcopy")

    @property
    def _published(self) -> dict[str, float]:
        """The numbers that are published besides weights."""
        return {}

    @property
    def _scheduled_steps(self) -> int:
        """The steps that schedules count."""
        return self.total_steps if self.config.schedule_counts == "total_steps" else self.opt_steps

    def policy(self) -> PolicyT:
        """A new acting copy with its own weights; ``ConfigError`` if the agent's were moved or replaced."""
        self._weights.check_bound()
        policy = self._new_policy(copy.deepcopy(self._blank))
        policy.follow(self._weights, self._published)
        return policy

    def policy_module(self) -> PolicyModule:
        """The greedy policy as a module that can be exported; see ``HasPolicyModule``."""
        return PolicyModule(self.policy().network, self._spaces)

    def _new_policy(self, network: NetworkT) -> PolicyT:
        """An acting copy with this network."""
        return self._policy_type(network, self._spaces, self._explore, {})

    def publish(self, policy: Policy) -> None:
        """Copy weights, moments and published numbers into a policy that this agent made."""
        if not isinstance(policy, self._policy_type):
            kind = type(policy).__name__
            raise ConfigError(f"{self.name} publishes to the policies it made, not to a {kind}")
        policy.follow(self._weights, self._published)

    def check_experience(self, experience: Experience) -> None:
        """Raise ``InvalidExperience``, naming the value, for a transition that ``observe`` cannot take."""
        self._spaces.check_experience(experience)

    def check_batch(self, batch: ExperienceBatch) -> bool:
        """Whether ``check_experience`` surely passes each of the batch's experiences."""
        return self._spaces.are_valid(batch)

    def check_observations(self, observations: Any) -> bool:
        """Whether ``check_observation`` surely passes each row of an array."""
        return self._spaces.observations.are_valid(observations)

    def check_observation(self, observation: Any) -> None:
        """Raise ``InvalidExperience``, naming the value, for an observation that the policy cannot act on."""
        self._spaces.check_observation(observation)

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer, generators, counters, settings, spaces, and open episodes or rollouts.

        Tensors share the agent's memory.
        """
        return {
            "agent": self.name.lower(),
            "config": msgspec.to_builtins(self.config),
            **self._spaces.describe(),
            "spaces": self._spaces.plain,
            "total_steps": self.total_steps,
            "opt_steps": self.opt_steps,
            **{name: generator_state(generator) for name, generator in self._generators.items()},
            **{name: dict(part.state_dict()) for name, part in self._parts.items()},
        }

    @property
    def env_spaces(self) -> tuple[Any, Any]:
        """The spaces of observations and actions that it was made for."""
        return self._spaces.given

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned; publish to policies afterwards.

        The settings stay those that this agent was made with, so that a resume may change, for example, the
        learning rate; those that give the weights their meaning may not differ.

        Raises:
            ConfigError: The state is of another kind of agent, of other spaces or sizes; nothing was changed.
        """
        self._check_state(state)
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        for name, generator in self._generators.items():
            generator.bit_generator.state = state[name]
        self.total_steps = int(state["total_steps"])
        self.opt_steps = int(state["opt_steps"])

    def with_settings(self, settings: Mapping[str, Any]) -> Self | None:
        """A new agent with other settings; see ``ChangesSettings``.

        None for a subclass that defines its own constructor; it overrides this method to be remade.

        Raises:
            ConfigError: A setting is unknown, or one that gives the saved state its meaning differs.
        """
        config = self._adapted(settings_from(settings, type(self.config), f"settings of a {self.name}"))
        if config == self.config:
            return self
        for name in self._fixed_settings():
            self._check_fixed(name, getattr(config, name), getattr(self.config, name))
        return self._made_again(config)

    def _made_again(self, config: ConfigT) -> Self | None:
        """As ``_made_with``; the two agents may share what is large."""
        return self._made_with(config)

    @abstractmethod
    def _made_with(self, config: ConfigT) -> Self | None:
        """A new agent with this config, or None if the constructor is a subclass's."""

    def _adapted(self, config: ConfigT) -> ConfigT:
        """The config with this agent's values where they decide nothing that is learned."""
        return config

    def _fixed_settings(self) -> list[str]:
        """The settings that must be the same for a saved state to fit."""
        return [*self._kept_settings, *(["hidden_sizes"] if self.config.network == "mlp" else [])]

    def _check_fixed(self, what: str, saved: Any, here: Any) -> None:
        if saved != here:
            raise ConfigError(
                f"the saved agent's {what} does not fit: saved {saved}, here {here}; "
                "make the agent with the saved spaces and settings"
            )

    def _check_state(self, state: Mapping[str, Any]) -> None:
        own = self.state_dict()
        kind = state.get("agent")
        if kind != own["agent"]:
            keys = ", ".join(map(str, state)) or "none"
            found = f"a {kind} agent" if kind else f"no agent (its keys: {keys})"
            raise ConfigError(f"a {own['agent']} agent cannot load the state of {found}")
        saved = self._identity({**own, **state})  # first: other settings have other entries
        for what, here in self._identity(own).items():
            self._check_fixed(what, saved[what], here)
        if missing := sorted({*own} - {*state}):
            raise ConfigError(f"the saved {kind} state is incomplete: it lacks {', '.join(missing)}")

    def _identity(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The entries of a state that must equal this agent's."""
        networks = [name for name, part in self._parts.items() if isinstance(part, nn.Module)]
        return {
            **{space: state[space] for space in ("observation_space", "action_space")},
            **{setting: state["config"].get(setting) for setting in self._fixed_settings()},
            **{
                f"weights of {name}": {key: list(tensor.shape) for key, tensor in state[name].items()}
                for name in networks
            },
        }

    def _take_in(self, observations: Iterable[Any]) -> None:
        """Add packed observations to the statistics; the network normalizes by the new ones at once."""
        has_changed, numbers = False, self._spaces.observations.numbers
        for observation in observations:
            has_changed |= self._moments.add(numbers(observation))
        if has_changed:
            self._network.set_moments(self._moments.mean(), self._moments.scale())

    def _descend(self, loss: float) -> None:
        """Limit the gradients, take one step of Adam down them, and count it.

        Raises:
            TrainingDiverged: The loss or the gradient is not finite; no weight was changed.
        """
        config = self.config
        norm = 0.0 if config.max_grad_norm is None else float(self._optimizer.clip())
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise self._diverged(loss, norm or float(self._optimizer.clip()))
        self._optimizer.step(config.learning_rate_at(self._scheduled_steps))
        self.opt_steps += 1

    def _diverged(self, loss: float, norm: float) -> TrainingDiverged:
        return TrainingDiverged(
            f"{self.name} diverged: optimization step {self.opt_steps + 1} has the loss {loss} and a gradient"
            f" of norm {norm}; lower learning_rate ({self.config.learning_rate:g}), set max_grad_norm "
            f"({self.config.max_grad_norm}), clip or normalize rewards, and resume from an earlier checkpoint"
        )


class AgentSeeds(NamedTuple):
    """Independent seeds, 64 bits each: of the first weights, of batches or their order, of exploration."""

    weights: int
    learning: int
    exploring: int

    @classmethod
    def of(cls, seed: int) -> AgentSeeds:
        """The three seeds that derive from one; ``ConfigError`` unless it is an int of at least 0."""
        return cls(*(int(child.generate_state(1, np.uint64)[0]) for child in _sequence(seed).spawn(3)))

    def for_weights(self) -> torch.Generator:
        """The generator that the first weights are drawn from."""
        return torch.Generator().manual_seed(self.weights)


def seeded_generator(seed: int) -> np.random.Generator:
    """A PCG64 generator; ``ConfigError`` unless the seed is an int of at least 0."""
    return np.random.Generator(np.random.PCG64(_sequence(seed)))


def generator_state(generator: np.random.Generator) -> dict[str, Any]:
    """The state between two calls, even while another thread draws.

    A call for several numbers releases the interpreter lock while it draws them, and holds this lock.
    """
    with generator.bit_generator.lock:
        return dict(generator.bit_generator.state)


def available_devices() -> list[str]:
    """The devices of this machine by their names in torch, such as ``["cpu", "cuda:0", "cuda:1"]``."""
    if not torch.accelerator.is_available():
        return ["cpu"]
    accelerator = torch.accelerator.current_accelerator()
    kind = "cuda" if accelerator is None else accelerator.type
    return ["cpu", *(f"{kind}:{index}" for index in range(torch.accelerator.device_count()))]


def resolve_device(device: str | torch.device) -> torch.device:
    """The device of that name (``"cpu"``, ``"cuda:1"``, ...); ``ConfigError`` if this machine lacks it."""
    available = available_devices()
    with contextlib.suppress(RuntimeError, TypeError):  # torch's error lists devices of other machines
        resolved = torch.device(device)
        if resolved.type == "cpu" or f"{resolved.type}:{resolved.index or 0}" in available:
            return resolved
    raise ConfigError(f"device {str(device)!r} is not available here; available: {', '.join(available)}")


def _sequence(seed: int) -> np.random.SeedSequence:
    try:
        return np.random.SeedSequence(seed)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"seed={seed!r}: give an int of at least 0") from error
