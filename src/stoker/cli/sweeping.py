"""``stoker train --seeds`` and the resume of what it made: one process per seed, some of them at once.

The parent trains nothing. It starts the processes, shows how far they are, and ends when all have ended. A
seed that fails leaves the others alone. The parent's end ends them all: see ``stoker.cli.one_seed``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from subprocess import PIPE

import anyio
import msgspec
from anyio.abc import ByteReceiveStream, ByteSendStream, Process
from rich.console import Console

from stoker.cli.limits import Limits, TrainingCommand
from stoker.cli.printing import command, counted, from_here
from stoker.cli.sweep_messages import Order, Report
from stoker.cli.sweep_views import FAILED, RUNNING, WAITING, SeedRun, SweepReading, sweep_view
from stoker.exits import single_error
from stoker.runs.event_rows import EVENTS
from stoker.signals import ENDING_SIGNALS, SignalGuard
from stoker.trainer.views.text import number
from stoker.trainer.views.view import ScreenThread
from stoker.writer import files

PROGRAM = (sys.executable, "-m", "stoker.cli.one_seed")
"""The process of one seed."""

_EXTRA_S = 5.0
"""How much longer than its processes the parent may take to finish."""
_LAST_START_S = 10.0
"""With less time than this left, or than half of ``--max-time``, no further seed begins."""
_LATE_TEXT_S = 1.0
"""How long text is awaited behind the end of a process: its own children may hold the pipe open."""
_LONGEST_LINE = 1 << 16
_ERROR = "stoker: error: "
_USAGE = 2


class Sweeper(SignalGuard):
    """Trains the seeds of a sweep, at most ``jobs`` at once; a context manager for one ``train``.

    The first signal finishes all that run, and begins no other; they save and can be resumed. The second one
    kills them and ends this process.

    Args:
        flags: those of the command.
        program: the words that start the process of one seed.
    """

    def __init__(self, flags: TrainingCommand, program: Sequence[str] = PROGRAM) -> None:
        self.limits: Limits = flags.limits()
        """How long it may take."""
        limits = self.limits
        super().__init__(ENDING_SIGNALS, limits.grace_s + _EXTRA_S, limits.leaves_at)
        self._program = program
        self._console = Console(stderr=True)
        self._view = sweep_view(self._console, progress=flags.progress)
        self._lines: list[str] = []
        self._processes: dict[int, Process] = {}
        self._stopping = anyio.Event()
        self._version = Path()
        self.seeds: Sequence[SeedRun] = ()
        """Those of the sweep."""
        self.refused: str = ""
        """The usage error of a process: as all seeds have the same settings, no other one begins."""

    def say(self, text: str) -> None:
        """Print a line above the view."""
        self._lines.append(text)

    def begin(self) -> None:
        """From now on a signal stops the sweep, instead of ending the process; on the event loop."""
        self.finish_with(self._stopping.set)

    @property
    def is_stopping(self) -> bool:
        """Whether a signal has come."""
        return self._stopping.is_set()

    async def train(self, version: Path, seeds: Sequence[SeedRun], jobs: int) -> None:
        """Train those that have an order, and return when all have ended.

        Args:
            version: the directory of the sweep.
            seeds: of the sweep; they hold the results.
            jobs: how many run at once, at most.
        """
        self.seeds, self._version = seeds, version
        waiting = iter(seeds)
        with single_error():
            async with anyio.create_task_group() as watching:
                watching.start_soon(ScreenThread(self._view).show_to_the_end, self._read)
                watching.start_soon(self._announce)
                async with anyio.create_task_group() as workers:
                    for _ in range(min(jobs, len(seeds))):
                        workers.start_soon(self._work, waiting)
                watching.cancel_scope.cancel()

    async def _work(self, waiting: Iterator[SeedRun]) -> None:
        for seed in waiting:
            if self.is_stopping or self.refused or self._is_late():
                return
            if seed.order is not None:
                await self._train(seed, seed.order)

    def _left_s(self) -> float:
        return self.limits.ends_at - time.monotonic()

    def _is_late(self) -> bool:
        most_s = self.limits.max_s
        return most_s is not None and self._left_s() < min(_LAST_START_S, most_s / 2)

    async def _train(self, seed: SeedRun, order: Order) -> None:
        """Start the process of a seed, follow it to its end, and note how it ended."""
        if self.limits.max_s is not None:
            left_s = self._left_s()  # the process ends before this one
            fields = {**order.fields, "max_time": f"{max(left_s - 1, left_s / 2):.3f}"}
            order = msgspec.structs.replace(order, fields=fields)
        seed.state = "starting"
        errors: list[str] = []
        words = [
            *self._program,
            from_here(self._version),
            f"seed={seed.seed}",
        ]  # the last two for those who list processes
        async with await anyio.open_process(
            words, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
        ) as process:
            self._processes[seed.seed] = process
            try:
                async with anyio.create_task_group() as lifeline:
                    lifeline.start_soon(self._hold, process.stdin, msgspec.json.encode(order) + b"\n", seed)
                    async with anyio.create_task_group() as readers:
                        readers.start_soon(self._read_reports, process.stdout, seed)
                        readers.start_soon(self._read_text, process.stderr, seed, errors)
                        await process.wait()
                        readers.cancel_scope.deadline = anyio.current_time() + _LATE_TEXT_S
                    lifeline.cancel_scope.cancel()
            finally:
                del self._processes[seed.seed]
        self._note_end(seed, process.returncode or 0, errors)

    async def _hold(self, pipe: ByteSendStream | None, order: bytes, seed: SeedRun) -> None:
        """Hand over the order, and keep the pipe open until the process is to finish."""
        if pipe is None:
            return
        with contextlib.suppress(anyio.BrokenResourceError):  # it has ended; its exit code says why
            await pipe.send(order)
        await self._stopping.wait()
        if seed.is_active:
            seed.state = "finishing"
        await pipe.aclose()

    async def _read_reports(self, pipe: ByteReceiveStream | None, seed: SeedRun) -> None:
        async for line in _lines_of(pipe):
            seed.report = report = msgspec.json.decode(line, type=Report)
            seed.run = Path(report.run) if report.run else seed.run
            if report.total_steps and not self.is_stopping:
                seed.state = RUNNING

    async def _read_text(self, pipe: ByteReceiveStream | None, seed: SeedRun, errors: list[str]) -> None:
        """Say what the process says; the line that says why it failed is kept for the end."""
        async for line in _lines_of(pipe):
            text = line.decode(errors="replace").rstrip()
            if text.startswith(_ERROR):
                errors.append(text.removeprefix(_ERROR))
            elif text:
                self.say(f"seed {seed.seed}: {text}")

    def _note_end(self, seed: SeedRun, code: int, errors: Sequence[str]) -> None:
        report = seed.report
        has_begun = seed.run is not None and EVENTS in files.files_in(seed.run)
        seed.exit_code = code
        if code == 0:
            seed.state = (report.ended or "done").lower()
            best = "" if report.best is None else f", best evaluation {number(report.best)}"
            self.say(f"seed {seed.seed}: {seed.state}, {report.total_steps:,} steps{best}")
            return
        if self.is_stopping and not has_begun:
            seed.state, seed.exit_code = WAITING, None
            return
        seed.state, seed.cause = FAILED, "; ".join(errors)
        if code == _USAGE and not has_begun:
            self.refused = seed.cause
        else:
            self.say(f"seed {seed.seed}: failed, {seed.failure}")

    # Showing --------------------------------------------------------------------------------------

    def _read(self) -> SweepReading:
        lines, self._lines = self._lines, []
        return SweepReading(self._console, self.seeds, lines)

    async def _announce(self) -> None:
        await self._stopping.wait()
        n_active = sum(seed.is_active for seed in self.seeds)
        self.say(f"finishing: saving {counted(n_active, 'training')}; press Ctrl-C again to leave at once")
        self.announced()

    # In the guard's thread ------------------------------------------------------------------------

    def _kill(self) -> None:
        """Kill what still runs, with the processes that it has started."""
        self._view.close()
        for process in list(self._processes.values()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

    def overdue(self, *, loop_turns: bool) -> str:
        """Kill what still runs, and say which limit is over."""
        busy = ", ".join(str(seed.seed) for seed in self.seeds if seed.is_active)
        self._kill()
        over = self.limits.over(is_out_of_time=self.is_out_of_time)
        if not busy:
            return f"{_ERROR}{over} is over: the training has not begun; give it more"
        return f"{_ERROR}{over} is over: killed the seeds that were still busy: {busy}; {self._way_on()}"

    def interrupted(self) -> str:
        """Kill what still runs, and say how to resume."""
        self._kill()
        return f"stoker: interrupted; {self._way_on()}" if self.seeds else "stoker: interrupted"

    def _way_on(self) -> str:
        return f"resume: {command(['stoker', 'resume', str(self._version)])}"


async def _lines_of(pipe: ByteReceiveStream | None) -> AsyncIterator[bytes]:
    """The lines of a pipe; a very long one comes in parts."""
    held = b""
    if pipe is None:
        return
    async for piece in pipe:
        *whole, held = (held + piece).split(b"\n")
        for line in whole:
            yield line
        if len(held) > _LONGEST_LINE:
            yield held
            held = b""
    if held:
        yield held
