"""Run one training on the command line: show it, stop it on signals and time limits, print its result."""

from __future__ import annotations

import gc
import math
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Literal, Self

import anyio
from rich.console import Console

from stoker.cli.export_best import check_export, export_best
from stoker.cli.limits import TrainingCommand
from stoker.cli.printing import command, from_here, labeled, say_json
from stoker.cli.sudden_end import SuddenEnd
from stoker.data.scores import normalized_score
from stoker.errors import ConfigError, SessionFailed, StokerError
from stoker.exits import single_error
from stoker.session.watching import stuck_line
from stoker.signals import ENDING_SIGNALS, SignalGuard
from stoker.trainer.views.readings import Reading
from stoker.trainer.views.text import duration, number
from stoker.trainer.views.view import Screen, View, title_of, view_for

if TYPE_CHECKING:
    from stoker.agents.protocol import LearningAgent
    from stoker.runs import TrainingRun
    from stoker.session import TrainingSession
    from stoker.telemetry import TrainingReading
    from stoker.telemetry.serving import MetricsServer
    from stoker.trainer import Progress, TrainConfig, TrainResult

_LOOK_S = 0.25
"""Seconds between two looks at how much time is left."""

DONE, ENDED_EARLY = "Done", "Ended early"
STOPPED = _INTERRUPTED, _OUT_OF_TIME = "Interrupted", "Out of time"
"""How a training ended that is to be resumed."""

_NOTICES = {
    _INTERRUPTED: "finishing: saving the training; press Ctrl-C again to leave at once",
    _OUT_OF_TIME: "finishing: the time is nearly over, saving the training",
}
_ENDED_BY_RAY = (
    "the training was ended from outside, as Ray does when the head of its cluster or Ray's own process on "
    "this machine, the raylet, has died"
)
FACTS = ("run", "total_steps", "total_episodes", "steps_per_sec", "best_eval_reward")
"""The fields of the line of JSON that ends a training."""
NORMALIZED_BEST = "best_normalized_score"
"""Its further field where the data set has reference scores."""


