"""``--restart-learner``: a training that keeps itself running on a Ray cluster; the command follows it."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from stoker.cli.limits import TrainingCommand
from stoker.cli.parsing import Command, RunPath
from stoker.cli.printing import command, from_here, note
from stoker.cli.stored import discard, open_trained
from stoker.errors import ConfigError, RunNotFound, SessionError
from stoker.runs import TrainingRun
from stoker.signals import ENDING_SIGNALS
from stoker.trainer.config import TrainConfig, name_of

if TYPE_CHECKING:
    from stoker.distributed.cluster import Cluster
    from stoker.distributed.learner import DetachedLearner
    from stoker.distributed.supervising import LearnerStatus


async def train_elsewhere(flags: TrainingCommand, config: TrainConfig, place: Path) -> int:
    """Start a training on a cluster, in a new run, and follow it; the exit code.

    If the newest run at that place is in training there, it is followed instead: a command that a scheduler
    starts again does not begin a second training.

    Args:
        flags: of the command.
        config: of the training; its agent can be made.
        place: the directory of the runs of that name and version.
    """
    with await _connected(config) as cluster:
        if (newest := await _newest(place)) is not None:
            learner = _learner(cluster, newest)
            if await to_thread.run_sync(learner.is_running):
                note(f"this training runs already: {from_here(newest.directory)}")
                return await _follow(learner, newest)
        name, root = place.parent, place.parents[1]
        is_new_root = not await to_thread.run_sync(root.exists)
        run = await TrainingRun.create(name.name, place.name, root=root)
        note(f"training {config.agent} on {name_of(config)}; run: {from_here(run.directory)}")
        code = await _started(flags, config, run, cluster)
        if code == 2 and not await to_thread.run_sync(run.has_begun):
            await to_thread.run_sync(discard, run, is_new_root)
        return code


async def resume_elsewhere(flags: TrainingCommand, config: TrainConfig, run: TrainingRun) -> int:
    """Follow the training of a run on a cluster, or start it there; the exit code.

    Args:
        flags: of the command.
        config: of the run, with what the flags change.
        run: the run.
    """
    with await _connected(config) as cluster:
        learner = _learner(cluster, run)
        if await to_thread.run_sync(learner.is_running):
            return await _follow(learner, run)
        note(f"resuming {config.agent} on {name_of(config)}; run: {from_here(run.directory)}")
        return await _started(flags, config, run, cluster)


class Stop(Command, frozen=True, kw_only=True):
    """Let a training that --restart-learner keeps running on a cluster finish and save, and wait for that."""

    run: RunPath
    """The run's directory, or that of a version or name: then its newest run."""

    async def __call__(self) -> int:
        run, config = await open_trained(self.run)
        with await _connected(config) as cluster:
            learner = _learner(cluster, run)
            await to_thread.run_sync(learner.stop)
            return await _follow(learner, run)


async def _connected(config: TrainConfig) -> Cluster:
    """The cluster where the training runs, or is to run.

    Raises:
        ConfigError: It ends with this command, or cannot be reached.
        MissingDependency: Ray is not installed.
    """
    from stoker.distributed.cluster import Cluster

    if config.cluster == "local":
        raise ConfigError(
            "--cluster local --restart-learner: that cluster ends with this command; start one with "
            "`ray start --head`, and give its address"
        )
    return await to_thread.run_sync(Cluster.connect, config.cluster)


def _learner(cluster: Cluster, run: TrainingRun) -> DetachedLearner:
    from stoker.distributed.learner import DetachedLearner

    return DetachedLearner(cluster, run.directory)


async def _newest(place: Path) -> TrainingRun | None:
    try:
        return await TrainingRun.open(place)
    except RunNotFound:
        return None


async def _started(flags: TrainingCommand, config: TrainConfig, run: TrainingRun, cluster: Cluster) -> int:
    """Start the training of a run, which this process does not hold, and follow it."""
    await run.write_config(config)
    await run.aclose()
    words = ["stoker", "resume", str(run.directory), "--grace", flags.grace]
    words += [] if flags.max_time is None else ["--max-time", flags.max_time]
    words += [] if flags.progress else ["--no-progress"]
    words += ["--json"] if flags.json else []
    words += ["--export-best", *flags.export_best] if flags.export_best else []
    if flags.metrics_port is not None:
        words += ["--metrics-port", str(flags.metrics_port), "--metrics-host", flags.metrics_host]
    learner = _learner(cluster, run)
    num_gpus = int((config.device or "").startswith("cuda"))
    await to_thread.run_sync(partial(learner.start, words, num_gpus=num_gpus))
    return await _follow(learner, run)


async def _follow(learner: DetachedLearner, run: TrainingRun) -> int:
    """Show what the training prints until it has ended, or a signal comes; the exit code."""
    is_left = False
    last = ""

    def say(text: str, *, is_output: bool) -> None:
        nonlocal last
        print(text, file=sys.stdout if is_output else sys.stderr, flush=True)
        last = last if is_output else text

    async def leave_at_signal() -> None:
        nonlocal is_left
        with anyio.open_signal_receiver(*ENDING_SIGNALS) as signals:
            async for _ in signals:
                is_left = True

    ended: LearnerStatus | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave_at_signal)
        ended = await to_thread.run_sync(learner.follow, say, note, lambda: is_left)
        tasks.cancel_scope.cancel()
    directory = str(run.directory)
    if ended is None:
        follow = command(["stoker", "resume", directory, "--restart-learner"])
        stop = command(["stoker", "stop", directory])
        note(f"detached: the training goes on; follow it: `{follow}`; end it: `{stop}`")
        return 0
    if ended.exit_code and last != ended.reason:
        if ended.exit_code == 2:
            raise ConfigError(ended.reason)
        raise SessionError(f"the learner on {ended.node} ended: {ended.reason}")
    return ended.exit_code or 0
