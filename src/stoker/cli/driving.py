"""One training under a terminal: watched, stoppable, and told about. Shared by ``train`` and ``resume``."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Coroutine
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import msgspec
from rich.console import Console

from stoker.cli.formats import command
from stoker.cli.limits import Pace
from stoker.cli.notices import notices_to
from stoker.cli.signals import Guard
from stoker.cli.stored import has_checkpoint
from stoker.cli.summary import json_line, result_of, summary
from stoker.errors import ConfigError, SessionFailed, StokerError
from stoker.exits import single_error
from stoker.session.watching import stuck_line
from stoker.trainer.views.screen import Screen
from stoker.trainer.views.view import View, title_of, view_for

if TYPE_CHECKING:
    from stoker.agents.protocol import LearningAgent
    from stoker.runs import TrainingRun
    from stoker.trainer import Progress, TrainConfig, TrainResult

__all__ = ["Driver", "Shown", "run_async"]

T = TypeVar("T")
_LOOK_S = 0.25
"""Seconds between two looks at how much of the time is left."""

_INTERRUPTED, _OUT_OF_TIME = "Interrupted", "Out of time"
_TOLD = {
    _INTERRUPTED: "finishing: saving what there is; press Ctrl-C again to leave at once",
    _OUT_OF_TIME: "finishing: the time is nearly over, saving what there is",
}


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
        guard: receives signals and keeps the deadlines.
    """

    def __init__(
        self, config: TrainConfig, run: TrainingRun, agent: LearningAgent, shown: Shown, guard: Guard
    ) -> None:
        self._config = config
        self._run = run
        self._agent = agent
        self._shown = shown
        self._guard = guard
        self._console = Console(stderr=True)
        self._view: View = view_for(self._console, title_of(config), progress=shown.progress)
        self._screen = Screen(self._view)
        self._progress: Progress | None = None
        self._began, self._stopping = anyio.Event(), anyio.Event()
        self._stopped: str | None = None
        self._training = anyio.CancelScope()
        self._result: TrainResult | None = None

    async def drive(self) -> int:
        """Train to the end, or to where the user or the time limit stops it, and print what came of it.

        Returns:
            The exit code.

        Raises:
            ConfigError, MissingDependency: The training could not begin; nothing was trained.
            StokerError: What went wrong; noted on it where the run is and how to go on.
        """
        from stoker.trainer import train

        notices_to(self.say)  # the console puts them above the table
        try:
            with single_error():
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._end_in_time)
                    with self._training:
                        self._result = await train(
                            self._config, self._run, agent=self._agent, watch=self._watch, view="none"
                        )
                    tasks.cancel_scope.cancel()
        except StokerError as error:
            has_trained = self._progress is not None and self._progress.session.total_steps > 0
            if isinstance(error, ConfigError) and has_trained:  # not a usage error: training has begun
                error = SessionFailed("training", error)
            if has_trained:
                error.add_note(f"continue from what was saved with `{self._go_on}`")
            raise error from error.__cause__
        finally:
            await self._screen.close()
        if self._result is None and self._progress is not None:  # cut short, and saved
            self._result = result_of(self._progress, str(self._run.directory))
        if self._result is not None:
            self._tell(self._result)
        return 0

    def say(self, text: str) -> None:
        """Print a line beside the view."""
        self._console.print(text, soft_wrap=True, markup=False, highlight=False, emoji=False)

    async def _watch(self, progress: Progress) -> None:
        """Show the training until cancelled."""
        self._progress = progress
        self._guard.attend(
            finish=partial(self._finish, _INTERRUPTED),
            busy=partial(self._last_words, progress),
            left=self._left,
            restore=self._view.close,
        )
        self._began.set()
        if begun := self._run.metadata.attempts[-1].from_steps:
            self.say(f"going on from step {begun:,} of {progress.config.total_timesteps:,}")
        await self._screen.follow(progress)

    # Ending ---------------------------------------------------------------------------------------

    def _finish(self, why: str) -> None:
        """Stop taking experiences; the first reason is reported."""
        if self._stopped is None:
            self._stopped = why
            self._stopping.set()
        if self._progress is not None and not self._progress.session.is_done:
            self._progress.session.stop()

    async def _end_in_time(self) -> None:
        """Stop the training before its time is over, and see to it that a stopped one is saved."""
        await self._began.wait()
        if self._progress is not None:
            await self._until_stopped(self._progress)
        text = _TOLD[self._stopped or _INTERRUPTED]
        self._guard.told()
        await self._screen.draw(partial(self.say, text))
        # What actors and evaluator have not done in half of the time they do not get to do: the rest is
        # for saving. Giving them up loses nothing that was accepted.
        await anyio.sleep(max(0.0, self._guard.leaves_at - time.monotonic()) / 2)
        self._training.cancel()

    async def _until_stopped(self, progress: Progress) -> None:
        """Return when the training was stopped; stop it when it is time to."""
        limits, session, pace = self._guard.limits, progress.session, Pace(self._config.eval_freq)
        while not self._stopping.is_set():
            last = progress.evaluator.last
            pace.note(
                time.monotonic(), session.total_steps, last and last.total_steps, session.busy_s()["write"]
            )
            left_s = limits.finishes_at(pace.margin_s) - time.monotonic()
            if left_s <= 0:
                self._finish(_OUT_OF_TIME)
            with anyio.move_on_after(min(left_s, _LOOK_S) if left_s < math.inf else None):
                await self._stopping.wait()

    @property
    def _go_on(self) -> str:
        return command(["stoker", "resume", str(self._run.directory)])

    def _last_words(self, progress: Progress, loop_turns: bool) -> str:
        """Why the process could not end in time, and what becomes of the run."""
        why = stuck_line(progress.session.health, loop_turns=loop_turns)
        return f"{why}; continue from what was saved with `{self._go_on}`"

    def _left(self) -> str:
        """What becomes of a run that is left at once."""
        return f"go on: {self._go_on}" if has_checkpoint(self._run) else "there is no checkpoint yet"

    def _tell(self, result: TrainResult) -> None:
        """Print the summary and, if asked for, the line for scripts."""
        lines = "\n".join(summary(result, self._config, self._screen.reading, self._stopped))
        if self._shown.json:
            self.say(lines)
            print(json_line(result))
        else:
            print(lines)


def run_async(function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
    """Run an async function on asyncio, on uvloop where that is installed."""
    has_uvloop = sys.platform != "win32" and find_spec("uvloop") is not None
    return anyio.run(partial(function, *args), backend="asyncio", backend_options={"use_uvloop": has_uvloop})
