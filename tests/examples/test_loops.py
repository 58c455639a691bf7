"""The examples that train: what they print, and what they leave on disk."""

from __future__ import annotations

import ast
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
]


@pytest.mark.parametrize(("example", "arguments", "actors", "agent"), CASES)
def test_it_trains_and_leaves_a_whole_run(
    example: str, arguments: dict[str, Any], actors: set[int], agent: str, run_python: Any, run_on_disk: Any
) -> None:
    given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    printed = run_python(f"import {example}; {example}.main({given})")
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


def test_the_plain_loop_reports_while_it_runs(run_python: Any) -> None:
    printed = run_python("import plain_loop; plain_loop.main(steps=600, print_every=5)")
    assert "5 episodes" in printed
    assert "mean reward of the last 100" in printed


def test_actors_that_wait_together_share_forward_passes(run_python: Any) -> None:
    """With 64 actors, far fewer passes than actions: the example's own line says so."""
    printed = run_python(
        "import async_envs; async_envs.PRINT_EVERY_S = 0.05; async_envs.main(steps=1500, latency_s=0.0005)"
    )
    shared = [
        float(line.split(" actions per")[0].split()[-1]) for line in printed.splitlines() if "per f" in line
    ]
    assert shared
    assert shared[-1] > 2.0


@pytest.mark.parametrize("name", ["plain_loop", "async_envs", "service", "custom_agent", "trainer"])
def test_it_is_short_and_can_be_started_as_a_script(name: str, root: Path) -> None:
    source = (root / "examples" / f"{name}.py").read_text()
    code = [line for line in source.splitlines() if line.strip()]
    assert len(code) <= 110
    assert source.rstrip().endswith('if __name__ == "__main__":\n    main()')
    assert f"python examples/{name}.py" in (ast.get_docstring(ast.parse(source)) or "")
