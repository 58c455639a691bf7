"""Keep a training's process running: start it again after each failure, unless that would not help.

The supervisor is a process beside the training's, on the same machine. What it has counted is in
``learner.json`` in the run's directory, so that one that is started elsewhere, after its node has died,
continues to count. Without Ray: ``stoker.distributed.learner`` makes an actor of it.
"""

from __future__ import annotations

import contextlib
import platform
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal

import msgspec

from stoker.errors import RunDirectoryError, RunLocked, StokerError
from stoker.runs import TrainingRun
from stoker.runs.metadata import now, read_json_if_there, write_json

LEARNER = "learner.json"
"""The file of a run that says what its supervisor has seen."""

_MOST_RESTARTS = 5
"""How often a training is started again that gets no further."""
_LEAST_DELAY_S, _MOST_DELAY_S = 1.0, 60.0
_KEPT_LINES = 1000
_USAGE = 2
"""The exit code of a setting that cannot be used: it would not work the next time either."""


class LearnerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a supervisor has seen of the training that it keeps running; the content of ``learner.json``.

    Attributes:
        state: ``running``, ``restarting`` (it waits before the next start), or ``ended``.
        node: where it runs.
        pid: the training's process; 0: there is none.
        since: when this state began.
        restarts: how often the training was started again.
        fruitless: how many of the last restarts in a row brought it no further.
        reached: events and steps of the run when that was counted; it only grows.
        exit_code: of the training's last process; negative: the signal that killed it; None: none ended yet.
        reason: why that process ended, in a line.
    """

    state: Literal["running", "restarting", "ended"]
    node: str
    pid: int = 0
    since: datetime
    restarts: int = 0
    fruitless: int = 0
    reached: int = 0
    exit_code: int | None = None
    reason: str = ""


class LearnerNews(msgspec.Struct, frozen=True, kw_only=True):
    """What a follower of a supervised training gets.

    Attributes:
        status: now.
        lines: what the training printed since the last time: whether on standard output, and the text.
        until: the number of lines so far, which the next request names.
    """

    status: LearnerStatus
    lines: list[tuple[bool, str]]
    until: int


def read_status(run: Path) -> LearnerStatus | None:
    """What the supervisor of a run has seen; None: the run never had one. Blocks.

    Raises:
        RunBroken: The file cannot be read.
    """
    return read_json_if_there(run / LEARNER, LearnerStatus)


class Supervisor:
    """Runs a command that trains, and starts it again when it fails.

    It is not started again when the exit code is 2 (a setting), when the same failure comes a second time
    before the training got any further, or when five restarts in a row brought it no further. Between
    restarts it waits 1 s, and twice as long each time, up to a minute, while the training gets no further.

    Args:
        run: the run's directory, which must be here.
        words: of the command: a module and its arguments; run by this Python.
        cwd: the working directory of the command, if it is here; else that is the run's.
        env: its environment.
    """

    def __init__(self, run: Path, words: Sequence[str], cwd: str, env: Mapping[str, str]) -> None:
        self._run = run
        self._words = [sys.executable, "-m", "stoker.distributed.supervised", *words]
        self._cwd = cwd if Path(cwd).is_dir() else str(run)
        self._env = dict(env)
        self._lock = threading.Condition()
        self._lines: deque[tuple[bool, str]] = deque(maxlen=_KEPT_LINES)
        self._n_lines = 0
        self._process: subprocess.Popen[str] | None = None
        self._is_stopped = False
        self._is_over = threading.Event()
        new = LearnerStatus(state="restarting", node=platform.node(), since=now())
        before = read_status(run) or new
        if before.state == "ended":  # somebody wants it to go on
            before = msgspec.structs.replace(new, restarts=before.restarts)
        self.status: LearnerStatus = before

    def run(self) -> LearnerStatus:
        """Keep the training running until it ends, and return how. Blocks; once, in a thread that stays.

        Raises:
            WriteFailed: The run's directory cannot be written.
        """
        try:
            if self.status.state == "running":  # its supervisor was killed, or its node died
                self._judge(-signal.SIGKILL, f"it was lost with its supervisor on {self.status.node}")
            while self.status.state != "ended":
                self._judge(*self._run_once())
                delay_s = min(_MOST_DELAY_S, _LEAST_DELAY_S * 2**self.status.fruitless)
                if self.status.state == "restarting" and self._is_over.wait(delay_s):
                    self._say(state="ended", exit_code=0, reason="it was stopped")
        except StokerError as error:
            with self._lock:
                reason = f"its supervisor failed: {error}"
                self.status = msgspec.structs.replace(self.status, state="ended", exit_code=1, reason=reason)
                self._lock.notify_all()
            raise
        return self.status

    def stop(self) -> None:
        """Let the training finish and save, and do not start it again; from any thread."""
        with self._lock:
            self._is_stopped = True
            self._is_over.set()
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)

    def news(self, after: int, timeout_s: float) -> LearnerNews:
        """What came behind the first ``after`` lines; waits for it at most so long. From any thread."""
        with self._lock:
            self._lock.wait_for(lambda: self._n_lines > after or self.status.state == "ended", timeout_s)
            after = after if after <= self._n_lines else 0  # it counted the lines of one that was lost
            n_new = min(len(self._lines), self._n_lines - after)
            lines = list(self._lines)[len(self._lines) - n_new :]
            return LearnerNews(status=self.status, lines=lines, until=self._n_lines)

    def _run_once(self) -> tuple[int, str]:
        """Run the training once; its exit code and why it ended."""
        with self._lock:
            if self._is_stopped:
                return 0, "it was stopped"
            self._process = process = subprocess.Popen(  # noqa: S603 - this Python
                self._words,
                cwd=self._cwd,
                env=self._env,
                stdin=subprocess.PIPE,  # which ends with this process
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="backslashreplace",
                start_new_session=True,
            )
        self._say(state="running", pid=process.pid, node=platform.node())
        last: deque[str] = deque(maxlen=1)
        streams = [stream for stream in (process.stdout, process.stderr) if stream is not None]
        readers = [
            threading.Thread(target=self._read, args=(stream, stream is process.stdout, last), daemon=True)
            for stream in streams
        ]
        for reader in readers:
            reader.start()
        code = process.wait()
        for reader in readers:
            reader.join(_LEAST_DELAY_S)  # a process that it left behind may keep them open
        if process.stdin is not None:
            process.stdin.close()
        if code < 0:
            with contextlib.suppress(ValueError):
                return code, f"it was killed by {signal.Signals(-code).name}"
        return code, last[-1] if last and code > 0 else f"it ended with exit code {code}"

    def _read(self, stream: IO[str], is_output: bool, last: deque[str]) -> None:
        with stream:
            for line in stream:
                text = line.rstrip("\n")
                if text and not is_output:
                    last.append(text)
                with self._lock:
                    self._lines.append((is_output, text))
                    self._n_lines += 1
                    self._lock.notify_all()

    def _judge(self, code: int, reason: str) -> None:
        """Decide whether the training is started again after a process ended."""
        before, reached = self.status, max(self.status.reached, self._reached())
        fruitless = 0 if reached > before.reached else before.fruitless + 1
        # A lock of a node that is lost may last for a minute; any other failure that repeats will go on so.
        is_same = code > 0 and RunLocked.SIGN not in reason and reason == before.reason
        is_over = code in (0, _USAGE) or self._is_stopped
        if not is_over and fruitless and (is_same or fruitless > _MOST_RESTARTS):
            is_over = True
            reason = f"{reason} (given up: {fruitless} starts in a row brought it no further)"
        self._say(
            state="ended" if is_over else "restarting",
            pid=0,
            restarts=before.restarts + (not is_over),
            fruitless=fruitless,
            reached=reached,
            exit_code=code,
            reason=reason,
        )

    def _reached(self) -> int:
        """How far the run is: events in its journal, and steps of its newest checkpoint."""
        try:
            run = TrainingRun.find(self._run)
            return run.journal.n_events() + max(run.checkpoint_steps(), default=0)
        except RunDirectoryError:  # the next start says what is wrong
            return 0

    def _say(self, **changes: Any) -> None:
        """Change the status, here and on disk."""
        changed = msgspec.structs.replace(self.status, since=now(), **changes)
        write_json(self._run / LEARNER, changed)
        with self._lock:
            self.status = changed
            self._lock.notify_all()
