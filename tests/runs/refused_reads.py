"""Takes the permissions of one part of a run away after the other, and prints what its reader says of each.

Run by ``test_refusals.py``, in a process that may not read what it has no permission for.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from stoker import EpisodeStatus, Experience, TrainingRun, TrainingSession, fork, list_runs
from stoker.testing import FakeAgent


async def train(run: TrainingRun, n: int) -> int:
    """Take in ``n`` more steps, and return how many there are."""
    async with TrainingSession(FakeAgent(), run, checkpoint_freq=0) as session:
        for _ in range(n):
            await session.observe(Experience([0.0], 0, 1.0, [0.0], EpisodeStatus.CONTINUING))
        if n:
            await session.on_episode(3.0, 3, EpisodeStatus.TRUNCATED)
            await session.checkpoint()
    return session.total_steps


async def main(root: Path) -> None:
    """Print one JSON object per part."""
    run = await TrainingRun.create("refused", root=root)
    directory = run.directory
    for _ in range(2):
        await train(run, 3)
        run = await TrainingRun.resume(directory)

    async def resume() -> object:
        return await train(await TrainingRun.resume(directory), 0)

    async def read() -> object:
        return await run.read_train_episodes()

    async def listed() -> object:
        return [str(one) for one in await list_runs(root)]

    newest = directory / "checkpoints" / "step_6.pt"
    segment = max((directory / "journal").iterdir())
    uses: list[tuple[Path, int, Callable[[], Awaitable[object]]]] = [
        (newest, 0o000, resume),
        (segment, 0o000, resume),
        (directory / "checkpoints", 0o000, resume),
        (directory / "train_episodes.jsonl", 0o000, read),
        (directory / "metadata.json", 0o000, resume),
        (directory, 0o555, resume),
        (directory, 0o000, listed),
    ]
    for path, mode, use in uses:
        before = path.stat().st_mode
        path.chmod(mode)
        try:
            said = {"said": str(await use())}
        except Exception as error:  # noqa: BLE001 - that is what is looked at
            said = {"error": type(error).__name__, "said": str(error)}
        path.chmod(before)
        print(json.dumps({"path": str(path.relative_to(root)), **said}))
    print(json.dumps({"path": "", "said": str(await resume())}))
    latest = newest.with_name("latest.pt")
    latest.unlink()
    shutil.copy(newest, latest)
    latest.chmod(0o000)
    forked = await fork(run, 6, "forked", root=root)
    print(json.dumps({"path": "", "said": str(forked.metadata.total_steps)}))


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]))
