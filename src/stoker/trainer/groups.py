"""A whole training of several policies from a config: agents, environments, evaluations, and the group.

Each agent of the environment belongs to the first policy whose pattern fits its name. ``group.json`` holds
all that a resume needs.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec
import torch

from stoker.actors import JointActorGroup, LearningSeat, Seat
from stoker.actors.episodes import EnvCalls, EnvironmentFailed, opened_env
from stoker.agents.protocol import LearningAgent
from stoker.agents.registry import make_agent
from stoker.envs import episode_seed
from stoker.envs.joint import CheckedJointEnv, JointStep, shared_spaces
from stoker.errors import ConfigError, RunBroken
from stoker.exits import single_error
from stoker.multi import MultiAgentSession
from stoker.protocol import Spaces
from stoker.raising import described
from stoker.runs import TrainingGroup
from stoker.runs.status import ENDLESS_STEPS
from stoker.session import PolicySnapshot
from stoker.stats import EpisodeRecord, check_record
from stoker.trainer.config import TrainConfig, config_from
from stoker.trainer.making import env_for, probed
from stoker.trainer.training import session_settings
from stoker.types import ActMode, AnyPath, EpisodeStatus

_logger = logging.getLogger(__name__)


class PolicyConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One policy of a group.

    Attributes:
        pattern: the agents that it plays, such as ``adversary_*``.
        training: the config of its run; ``total_timesteps`` and all periods are the group's.
    """

    pattern: str
    training: TrainConfig


class GroupConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A training of several policies; the ``config`` in ``group.json``.

    Attributes:
        training: what all share: the environment, and limits and periods in joint steps.
        policies: by name; an agent belongs to the first whose pattern fits.
    """

    training: TrainConfig
    policies: dict[str, PolicyConfig]

    @classmethod
    def of(cls, training: TrainConfig, policies: Mapping[str, tuple[str, str]]) -> GroupConfig:
        """From the config that all share.

        Args:
            training: its agent and the settings of that are those of each policy that names no other agent.
            policies: pattern and agent of each, by name; an empty agent: that of ``training``.
        """
        found: dict[str, PolicyConfig] = {}
        for number, (name, (pattern, agent)) in enumerate(policies.items()):
            own = training
            if agent not in ("", training.agent):
                shared = {**msgspec.to_builtins(training), "agent": agent, "agent_settings": None}
                own = config_from(shared, f"--policy {name}")
            own = msgspec.structs.replace(own, seed=training.seed + number)  # else they begin as equals
            found[name] = PolicyConfig(pattern=pattern, training=own)
        return cls(training=training, policies=found)

    def to_builtins(self) -> dict[str, Any]:
        """As plain values."""
        return msgspec.to_builtins(self)

    @classmethod
    def from_builtins(cls, values: Any, path: Path) -> GroupConfig:
        """From what ``to_builtins`` gave.

        Raises:
            RunBroken: It is none.
        """
        if values is None:
            raise RunBroken(path, "it has no config: a program made this group; resume it there")
        try:
            given: dict[str, Any] = values["policies"]
            policies = {
                name: PolicyConfig(pattern=policy["pattern"], training=config_from(policy["training"], name))
                for name, policy in given.items()
            }
            return cls(training=config_from(values["training"], "config"), policies=policies)
        except (AttributeError, LookupError, TypeError, ConfigError) as error:
            problem = f"this stoker cannot use its config: {type(error).__name__}: {error}"
            raise RunBroken(path, problem) from error

    def policy_of(self, agent: str) -> str:
        """The policy of an agent.

        Raises:
            ConfigError: No pattern fits.
        """
        for name, policy in self.policies.items():
            if fnmatchcase(agent, policy.pattern):
                return name
        patterns = ", ".join(f"{name}={policy.pattern}" for name, policy in self.policies.items())
        raise ConfigError(
            f"agent {agent!r} has no policy: none of {patterns} fits; add --policy NAME=PATTERN"
        )


class GroupTraining:
    """A training of several policies.

    Args:
        config: what to train.

    Attributes:
        agents: what learns, by the name of the policy.
        session: once it runs.

    Raises:
        ConfigError: The environment cannot be made, or policies and agents do not fit.
    """

    def __init__(self, config: GroupConfig) -> None:
        self.config = config
        self.session: MultiAgentSession | None = None
        self._spaces = _spaces_of(config)
        self.agents: dict[str, LearningAgent] = {}
        for name, policy in config.policies.items():
            own, spaces = policy.training, self._spaces[name]
            self.agents[name] = make_agent(own.agent, *spaces, own.agent_settings, own.seed, own.device)

    async def create(self, name: str, version: str, root: AnyPath) -> TrainingGroup:
        """Make the group's directory, with the config of each policy's run."""
        group = await TrainingGroup.create(
            name, version, policies=self.config.policies, root=root, config=self.config.to_builtins()
        )
        for policy, run in group.runs.items():
            spaces = msgspec.to_builtins(Spaces.of(*self._spaces[policy]))
            own = msgspec.structs.replace(
                self.config.policies[policy].training, total_timesteps=ENDLESS_STEPS, spaces=spaces
            )
            await run.write_config(own)
            await run.aclose()
        return group

    async def run(
        self,
        group: TrainingGroup,
        watch: Callable[[MultiAgentSession], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        """Train until ``total_timesteps`` joint steps, or until the session is stopped.

        Args:
            group: new, or to be resumed.
            watch: runs beside the training and is cancelled when that ends.

        Raises:
            ActorFailed: An environment failed too often.
            SessionFailed: A policy's session failed.
        """
        config = self.config.training
        settings = session_settings(config)
        for name in ("max_steps", "checkpoint_freq", "eval_freq", "lockstep"):
            settings.pop(name, None)
        async with contextlib.AsyncExitStack() as ending:
            ending.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(config.torch_threads)
            self.session = session = await ending.enter_async_context(
                MultiAgentSession(
                    self.agents,
                    self.config.policy_of,
                    group,
                    max_joint_steps=config.total_timesteps,
                    checkpoint_freq=config.checkpoint_freq,
                    **settings,
                )
            )
            seats: dict[str, Seat] = {name: LearningSeat(one) for name, one in session.sessions.items()}
            actors = JointActorGroup(
                seats,
                partial(env_for, config),
                config.num_envs,
                policy_of=self.config.policy_of,
                seed=config.seed,
                stepping=config.stepping,
                on_joint_step=session.on_joint_step,
            )
            with single_error():
                async with anyio.create_task_group() as tasks:
                    if watch is not None:
                        tasks.start_soon(watch, session)
                    if config.eval_freq:
                        tasks.start_soon(self._evaluate_often, session)
                    await actors.run()
                    tasks.cancel_scope.cancel()
            if config.eval_freq and not session.was_stopped:
                await self._evaluate(session)

    async def _evaluate_often(self, session: MultiAgentSession) -> None:
        freq = self.config.training.eval_freq
        while True:
            await session.reached((session.joint_steps // freq + 1) * freq)
            await self._evaluate(session)

    async def _evaluate(self, session: MultiAgentSession) -> None:
        """Play greedy episodes of all policies together; each is scored by the mean over its agents."""
        snapshots = {name: await one.snapshot() for name, one in session.sessions.items()}
        try:
            records = await play_together(self.config, snapshots)
        except EnvironmentFailed as failure:
            cause = described(failure.__cause__ or failure)
            _logger.warning("the evaluation is left out: its environment failed (%s)", cause)
            return
        for name, found in records.items():
            one = session.sessions[name]
            for record in found:
                await one.on_eval_episode(record, snapshots[name])
            await one.maybe_save_best(sum(each.total_reward for each in found) / len(found), snapshots[name])


async def play_together(
    config: GroupConfig,
    snapshots: Mapping[str, PolicySnapshot],
    n_episodes: int | None = None,
    *,
    seed: int | None = None,
    around: Callable[[Any], Any] | None = None,
) -> dict[str, list[EpisodeRecord]]:
    """Play greedy episodes of all policies of a group.

    Args:
        config: of the group.
        snapshots: the policies by name, all of them.
        n_episodes: how many; None: as many as the training's evaluations have.
        seed: of the episodes; None: the training's, which gives those of its evaluations.
        around: wraps the environment, to film it.

    Returns:
        A record for each policy and episode: the mean of the total rewards of its agents.

    Raises:
        EnvironmentFailed: The environment raised an error, or returned something unusable.
    """
    shared = config.training
    seed = shared.seed if seed is None else seed
    records: dict[str, list[EpisodeRecord]] = {name: [] for name in snapshots}

    def make() -> Any:
        env = env_for(shared)
        return env if around is None else around(env)

    async with opened_env(make, shared.stepping, "evaluation env") as env:
        for k in range(n_episodes or shared.eval_episodes):
            played = await _play(config, env, snapshots, episode_seed(seed, k, 0, stream="evaluation"))
            for name, record in played.items():
                records[name].append(record)
    return records


async def _play(
    config: GroupConfig, env: Any, snapshots: Mapping[str, PolicySnapshot], seed: int
) -> dict[str, EpisodeRecord]:
    call, policy_of, n_steps = EnvCalls(), config.policy_of, 0
    totals: dict[str, dict[str, float]] = {name: {} for name in snapshots}
    now: JointStep = await call(env.reset(seed))
    while not now.is_over and n_steps != config.training.eval_max_episode_steps:
        actions: dict[str, Any] = {}
        for name, snapshot in snapshots.items():
            mine = [agent for agent in now.acting if policy_of(agent) == name]
            if mine:
                seen = [now.acting[agent] for agent in mine]
                actions.update(zip(mine, snapshot.act(seen, ActMode.EXPLOIT), strict=True))
        now = await call(env.step(actions))
        n_steps += 1
        for agent, reward in now.rewards():
            of_policy = totals[policy_of(agent)]
            of_policy[agent] = of_policy.get(agent, 0.0) + reward
    status = EpisodeStatus.of(now.is_over, truncated=True)
    return {
        name: check_record(
            EpisodeRecord(sum(found.values()) / max(1, len(found)), max(1, n_steps), status, {})
        )
        for name, found in totals.items()
    }


def _spaces_of(config: GroupConfig) -> dict[str, tuple[Any, Any]]:
    """The spaces of each policy, by its name.

    Raises:
        ConfigError: An agent has no policy, a policy no agent, or the agents of one have different spaces.
    """
    with probed(config.training) as env:
        if not isinstance(env, CheckedJointEnv):
            raise ConfigError(
                "--policy needs an environment of several agents, such as pettingzoo:mpe2.simple_tag_v3, "
                f"and {config.training.env!r} has one"
            )
        agents: dict[str, list[str]] = {name: [] for name in config.policies}
        for agent in env.agents:
            agents[config.policy_of(agent)].append(agent)
        for name, mine in agents.items():
            if not mine:
                raise ConfigError(
                    f"--policy {name}={config.policies[name].pattern}: it has none of the agents "
                    f"{', '.join(env.agents)}"
                )
        return {name: shared_spaces(env, mine, f"policy {name!r}") for name, mine in agents.items()}
