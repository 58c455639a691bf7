"""Connecting to a Ray cluster: what cannot be reached is one line, soon; and one connection is shared."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import ray
from ray_parts import started_cluster

import launching
from stoker.distributed.cluster import Cluster, Node, _refusing, shortage_of
from stoker.distributed.head import head_answers
from stoker.distributed.reaching import accepts
from stoker.distributed.versions import Versions, difference
from stoker.errors import ConfigError

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with started_cluster(2) as address:
        yield address


class Quiet(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Print nothing."""


def refusal(address: str, **settings: float) -> str:
    with pytest.raises(ConfigError) as caught:
        Cluster.connect(address, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_address_that_is_none_is_refused_with_what_to_give() -> None:
    assert "give auto, local, or HOST:PORT" in refusal("somewhere")
    assert "as in head:6379" in refusal("ray://head:10001")


def test_what_cannot_be_reached_is_one_line_with_the_reason_and_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert f"127.0.0.1:{port} cannot be used: no answer within 0.2 s" in refusal(
            f"127.0.0.1:{port}", timeout_s=0.2
        )
    text = refusal(f"127.0.0.1:{port}")
    assert "Connection refused" in text
    assert "--cluster local" in text
    with HTTPServer(("127.0.0.1", 0), Quiet) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        assert "not the head of a Ray cluster" in refusal(f"127.0.0.1:{web.server_address[1]}")
        web.shutdown()


def test_a_plain_exception_of_ray_is_one_line_too() -> None:
    line = "^no cluster: The current node timed out. More. Wait$"
    with pytest.raises(ConfigError, match=line), _refusing("no cluster", "Wait"):
        raise Exception("The current node timed out.\nMore.")  # noqa: TRY002 - as ray._private.node does


def test_auto_is_the_cluster_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    assert "127.0.0.1:9, from RAY_ADDRESS cannot be used" in refusal("auto")


def test_a_process_has_one_connection_which_the_last_one_closes(address: str) -> None:
    with Cluster.connect(address) as first:
        port = address.rpartition(":")[2]
        for same in ("auto", address, f"localhost:{port}"):
            Cluster.connect(same).close()
        assert "this process is connected to the cluster at" in refusal("10.0.0.5:6379")
        assert any(node.n_cpus >= 2 and node.is_alive for node in first.nodes())
        assert first.shortage(1, 2) is None
        assert "no node has the 64 CPUs of a worker" in (first.shortage(64, 1) or "")
        first.close()  # and again at the end of the block
    with Cluster.connect(address) as again:
        assert again.address == first.address


LOCAL = """
import os
from stoker.distributed import Cluster
with Cluster.connect("local", local_cpus=3) as cluster:
    assert [node.n_cpus for node in cluster.nodes()] == [3]
assert "RAY_AUTH_MODE" not in os.environ
"""


def test_a_local_cluster_ends_with_its_connection_and_asks_later_ones_for_no_token(
    tmp_path: Path,
) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    program = [sys.executable, "-W", "ignore", "-c", LOCAL]
    done = launching.run(
        program, env=env | {"HOME": str(tmp_path)}, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr


SIGTERM = """
import os, signal, sys, threading
from stoker.distributed import Cluster
came = []
signal.signal(signal.SIGTERM, lambda *_: came.append(True))
clusters = []
thread = threading.Thread(target=lambda: clusters.append(Cluster.connect(sys.argv[1])))
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGTERM)
assert came
assert signal.alarm(0) == 0, "the process would be aborted"
clusters[0].close()
"""


def test_a_connection_leaves_sigterm_to_the_program(address: str) -> None:
    program = [sys.executable, "-W", "ignore", "-c", SIGTERM, address]
    env = os.environ | {"RAY_AUTH_MODE": "disabled"}
    done = launching.run(program, env=env, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_shortage_says_what_is_missing_and_where() -> None:
    nodes = [
        Node(node_id=name, name=name, n_cpus=2, free_cpus=free, is_alive=True)
        for name, free in (("a", 0.5), ("b", 2))
    ]
    assert shortage_of(nodes, 0, 1000) is None
    assert shortage_of(nodes, 0.5, 5) is None
    text = "2 workers wait for 1 CPU each; free CPUs: 0.5 of 2 on a, 2 of 2 on b"
    assert shortage_of(nodes, 1, 4) == text
    assert shortage_of([], 1, 1) == "no node has the 1 CPUs of a worker: the cluster has no node"


def test_other_versions_are_named_with_both() -> None:
    here = Versions.here()
    assert difference(here, here) is None
    there = Versions(stoker=here.stoker, python="2.7", torch="0.1")
    found = difference(here, there)
    assert found == f"Python 2.7 instead of {here.python}, torch 0.1 instead of {here.torch}"


@pytest.fixture
def guarded_head(tmp_path: Path) -> Iterator[str]:
    """The address of a cluster's head, without nodes, that wants the token TOKEN."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = Path(ray.__file__).parent / "core/src/ray/gcs/gcs_server"
    with subprocess.Popen(
        [program, f"--gcs_server_port={port}", "--node-ip-address=127.0.0.1", "--config_list=e30="],
        env=os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
    ) as head:
        deadline = time.monotonic() + 60
        while not head_answers(f"127.0.0.1:{port}", 5.0):
            assert head.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
        head.kill()


def test_a_cluster_that_wants_a_token_says_which_and_from_where(
    guarded_head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, _, port = guarded_head.partition(":")
    assert accepts(host, int(port), 5.0, {"authorization": f"Bearer {TOKEN}"})
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert "wants a token: set RAY_AUTH_MODE=token, and put the cluster's" in refusal(guarded_head)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert "this process has no token: put the cluster's" in refusal(guarded_head)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x" * 300)
    assert "refuses the token from RAY_AUTH_TOKEN: put the cluster's" in refusal(guarded_head)


def test_a_command_without_its_cluster_prints_one_line_and_leaves_nothing(
    guarded_head: str, tmp_path: Path
) -> None:
    words = ("train", "CartPole-v1", "--actors", "ray", "--cluster", guarded_head, "--workers", "1")
    done = launching.run(
        [sys.executable, "-m", "stoker", *words],
        env=os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "other"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 2
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert "refuses the token from RAY_AUTH_TOKEN" in done.stderr
    assert not (tmp_path / "runs").exists()
