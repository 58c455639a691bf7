"""``stoker serve`` as a process: ended, killed and started again, it goes on with its run."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any, Self

import httpx2
from lives import Server

WAIT_S = 60.0
FLAGS = ("--hidden-sizes", "8", "--learning-starts", "32", "--batch-size", "8", "--checkpoint-freq", "20")


class Player:
    """An actor with one request per step."""

    def __init__(self, server: Server) -> None:
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=WAIT_S)
        deadline = time.monotonic() + WAIT_S
        while self.client.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def play(self, seqs: range, **fields: Any) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        for seq in seqs:
            moved = {"start": True} if seq == 1 else {"action": 1, "reward": 1.0}
            step = {"actor": "npc", "seq": seq, "observation": [float(seq % 7)] * 4, **moved}
            response = self.client.post("/v1/step", json={"steps": [step], **fields})
            assert response.status_code == 200, response.text
            answer = response.json()["actors"]["npc"]
        return answer

    def state(self) -> dict[str, Any]:
        return self.client.get("/v1/actors/npc").json()


def metadata(server: Server) -> dict[str, Any]:
    [path] = server.runs.glob("*/*/*/metadata.json")
    return json.loads(path.read_text())


def test_sigterm_saves_and_the_next_start_goes_on(tmp_path: Path) -> None:
    with Server(tmp_path, FLAGS) as server:
        with Player(server) as player:
            player.play(range(1, 51))
        server.stop()  # which checks that it exits with 0
        assert metadata(server)["total_steps"] == 49
        server.start()
        with Player(server) as player:
            state = player.state()
            assert state["answer"]["next"] == 51
            assert state["answer"]["durable"] == 50
            assert state["episode"]["length"] == 49
            assert player.play(range(51, 61))["next"] == 61
        server.stop()
        assert metadata(server)["total_steps"] == 59


def test_a_kill_loses_nothing_durable_and_the_rest_is_sent_again(tmp_path: Path) -> None:
    with Server(tmp_path, FLAGS) as server:
        with Player(server) as player:
            player.play(range(1, 40))
            assert player.play(range(40, 41), ack="durable")["durable"] == 40
            player.play(range(41, 46))
            server.kill()
        server.start()
        with Player(server) as player:
            after = player.state()["answer"]["next"]
            assert 41 <= after <= 46
            assert player.play(range(after, 61))["next"] == 61
        server.stop()
        assert metadata(server)["total_steps"] == 59


def test_a_session_that_fails_ends_the_process_with_its_cause(tmp_path: Path) -> None:
    with Server(tmp_path, FLAGS) as server:
        with Player(server) as player:
            player.play(range(1, 5), ack="durable")
            server.runs.rename(tmp_path / "gone")  # the writer cannot go on
            deadline = time.monotonic() + WAIT_S
            seq, status = 5, 200
            while status == 200:
                assert time.monotonic() < deadline
                step = {"actor": "npc", "seq": seq, "action": 1, "reward": 1.0, "observation": [0.0] * 4}
                with contextlib.suppress(httpx2.TransportError):  # it may be gone by now
                    status = 0
                    answer = player.client.post("/v1/step", json={"steps": [step]})
                    status, seq = answer.status_code, seq + 1
            if status:
                assert status == 503, answer.text
                assert "writer failed" in answer.json()["detail"]
        assert server.exit_code() == 1
        assert "the writer failed" in server.log.read_text()
