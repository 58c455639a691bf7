"""A group of two policies that is killed again and again: each life resumes it, looks, and plays on.

Run as a program ``group_worker.py ROOT KILLS SEED`` it has everything imported and forks one life per kill,
so that a death costs milliseconds. Each life says through a pipe what it has found and what it has committed.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import gymnasium
import msgspec
import numpy as np
import torch

from stoker import DQN, DQNConfig, EpisodeStatus, Experience, TrainingRun
from stoker.multi import MultiAgentSession
from stoker.runs import TrainingGroup
from stoker.runs.verifying import verify_run
from stoker.session.replaying import replay_run

LENGTH = 7
BOX = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
PLAYERS = {"red_0": "red", "red_1": "red", "blue_0": "blue"}
STEPS = {"red": 2, "blue": 1}
"""Transitions of each policy in a joint step."""


class Said(msgspec.Struct, frozen=True):
    """What a life says: where it went on from, or what it has committed since."""

    began: bool
    joint_steps: int
    steps: dict[str, int]
    episodes: dict[str, int]


def agents() -> dict[str, Any]:
    config = DQNConfig(hidden_sizes=(8,), batch_size=4, learning_starts=20, buffer_size=300)
    return {
        name: DQN(BOX, gymnasium.spaces.Discrete(2), config, seed=seed) for seed, name in enumerate(STEPS)
    }


def transition(player: str, k: int) -> Experience:
    rng = np.random.default_rng((ord(player[0]), ord(player[-1]), k))
    first, second = rng.uniform(-1, 1, (2, 3)).astype(np.float32)
    status = EpisodeStatus.TERMINATED if k % LENGTH == LENGTH - 1 else EpisodeStatus.CONTINUING
    return Experience(first, int(rng.integers(2)), float(rng.normal()), second, status, f"0/{player}")


async def live(root: Path, pipe: int, until: int | None) -> None:
    """Resume the group, or make it, and play joint steps; None: until it is killed."""
    has_begun = any(root.glob("*/*/*/group.json"))  # noqa: ASYNC240 - nothing else runs yet
    group = await (
        TrainingGroup.resume(root) if has_begun else TrainingGroup.create("g", policies=STEPS, root=root)
    )
    session = MultiAgentSession(
        agents(), PLAYERS.__getitem__, group, checkpoint_freq=90, flush_interval_s=0.02,
        metadata_interval_s=0.05, keep_journal="all", journal_segment_bytes=1 << 14,
    )  # fmt: skip

    def say(*, began: bool, joint_steps: int) -> None:
        sessions = session.sessions
        steps = {name: one.total_steps for name, one in sessions.items()}
        episodes = {name: one.total_episodes for name, one in sessions.items()}
        os.write(pipe, msgspec.json.encode(Said(began, joint_steps, steps, episodes)) + b"\n")

    async with session:
        say(began=True, joint_steps=session.joint_steps)
        said = session.joint_steps
        while until is None or session.joint_steps < until:
            k = session.joint_steps
            async with session.joint_step():
                for player, policy in PLAYERS.items():
                    step = transition(player, k)
                    await session.sessions[policy].observe(step)
                    if step.status.is_done:
                        await session.sessions[policy].on_episode(
                            float(k), LENGTH, step.status, actor_id=step.actor_id
                        )
            if (committed := group.committed.joint_steps) > said:
                said = committed
                say(began=False, joint_steps=said)


def check(root: Path) -> None:
    """Every file of both runs is whole after a kill."""
    (path,) = root.glob("*/*/*/group.json")
    for policy in STEPS:
        run = TrainingRun.find(path.parent / policy)
        damaged = [found for found in verify_run(run) if found.kind == "damaged"]
        assert not damaged, damaged


def train_again(root: Path) -> None:
    """Learn each journal again, and compare with every checkpoint."""
    group, made = TrainingGroup.find(root), agents()
    n_equal = 0
    for policy, run in group.runs.items():
        replayed = replay_run(run, made[policy])
        assert [one.differences for one in replayed.comparisons if one.differences] == []
        n_equal += len(replayed.comparisons)
    print(f"{n_equal} checkpoints equal to the journals learned again", flush=True)


def forked(work: Callable[[], object]) -> int:
    """Do something in a child, which may start threads; its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - the parent sees the status
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid


def end_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def said_in(pipe: int) -> list[Said]:
    data = b""
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(pipe, 1 << 16):
            data += piece
    return [msgspec.json.decode(line, type=Said) for line in data.split(b"\n")[:-1]]


def main(root: Path, n_kills: int, seed: int) -> None:
    rng = random.Random(seed)
    committed, early, behind = 0, 0, 0
    for kill in range(n_kills + 1):
        is_last = kill == n_kills
        read, write = os.pipe()
        os.set_blocking(read, False)
        until = committed + 200 if is_last else None
        pid = forked(partial(anyio.run, partial(live, root, write, until)))
        os.close(write)
        if not is_last:
            if rng.random() < 0.75:  # else it may still be opening
                select.select([read], [], [], 60)
            time.sleep(rng.uniform(0.0, 0.5))  # a random moment; nothing is waited for
            os.kill(pid, signal.SIGKILL)
        assert end_of(pid) == (0 if is_last else -signal.SIGKILL)
        said = said_in(read)
        os.close(read)
        if said and said[0].began:
            first = said[0]
            assert first.joint_steps == committed, "it went on from the last commit"
            assert first.steps == {name: n * committed for name, n in STEPS.items()}
            n_done = committed // LENGTH
            assert first.episodes == {name: n * n_done for name, n in STEPS.items()}
        else:
            early += 1
        if not any(root.glob("*/*/*/group.json")):  # killed before there was a group
            continue
        assert end_of(forked(partial(check, root))) == 0
        now = msgspec.json.decode(next(root.glob("*/*/*/group.json")).read_bytes())["joint_steps"]
        confirmed = max((one.joint_steps for one in said), default=committed)
        assert now >= confirmed >= committed, "nothing that was committed is lost"
        behind += now > confirmed
        committed = now
    assert end_of(forked(partial(train_again, root))) == 0
    print(
        f"{n_kills} kills, {early} before the group had begun, {behind} between a commit and its "
        f"confirmation: both policies always at one joint step, {committed} joint steps, 0 lost, 0 damaged"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.save({"warm": torch.zeros(1)}, "/dev/null")  # imports what the first save imports
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
