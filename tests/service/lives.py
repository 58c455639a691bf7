"""``stoker serve`` as a process that is killed and started again, and actors as processes that play on it."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Self

import pytest

import launching

HERE = Path(__file__).parent
START_S = 60.0
STOP_S = 60.0
SPACES = {
    "observation": {"type": "box", "shape": [4], "dtype": "float32", "low": None, "high": None},
    "action": {"type": "discrete", "n": 3},
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


class Server:
    """The service, always on the same port and with the same run.

    Args:
        flags: of ``stoker serve``, beside those of spaces, port and runs directory.
    """

    def __init__(self, directory: Path, flags: Sequence[str] = ()) -> None:
        self.port = free_port()
        self.runs = directory / "runs"
        self.log = directory / "server.log"
        self.n_kills = 0
        spaces = directory / "spaces.json"
        spaces.write_text(json.dumps(SPACES))
        self._words = [
            sys.executable, "-m", "stoker", "serve", "--spaces", str(spaces), "--port", str(self.port),
            "--runs-dir", str(self.runs), *flags,
        ]  # fmt: skip

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill()

    def start(self) -> None:
        """Start it and wait until it listens."""
        with self.log.open("ab") as log:
            self._process = launching.Popen(self._words, stdout=subprocess.PIPE, stderr=log)
        output: IO[bytes] | None = self._process.stdout
        assert output is not None
        lines = []
        while line := output.readline():  # an end of the output: it could not start
            lines.append(line)
            if str(self.port).encode() in line:
                return
        raise AssertionError(f"{b''.join(lines)!r}\n{self.log.read_text()[-4000:]}")

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """End it at once, wherever it is."""
        self._process.kill()
        self._process.wait(STOP_S)
        self._close()
        self.n_kills += 1

    def stop(self) -> None:
        """Ask it to drain, save and end."""
        self._process.send_signal(signal.SIGTERM)
        assert self.exit_code() == 0, self.log.read_text()[-4000:]

    def exit_code(self) -> int:
        """Wait until it has ended."""
        try:
            return self._process.wait(STOP_S)
        finally:
            self._close()

    def _close(self) -> None:
        if self._process.stdout is not None:
            self._process.stdout.close()


class Actors:
    """A process of actors that write a ledger."""

    def __init__(
        self, words: Sequence[str], port: int, ledger: Path, first: int, n: int, records: int
    ) -> None:
        self.ledger = ledger
        numbers = map(str, (first, n, records))
        self._process = subprocess.Popen([*words, str(port), str(ledger), *numbers], stderr=subprocess.PIPE)

    def is_over(self) -> bool:
        return self._process.poll() is not None

    def join(self, seconds: float) -> None:
        """Wait until all their records are on the server's disk."""
        try:
            _, errors = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.ledger.stem} is not through after {seconds:g} s") from None
        code = self._process.returncode
        assert code == 0, f"{self.ledger.stem}: exit code {code}: {errors.decode()[-4000:]}"

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()

    def rows(self) -> Iterator[list[Any]]:
        """What the actors wrote down, in the order in which each of them did it."""
        with self.ledger.open("rb") as lines:
            yield from map(json.loads, lines)


def actors_in(language: str, directory: Path) -> list[str]:
    """The words that run the actors of a language; skips the test where its tools are not installed."""
    if language == "python":
        return [sys.executable, str(HERE / "ledger.py")]
    tool = {"javascript": "node", "rust": "rustc"}[language]
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    if language == "javascript":
        return [tool, str(HERE / "ledger.mjs")]
    program = directory / "ledger"
    subprocess.run([tool, "--edition", "2021", "-o", str(program), str(HERE / "ledger.rs")], check=True)
    return [str(program)]
