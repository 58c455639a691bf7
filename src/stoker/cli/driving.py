"""One training on the command line: shown, stopped by signals and in time, summed up."""

from __future__ import annotations

import math
import os
import signal
import time
from functools import partial
from typing import TYPE_CHECKING

import anyio
from rich.console import Console

from stoker.cli.limits import Limits, TrainingCommand
from stoker.cli.printing import command, from_here, say_json
from stoker.cli.streams import notices_to
from stoker.errors import ConfigError, SessionFailed, StokerError
from stoker.exits import single_error
from stoker.session.watching import stuck_line
from stoker.signals import SignalGuard
from stoker.trainer.views.readings import Reading
from stoker.trainer.views.text import duration, number
from stoker.trainer.views.view import Screen, View, title_of, view_for

if TYPE_CHECKING:
    from stoker.agents.protocol import LearningAgent
    from stoker.runs import TrainingRun
    from stoker.session import TrainingSession
    from stoker.trainer import Progress, TrainConfig, TrainResult

__all__ = ["Driver", "Guard", "say_result"]

_LOOK_S = 0.25
"""Seconds between two looks at how much time is left."""

_INTERRUPTED, _OUT_OF_TIME = "Interrupted", "Out of time"
_NOTICES = {
    _INTERRUPTED: "finishing: saving the training; press Ctrl-C again to leave at once",
    _OUT_OF_TIME: "finishing: the time is nearly over, saving the training",
}


_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Guard(SignalGuard):
    """Obeys signals and deadlines while a command runs, and says at the end how to resume.

    Args:
        limits: the grace, and the time that the process has.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__(_SIGNALS, limits.grace_s, limits.leaves_at)
        self.limits = limits
        self._training: tuple[Driver, TrainingSession] | None = None
        self._terminals = [fd for fd in (0, 1, 2) if os.isatty(fd)]

    def attend(self, driver: Driver, session: TrainingSession) -> None:
        """From now on there is a training to finish; called on its event loop."""
        self._training = driver, session
        self.finish_with(partial(driver.finish, session))

    def overdue(self, *, loop_turns: bool) -> str:
        """Which limit is over, which part is busy, and how to resume."""
        limits = self.limits
        in_time = self.signalled_at is None or self.leaves_at < self.signalled_at + limits.grace_s
        over = f"--max-time of {limits.max_s or 0:g} s" if in_time else f"--grace of {limits.grace_s:g} s"
        busy = "the training has not begun; give it more"
        if self._training is not None:
            driver, session = self._training
            busy = f"{stuck_line(session.health, loop_turns=loop_turns)}; {driver.way_on}"
        return f"stoker: error: {over} is over: {busy}"

    def interrupted(self) -> str:
        """How to resume."""
        return "stoker: interrupted" + (f"; {self._training[0].left()}" if self._training else "")

    def before_signal(self, number: int) -> None:
        """Redirect output for a terminal that is gone to the null device: writing there would fail."""
        if number == getattr(signal, "SIGHUP", None):
            nowhere = os.open(os.devnull, os.O_RDWR)
            for fd in self._terminals:
                os.dup2(nowhere, fd)
            os.close(nowhere)

    def before_exit(self) -> None:
        """Restore the terminal."""
        if self._training is not None:
            self._training[0].restore_terminal()


class Driver:
    """Runs one training and reports on it.

    Args:
        config: what to train.
        run: where to.
        agent: made for the config.
        guard: receives signals and keeps the deadlines.
        flags: what is shown.
    """

    def __init__(
        self,
        config: TrainConfig,
        run: TrainingRun,
        agent: LearningAgent,
        guard: Guard,
        flags: TrainingCommand,
    ) -> None:
        self._config = config
        self._run = run
        self._agent = agent
        self._guard = guard
        self._json = flags.json
        self._console = Console(stderr=True)
        self._view: View = view_for(self._console, title_of(config), progress=flags.progress)
        self._screen = Screen(self._view)
        self._stopping = anyio.Event()
        self._stopped: str | None = None

    async def drive(self) -> int:
        """Train until the end, the user or the time limit, and print the result.

        Returns:
            The exit code.

        Raises:
            ConfigError, MissingDependency: The training could not begin; nothing was trained.
            StokerError: The training failed; a note on the error says how to resume.
        """
        from stoker.trainer import train

        progress: Progress | None = None
        result: TrainResult | None = None
        notices_to(self.say)  # the console puts them above the table
        try:
            with single_error():
                async with anyio.create_task_group() as tasks:

                    async def watch(begun: Progress) -> None:
                        nonlocal progress
                        progress = begun
                        self._guard.attend(self, progress.session)
                        tasks.start_soon(self._end_in_time, progress, training)
                        if first := self._run.metadata.attempts[-1].from_steps:
                            self.say(f"resuming from step {first:,} of {self._config.total_timesteps:,}")
                        await self._screen.follow(progress)

                    with anyio.CancelScope() as training:
                        result = await train(
                            self._config, self._run, agent=self._agent, watch=watch, view="none"
                        )
                    tasks.cancel_scope.cancel()
        except StokerError as error:
            if progress is not None and progress.session.total_steps > 0:
                if isinstance(error, ConfigError):  # not a usage error: training has begun
                    error = SessionFailed("training", error)
                error.add_note(self.way_on)
            raise error from error.__cause__
        finally:
            await self._screen.close()
        if result is None and progress is not None:  # cut short, and saved
            result = progress.result()
        if result is not None:
            lines = "\n".join(_summary(result, self._config, self._screen.reading, self._stopped))
            if self._json:
                self.say(lines)
                say_result(result)
            else:
                print(lines)
        return 0

    def say(self, text: str) -> None:
        """Print a line beside the view."""
        self._console.print(text, soft_wrap=True, markup=False, highlight=False, emoji=False)

    # Ending ---------------------------------------------------------------------------------------

    def finish(self, session: TrainingSession, why: str = _INTERRUPTED) -> None:
        """Stop taking experiences; the first reason is reported."""
        self._stopped = self._stopped or why
        self._stopping.set()
        if not session.is_done:
            session.stop()

    async def _end_in_time(self, progress: Progress, training: anyio.CancelScope) -> None:
        """Stop the training before its time is over, and leave a stopped one time to save."""
        await self._until_stopped(progress)
        self._guard.announced()
        await self._screen.draw(partial(self.say, _NOTICES[self._stopped or _INTERRUPTED]))
        # Actors and the evaluator have half of the time, saving has the rest. Cancelling them loses nothing
        # that was accepted.
        await anyio.sleep(max(0.0, self._guard.leaves_at - time.monotonic()) / 2)
        training.cancel()

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
                self.finish(session, _OUT_OF_TIME)
            with anyio.move_on_after(min(left_s, _LOOK_S) if left_s < math.inf else None):
                await self._stopping.wait()

    @property
    def _resume(self) -> str:
        return command(["stoker", "resume", str(self._run.directory)])

    @property
    def way_on(self) -> str:
        """How to continue after a failure."""
        return f"continue from what was saved with `{self._resume}`"

    def left(self) -> str:
        """How to resume a run that is left at once; called in a thread."""
        return f"resume: {self._resume}" if self._run.has_checkpoint() else "there is no checkpoint yet"

    def restore_terminal(self) -> None:
        """Close the view; called in a thread, before the process ends."""
        self._view.close()


def say_result(result: TrainResult) -> None:
    """Print the line for scripts."""
    names = ("run", "total_steps", "total_episodes", "steps_per_sec", "best_eval_reward")
    say_json({name: getattr(result, name) for name in names})


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
