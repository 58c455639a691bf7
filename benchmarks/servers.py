"""Servers as processes: started for a block, and measured from outside."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Serving(NamedTuple):
    """A server that runs in its own process."""

    port: int
    pid: int
    ready_s: float = 0.0
    """From the start of its process until it said where it listens."""

    def cpu_s(self) -> float:
        """The processor time of its process so far; a number that other processes change little."""
        return cpu_of(self.pid)

    def cpu_of_all_s(self) -> float:
        """The same, with the processes that it has started."""
        return sum(map(cpu_of, with_children(self.pid)))


@contextlib.contextmanager
def serving(words: Sequence[str], env: Mapping[str, str] | None = None) -> Generator[Serving]:
    """Run a server that prints a line with its URL, or with its port at the end."""
    began = time.perf_counter()
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(env or {}), "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    assert process.stdout is not None
    said: list[str] = []
    try:
        for line in process.stdout:
            said.append(line)
            if (port := _port_in(line)) is not None:
                # A server may print more than its port: let it.
                threading.Thread(target=process.stdout.read, daemon=True).start()
                yield Serving(port, process.pid, time.perf_counter() - began)
                return
        raise RuntimeError(f"{words} did not start: {''.join(said)}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)  # with the processes that it has started
        process.wait()


def cpu_of(pid: int) -> float:
    """The processor time of all threads of a process so far, in seconds; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def peak_bytes_of(pid: int) -> float:
    """The most memory that a process and those that it has started have held, each at its own peak."""
    total = 0.0
    for each in with_children(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{each}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1]) * 1024
    return total


def with_children(pid: int) -> list[int]:
    """A process, and all that it has started and that still run."""
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in path.read_text().split():
                found += with_children(int(child))
    return found


def _port_in(line: str) -> int | None:
    if "://" in line:
        found = re.search(r"://[^/\s]+:(\d+)", line)
        return int(found[1]) if found else None
    numbers = [word for word in line.replace(":", " ").split() if word.isdecimal()]
    return int(numbers[-1]) if numbers else None
