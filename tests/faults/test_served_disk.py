"""A disk that fills up under ``stoker serve``: clients are told why, and with room again nothing is missing.

STOKER_FAULTS_FULL_DISKS sets how often.
"""

from __future__ import annotations

import random
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import httpx2
import numpy as np
import pytest
from breaking import amount, mounted, no_mounts
from gymnasium.spaces import Box, Discrete
from lives import Server
from test_disk import MEGABYTES, fill

from stoker import DQN, DQNConfig, Experience, TrainingRun
from stoker.journal import EpisodeStarted
from stoker.session.replaying import replay_run

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(bool(no_mounts()), reason=no_mounts()),
]

FLAGS = [
    "--agent", "dqn", "--hidden-sizes", "8", "--batch-size", "8", "--learning-starts", "32", "--seed", "0",
    "--opt-interval", "16", "--keep-journal", "all", "--checkpoint-freq", "1000",
]  # fmt: skip
TOGETHER = 50
MOST = 1_000
"""Records of a message: the server takes up to 1,024."""
LENGTH = 20
READY_S = 60.0


class Actor:
    """Sends records, and keeps all of them.

    Attributes:
        sent: the reward of each record, None for those that begin an episode.
        durable: how many of them the server has on disk, as it says.
    """

    def __init__(self, server: Server) -> None:
        self._client = httpx2.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60.0)
        self.sent: list[float | None] = []
        self.durable = 0

    def play(self) -> httpx2.Response:
        """Send some records more."""
        first = len(self.sent)
        for place in range(first, first + TOGETHER):
            self.sent.append(place % 7 if place % LENGTH else None)
        return self._send(first)

    def play_on(self) -> bool:
        """Send records until they are refused because the disk is full.

        False: the server ended between two requests, so that nobody was there to be told.
        """
        try:
            while (response := self.play()).status_code == 200:
                pass
        except httpx2.TransportError:
            return False
        assert response.status_code == 503
        assert response.json()["type"] == "urn:stoker:problem:training-failed"
        assert "No space left on device" in response.json()["detail"]
        return True

    def catch_up(self) -> None:
        """Wait for a server that was started, and send it what it does not have."""
        deadline = time.monotonic() + READY_S
        while self._client.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline
        if not self.sent:
            return
        stream = self._client.get("/v1/actors/npc")  # 404: the disk was full before anything was on it
        n_there = 0 if stream.status_code == 404 else stream.json()["answer"]["next"] - 1
        assert n_there >= self.durable, "what was durable is lost"
        for first in range(min(n_there, len(self.sent) - 1), len(self.sent), MOST):
            response = self._send(first, ack="durable")
            assert response.status_code == 200, response.text
        assert self.durable == len(self.sent)

    def close(self) -> None:
        self._client.close()

    def _send(self, first: int, **fields: Any) -> httpx2.Response:
        records: list[dict[str, Any]] = []
        for place, reward in enumerate(self.sent[first : first + MOST], first):
            record: dict[str, Any] = {"actor": "npc", "seq": place + 1, "observation": [place, 0, 0, 1]}
            if reward is None:
                record["start"] = True
            else:
                record |= {"action": place % 3, "reward": reward, "truncated": (place + 1) % LENGTH == 0}
            records.append(record)
        response = self._client.post("/v1/step", json={"steps": records, **fields})
        if response.status_code == 200:
            self.durable = response.json()["actors"]["npc"]["durable"]
        return response


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_full_disks_under_a_server(tmp_path: Path, kind: str) -> None:
    rng = random.Random(1)
    n_times = amount("FULL_DISKS", 10)
    with mounted(kind, MEGABYTES[kind], tmp_path) as place:
        with Server(place, FLAGS) as server, closing(Actor(server)) as actor:
            n_told = 0
            for _ in range(n_times):
                actor.catch_up()
                assert actor.play().status_code == 200
                fill(place / "ballast", 1 << rng.randrange(12, 19))
                n_told += actor.play_on()
                assert server.exit_code() == 1
                assert "No space left on device" in server.log.read_text().splitlines()[-1]
                (place / "ballast").unlink()
                server.start()
            actor.catch_up()
            server.stop()
            assert n_told, "no client was told why"
        [metadata] = (place / "runs").rglob("metadata.json")
        check(anyio.run(TrainingRun.open, metadata.parent), actor.sent)
    print(
        f"\n{n_times} times a full {kind}: {len(actor.sent):,} records, each once; the weights are a replay's"
    )


def check(run: TrainingRun, sent: list[float | None]) -> None:
    """Each record is in the journal once and in order, and a training from the first on has these weights."""
    found: list[tuple[int | None, float | None]] = []
    for _, event in run.journal.read(0):
        if isinstance(event, Experience):
            found.append((event.seq, event.reward))
        elif isinstance(event, EpisodeStarted):
            found.append((event.seq, None))
    assert found == [*enumerate(sent, 1)]
    config = DQNConfig(hidden_sizes=(8,), batch_size=8, learning_starts=32)
    agent = DQN(Box(-np.inf, np.inf, (4,), np.float32), Discrete(3), config, seed=0)
    replayed = replay_run(run, agent)
    assert [each for each in replayed.comparisons if each.differences] == []
    assert replayed.comparisons[-1].step == replayed.total_steps == run.metadata.total_steps
