"""The example agent's learning is a function of the journal: a replay of its run gives the same bits."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

import anyio
import pytest

from stoker import TrainingRun, TrainingSession, make_gym, run_actors
from stoker.session.replaying import replay_run

STEPS, CHECKPOINTS = 1_200, [300, 600, 900, 1_200]


@pytest.fixture(scope="module")
def example() -> Any:
    path = Path(__file__).parents[2] / "examples/custom_agent.py"
    spec = importlib.util.spec_from_file_location("custom_agent", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run(example: Any, tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    """A run of several actors, with checkpoints in the middle of episodes and of what an update waits for."""

    async def train() -> TrainingRun:
        run = await TrainingRun.create("custom-agent", root=tmp_path_factory.mktemp("runs"))
        session = TrainingSession(
            example.Reinforce(),
            run,
            max_steps=STEPS,
            checkpoint_freq=CHECKPOINTS[0],
            keep_checkpoints=None,
            keep_journal="all",
            queue_capacity=64,
        )
        async with session:
            await run_actors(session, lambda: make_gym("CartPole-v1"), 4, seed=0)
        return run

    return anyio.run(train)


@pytest.mark.parametrize("from_step", [None, 300, 600])
def test_it_replays_bit_by_bit(example: Any, run: TrainingRun, from_step: int | None) -> None:
    replayed = replay_run(run, example.Reinforce(), from_step=from_step)
    begins = from_step or 0
    assert (replayed.from_steps, replayed.total_steps) == (begins, STEPS)
    assert replayed.opt_steps > 3
    assert [found.step for found in replayed.comparisons] == [step for step in CHECKPOINTS if step >= begins]
    assert [found.differences for found in replayed.comparisons] == [()] * len(replayed.comparisons)


def test_a_checkpoint_holds_what_learning_still_needs(example: Any, run: TrainingRun) -> None:
    """Else the test above would hold nothing to a resume."""
    states = [state for _, state in run.candidates()]
    assert any(state is not None and state["agent"]["running"] for state in states)
    assert any(state is not None and state["agent"]["ended"] for state in states)


def test_an_agent_takes_less_than_sixty_lines(root: Path) -> None:
    source = (root / "examples/custom_agent.py").read_text()
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    lines = [line for node in classes for line in source.splitlines()[node.lineno - 1 : node.end_lineno]]
    assert [node.name for node in classes] == ["Policy", "Reinforce"]
    assert len([line for line in lines if line.strip()]) < 60
