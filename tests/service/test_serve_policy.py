"""``stoker serve --policy`` as a process: it answers actors and games, and gives its file."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import httpx2
import numpy as np
import pytest
from godot_game import Game
from gymnasium.spaces import Box, Discrete

import launching
from stoker import DQN, TrainingRun, TrainingSession, load_policy
from stoker.cli.main import main

WAIT_S = 60.0


@pytest.fixture
def run(tmp_path: Path) -> Path:
    async def make() -> Path:
        made = await TrainingRun.create("small", root=tmp_path)
        async with TrainingSession(DQN(Box(-np.inf, np.inf, (1,)), Discrete(2), seed=0), made):
            return made.directory

    return anyio.run(make)


def test_actors_and_games_are_answered_by_the_policy(run: Path, tmp_path: Path) -> None:
    words = ["serve", "--policy", str(run), "--port", "0", "--godot-port", "0"]
    process = launching.Popen(
        [sys.executable, "-m", "stoker", *words], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(5)]
        assert lines[0] == f"serving a fixed policy, DQN of small/v1/{run.name} at step 0\n"
        ports = [int(found[1]) for line in lines[1:3] if (found := re.search(r"127\.0\.0\.1:(\d+)", line))]
        policy = load_policy(run)
        with httpx2.Client(base_url=f"http://127.0.0.1:{ports[0]}", timeout=WAIT_S) as client:
            while client.get("/readyz").status_code == 503:
                pass
            spec = client.get("/v1/spec").json()
            assert (spec["mode"], spec["training"], spec["features"]) == ("inference", "off", ["policy"])
            step = {"actor": "a", "seq": 7, "reward": 1.0, "observation": [0.25]}
            answer = client.post("/v1/step", json={"steps": [step]}).raise_for_status().json()
            assert answer["training"] == "off"
            assert answer["actors"]["a"]["action"] == policy.act([0.25])
            file = client.get("/v1/policy?format=numpy").raise_for_status()
            (tmp_path / "policy.npz").write_bytes(file.content)
            assert load_policy(tmp_path / "policy.npz").act([0.25]) == policy.act([0.25])
        game = Game(ports[1], n_agents=2, n_steps=10)
        assert game.play()[-1] == "action"
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=WAIT_S)
        assert rest.endswith("answered: 21 steps, 4 episodes\n")
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--policy", "RUN", "--env", "CartPole-v1"], 2, "--env: with --policy nothing is learned"),
        (["--policy", "RUN", "--agent", "dqn"], 2, "--agent: with --policy nothing is learned"),
        (["--policy", "nowhere"], 1, "nowhere: no run there"),
        (["--env", "CartPole-v1", "--which", "best"], 2, "--which: it chooses a policy of --policy RUN"),
    ],
)
def test_what_does_not_fit_a_fixed_policy_is_refused(
    words: list[str], code: int, told: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *(str(run) if word == "RUN" else word for word in words), "--port", "0"]) == code
    assert told in capsys.readouterr().err
