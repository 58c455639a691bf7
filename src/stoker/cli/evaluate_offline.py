"""``stoker eval RUN --offline DATA``: what a policy is worth by a data set, without an environment."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Literal

import msgspec
from anyio import to_thread

from stoker.cli.bars import StepBar
from stoker.cli.printing import say_json
from stoker.trainer.views.text import number


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
    bar = StepBar("fitted", n_updates, shown=not as_json, unit="updates")

    def watch(done: int, value: float) -> None:
        bar.show(done, f"value {number(value)}")

    with bar, contextlib.ExitStack() as ending:
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
