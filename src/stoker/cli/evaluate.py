"""``stoker eval``: score the policy of a checkpoint. Reads the run, writes nothing."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import tyro
from anyio import to_thread

from stoker.cli.driving import run_async
from stoker.cli.parsing import parse, required
from stoker.errors import CheckpointNotFound, ConfigError

if TYPE_CHECKING:
    from stoker.runs import TrainingRun
    from stoker.trainer import Evaluation

__all__ = ["EvalArguments", "evaluate_run", "load_wanted"]

_LOOKS = 10
"""So often is a checkpoint looked for that is gone when it is read."""

_DESCRIPTION = """Score a run's policy, greedily, over whole episodes. Nothing is written to the run."""


class EvalArguments(msgspec.Struct, frozen=True, kw_only=True):
    """What a command line of ``stoker eval`` says."""

    run: Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help_behavior_hint="(required)")
    ] = ""
    """The run's directory, or that of a version or name: then its newest run."""

    episodes: int = 20
    """How many episodes."""

    checkpoint: Annotated[
        str | None,
        tyro.conf.arg(metavar="best|latest|STEP", help_behavior_hint="(default: best, else latest)"),
    ] = None
    """Whose policy: that of the best evaluation, the newest, or of a step."""

    seed: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: the run's)")] = (
        None
    )
    """Seed of the episodes; the run's own gives those that its training was evaluated on."""

    device: Annotated[str | None, tyro.conf.arg(metavar="STR", help_behavior_hint="(default: the run's)")] = (
        None
    )
    """Where to compute: cpu, cuda, cuda:1, mps."""

    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one line of JSON instead of the report."""


def evaluate_run(args: Sequence[str]) -> int:
    """Run ``stoker eval`` and return its exit code.

    Raises:
        StokerError: There is no such run or checkpoint, or it cannot be played.
    """
    arguments = parse("eval", EvalArguments, args, _DESCRIPTION)
    required(arguments.run, "eval", "a run", "runs/CartPole-v1")
    if arguments.episodes < 1:
        raise ConfigError(f"--episodes {arguments.episodes}: evaluate at least 1")
    return run_async(_evaluate, arguments)


async def _evaluate(arguments: EvalArguments) -> int:
    from stoker.cli.stored import open_begun, read_train_config

    run = await open_begun(arguments.run)
    config = await read_train_config(run)
    path, state = await to_thread.run_sync(load_wanted, run, arguments.checkpoint)

    from stoker.session import PolicySnapshot
    from stoker.stats import EvalReport
    from stoker.trainer import agent_for, evaluate
    from stoker.trainer.making import env_for

    if arguments.device is not None:
        config = msgspec.structs.replace(config, device=arguments.device)
    agent = agent_for(config)
    if state.get("agent_type") != type(agent).__name__:
        raise ConfigError(
            f"{path}: trained by {state.get('agent_type')}, the run's config says {config.agent}"
        )
    agent.load_state_dict(state["agent"])
    steps = int(state["session"]["total_steps"])
    snapshot = PolicySnapshot(agent.policy(), total_steps=steps, policy_version=0, state={})
    found = await evaluate(
        snapshot,
        partial(env_for, config),
        arguments.episodes,
        seed=config.seed if arguments.seed is None else arguments.seed,
        stepping=config.stepping,
    )
    stats = _stats(found)
    if arguments.json:
        head: dict[str, Any] = {"run": str(run.directory), "checkpoint": path.name, "total_steps": steps}
        print(json.dumps({**head, "n_episodes": arguments.episodes, **stats}))
    else:
        if arguments.checkpoint is None and path != run.best_checkpoint_path:
            print("there is no best checkpoint: this is the latest", file=sys.stderr)
        print(EvalReport(total_steps=steps, n_episodes=arguments.episodes, stats=stats))
    return 0


def load_wanted(run: TrainingRun, wanted: str | None) -> tuple[Path, dict[str, Any]]:
    """The checkpoint that was asked for, and its contents. Blocks.

    A run that is training removes old checkpoints, maybe just before one is read: then it is looked again.

    Args:
        run: only read.
        wanted: ``best``, ``latest``, a step, or None: ``best``, else ``latest``.

    Raises:
        ConfigError: It is neither ``best``, ``latest`` nor a step.
        CheckpointNotFound: The run does not have it; the message says what there is.
        CheckpointCorrupt: It is damaged.
    """
    from stoker.writer import files, load_checkpoint

    if wanted is not None and wanted not in ("best", "latest") and not wanted.isdecimal():
        raise ConfigError(f"--checkpoint {wanted!r}: give best, latest or a step")
    for _ in range(_LOOKS):
        for name in ("best", "latest") if wanted is None else (wanted,):
            path = _path_of(run, name)
            with contextlib.suppress(CheckpointNotFound):
                return path, load_checkpoint(path)
    there = files.files_in(run.checkpoints_directory)
    names = [name for name in ("best", "latest") if f"{name}.pt" in there]
    has = ", ".join([*names, *map(str, run.checkpoint_steps())]) or "none"
    raise CheckpointNotFound(
        f"{run.directory} has no checkpoint {wanted or ''}: it has {has}".replace(" :", ":")
    )


def _path_of(run: TrainingRun, name: str) -> Path:
    if name == "best":
        return run.best_checkpoint_path
    return run.latest_checkpoint_path if name == "latest" else run.checkpoint_path(int(name))


def _stats(found: Evaluation) -> dict[str, float]:
    """The evaluation's metrics, by names without their group."""
    metrics = {name.removeprefix("eval/"): value for name, value in found.metrics().items()}
    return {"mean_length" if name == "mean_ep_length" else name: value for name, value in metrics.items()}
