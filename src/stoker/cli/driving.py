"""One training under a terminal: watched, stoppable, and told about. Shared by ``train`` and ``resume``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import msgspec
from anyio import to_thread
from rich.console import Console

from stoker.cli.formats import command, duration, number
from stoker.cli.readings import Gauges, Reading
from stoker.cli.signals import heed_signals
from stoker.cli.view import View, view_for, warnings_to
from stoker.errors import StokerError, first_error

if TYPE_CHECKING:
    from stoker.agents.protocol import LearningAgent
    from stoker.runs import TrainingRun
    from stoker.trainer import Progress, TrainConfig, TrainResult

__all__ = ["Driver", "Shown", "json_line", "run_async"]

T = TypeVar("T")
_REFRESH_S = 0.25


def json_line(result: TrainResult) -> str:
    """What a script reads of a training."""
    return json.dumps(
        {
            "run": result.run,
            "total_steps": result.total_steps,
            "total_episodes": result.total_episodes,
            "steps_per_sec": result.steps_per_sec,
            "best_eval_reward": result.best_eval_reward,
        }
    )


class Shown(msgspec.Struct, frozen=True):
    """What the user wants to see.

    Attributes:
        progress: the view, or plain lines.
        json: one line of JSON on standard output, everything else on standard error.
    """

    progress: bool
    json: bool


class Driver:
    """Trains and tells. Used for one training.

    Args:
        config: what to train.
        run: where to.
        agent: made for the config.
        shown: what to tell.
    """

    def __init__(self, config: TrainConfig, run: TrainingRun, agent: LearningAgent, shown: Shown) -> None:
        self._config = config
        self._run = run
        self._agent = agent
        self._shown = shown
        self._console = Console(stderr=True)
        title = f"{config.agent} · {config.env} · {config.num_envs} environments"
        self._view: View = view_for(self._console, title, progress=shown.progress)
        self._progress: Progress | None = None
        self._reading: Reading | None = None
        self._interrupted = False
        self._result: TrainResult | None = None

    async def drive(self) -> int:
        """Train to the end, or to where the user stops it, and print what came of it.

        Returns:
            The exit code.

        Raises:
            StokerError: What went wrong; noted on it where the run is and how to go on.
        """
        from stoker.trainer import train

        warnings_to(self._console)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(heed_signals, self._finish, self._view.close)
                self._result = await train(self._config, self._run, agent=self._agent, watch=self._watch)
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            error = first_error(group)
            if isinstance(error, StokerError) and self._progress is not None:
                saved = command(["stoker", "resume", str(self._run.directory)])
                error.add_note(f"what was saved so far goes on with `{saved}`")
            raise error from error.__cause__
        finally:
            self._view.close()
        if self._result is not None:
            self._tell(self._result)
        return 0

    def say(self, text: str) -> None:
        """Print a line beside the view."""
        self._console.print(text, soft_wrap=True, markup=False, highlight=False, emoji=False)

    async def _watch(self, progress: Progress) -> None:
        """Show the training until cancelled."""
        self._progress = progress
        if self._interrupted:
            progress.session.stop()
        if progress.session.total_steps:
            self.say(
                f"going on from step {progress.session.total_steps:,} of {progress.config.total_timesteps:,}"
            )
        gauges = Gauges(progress)
        try:
            while True:
                self._reading = gauges.read()
                # In a thread: drawing takes milliseconds, which actors on the event loop would feel.
                await to_thread.run_sync(self._view.show, self._reading)
                await anyio.sleep(_REFRESH_S)
        finally:
            self._reading = gauges.read()
            self._view.show(self._reading, last=True)

    def _finish(self) -> None:
        """The first signal."""
        self._interrupted = True
        self.say("finishing: saving what there is; press Ctrl-C again to leave at once")
        if self._progress is not None and not self._progress.session.is_done:
            self._progress.session.stop()

    def _tell(self, result: TrainResult) -> None:
        """Print the summary and, if asked for, the line for scripts."""
        out = sys.stderr if self._shown.json else sys.stdout
        print("\n".join(self._summary(result)), file=out)
        if self._shown.json:
            sys.stderr.flush()
            print(json_line(result))

    def _summary(self, result: TrainResult) -> list[str]:
        config, reading = self._config, self._reading
        is_short = result.total_steps < config.total_timesteps
        goal, last = config.stop_at_reward, result.last_eval_reward
        reached = goal is not None and last is not None and last >= goal
        interrupted = self._interrupted and is_short
        head = "Interrupted" if interrupted else f"Reached {goal:g}" if reached else "Done"
        of_total = f" of {config.total_timesteps:,}" if is_short else ""
        elapsed = "" if reading is None else f" in {duration(reading.elapsed_s)}"
        lines = [
            f"{head}: {result.total_steps:,}{of_total} steps, {result.total_episodes:,} episodes{elapsed} "
            f"({result.steps_per_sec:,.0f} steps/s)"
        ]
        rows: list[tuple[str, str]] = []
        if result.best_eval_reward is not None:
            at = "" if reading is None or reading.best_step is None else f" @ step {reading.best_step:,}"
            rows.append(("best evaluation", f"{number(result.best_eval_reward)}{at}"))
        if last is not None:
            rows.append(("last evaluation", number(last)))
        if reading is not None and reading.curve:
            rows.append(("last 100 episodes", number(reading.mean_reward)))
        if result.restarts:
            rows.append(("env restarts", number(result.restarts)))
        rows.append(("run", result.run))
        rows.append(("see the curve", command(["stoker", "plot", result.run, "-o", "curve.png"])))
        if interrupted:
            rows.append(("go on", command(["stoker", "resume", result.run])))
        return lines + [f"  {label:<18} {value}" for label, value in rows]


def run_async(function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
    """Run an async function on asyncio, on uvloop where that is installed."""
    has_uvloop = sys.platform != "win32" and find_spec("uvloop") is not None
    return anyio.run(partial(function, *args), backend="asyncio", backend_options={"use_uvloop": has_uvloop})