class Driver(SignalGuard):
    """Runs one training, and finishes it at a signal or at the end of its time.

    A context manager. Before the training has begun, a signal within the block ends the process at once.

    Args:
        flags: those of the command.
    """

    def __init__(self, flags: TrainingCommand) -> None:
        self._flags = flags
        self._metrics: MetricsServer | None = None
        self._limits = limits = flags.limits()
        super().__init__(ENDING_SIGNALS, limits.grace_s, limits.leaves_at)
        self._console = Console(stderr=True)
        self._view: View[Reading] = View()
        self._training: tuple[TrainingRun, TrainingSession] | None = None
        self._stopping = anyio.Event()
        self._stopped: str | None = None
        self._sudden_end: SuddenEnd | None = None

    def __enter__(self) -> Self:
        self._metrics = metrics_server(self._flags, self._read)  # first: its port may be taken
        return super().__enter__()

    def close(self) -> None:
        """Restore the handlers of the signals, and answer no more scrapes."""
        super().close()
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None

    def _read(self) -> TrainingReading | None:
        return None if self._training is None else self._training[1].telemetry()

    async def drive(
        self,
        config: TrainConfig,
        run: TrainingRun,
        agent: LearningAgent,
        *,
        roll_forward: bool | Literal["strict"] = True,
    ) -> int:
        """Train until the end, the user or the time limit, and print the result.

        Args:
            config: what to train.
            run: the run that it writes.
            agent: made for the config.
            roll_forward: as in ``SessionConfig``.

        Returns:
            The exit code.

        Raises:
            ConfigError, MissingDependency: The training could not begin; nothing was trained.
            StokerError: The training failed; a note on the error says how to resume.
        """
        from stoker.session.tail import progress_told
        from stoker.trainer import train

        check_export(self._flags.export_best, agent)
        if self._metrics is not None:
            self.say(f"metrics: {self._metrics.url}")
        progress: Progress | None = None
        self._view = self.view_of(config)
        screen = Screen(self._view)
        try:
            with single_error():
                async with anyio.create_task_group() as tasks:

                    async def watch(begun: Progress) -> None:
                        nonlocal progress
                        progress = begun
                        gc.freeze()  # a full collection, which stops the event loop, leaves out what stays
                        self._training = run, begun.session
                        self.finish_with(partial(self._stop, begun.session, _INTERRUPTED))
                        tasks.start_soon(self._end_in_time, begun, screen, training)
                        if config.actors == "ray":
                            line = f"stoker: error: {_ENDED_BY_RAY}; {_way_on(run)}"
                            self._sudden_end = SuddenEnd(line, is_terminal=self._console.is_terminal)
                        if first := run.metadata.attempts[-1].from_steps:
                            self.say(f"resuming from step {first:,} of {config.total_timesteps:,}")
                        await screen.follow(begun)

                    with anyio.CancelScope() as training, progress_told(self.say):
                        await train(
                            config, run, agent=agent, watch=watch, view="none", roll_forward=roll_forward
                        )
                    tasks.cancel_scope.cancel()
        except StokerError as error:
            if progress is not None and progress.session.total_steps > 0:
                if isinstance(error, ConfigError):  # not a usage error: training has begun
                    error = SessionFailed("training", error)
                if run.directory.exists():
                    error.add_note(_way_on(run))
            raise error from error.__cause__
        finally:
            await screen.close()
            self._expect_end()
        if progress is not None and screen.reading is not None:
            result = progress.result()
            head = self._head_of(result, config)
            self.say_result(head, result, config, screen.reading)
            if self._flags.export_best and head not in STOPPED:
                self.say(await export_best(run.directory, self._flags.export_best))
        return 0

    def view_of(self, config: TrainConfig) -> View[Reading]:
        """What shows the training."""
        return view_for(self._console, title_of(config), progress=self._flags.progress)

    def say(self, text: str) -> None:
        """Print a line beside the view."""
        self._console.print(text, soft_wrap=True, markup=False, highlight=False, emoji=False)

    def _head_of(self, result: TrainResult, config: TrainConfig) -> str:
        """How the training ended, in a word or two."""
        goal, last = config.stop_at_reward, result.last_eval_reward
        if self._stopped is not None and result.total_steps < config.total_timesteps:
            return self._stopped
        if goal is not None and last is not None and last >= goal:
            return f"Reached {goal:g}"
        return DONE if result.stopped_because is None else ENDED_EARLY

    def say_result(self, head: str, result: TrainResult, config: TrainConfig, reading: Reading) -> None:
        """Print the lines that end a training, and the line of JSON if it is asked for.

        Args:
            head: how it ended.
            result: of the training.
            config: of the training.
            reading: the last one.
        """
        is_short = result.total_steps < config.total_timesteps
        is_cut_short = head in STOPPED
        last, best = result.last_eval_reward, result.best_eval_reward
        best_at = "" if reading.best is None else f" @ step {reading.best[1]:,}"
        of_total = f" of {config.total_timesteps:,}" if is_short else ""
        rows = {
            "best evaluation": None if best is None else f"{_scored(best, config)}{best_at}",
            "last evaluation": None if last is None else _scored(last, config),
            "last 100 episodes": number(reading.mean_reward) if reading.curve else None,
            "why": result.stopped_because if head == ENDED_EARLY else None,
            "env restarts": number(result.restarts) if result.restarts else None,
            "run": from_here(result.run),
            "see the curve": command(["stoker", "plot", result.run, "-o", "curve.png"]),
            "resume": command(["stoker", "resume", result.run]) if is_cut_short else None,
        }
        steps, episodes = "steps", f", {result.total_episodes:,} episodes"
        if config.offline:
            steps, episodes = "optimization steps", ""
        lines = [
            f"{head}: {result.total_steps:,}{of_total} {steps}{episodes} in "
            f"{duration(reading.elapsed_s)} ({result.steps_per_sec:,.0f} steps/s)"
        ]
        lines += labeled(rows)
        if self._flags.json:
            self.say("\n".join(lines))
            normalized = (
                {} if config.reference_scores is None else {NORMALIZED_BEST: _normalized(best, config)}
            )
            say_json({**{name: getattr(result, name) for name in FACTS}, **normalized})
        else:
            print("\n".join(lines))

    # Ending ---------------------------------------------------------------------------------------

    def _stop(self, session: TrainingSession, why: str) -> None:
        """Stop taking experiences; the first reason is reported."""
        self._stopped = self._stopped or why
        self._stopping.set()
        if not session.is_done:
            if self.first:
                session.note_signal(signal.Signals(self.first).name)
            session.stop()

    async def _end_in_time(self, progress: Progress, screen: Screen, training: anyio.CancelScope) -> None:
        """Stop the training before its time is over, and leave a stopped one time to save."""
        await self._until_stopped(progress)
        self.announced()
        await screen.draw(partial(self.say, _NOTICES[self._stopped or _INTERRUPTED]))
        # Actors and the evaluator have half of the time, saving has the rest. Cancelling them loses nothing
        # that was accepted.
        await anyio.sleep(max(0.0, self.leaves_at - time.monotonic()) / 2)
        training.cancel()

    async def _until_stopped(self, progress: Progress) -> None:
        """Return when the training is stopped; stop it when its time is nearly over.

        For finishing it leaves twice the time of the longest save and of the last evaluation.
        """
        session = progress.session
        save_s, write_s = 0.0, session.busy_s()["write"]
        while not self._stopping.is_set():
            before_s, write_s = write_s, session.busy_s()["write"]
            save_s = max(save_s, write_s - before_s)  # a save is added when it is done, all at once
            margin_s = 2 * (save_s + progress.evaluator.last_s)
            left_s = self._limits.finishes_at(margin_s) - time.monotonic()
            if left_s <= 0:
                self._stop(session, _OUT_OF_TIME)
            with anyio.move_on_after(min(left_s, _LOOK_S) if left_s < math.inf else None):
                await self._stopping.wait()

    def _expect_end(self) -> None:
        """This process is about to say itself how the training ended."""
        if self._sudden_end is not None:
            self._sudden_end.close()

    # In the guard's thread ------------------------------------------------------------------------

    def overdue(self, *, loop_turns: bool) -> str:
        """Restore the terminal, and say which limit is over, which part is busy, and how to resume."""
        self._expect_end()
        self._view.close()
        over = self._limits.over(is_out_of_time=self.is_out_of_time)
        busy = "the training has not begun; give it more"
        if self._training is not None:
            run, session = self._training
            busy = f"{stuck_line(session.health, loop_turns=loop_turns)}; {_way_on(run)}"
        return f"stoker: error: {over} is over: {busy}"

    def interrupted(self) -> str:
        """Restore the terminal, and say how to resume."""
        self._expect_end()
        self._view.close()
        if self._training is None:
            return "stoker: interrupted"
        run, _ = self._training
        hint = f"resume: {_resume(run)}" if run.has_checkpoint() else "there is no checkpoint yet"
        return f"stoker: interrupted; {hint}"


