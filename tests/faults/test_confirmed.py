"""What a caller may rely on after a kill: what ``flush`` or ``checkpoint`` confirmed is never lost."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import anyio
import pytest

import launching
from stoker import TrainingRun, TrainingSession
from stoker.testing import FakeAgent
from stoker.types import Experience

PROGRAM = textwrap.dedent(
    """
    import sys
    import anyio
    from stoker import EpisodeStatus, Experience, TrainingRun, TrainingSession
    from stoker.testing import FakeAgent

    async def main(confirm):
        run = await TrainingRun.create("killed", root="runs")
        async with TrainingSession(FakeAgent(), run) as session:
            for step in range(500):
                status = EpisodeStatus.of(step % 50 == 49, False)
                await session.observe(Experience([step], 0, 1.0, [step + 1], status))
                if status.is_done:
                    await session.on_episode(50.0, 50, status)
            await getattr(session, confirm)()
            print("confirmed", flush=True)
            await anyio.sleep_forever()

    anyio.run(main, sys.argv[1])
    """
)


def killed_after(confirm: str, tmp_path: Path) -> TrainingRun:
    """The run of a program that was killed with SIGKILL when that call of its session had returned."""
    with launching.Popen(
        [sys.executable, "-c", PROGRAM, confirm], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "confirmed\n"
        program.kill()
    return anyio.run(TrainingRun.resume, tmp_path / "runs" / "killed")


async def steps_of_a_resume(run: TrainingRun) -> int:
    async with TrainingSession(FakeAgent(), run) as session:
        return session.total_steps


@pytest.mark.parametrize("confirm", ["flush", "checkpoint"])
def test_a_flush_keeps_rows_journal_and_training_and_so_does_a_checkpoint(
    confirm: str, tmp_path: Path
) -> None:
    run = killed_after(confirm, tmp_path)

    rows = anyio.run(run.read_train_episodes)
    assert list(rows["episode"]) == list(range(1, 11))
    events = [event for _, event in run.journal.read(0, 510)]
    assert [event.reward for event in events if isinstance(event, Experience)] == [1.0] * 500
    assert anyio.run(steps_of_a_resume, run) == 500
    assert list(anyio.run(run.read_train_episodes)["episode"]) == list(range(1, 11))
