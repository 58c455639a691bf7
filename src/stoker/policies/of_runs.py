"""The policy of a run: its checkpoint, its agent as the config describes it, and what computes its policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np
import torch
from torch import nn

from stoker import __version__
from stoker.agents.config import AgentConfig, OffPolicyConfig
from stoker.agents.plain_spaces import space_from
from stoker.agents.protocol import HasPolicyModule, LearningAgent, config_of
from stoker.agents.registry import AGENTS, config_type, make_agent
from stoker.errors import ConfigError, RunBroken
from stoker.policies.description import FORMAT, ObservationPart, PolicyDescription, action_of, parts_of
from stoker.policies.exported import LoadedPolicy
from stoker.policies.numpy_policy import Program as NumpyProgram
from stoker.policies.tracing import Program, traced
from stoker.protocol import Spaces
from stoker.runs import TrainingRun
from stoker.runs.layout import CONFIG
from stoker.runs.metadata import read_json
from stoker.runs.wanted import content_of, load_wanted
from stoker.settings import settings_from
from stoker.trainer.config import TrainConfig, config_from
from stoker.types import ActMode, AnyPath
from stoker.writer import files

_FEW = 32
"""Up to this many observations, numpy is faster than torch: see ``stoker.agents.networks.NumpyPass``."""
_WRITE = "write it with `await run.write_config(TrainConfig(...))`"


class TrainedPolicy(NamedTuple):
    """An agent whose policy is wanted, and what the policy takes and gives.

    Attributes:
        agent: with the weights of the policy.
        observation_space: of its environment.
        action_space: of its environment.
        description: of the policy.
        run: that it is from; None: of a session without a run.
    """

    agent: LearningAgent
    observation_space: Any
    action_space: Any
    description: PolicyDescription
    run: TrainingRun | None

    def module(self) -> nn.Module | None:
        """The agent's policy module; None: it gives none."""
        return self.agent.policy_module() if isinstance(self.agent, HasPolicyModule) else None

    def compute(self, module: nn.Module | None) -> Callable[..., Mapping[str, Any]]:
        """What maps the parts of N observations to N actions."""
        if module is None:
            return self._by_acting
        try:
            program = program_of(module, self.description.observation)
        except ConfigError:  # torch computes what a program cannot
            return _computed_by(module, None)
        is_small = all(node.op != "conv" for node in program.nodes)
        return _computed_by(module, program if is_small else None)

    def _by_acting(self, *arrays: Any) -> Mapping[str, Any]:
        """For an agent without a module: let its policy act."""
        parts = self.description.observation
        observations = [_nested(parts, [array[row] for array in arrays]) for row in range(len(arrays[0]))]
        actions, _ = self.agent.policy().act(observations, ActMode.EXPLOIT)
        return {"action": np.asarray(actions)}


def trained_policy(path: AnyPath, which: str | int | None = None) -> TrainedPolicy:
    """Find a run's policy; the errors are those of ``load_policy``. Blocks."""
    run = TrainingRun.find(path)
    checkpoint, state = load_wanted(run, None if which is None else str(which))
    return policy_in(state, run, checkpoint)


def policy_in(
    state: Mapping[str, Any], run: TrainingRun | None, checkpoint: Path | None = None
) -> TrainedPolicy:
    """The policy in the state of a checkpoint or of a ``PolicySnapshot``. Blocks.

    Args:
        state: whose tensors are copied.
        run: that it is from; None: a session without one.
        checkpoint: its file, if it is from one.

    Raises:
        RunBroken, ConfigError: As for ``load_policy``.
    """
    config = None if run is None else _config_of(run)
    with content_of(checkpoint):
        known = _known_agent_of(state)
    agent, observation_space, action_space = known or _own_agent_of(state, config, run)
    parts = parts_of(observation_space)
    with content_of(checkpoint):
        agent.load_state_dict(state["agent"])
        description = PolicyDescription(
            format=FORMAT,
            env="" if config is None else config.env,
            agent=type(agent).__name__,
            run="" if run is None else _name_of(run),
            checkpoint="" if checkpoint is None else checkpoint.name,
            total_steps=int(state["session"]["total_steps"]),
            opt_steps=int(state["session"]["opt_steps"]),
            mean_reward=float(state["best"]["value"]) if "best" in state else None,
            spaces=msgspec.to_builtins(Spaces.of(observation_space, action_space)),
            observation=parts,
            action=action_of(action_space),
            frame_stack=1 if config is None else config.frame_stack,
            preprocessing=tuple(_preprocessing(agent, parts)),
            stoker=__version__,
        )
    return TrainedPolicy(agent, observation_space, action_space, description, run)


def _name_of(run: TrainingRun) -> str:
    return f"{run.metadata.name}/{run.metadata.version}/{run.metadata.run_id}"


def _config_of(run: TrainingRun) -> TrainConfig | None:
    """The config of a run; None: a program with its own session trained it and wrote none."""
    path = run.directory / CONFIG
    if files.stat_of(path) is None:
        return None
    try:
        return config_from(read_json(path, dict[str, Any]), CONFIG)
    except ConfigError as error:
        raise RunBroken(path, f"this stoker cannot use it: {error}") from error


