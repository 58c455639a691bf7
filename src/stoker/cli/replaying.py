"""``stoker replay``: train again from a run's journal, and compare the result with what the run saved."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from stoker.cli.parsing import Flag, RunCommand
from stoker.settings import Natural
from stoker.trainer.views.text import number

if TYPE_CHECKING:
    from stoker.session.replaying import Replayed

__all__ = ["Replay"]

_EVERY_S = 2.0
_SHOWN = 5


class Replay(RunCommand, frozen=True, kw_only=True):
    """Train again from a run's journal, without environments: the same events, the same weights.

    It begins with the first event if the journal still has it, else at the oldest checkpoint that it leads on
    from. At each checkpoint on the way the two states are compared, bit by bit. The run is only read.
    """

    to_step: Annotated[Natural | None, Flag(metavar="STEP", default="default: the journal's end")] = None
    """Environment steps to replay."""

    from_step: Annotated[Natural | None, Flag(metavar="STEP", default="default: as far back as can be")] = (
        None
    )
    """The checkpoint to begin at."""

    verify: bool = False
    """Exit with 1 unless there is a checkpoint on the way and all of them are equal."""

    out: Annotated[str | None, Flag(metavar="FILE.pt")] = None
    """Write the agent's state where the replay ends, for torch.load."""

    async def __call__(self) -> int:
        from stoker.cli.stored import open_begun, read_train_config

        run = await open_begun(self.run)
        config = await read_train_config(run)

        from stoker.session.replaying import replay_run
        from stoker.session.state import weights_of
        from stoker.trainer import agent_for
        from stoker.trainer.making import set_torch_threads
        from stoker.writer import publish_checkpoint

        set_torch_threads(config)
        agent = agent_for(config)
        started = reported = time.monotonic()

        def watch(total_steps: int) -> None:
            nonlocal reported
            if not self.json and time.monotonic() - reported > _EVERY_S:
                reported = time.monotonic()
                print(f"  {total_steps:,} steps", file=sys.stderr)

        replayed = replay_run(run, agent, to_step=self.to_step, from_step=self.from_step, watch=watch)
        elapsed_s = time.monotonic() - started
        if self.out is not None:
            publish_checkpoint(weights_of(agent, {"total_steps": agent.total_steps}), Path(self.out))
        if self.json:
            head = {"run": str(run.directory), "elapsed_s": elapsed_s}
            print(json.dumps({**head, **msgspec.to_builtins(replayed)}))
        else:
            _print_report(replayed, elapsed_s)
        is_equal = bool(replayed.comparisons) and not any(found.differences for found in replayed.comparisons)
        return 0 if is_equal or not self.verify else 1


def _print_report(replayed: Replayed, elapsed_s: float) -> None:
    n_steps = replayed.total_steps - replayed.from_steps
    print(
        f"replayed {number(n_steps)} steps, from {number(replayed.from_steps)} to "
        f"{number(replayed.total_steps)}: {number(replayed.total_episodes)} episodes and "
        f"{number(replayed.opt_steps)} optimization steps in all, in {elapsed_s:.1f} s"
    )
    for found in replayed.comparisons:
        verdict = "equal, bit by bit"
        if found.differences:
            n_more = len(found.differences) - _SHOWN
            more = f" and {n_more} more" if n_more > 0 else ""
            verdict = f"DIFFERENT in {', '.join(found.differences[:_SHOWN])}{more}"
        print(f"  step_{found.step}.pt: {verdict}")
    if not replayed.comparisons:
        print("  no checkpoint lies on the way: there was nothing to compare with")
