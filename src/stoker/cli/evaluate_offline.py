"""``stoker eval RUN --offline DATA``: what a policy is worth by a data set, without an environment."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Literal

import msgspec
from anyio import to_thread

from stoker.cli.printing import say_json
from stoker.trainer.views.text import number

__all__ = ["estimate"]

_EVERY_S = 2.0
"""Seconds between two lines of progress."""


async def estimate(
    run: str,
    checkpoint: str | None,
    data: str,
    *,
    ends: Literal["terminal", "timeout"] | None,
    gamma: float,
    n_updates: int,
    seed: int,
    device: str,
    as_json: bool,
) -> int:
    """Estimate the value of the policy of a run, or of an exported one, and print it; the exit code."""
    import torch

    from stoker.data import open_dataset
    from stoker.policies.fqe import fitted_q_evaluation
    from stoker.policies.loading import load_policy

    policy = await to_thread.run_sync(load_policy, Path(run), checkpoint)
    reported = time.monotonic()

    def watch(done: int, value: float) -> None:
        nonlocal reported
        if not as_json and time.monotonic() - reported > _EVERY_S:
            reported = time.monotonic()
            print(f"  {done:,}/{n_updates:,} updates  value {number(value)}", file=sys.stderr)

    with contextlib.ExitStack() as ending:
        ending.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)  # small networks are fastest with one
        dataset = ending.enter_context(open_dataset(data, ends=ends))
        found = fitted_q_evaluation(
            policy, dataset, gamma=gamma, n_updates=n_updates, seed=seed, device=device, watch=watch
        )
    of = policy.description
    if as_json:
        about = {name: of[name] for name in ("run", "checkpoint", "total_steps")}
        say_json({**about, "offline": data, **msgspec.structs.asdict(found)})
        return 0
    kind = "undiscounted" if found.gamma == 1 else f"discounted by {found.gamma:g}"
    value, low, high = map(number, (found.value, found.low, found.high))
    data_value, data_return = map(number, (found.data_value, found.data_return))
    print(f"{of['run']} at {of['total_steps']:,} steps, on {data}")
    print(f"  value      {value}  (95 % {low} to {high}): the return, {kind}")
    print(f"  data       {data_value}; not discounted {data_return}: what its episodes got")
    print(f"  from       {found.n_episodes:,} episodes, {found.n_steps:,} transitions")
    return 0