def _known_agent_of(state: Mapping[str, Any]) -> tuple[LearningAgent, Any, Any] | None:
    """One of stoker's agents and its spaces, of which a checkpoint says all; None: it is another agent's."""
    saved, kind = state["agent"], state.get("agent_type")
    name = saved.get("agent")
    if name not in AGENTS or not AGENTS[name].agent.endswith(f":{kind}"):
        return None
    seen, acted = (space_from(saved["spaces"][each]) for each in ("observation", "action"))
    settings = settings_from(saved["config"], config_type(name), f"settings of a {kind}")
    return make_agent(name, seen, acted, without_replay(settings)), seen, acted


def _own_agent_of(
    state: Mapping[str, Any], config: TrainConfig | None, run: TrainingRun | None
) -> tuple[LearningAgent, Any, Any]:
    """An agent made as the config says, for the spaces of its environment, and these."""
    kind = state.get("agent_type")
    if run is None:
        raise ConfigError(
            f"the policy of a {kind} in a session without a run cannot be taken out: its checkpoint does not "
            "say how to make the agent; give the session a run, and write its config"
        )
    if config is None:
        raise RunBroken(
            run.directory / CONFIG, f"is missing: it says how to make the agent, a {kind}; {_WRITE}"
        )
    from stoker.trainer.making import agent_and_spaces_for  # late: it needs environments

    made = agent_and_spaces_for(config)
    if (own := type(made[0]).__name__) != kind:
        raise ConfigError(f"{run.directory}: trained by {kind}, but its config makes a {own}")
    return made


def without_replay(settings: msgspec.Struct) -> msgspec.Struct:
    """The settings with the smallest replay: a policy needs none."""
    if not isinstance(settings, OffPolicyConfig):
        return settings
    few = max(settings.batch_size, settings.learning_starts)
    return msgspec.structs.replace(settings, buffer_size=few, memory_map=None)


def policy_of_run(path: Path, which: str | int | None) -> LoadedPolicy:
    """The part of ``load_policy`` that is about runs."""
    found = trained_policy(path, which)
    return LoadedPolicy(found.compute(found.module()), found.description, "torch")


def program_of(
    module: nn.Module, parts: Sequence[ObservationPart], *, is_stochastic: bool = False
) -> Program:
    """The module's program, with the outputs that are exported.

    Raises:
        ConfigError: It cannot be traced, or has no ``distribution`` that could be exported, too.
    """
    examples = {part.name: torch.as_tensor(np.zeros(part.shape, part.dtype)) for part in parts}
    return traced(module, outputs_of(module, is_stochastic=is_stochastic), examples)


def outputs_of(module: nn.Module, *, is_stochastic: bool) -> Callable[..., dict[str, torch.Tensor]]:
    """A function from the parts of observations to the outputs by name, of which the action is the first."""
    distribution: Any = getattr(module, "distribution", None)
    if not is_stochastic:
        return lambda *parts: {"action": module(*parts)}
    if distribution is None:
        raise ConfigError(
            f"the policy module, a {type(module).__name__}, has no method distribution(*parts), which gives "
            "what --stochastic exports: add it, or export without"
        )
    return lambda *parts: {"action": module(*parts), **distribution(*parts)}


def _computed_by(module: nn.Module, program: Program | None) -> Callable[..., Mapping[str, Any]]:
    quick = None if program is None else NumpyProgram(*program)

    def compute(*arrays: Any) -> Mapping[str, Any]:
        if quick is not None and len(arrays[0]) <= _FEW:
            return quick(*arrays)
        with torch.no_grad():
            return {"action": module(*map(torch.as_tensor, arrays)).numpy()}

    return compute


def _nested(parts: Sequence[ObservationPart], values: Sequence[Any]) -> Any:
    """An observation of its parts."""
    if [part.path for part in parts] == [()]:
        return values[0]
    found: dict[str | int, Any] = {}
    for part, value in zip(parts, values, strict=True):
        place = found
        for step in part.path[:-1]:
            place = place.setdefault(step, {})
        place[part.path[-1]] = value
    return _with_tuples(found)


def _with_tuples(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    members = cast("dict[str | int, Any]", value)
    inner = {key: _with_tuples(each) for key, each in members.items()}
    return tuple(inner.values()) if all(isinstance(key, int) for key in inner) else inner


def _preprocessing(agent: LearningAgent, parts: Sequence[ObservationPart]) -> list[str]:
    """What stoker's agents do with observations, in words."""
    config = config_of(agent)
    if not isinstance(config, AgentConfig):
        return []
    found: list[str] = []
    if config.normalize_observations:
        found.append("numbers are normalized by their running mean and variance, and limited to +-10")
    if any(part.dtype == "uint8" for part in parts) and not (
        config.normalize_observations and len(parts) == 1
    ):
        found.append("uint8 is scaled to 0..1")
    if any(part.space.startswith(("Discrete", "MultiDiscrete")) for part in parts):
        found.append("whole numbers are one-hot")
    if any(part.path == ("action_mask",) for part in parts):
        found.append("actions whose action_mask is 0 are not taken")
    return found
