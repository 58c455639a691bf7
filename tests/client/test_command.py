"""``stoker actor`` on a real server."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx2
import pytest
from ledgers import CartPoleServer

import launching
from stoker.cli.main import main

WAIT_S = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CartPoleServer]:
    with CartPoleServer(tmp_path_factory.mktemp("served")) as server:
        yield server


def test_it_plays_episodes_to_their_ends_and_says_what_they_gave(
    server: CartPoleServer, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"actor --connect {server.url} --env CartPole-v1 -n 3 --episodes 5 --seed 1 --name counted"
    assert main([*words.split(), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["episodes"] == 5
    assert said["mean_reward"] == said["steps"] / 5
    assert said["training"] == "running"
    with httpx2.Client(base_url=server.url) as client:
        states = [client.get(f"/v1/actors/counted-{number}").json() for number in range(3)]
    assert sum(state["answer"]["next"] - 1 for state in states) == said["steps"] + 5
    assert [state.get("episode") for state in states] == [None] * 3
    assert main(words.split()) == 0
    assert re.search(r"steps, 5 episodes in .*on the server\n  mean reward", capsys.readouterr().out)


def test_sigterm_ends_it_once_all_is_on_disk(server: CartPoleServer) -> None:
    words = f"actor --connect {server.url} --env CartPole-v1 -n 2 --name farm --json"
    with (
        httpx2.Client(base_url=server.url) as client,
        launching.Popen(
            [sys.executable, "-m", "stoker", *words.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as actor,
    ):
        assert actor.stderr is not None
        assert b"playing CartPole-v1" in actor.stderr.readline()
        deadline = time.monotonic() + WAIT_S
        for number in range(2):  # the first record is the episode's beginning
            while client.get(f"/v1/actors/farm-{number}").json().get("answer", {"next": 0})["next"] < 4:
                assert time.monotonic() < deadline
        actor.send_signal(signal.SIGTERM)
        said, _ = actor.communicate(timeout=WAIT_S)
        states = [client.get(f"/v1/actors/farm-{number}").json() for number in range(2)]
    assert actor.returncode == 0
    assert [state["answer"]["durable"] for state in states] == [
        state["answer"]["next"] - 1 for state in states
    ]
    n_records = sum(state["answer"]["durable"] for state in states)
    assert 0 < json.loads(said)["steps"] < n_records


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        ("actor", 2, "name the server, such as --connect"),
        ("actor --connect http://127.0.0.1:9", 2, "name an environment, such as --env CartPole-v1"),
        ("actor --connect nowhere --env CartPole-v1", 2, "url='nowhere': give the server's address"),
        ("actor --connect {url} --env Acrobot-v1", 2, "the spaces differ: action.n is 3"),
        ("actor --connect {url} --env CartPole-v2", 2, "'CartPole-v2'"),
        ("actor --connect {url} --env CartPole-v1 --token-file none.txt", 2, "--token-file none.txt"),
        ("actor --connect {url} --env CartPole-v1 --epsilon 2", 2, "--epsilon 2"),
        ("actor --connect http://127.0.0.1:9 --env CartPole-v1 --patience 0.01", 1, "out of reach"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    server: CartPoleServer, capsys: pytest.CaptureFixture[str], words: str, code: int, named: str
) -> None:
    assert main(words.format(url=server.url).split()) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert named in captured.err.splitlines()[-1]
