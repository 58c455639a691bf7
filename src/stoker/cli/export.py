"""``stoker export``: a run's policy as files that run without stoker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from anyio import to_thread
from rich.filesize import decimal as size

from stoker.cli.options import Flag
from stoker.cli.parsing import RunCommand, Which
from stoker.cli.printing import from_here, say_json


class Export(RunCommand, frozen=True, kw_only=True):
    """Write a run's greedy policy to a directory: observations in, actions out, nothing else needed.

    Normalization, masks and the bounds of actions are inside. Each file is checked before it appears: it must
    act as the agent does. The run is only read. Python loads the directory with stoker.load_policy.
    """

    out: Annotated[str, Flag(short="-o", metavar="DIR", missing="where to write the policy, as in -o policy")]
    """Directory to write; an exported policy that is there is replaced."""

    format: tuple[Literal["onnx", "pt2", "numpy"], ...] = ("onnx",)
    """What to write: onnx for onnxruntime, pt2 for torch, numpy for numpy alone."""

    which: Which = None
    """Whose policy: that of the best evaluation, the newest, or of a step."""

    stochastic: bool = False
    """Also compute what actions are chosen by: values, logits, or mean and std."""

    async def __call__(self) -> int:
        from stoker.cli.stored import config_of, open_run, open_trained
        from stoker.policies.exporting import export_policy

        run = await open_run(self.run)
        if not run.latest_checkpoint_path.exists() or await config_of(run) is not None:
            run, _ = await open_trained(self.run)  # else a program with its own session trained it
        out = Path(self.out)

        def export() -> Any:
            return export_policy(
                run.directory, out, self.format, which=self.which, stochastic=self.stochastic
            )

        description = await to_thread.run_sync(export)
        if self.json:
            say_json({"directory": self.out, **msgspec.structs.asdict(description)})
            return 0
        reward = "" if description.mean_reward is None else f", mean reward {description.mean_reward:g}"
        print(f"policy   {description.run}, {description.checkpoint}: step {description.total_steps}{reward}")
        for name in [*description.files, "policy.json"]:
            print(f"  {name:<16}  {size((out / name).stat().st_size):>9}")
        print(f"{from_here(out)}: every file acts as the agent does")
        return 0
