"""``stoker replay``: train again from a run's journal, and hold the result beside what the run saved."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import tyro

from stoker.cli.driving import run_async
from stoker.cli.parsing import parse, required
from stoker.errors import ConfigError
from stoker.trainer.views.numbers import number

if TYPE_CHECKING:
    from stoker.session.replaying import Replayed

__all__ = ["ReplayArguments", "replay_command"]

_DESCRIPTION = """Train again from a run's journal, without environments: the same events, the same weights.

It begins with the first event if the journal still has it, else at the oldest checkpoint that it leads on
from. At each checkpoint on the way the two states are compared, bit by bit. The run is only read.
"""

_EVERY_S = 2.0


class ReplayArguments(msgspec.Struct, frozen=True, kw_only=True):
    """What a command line of ``stoker replay`` says."""

    run: Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help_behavior_hint="(required)")
    ] = ""
    """The run's directory, or that of a version or name: then its newest run."""

    to_step: Annotated[
        int | None, tyro.conf.arg(metavar="STEP", help_behavior_hint="(default: the journal's end)")
    ] = None
    """Environment steps to replay."""

    from_step: Annotated[
        int | None, tyro.conf.arg(metavar="STEP", help_behavior_hint="(default: as far back as can be)")
    ] = None
    """The checkpoint to begin at."""

    verify: tyro.conf.FlagCreatePairsOff[bool] = False
    """Exit with 1 unless there is a checkpoint on the way and all of them are equal."""

    out: Annotated[str | None, tyro.conf.arg(metavar="FILE.pt", help_behavior_hint="(default: none)")] = None
    """Write the agent's state where the replay ends, for torch.load."""

    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one line of JSON instead of the report."""


def replay_command(args: Sequence[str]) -> int:
    """Run ``stoker replay`` and return its exit code: 1 if ``--verify`` found a difference.

    Raises:
        StokerError: There is no such run, or its journal cannot be replayed.
    """
    arguments = parse("replay", ReplayArguments, args, _DESCRIPTION)
    required(arguments.run, "replay", "a run", "runs/CartPole-v1 --verify")
    for name in ("to_step", "from_step"):
        value = getattr(arguments, name)
        if value is not None and value < 0:
            raise ConfigError(f"--{name.replace('_', '-')} {value}: give a step of 0 or later")
    return run_async(_replay, arguments)


async def _replay(arguments: ReplayArguments) -> int:
    from stoker.cli.stored import open_begun, read_train_config

    run = await open_begun(arguments.run)
    config = await read_train_config(run)

    from stoker.session.replaying import replay_run
    from stoker.session.state import weights_of
    from stoker.trainer import agent_for
    from stoker.trainer.making import set_torch_threads
    from stoker.writer import publish_checkpoint

    set_torch_threads(config)
    agent = agent_for(config)
    started = said = time.monotonic()

    def watch(total_steps: int) -> None:
        nonlocal said
        if not arguments.json and time.monotonic() - said > _EVERY_S:
            said = time.monotonic()
            print(f"  {total_steps:,} steps", file=sys.stderr)

    replayed = replay_run(run, agent, to_step=arguments.to_step, from_step=arguments.from_step, watch=watch)
    elapsed_s = time.monotonic() - started
    if arguments.out is not None:
        publish_checkpoint(weights_of(agent, {"total_steps": agent.total_steps}), Path(arguments.out))
    if arguments.json:
        print(
            json.dumps({"run": str(run.directory), "elapsed_s": elapsed_s, **msgspec.to_builtins(replayed)})
        )
    else:
        print("\n".join(_report(replayed, elapsed_s)))
    is_equal = bool(replayed.comparisons) and not any(found.differences for found in replayed.comparisons)
    return 0 if is_equal or not arguments.verify else 1


def _report(replayed: Replayed, elapsed_s: float) -> list[str]:
    n_steps = replayed.total_steps - replayed.from_steps
    lines = [
        f"replayed {number(n_steps)} steps, from {number(replayed.from_steps)} to "
        f"{number(replayed.total_steps)}: {number(replayed.total_episodes)} episodes and "
        f"{number(replayed.opt_steps)} optimization steps in all, in {elapsed_s:.1f} s"
    ]
    for found in replayed.comparisons:
        name = f"step_{found.step}.pt"
        if not found.differences:
            lines.append(f"  {name}: equal, bit by bit")
            continue
        shown = ", ".join(found.differences[:_SHOWN])
        more = len(found.differences) - _SHOWN
        lines.append(f"  {name}: DIFFERENT in {shown}{f' and {more} more' if more > 0 else ''}")
    if not replayed.comparisons:
        lines.append("  no checkpoint lies on the way: there was nothing to compare with")
    return lines


_SHOWN = 5
