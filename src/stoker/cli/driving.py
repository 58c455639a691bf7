"""One training on the command line: shown, stopped in time, summed up. For ``train`` and ``resume``."""

from __future__ import annotations

import json
import math
import time
from functools import partial
from typing import TYPE_CHECKING

import anyio
from rich.console import Console

from stoker.cli.printing import command, from_here
from stoker.cli.signals import Guard
from stoker.cli.streams import notices_to
from stoker.errors import ConfigError, SessionFailed, StokerError
from stoker.exits import single_error
from stoker.session.watching import stuck_line
from stoker.trainer.views.readings import Reading
from stoker.trainer.views.text import duration, number
from stoker.trainer.views.view import Screen, View, title_of, view_for

if TYPE_CHECKING:
    from stoker.agents.protocol import LearningAgent
    from stoker.runs import TrainingRun
    from stoker.trainer import Progress, TrainConfig, TrainResult

__all__ = ["Driver", "json_line"]

_LOOK_S = 0.25
"""Seconds between two looks at how much time is left."""

_INTERRUPTED, _OUT_OF_TIME = "Interrupted", "Out of time"
_NOTICES = {
    _INTERRUPTED: "finishing: saving the training; press Ctrl-C again to leave at once",
    _OUT_OF_TIME: "finishing: the time is nearly over, saving the training",
}


class Driver:
    """Runs one training and reports on it.

    Args:
        config: what to train.
        run: where to.
        agent: made for the config.
        guard: receives signals and keeps the deadlines.
        progress: show a view, or plain lines.
        json: end with one line of JSON on standard output, everything else on standard error.
    """

    def __init__(
        self,
        config: TrainConfig,
        run: TrainingRun,
        agent: LearningAgent,
        guard: Guard,
        *,
        progress: bool,
        json: bool,
    ) -> None:
        self._config = config
        self._run = run
        self._agent = agent
        self._guard = guard
        self._json = json
        self._console = Console(stderr=True)
        self._view: View = view_for(self._console, title_of(config), progress=progress)
        self._screen = Screen(self._view)
        self._progress: Progress | None = None
        self._began, self._stopping = anyio.Event(), anyio.Event()
        self._stopped: str | None = None
        self._training = anyio.CancelScope()

    async def drive(self) -> int:
        """Train until the end, the user or the time limit, and print the result.

        Returns:
            The exit code.

        Raises:
            ConfigError, MissingDependency: The training could not begin; nothing was trained.
            StokerError: The training failed; a note on the error says how to resume.
        """
        from stoker.trainer import train

        result: TrainResult | None = None
        notices_to(self.say)  # the console puts them above the table
        try:
            with single_error():
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._end_in_time)
                    with self._training:
                        result = await train(
                            self._config, self._run, agent=self._agent, watch=self._watch, view="none"
                        )
                    tasks.cancel_scope.cancel()
        except StokerError as error:
            has_trained = self._progress is not None and self._progress.session.total_steps > 0
            if isinstance(error, ConfigError) and has_trained:  # not a usage error: training has begun
                error = SessionFailed("training", error)
            if has_trained:
                error.add_note(f"continue from what was saved with `{self._resume}`")
            raise error from error.__cause__
        finally:
            await self._screen.close()
        if result is None and self._progress is not None:  # cut short, and saved
            result = self._progress.result()
        if result is not None:
            self._report(result)
        return 0

    def say(self, text: str) -> None:
        """Print a line beside the view."""
        self._console.print(text, soft_wrap=True, markup=False, highlight=False, emoji=False)

    async def _watch(self, progress: Progress) -> None:
        """Show the training until cancelled."""
        self._progress = progress
        self._guard.attend(
            finish=partial(self._finish, _INTERRUPTED),
            busy=partial(self._busy, progress),
            left=self._left,
            restore=self._view.close,
        )
        self._began.set()
        if begun := self._run.metadata.attempts[-1].from_steps:
            self.say(f"resuming from step {begun:,} of {progress.config.total_timesteps:,}")
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
        """Stop the training before its time is over, and leave a stopped one time to save."""
        await self._began.wait()
        if self._progress is not None:
            await self._until_stopped(self._progress)
        text = _NOTICES[self._stopped or _INTERRUPTED]
        self._guard.announced()
        await self._screen.draw(partial(self.say, text))
        # Actors and the evaluator have half of the time, saving has the rest. Cancelling them loses nothing
        # that was accepted.
        await anyio.sleep(max(0.0, self._guard.leaves_at - time.monotonic()) / 2)
        self._training.cancel()

    async def _until_stopped(self, progress: Progress) -> None:
        """Return when the training is stopped; stop it when its time is nearly over.

        For finishing it leaves twice the time of the longest save and of the last evaluation.
        """
        limits, session = self._guard.limits, progress.session
        save_s, write_s = 0.0, session.busy_s()["write"]
        while not self._stopping.is_set():
            before_s, write_s = write_s, session.busy_s()["write"]
            save_s = max(save_s, write_s - before_s)  # a save is added when it is done, all at once
            left_s = limits.finishes_at(2 * (save_s + progress.evaluator.last_s)) - time.monotonic()
            if left_s <= 0:
                self._finish(_OUT_OF_TIME)
            with anyio.move_on_after(min(left_s, _LOOK_S) if left_s < math.inf else None):
                await self._stopping.wait()

    @property
    def _resume(self) -> str:
        return command(["stoker", "resume", str(self._run.directory)])

    def _busy(self, progress: Progress, loop_turns: bool) -> str:
        """Which part is busy, and how to resume; see ``Guard.attend``."""
        why = stuck_line(progress.session.health, loop_turns=loop_turns)
        return f"{why}; continue from what was saved with `{self._resume}`"

    def _left(self) -> str:
        """How to resume a run that is left at once."""
        return f"resume: {self._resume}" if self._run.has_checkpoint() else "there is no checkpoint yet"

    def _report(self, result: TrainResult) -> None:
        """Print the summary and, if asked for, the line for scripts."""
        lines = "\n".join(_summary(result, self._config, self._screen.reading, self._stopped))
        if self._json:
            self.say(lines)
            print(json_line(result))
        else:
            print(lines)


