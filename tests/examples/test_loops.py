"""The examples that train: what they print, and what they leave on disk."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

STEPS = 1_500

CASES = [
    pytest.param("plain_loop", {"steps": STEPS, "print_every": 5}, {0}, "DQN", id="plain_loop"),
    pytest.param("async_envs", {"steps": STEPS, "latency_s": 0.0005}, set(range(64)), "DQN", id="async_envs"),
    pytest.param("custom_agent", {"steps": STEPS}, set(range(8)), "Reinforce", id="custom_agent"),
    pytest.param("trainer", {"steps": STEPS}, set(range(8)), "PPO", id="trainer"),
    pytest.param("trio_actors", {"steps": STEPS}, set(range(16)), "DQN", id="trio_actors"),
    pytest.param("asyncio_timeouts", {"steps": STEPS}, set(range(16)), "DQN", id="asyncio_timeouts"),
    pytest.param("websocket_env", {"steps": STEPS}, set(range(8)), "DQN", id="websocket_env"),
]


@pytest.mark.parametrize(("example", "arguments", "actors", "agent"), CASES)
def test_it_trains_and_leaves_a_whole_run(
    example: str, arguments: dict[str, Any], actors: set[int], agent: str, run_python: Any, run_on_disk: Any
) -> None:
    given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    printed = run_python(f"import {example}; {example}.PRINT_EVERY_S = 0.05; {example}.main({given})")
    run = run_on_disk()

    assert f"{STEPS:,} steps" in printed
    assert run.directory.name in printed
    assert run.metadata["total_steps"] == STEPS
    assert run.metadata["total_episodes"] == len(run.rows) > 0
    assert [row["episode"] for row in run.rows] == list(range(1, len(run.rows) + 1))
    assert all(row["total_reward"] == row["length"] for row in run.rows)  # CartPole gives 1 per step
    assert {row["actor_id"] for row in run.rows} <= actors
    assert len(Counter(row["actor_id"] for row in run.rows)) >= min(len(actors), 8)
    assert sum(row["length"] for row in run.rows) <= STEPS

    final = run.checkpoint()
    assert final["agent_type"] == agent
    assert final["session"]["total_steps"] == final["agent"]["total_steps"] == STEPS
    assert final["session"]["total_episodes"] == len(run.rows)
    if example in CHECKS:
        CHECKS[example](printed)


def check_plain_loop(printed: str) -> None:
    """It reports while it runs."""
    assert "5 episodes" in printed
    assert "mean reward of the last 100" in printed


def check_async_envs(printed: str) -> None:
    """With 64 actors, far fewer forward passes than actions: the example's own line says so."""
    shared = [
        float(line.split(" actions per")[0].split()[-1]) for line in printed.splitlines() if "per f" in line
    ]
    assert shared
    assert shared[-1] > 2.0


CHECKS = {"plain_loop": check_plain_loop, "async_envs": check_async_envs}


def test_an_environment_that_never_answers_costs_its_episode_alone(run_python: Any, run_on_disk: Any) -> None:
    printed = run_python(
        "import asyncio_timeouts; asyncio_timeouts.TIMEOUT_S = 0.02; "
        "asyncio_timeouts.main(steps=1500, n_actors=4, hang_rate=0.01)"
    )
    assert int(printed.split(" given up")[0].split()[-1]) > 0
    assert run_on_disk().metadata["total_steps"] == STEPS


def test_every_frame_of_the_game_moves_every_character(run_python: Any, run_on_disk: Any) -> None:
    printed = run_python("import game_loop; game_loop.main(frames=200, n_characters=8, frame_s=0.001)")
    assert "200 frames of 8: p50" in printed
    run = run_on_disk()
    assert run.metadata["total_steps"] == 200 * 8
    assert run.checkpoint()["session"]["opt_steps"] > 0


def test_each_agent_of_a_pettingzoo_environment_is_an_actor(run_python: Any, run_on_disk: Any) -> None:
    printed = run_python("import pettingzoo_agents; pettingzoo_agents.main(steps=1500, n_envs=2)")
    assert "1,500 steps of 3 agents" in printed
    rows = run_on_disk().rows
    assert {row["actor_id"] for row in rows} == {
        f"{env}/agent_{agent}" for env in (0, 1) for agent in (0, 1, 2)
    }
    assert {(row["length"], row["status"]) for row in rows} == {(25, "Truncated")}


def test_a_policy_acts_without_its_session(
    run_python: Any, tmp_path: Path, root: Path, environment: dict[str, str]
) -> None:
    train = ["train", "CartPole-v1", "-n", "300", "--eval-freq", "0", "--no-progress"]
    run_python(f"import sys; from stoker.cli.main import main; sys.exit(main({train}))")
    printed = run_python("import play_policy; play_policy.main(episodes=3)")
    assert [line.split(":")[0] for line in printed.splitlines()] == [f"episode {i}" for i in range(3)]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as nobody_reads:
        left = subprocess.run(
            [sys.executable, root / "examples" / "play_policy.py", "runs/CartPole-v1"],
            cwd=tmp_path,
            env=environment,
            stdout=nobody_reads,
            stderr=subprocess.PIPE,
            text=True,
            timeout=90,
            check=False,
        )
    assert (left.returncode, left.stderr) == (1, ""), "as after `| head`"


def test_a_sweep_leaves_a_run_for_each_setting(run_python: Any, tmp_path: Path) -> None:
    printed = run_python("""if __name__ == "__main__":
        import sweep; sweep.main(steps=600, learning_rates=(3e-4, 1e-3), seeds=(5,))""")
    assert [line.split(":")[0] for line in printed.splitlines()] == [
        "learning rate 0.0003, seed 5",
        "learning rate 0.001, seed 5",
    ]
    configs = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("runs/*/*/*/config.json"))]
    assert [config["agent_settings"]["learning_rate"] for config in configs] == [3e-4, 1e-3]


@pytest.mark.parametrize(
    "name",
    [
        "asyncio_timeouts",
        "async_envs",
        "custom_agent",
        "fastapi_app",
        "game_loop",
        "pettingzoo_agents",
        "plain_loop",
        "play_policy",
        "service",
        "sweep",
        "trainer",
        "trio_actors",
        "websocket_env",
    ],
)
def test_it_is_short_and_can_be_started_as_a_script(name: str, root: Path) -> None:
    source = (root / "examples" / f"{name}.py").read_text()
    code = [line for line in source.splitlines() if line.strip()]
    assert len(code) <= 110
    assert "main(" in source.partition('if __name__ == "__main__":\n')[2]
    assert f"python examples/{name}.py" in (ast.get_docstring(ast.parse(source)) or "")
