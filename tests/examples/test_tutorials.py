"""The commands of the documents: a reader who types them, one after the other, gets through.

Totals of steps are shortened, and each training has two environments.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

import launching

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FOLLOWED = ["quickstart", *(f"start/{name}" for name in ("agent", "cluster", "data", "game", "gymnasium"))]
"""Pages that are done from the first block to the last, in a directory of their own."""

ELSEWHERE = ["environments", "runs", "start/service"]
"""Pages whose commands have tests of their own: in test_documents.py, in test_readme.py, and below."""

SHORTER = {
    r"20_000": "200",
    "-n 100000 &": "-n 6000 &",
    r"-n [123]0{4,5}\b": "-n 200",
    r"--episodes \d+": "--episodes 2",
}
SHORTER |= {"/served --at-step 10000": " --at-step 200", "--seeds 0-4": "--seeds 0-1"}
FEWER = "--eval-freq 100 --eval-episodes 2 --record-freq 50 --no-progress"
NOT_RUN = {
    "pip install": "the tests run in what was installed",
    "python -m venv": "the same",
    "ray start": "tests/distributed has a cluster, for all its tests",
    "stoker train CartPole-v1 --actors ray": "the same",
    "stoker train Acrobot-v1 --actors ray": "the same",
    "stoker resume runs/CartPole-v1 -n 200 --workers": "the same",
    r"stoker dash(?! --export)": "tests/dashboard looks at it in a browser",
    "podman": "nothing here runs containers",
    "stoker actor --connect https": "a server that is not here",
    "sbatch": "test_jobs.py runs the scripts without Slurm",
    "./actors.ssh.sh": "test_jobs.py runs it without ssh",
    "stoker serve --env CartPole-v1 --host 0.0.0.0": "tests/cli/test_serve.py makes the certificate for it",
    "stoker serve --env CartPole-v1 &": "a server for ./actors.ssh.sh",
    "stoker train CartPole-v1 --metrics-port 9100": "tests/cli/test_metrics_port.py has a free port",
    "stoker train --offline hopper-medium.hdf5": "not here; tests/data writes small ones in its form",
}
"""What commands begin with that are not run here, and why.