def _scored(reward: float, config: TrainConfig) -> str:
    """A mean reward, also on the scale of the reference scores if there are some."""
    if config.reference_scores is None:
        return number(reward)
    return f"{number(reward)} (normalized {number(_normalized(reward, config))})"


def _normalized(reward: float | None, config: TrainConfig) -> float | None:
    return None if reward is None else normalized_score(reward, config.reference_scores)


def metrics_server(
    flags: TrainingCommand,
    read: Callable[[], TrainingReading | None] | Mapping[str, Callable[[], TrainingReading | None]],
) -> MetricsServer | None:
    """What answers at ``--metrics-port``; None: it is not given.

    Raises:
        ConfigError: The port is taken, or the address cannot be used.
        MissingDependency: prometheus-client is not installed.
    """
    if flags.metrics_port is None:
        return None
    from stoker.listening import listening_socket
    from stoker.telemetry.prometheus import Exposition
    from stoker.telemetry.serving import MetricsServer

    expose = Exposition(read)
    listener = listening_socket(flags.metrics_host, flags.metrics_port, "--metrics-port")
    return MetricsServer(listener, expose)


def _resume(run: TrainingRun) -> str:
    return command(["stoker", "resume", str(run.directory)])


def _way_on(run: TrainingRun) -> str:
    return f"continue from what was saved with `{_resume(run)}`"