def json_line(result: TrainResult) -> str:
    """The result for scripts."""
    names = ("run", "total_steps", "total_episodes", "steps_per_sec", "best_eval_reward")
    return json.dumps({name: getattr(result, name) for name in names})


def _summary(
    result: TrainResult, config: TrainConfig, reading: Reading | None, stopped: str | None
) -> list[str]:
    """The lines that end a training.

    Args:
        result: of the training.
        config: of the training.
        reading: the last one, if there was one.
        stopped: why it was stopped before its end, such as ``Interrupted``; None: it was not.
    """
    is_short = result.total_steps < config.total_timesteps
    goal, last = config.stop_at_reward, result.last_eval_reward
    reached = goal is not None and last is not None and last >= goal
    is_cut_short = stopped is not None and is_short
    head = stopped if is_cut_short else f"Reached {goal:g}" if reached else "Done"
    if result.stopped_because is not None and not reached and not is_cut_short:
        head = "Ended early"
    of_total = f" of {config.total_timesteps:,}" if is_short else ""
    elapsed = "" if reading is None else f" in {duration(reading.elapsed_s)}"
    lines = [
        f"{head}: {result.total_steps:,}{of_total} steps, {result.total_episodes:,} episodes{elapsed} "
        f"({result.steps_per_sec:,.0f} steps/s)"
    ]
    best = result.best_eval_reward
    best_at = "" if reading is None or reading.best is None else f" @ step {reading.best[1]:,}"
    rows = {
        "best evaluation": None if best is None else f"{number(best)}{best_at}",
        "last evaluation": None if last is None else number(last),
        "last 100 episodes": number(reading.mean_reward) if reading is not None and reading.curve else None,
        "why": result.stopped_because if head == "Ended early" else None,
        "env restarts": number(result.restarts) if result.restarts else None,
        "run": from_here(result.run),
        "see the curve": command(["stoker", "plot", result.run, "-o", "curve.png"]),
        "resume": command(["stoker", "resume", result.run]) if is_cut_short else None,
    }
    return lines + [f"  {label:<18} {value}" for label, value in rows.items() if value is not None]
