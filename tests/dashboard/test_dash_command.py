"""``stoker dash`` and ``stoker serve --dash`` as processes: what they print, refuse, and how they end."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from benchmarks.made_runs import MadeRun

import launching
from stoker.cli.dash import size_of
from stoker.cli.main import main
from stoker.errors import ConfigError

WAIT_S = 60.0


@contextmanager
def started(words: Sequence[str], cwd: Path) -> Iterator[tuple[launching.Popen, str]]:
    """The process of a command line, and the address of the dashboard that it prints."""
    words = [sys.executable, "-m", "stoker", *words]
    with launching.Popen(
        words, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        try:
            lines: list[str] = []
            for line in process.stdout:
                lines.append(line)
                if "  shows " in line:
                    break
            else:
                raise AssertionError("".join(lines))
            yield process, lines[-1].split()[0]
        finally:
            if process.poll() is None:
                process.kill()


def test_it_shows_the_runs_until_it_is_interrupted(tmp_path: Path) -> None:
    MadeRun(tmp_path / "runs").end()
    with started(["dash", "--port", "0"], tmp_path) as (process, address):
        assert address.startswith("http://127.0.0.1:")
        with (
            httpx2.Client(base_url=address, timeout=WAIT_S) as client,
            client.stream("GET", "/api/stream") as stream,
        ):
            assert len(client.get("/api/runs").json()["runs"]) == 1
            assert "<html" in client.get("/").text
            lines = stream.iter_lines()
            next(lines)
            os.kill(process.pid, signal.SIGINT)
            list(lines)
        assert process.wait(WAIT_S) == 0


def test_it_shows_a_run_without_imports_that_only_other_commands_need(tmp_path: Path) -> None:
    MadeRun(tmp_path / "runs").end()
    words = [sys.executable, "-X", "importtime", "-m", "stoker", "dash", "--port", "0"]
    with subprocess.Popen(  # a real interpreter, whose imports begin with none
        words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[0]
        assert len(httpx2.get(f"{address}api/runs", timeout=WAIT_S).json()["runs"]) == 1
        os.kill(process.pid, signal.SIGINT)
        said = process.communicate(timeout=WAIT_S)[1]
    imported = {line.rpartition("|")[2].strip() for line in said.splitlines()}
    assert "stoker.dashboard.app" in imported
    assert not {"torch", "gymnasium", "rich", "websockets", "webbrowser"} & imported


def test_browsers_of_others_log_in_with_the_link_that_is_printed(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    words = ["dash", "runs", "--port", "0", "--allowed-host", "dash.example"]
    with started(words, tmp_path) as (process, link):
        assert process.stdout is not None
        place = link.partition("login")[0]
        with httpx2.Client(base_url=place, headers={"host": "dash.example"}, timeout=WAIT_S) as client:
            assert client.get("/api/runs").status_code == 401
            assert client.get(link).status_code == 200
            assert client.get("/api/runs").status_code == 200
            assert client.get("/api/runs", headers={"host": "evil.example"}).status_code == 421
        next_link = process.stdout.readline().split()[0]
        assert next_link != link
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0


def test_a_service_shows_its_runs_to_whom_it_lets_in(tmp_path: Path) -> None:
    secret = hashlib.sha256(b"secret").hexdigest()
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(f'[[token]]\nname = "me"\nsha256 = "{secret}"\nscopes = ["read"]\n')
    tokens.chmod(0o600)
    words = ["serve", "--env", "CartPole-v1", "--port", "0", "--dash", "--token-file", str(tokens)]
    with started(words, tmp_path) as (process, link):
        place = link.partition("login")[0]
        assert place.endswith("/dash/")
        with httpx2.Client(base_url=place, timeout=WAIT_S) as client:
            assert client.get("api/runs").status_code == 401
            bearer = {"authorization": "Bearer secret"}
            [run] = client.get("api/runs", headers=bearer).json()["runs"]
            assert (run["status"], run["version"], run["wanted_steps"]) == ("live", "served", None)
            cookie = client.get(link).headers["set-cookie"]
            assert "Path=/dash/" in cookie
            assert client.get("api/runs").status_code == 200
            with client.stream("GET", "api/stream") as stream:
                lines = stream.iter_lines()
                next(lines)
                process.send_signal(signal.SIGTERM)
                list(lines)
        assert process.wait(WAIT_S) == 0


def test_a_mistake_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("runs").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        for words, named in (
            (["file/nowhere"], "runs directory 'file/nowhere': Not a directory"),
            (["file"], "it is no directory"),
            (["runs", "more"], "more: give one runs directory"),
            (["runs", "--host", "192.0.2.1"], "no such address"),
            (["runs", "--memory", "lots"], "--memory 'lots'"),
            (["runs", "--port", "66000"], "--port 66000"),
            (["runs", "--port", port], f"--port {port}: process "),
        ):
            assert main(["dash", *words]) == 2, words
            said = capsys.readouterr()
            assert (said.out, said.err.count("\n"), named in said.err) == ("", 1, True), said


def test_it_needs_no_torch(tmp_path: Path) -> None:
    program = """
import sys, signal, threading, os
from stoker.cli.main import main
import stoker.cli.dash as dash
def told(app, address, tell=dash.tell):
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    return tell(app, address)
dash.tell = told
assert main(["dash", sys.argv[1], "--port", "0"]) == 0
assert "torch" not in sys.modules
"""
    words = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("text", "n_bytes"), [("1MB", 1 << 20), ("2g", 2 << 30), ("1.5 GiB", 3 << 29)])
def test_sizes(text: str, n_bytes: int) -> None:
    assert size_of("--memory", text) == n_bytes
    with pytest.raises(ConfigError, match="--memory"):
        size_of("--memory", f"-{text}")
