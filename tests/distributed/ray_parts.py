"""Environments for the workers of a cluster. Each notes what it does in a file that outlives its process."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv


@contextlib.contextmanager
def started_cluster(*cpus: int) -> Iterator[str]:
    """The address of a cluster with a node for each number of CPUs; it ends with the block."""
    if address := os.environ.get("STOKER_TEST_CLUSTER"):
        yield address
        return
    program = Path(__file__).with_name("cluster_program.py")
    command = [sys.executable, str(program), *map(str, cpus)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


@contextlib.contextmanager
def cluster_of(*cpus: int) -> Iterator[tuple[str, Callable[[str], object]]]:
    """A cluster of nodes with so many CPUs: its address, and what takes orders of ``cluster_program.py``."""
    program = [sys.executable, str(Path(__file__).with_name("cluster_program.py"))]
    with subprocess.Popen(
        [*program, *map(str, cpus)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def tell(words: str) -> None:
            stdin.write(f"{words}\n")
            stdin.flush()
            assert stdout.readline().strip() == "done"

        yield stdout.readline().strip(), tell
        stdin.close()


class NotedEnv(gymnasium.Env[Any, Any]):
    """Episodes of 20 steps; each observation is a number that no other environment ever shows.

    Args:
        directory: for the file with its steps, at most 65,536, one number each.
        step_s: how long a step takes.
    """

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, directory: Path, step_s: float = 0.002) -> None:
        self._step_s = step_s
        self._number = secrets.randbelow(1 << 30) << 20
        file = directory / f"{os.getpid()}-{self._number}"
        # Mapped: a note is one store, while a call that writes would let other threads run before it returns.
        self._notes = np.memmap(file, np.float64, "w+", shape=1 << 16)
        self._n_notes = 0
        self._left = 0

    def _next(self) -> np.ndarray[Any, Any]:
        self._number += 1
        return np.array([self._number], np.float64)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        del seed, options
        self._left = 20
        return self._next(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        time.sleep(self._step_s)
        self._left -= 1
        observation = self._next()
        self._notes[self._n_notes] = self._number
        self._n_notes += 1
        return observation, float(self._left), self._left == 0, False, {}


def noted_vector(directory: Path, n: int) -> SyncVectorEnv:
    """That many of them, stepped together."""
    single = functools.partial(NotedEnv, directory)
    return SyncVectorEnv([single] * n, autoreset_mode=AutoresetMode.DISABLED)


def noted_steps(directory: Path) -> list[float]:
    """What all environments noted there."""
    return [number for file in directory.iterdir() for number in np.fromfile(file).tolist() if number]


def pids_in(directory: Path) -> set[int]:
    """The processes that environments noted steps from."""
    return {int(file.name.split("-")[0]) for file in directory.iterdir()}
