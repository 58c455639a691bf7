"""The training behind ``stoker serve``: its run, which the next start continues, and its session."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import msgspec
from anyio import to_thread

from stoker.agents.registry import make_agent
from stoker.cli.printing import from_here
from stoker.cli.stored import discard, written_config
from stoker.errors import ConfigError, RunNotFound
from stoker.protocol import Spaces, difference
from stoker.runs import TrainingRun
from stoker.service.fixed_policy import FixedPolicy
from stoker.session import SessionConfig, TrainingSession
from stoker.trainer.config import TrainConfig, shared_settings
from stoker.trainer.making import check_has_data, recorders_for, set_torch_threads, spaces_for
from stoker.trainer.parts import NamedDataset
from stoker.trainer.warming import warmed_up

_OTHER_RUN = "choose another --name or --run-version, or remove that run"


class ServedTraining:
    """A training whose actors are remote. Get one from ``find``; ``begin`` makes its run, if it has none.

    Args:
        config: what to train; the first client may still have to say its spaces.
        run: the run to continue, or None.
        max_steps: environment steps to learn from; None: no end.
    """

    def __init__(self, config: TrainConfig, run: TrainingRun | None, max_steps: int | None) -> None:
        self.config: TrainConfig = config
        self.spaces: Spaces | None = None if config.spaces is None else msgspec.convert(config.spaces, Spaces)
        self._agent = None if self.spaces is None else _agent_for(config)
        self._run = run
        self._is_new = run is None
        self._is_new_root = False
        self._max_steps = max_steps

    @classmethod
    async def find(
        cls, config: TrainConfig, root: Path, name: str, version: str, *, max_steps: int | None
    ) -> Self:
        """The training to continue, or a new one; nothing is written.

        Raises:
            ConfigError: The run there has other spaces, or another agent; or a setting cannot be used.
            MissingDependency: A recorder's package is not installed.
        """
        SessionConfig(**_session_settings(config, max_steps))
        recorders_for(config)
        run = None
        with contextlib.suppress(RunNotFound):
            run = await TrainingRun.resume(root / name / version)
            config = await _checked(config, run)
        set_torch_threads(config)
        return await to_thread.run_sync(cls, config, run, max_steps)

    async def begin(self, root: Path, name: str, version: str) -> None:
        """Lock the run; make it, if there is none to continue.

        Raises:
            RunLocked: Another process writes it.
        """
        if self._run is None:
            self._is_new_root = not await to_thread.run_sync(root.exists)
            self._run = await TrainingRun.create(name, version, root=root)
        await self._run.acquire_if_needed()

    @property
    def what(self) -> str:
        """What is served, in words."""
        of = self.config.env or ("the spaces of its first client" if self.spaces is None else "remote actors")
        return f"{self.config.agent} on {of}"

    @property
    def lines(self) -> list[str]:
        """The run in a line; and when an endless training stops to learn, if it does."""
        reached = 0 if self._is_new or self._run is None else self._run.newest_step()
        lines = [f"{'run':<8} {self._place}" + (f", continuing behind step {reached:,}" if reached else "")]
        settings = self.config.agent_settings
        if self._max_steps is None and getattr(settings, "learning_rate_schedule", "") == "linear":
            lines.append(
                f"{'learns':<8} for {settings.schedule_steps:,} steps; then the learning rate is 0 "
                "(--learning-rate-schedule constant: it learns on)"
            )
        return lines

    def farewell(self, done: str) -> str:
        """The last line."""
        return f"saved: {done}; the same command continues {self._place}"

    @property
    def _place(self) -> str:
        return "" if self._run is None else from_here(self._run.directory)

    @asynccontextmanager
    async def session(self, *spaces: Any) -> AsyncGenerator[TrainingSession]:
        """Open the session, with the spaces of the first client if the config has none."""
        if spaces:
            described = msgspec.to_builtins(Spaces.of(*spaces))
            self.config = msgspec.structs.replace(self.config, spaces=described)
        config, run, agent = self.config, self._run, self._agent
        if agent is None:
            agent = await to_thread.run_sync(_agent_for, config)
        if run is not None and self._is_new:  # first, so that a killed run can be continued
            await run.write_config(config)
        settings = _session_settings(config, self._max_steps)
        async with TrainingSession(agent, run, recorders=recorders_for(config), **settings) as session:
            if run is not None and not self._is_new:  # one that does not fit must not replace the run's
                await run.write_config(config)
            yield session

    async def discard(self) -> None:
        """Remove a run that was made now, because its session could not be opened."""
        if self._run is not None and self._is_new:
            await to_thread.run_sync(discard, self._run, self._is_new_root)


class ServedPolicy:
    """A policy that answers remote actors, and learns nothing.

    Args:
        path: a run, or a policy of ``stoker export``. Blocks.
        which: of a run.

    Raises:
        RunNotFound, RunBroken, CheckpointNotFound, CheckpointCorrupt, ConfigError, MissingDependency: As for
            ``load_policy``.
    """

    def __init__(self, path: str, which: str | None) -> None:
        self._policy = FixedPolicy(path, which)
        self._path = path
        self.spaces: tuple[Any, Any] = self._policy.spaces.gymnasium()
        self.what: str = f"a fixed policy, {self._policy.name}"
        self.lines: list[str] = [f"{'policy':<8} {from_here(Path(path))}"]

    def farewell(self, done: str) -> str:
        """The last line."""
        return f"answered: {done}"

    def session(self) -> FixedPolicy:
        """The policy, to be entered."""
        return self._policy

    async def begin(self, *_: object) -> None:
        """Do nothing: a fixed policy has no run."""

    async def discard(self) -> None:
        """Do nothing: a fixed policy has no run."""


async def _checked(config: TrainConfig, run: TrainingRun) -> TrainConfig:
    """The config for a run that is there, with its spaces.

    Raises:
        ConfigError: The run is another one's.
    """
    place = from_here(run.directory)
    if (stored := await written_config(run, dict[str, Any])) is None:  # killed before it had one
        return config
    spaces, agent = stored.get("spaces"), stored.get("agent")
    if spaces is None:
        raise ConfigError(f"{place} was not made by `stoker serve`: {_OTHER_RUN}")
    if agent != config.agent:
        raise ConfigError(f"{place} is of agent={agent!r}, not {config.agent!r}: {_OTHER_RUN}")
    if config.spaces is not None:
        there, given = (msgspec.convert(each, Spaces) for each in (spaces, config.spaces))
        if found := difference(there, given):
            raise ConfigError(
                f"{place} has other spaces: {found.path} is {found.one!r} there and {found.other!r} here; "
                f"{_OTHER_RUN}"
            )
    return msgspec.structs.replace(config, spaces=spaces)


def _agent_for(config: TrainConfig) -> Any:
    check_has_data(config)
    set_torch_threads(config)  # torch lets each thread keep the number that was set when it began
    agent = make_agent(config.agent, *spaces_for(config), config.agent_settings, config.seed, config.device)
    if config.warm_data:
        warmed_up(agent, NamedDataset(config.warm_data, config.ends), config.mix)
    return agent


def _session_settings(config: TrainConfig, max_steps: int | None) -> dict[str, Any]:
    shared = shared_settings(config, SessionConfig)
    return {**shared, "max_steps": max_steps, "eval_freq": 0, "numbered": True}
