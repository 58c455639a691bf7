"""Several policies at once: ``stoker train ... --policy NAME=PATTERN[:AGENT]``, and ``stoker resume``."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
from anyio import to_thread
from rich.console import Console

from stoker.cli.driving import metrics_server
from stoker.cli.export_best import check_export, export_best
from stoker.cli.group_views import GroupScreen
from stoker.cli.limits import Limits, TrainingCommand
from stoker.cli.printing import command, from_here, note, say_json
from stoker.errors import ConfigError, StokerError
from stoker.session.signals import stop_on_signals
from stoker.trainer.config import TrainConfig
from stoker.trainer.views.text import number

if TYPE_CHECKING:
    from stoker.multi import MultiAgentSession
    from stoker.runs import TrainingGroup
    from stoker.telemetry import TrainingReading
    from stoker.trainer.groups import GroupTraining


def parsed_policies(words: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Pattern and agent of each policy, by name.

    Raises:
        ConfigError: A word is not ``NAME=PATTERN[:AGENT]``, or a name comes twice.
    """
    found: dict[str, tuple[str, str]] = {}
    for word in words:
        name, equals, rest = word.partition("=")
        pattern, _, agent = rest.partition(":")
        if not (name and equals and pattern) or name in found:
            twice = " (twice)" if name in found else ""
            raise ConfigError(
                f"--policy {word}{twice}: write NAME=PATTERN[:AGENT], as in --policy 'red=adversary_*:ppo'"
            )
        found[name] = pattern, agent
    return found


async def train_policies(
    flags: TrainingCommand, training: TrainConfig, policies: Sequence[str], name: str, version: str, root: str
) -> int:
    """Train several policies, into a new group below ``root``; the exit code."""
    from stoker.trainer.groups import GroupConfig, GroupTraining

    config = GroupConfig.of(training, parsed_policies(policies))
    made = await to_thread.run_sync(GroupTraining, config)
    for agent in made.agents.values():
        check_export(flags.export_best, agent)
    group = await made.create(name, version, root)
    agents = ", ".join(f"{policy} ({own.training.agent})" for policy, own in config.policies.items())
    note(f"training {agents} on {training.env}; group: {from_here(group.directory)}")
    return await _drive(flags, made, group)


async def resume_policies(
    flags: TrainingCommand, directory: Path, changed: Callable[[TrainConfig], TrainConfig]
) -> int:
    """Resume a group, with what the flags change in its config; the exit code."""
    from stoker.runs import TrainingGroup
    from stoker.trainer.groups import GroupConfig, GroupTraining

    group = await TrainingGroup.resume(directory)
    config = GroupConfig.from_builtins(group.committed.config, directory)
    config = msgspec.structs.replace(config, training=changed(config.training))
    done, wanted = group.committed.joint_steps, config.training.total_timesteps
    if done >= wanted:
        again = command(["stoker", "resume", str(directory), "-n", str(2 * done)])
        print(f"{from_here(directory)} has all its {done:,} joint steps; to continue: {again}")
        return 0
    training = await to_thread.run_sync(GroupTraining, config)
    note(f"resuming {', '.join(group.runs)} from joint step {done:,} of {wanted:,}")
    return await _drive(flags, training, group)


class _Stopper:
    """Stops the group once it is open."""

    def __init__(self, training: GroupTraining) -> None:
        self._training = training

    def stop(self) -> None:
        session = self._training.session
        if session is None:
            raise StokerError("stop: the group is not open yet")
        session.stop()

    def note_signal(self, name: str) -> None:
        if (session := self._training.session) is not None:
            session.note_signal(name)


async def _drive(flags: TrainingCommand, training: GroupTraining, group: TrainingGroup) -> int:
    """Train until the end, a signal or the time limit, and print the result."""
    limits, began = flags.limits(), time.monotonic()
    config = training.config.training
    title = f"{', '.join(training.agents)} · {config.env} · {config.num_envs} environments"
    screen = GroupScreen(Console(stderr=True), title, config.total_timesteps, progress=flags.progress)

    def read(name: str) -> TrainingReading | None:
        session = training.session
        return None if session is None else session.sessions[name].telemetry()

    async def watch(session: MultiAgentSession) -> None:
        gc.freeze()  # a full collection, which stops the event loop, leaves out what stays
        async with anyio.create_task_group() as tasks:
            if limits.max_s is not None:
                tasks.start_soon(_stop_in_time, session, limits, screen)
            tasks.start_soon(screen.follow, session)

    server = metrics_server(flags, {name: partial(read, name) for name in training.agents})
    try:
        if server is not None:
            screen.say(f"metrics: {server.url}")
        async with stop_on_signals(_Stopper(training), grace_s=limits.grace_s):
            await training.run(group, watch)
    finally:
        if server is not None:
            server.close()
    session = training.session
    if session is None:
        return 1
    policies: dict[str, Any] = {
        name: {
            "run": str(group.runs[name].directory),
            "total_steps": one.total_steps,
            "total_episodes": one.total_episodes,
            "best_eval_reward": one.best_value,
        }
        for name, one in session.sessions.items()
    }
    is_short = session.joint_steps < config.total_timesteps
    head = "Interrupted" if is_short else "Done"
    of_total = f" of {config.total_timesteps:,}" if is_short else ""
    lines = [f"{head}: {session.joint_steps:,}{of_total} joint steps in {time.monotonic() - began:,.0f} s"]
    for name, facts in policies.items():
        steps, episodes = facts["total_steps"], facts["total_episodes"]
        best = number(facts["best_eval_reward"])
        lines.append(f"  {name:<18} {steps:,} steps, {episodes:,} episodes, best evaluation {best}")
    lines.append(f"  {'group':<18} {from_here(group.directory)}")
    if is_short:
        lines.append(f"  {'resume':<18} {command(['stoker', 'resume', str(group.directory)])}")
    if flags.export_best and not is_short:
        lines += [await export_best(run.directory, flags.export_best) for run in group.runs.values()]
    if flags.json:
        note("\n".join(lines))
        say_json({"group": str(group.directory), "joint_steps": session.joint_steps, "policies": policies})
    else:
        print("\n".join(lines))
    return 0


async def _stop_in_time(session: MultiAgentSession, limits: Limits, screen: GroupScreen) -> None:
    await anyio.sleep(max(0.0, limits.finishes_at(0.0) - time.monotonic()))
    screen.say("finishing: the time is nearly over, saving the training")
    session.stop()
