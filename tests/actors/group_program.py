"""A training with actors in processes, to be interrupted: ``python group_program.py FOLDER``."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import anyio
from portable_parts import PortableAgent, holding_the_lock

from stoker import TrainingSession, run_actors


async def train(folder: str) -> None:
    async with TrainingSession(PortableAgent(), actor_timeout_s=10.0) as session:
        print("begun", flush=True)
        await run_actors(session, partial(holding_the_lock, folder), 2, place="processes")


if __name__ == "__main__":
    try:
        anyio.run(train, sys.argv[1])
    except KeyboardInterrupt:
        print("interrupted", flush=True)