``curl`` and ``stoker actor`` run where the page has a server for them: in the quick start and for a cluster.
"""

WAIT_S = 60.0


def lines_of(block: str) -> list[str]:
    """The commands of a shell block, without comments, each on one line."""
    joined = block.replace("\\\n", " ")
    return [stripped for line in joined.splitlines() if (stripped := re.split(r"\s#\s", line)[0].strip())]


def shorter(text: str) -> str:
    for long, short in SHORTER.items():
        text = re.sub(long, short, text)
    return text


class Reader:
    """Does what a page says, in a directory of its own."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self.directory = directory
        self.environment = {**environment, "PYTHONPATH": f"{directory}:{environment['PYTHONPATH']}"}
        self.running: launching.Popen | None = None
        self.address = ""

    def python(self, code: str) -> str:
        """Save what has a name, and run the rest."""
        code = shorter(code)
        if name := re.match(r"# (\w+\.py)\n", code):
            (self.directory / name[1]).write_text(code)
            return ""
        return self.run("-W", "error", "-c", code)

    def run(self, *words: str) -> str:
        done = launching.run(
            [sys.executable, *words], cwd=self.directory, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def command(self, line: str) -> None:
        """One line of a shell block."""
        line = shorter(line)
        if re.match("|".join(NOT_RUN), line) or (re.match("curl|stoker actor", line) and not self.address):
            return
        words = shlex.split(line.replace("http://127.0.0.1:8000", self.address))
        match words:
            case ["stoker", "serve", *_]:
                self.stop()  # the one before: the page is done with it
                self.start([word for word in words[1:] if word != "&"] + ["--port", "0"])
                self.address = self.wait_for(r"http://127\.0\.0\.1:\d+")
            case ["stoker", *rest, "&"]:
                self.start(rest)
            case ["sleep", _]:  # until the training has come somewhere
                self.wait_for(r"[1-9][\d,]*/6,000 steps")
            case ["kill", "-9", "$!"]:
                self.kill()
            case ["kill", "%1"]:
                self.stop()
            case ["stoker", "train", *rest]:
                total = [] if "-n" in rest else ["-n", "200"]
                envs = [] if "--offline" in rest else ["--num-envs", "2"]
                self.run("-m", "stoker", "train", *envs, *total, *rest, *FEWER.split())
            case ["stoker", "resume", run, "-n", _, *rest]:
                self.run("-m", "stoker", "resume", run, "-n", "300", *rest)
            case ["stoker", "eval", *rest] if "--offline" in rest:
                self.run("-m", "stoker", "eval", *rest, "--updates", "50")
            case ["stoker", "token", *rest, ">>", out]:
                with (self.directory / out).open("a") as file:
                    file.write(self.run("-m", "stoker", "token", *rest))
                (self.directory / out).chmod(0o600)  # as umask 077, which the page sets, or chmod
            case ["stoker", *rest]:
                self.run("-m", "stoker", *rest)
            case ["umask" | "chmod" | "cp", *_]:
                subprocess.run(
                    ["bash", "-euc", line],
                    cwd=self.directory,
                    env=self.environment,
                    check=True,
                    timeout=WAIT_S,
                )
            case ["python", *rest]:
                self.run(*rest)
            case ["curl", *_]:
                subprocess.run(["curl", "-f", *words[1:]], check=True, capture_output=True, timeout=WAIT_S)
            case _:
                pytest.fail(f"nobody runs {line!r}")

    def start(self, words: list[str]) -> None:
        self.running = launching.Popen(
            [sys.executable, "-m", "stoker", *words],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for(self, pattern: str) -> str:
        """What the running program prints."""
        assert self.running is not None
        assert self.running.stdout is not None
        said: list[str] = []
        for line in self.running.stdout:
            said.append(line)
            if found := re.search(pattern, line):
                return found[0]
        pytest.fail("".join(said))

    def stop(self) -> None:
        if self.running is not None and self.running.poll() is None:
            self.running.send_signal(signal.SIGTERM)
            said, _ = self.running.communicate(timeout=WAIT_S)
            assert self.running.returncode == 0, said

    def kill(self) -> None:
        if self.running is not None:
            self.running.kill()
            self.running.communicate()
            self.running = None


@pytest.fixture
def reader(tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[[], Reader]]:
    made: list[Reader] = []

    def make() -> Reader:
        made.append(Reader(tmp_path, environment))
        return made[-1]

    yield make
    for each in made:
        each.kill()


def commands_of(page: Path) -> list[str]:
    return [line for tag, block in BLOCK.findall(page.read_text()) if tag == "sh" for line in lines_of(block)]


@pytest.mark.parametrize("name", FOLLOWED)
def test_a_reader_who_follows_the_page_gets_through(name: str, reader: Callable[[], Reader]) -> None:
    following = reader()
    for language, block in BLOCK.findall((DOCS / f"{name}.md").read_text()):
        if language == "python":
            following.python(block)
        else:
            for line in lines_of(block):
                following.command(line)
    following.stop()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """A directory in which there is what the pages on their subjects name."""
    directory = tmp_path_factory.mktemp("prepared")
    first = Reader(directory, environment)
    for line in [
        "stoker train CartPole-v1",
        "stoker train CartPole-v1 --run-version v2",
        "stoker train Pendulum-v1 --agent sac",
        "stoker data export runs/CartPole-v1 -o data.npz --format npz",
        "stoker data export runs/Pendulum-v1 -o before.npz --format npz",
        "stoker export runs/CartPole-v1 -o policy --format numpy",
    ]:
        first.command(line)
    box = {"type": "box", "shape": [4], "dtype": "float32", "low": None, "high": None}
    bounded = {**box, "shape": [1], "low": [-1.0], "high": [1.0]}
    (directory / "spaces.json").write_text(json.dumps({"observation": box, "action": bounded}))
    (directory / "my_game.py").write_text("from mpe2.simple_spread_v3 import parallel_env as make_arena\n")
    (directory / "tables.py").write_text(BLOCK.findall((DOCS / "start/agent.md").read_text())[0][1])
    return directory


SUBJECTS = [
    name
    for page in sorted(DOCS.rglob("*.md"))
    if (name := str(page.relative_to(DOCS).with_suffix(""))) not in {*FOLLOWED, *ELSEWHERE}
    and commands_of(page)
]


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_reader_can_type_the_commands_of_the_page(
    name: str, prepared: Path, tmp_path: Path, reader: Callable[[], Reader]
) -> None:
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    following = reader()
    for line in commands_of(DOCS / f"{name}.md"):
        following.command(line)
    following.stop()


def test_each_reason_not_to_run_a_command_is_needed() -> None:
    lines = [shorter(line) for page in DOCS.rglob("*.md") for line in commands_of(page)]
    assert [start for start in NOT_RUN if not any(re.match(start, line) for line in lines)] == []


def test_a_reader_is_a_visitor_of_the_service(
    tmp_path: Path, served: Callable[..., AbstractContextManager[str]], run_on_disk: Callable[[], Any]
) -> None:
    (_, server), (_, visit) = BLOCK.findall((DOCS / "start/service.md").read_text())
    with served(server.replace("port=8000", "port=0"), tmp_path) as address:
        script = visit.replace("http://127.0.0.1:8000", address)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=True,
        )
    assert '"offer":' in done.stdout
    assert '"is_running":true' in done.stdout
    assert [row["total_reward"] for row in run_on_disk().rows] == [1.0]
