"""The process that is broken: it trains, flushes and checkpoints, and confirms what may never be lost.

Run as a program with a socket's descriptor it serves: it has everything imported, and forks one worker per
order, so that a death costs milliseconds. What a worker confirms goes out by ``sendto``, and nothing else
of it writes but the run: ``write`` and ``fsync`` in a trace are the run's own.

Each actor numbers its episodes from 1 in every attempt (``total_reward`` is that number), and so does
evaluation. Rows can thus be told apart, and a missing or doubled one is seen.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import gymnasium
import msgspec
import numpy as np
import torch

from stoker import DQN, DQNConfig, EpisodeStatus, Experience, ExperienceBatch, TrainingRun, TrainingSession
from stoker.errors import StokerError, first_error
from stoker.stats import EpisodeRecord
from stoker.testing import FakeAgent

__all__ = ["Order"]

LENGTH = 10
"""Transitions in an episode."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is to do.

    Attributes:
        root: the runs directory; the run's name is ``fault``, made there unless it is there.
        agent: ``fake`` or ``dqn`` (a tiny one, with a replay).
        n_actors: how many play at the same time.
        checkpoint_freq: environment steps between checkpoints, besides those that are asked for.
        cycles: how often to flush, evaluate and checkpoint before leaving in good order.
        save_every: cycles between checkpoints that are asked for; the first cycle asks for one.
        pause_s: how long each actor rests after an episode.
        seed: of the transitions.
        held: wait for a byte on the socket before anything else, so that a tracer can be attached.
        backend: the event loop.
        lifetime_s: after this the worker dies, whatever has become of its parent.
    """

    root: str
    agent: str = "fake"
    n_actors: int = 8
    checkpoint_freq: int = 200
    cycles: int = 1_000_000
    save_every: int = 1
    pause_s: float = 0.002
    seed: int = 0
    held: bool = False
    backend: str = "asyncio"
    lifetime_s: int = 120


class Confirmed(msgspec.Struct, kw_only=True):
    """What a worker has said so far; every count is of its own attempt unless it says otherwise.

    Attributes:
        attempt: its number; 0: the session has not begun.
        from_steps, from_episodes: what it went on from, over all attempts.
        episodes: for each actor, how many of its episodes are durable.
        evals: how many evaluation rows are durable.
        steps: a durable checkpoint has at least so many steps, over all attempts.
        best: ``best.pt`` holds at least this value.
        has_ended: the session was left in good order.
        error, text: the class and the message of what it died of; empty: nothing.
        error_at: when it died of that, in seconds since the epoch.
    """

    attempt: int = 0
    from_steps: int = 0
    from_episodes: int = 0
    episodes: list[int] = []
    evals: int = 0
    steps: int = 0
    best: float = 0.0
    has_ended: bool = False
    error: str = ""
    text: str = ""
    error_at: float = 0.0


def make_agent(order: Order) -> Any:
    """The agent: nearly free, or a real one."""
    if order.agent == "fake":
        return FakeAgent()
    box = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
    config = DQNConfig(hidden_sizes=(16,), batch_size=16, learning_starts=32, buffer_size=2000)
    return DQN(box, gymnasium.spaces.Discrete(2), config, seed=order.seed)


async def train(order: Order, said: Confirmed, tell: Callable[[], None]) -> None:
    """Make or resume the run, and play until the cycles are done."""
    if any(Path(order.root).glob("fault/*/*/metadata.json")):  # noqa: ASYNC240 - nothing else runs yet
        run = await TrainingRun.resume(Path(order.root) / "fault")
    else:  # none, or one whose maker was killed before it was a run
        run = await TrainingRun.create("fault", root=order.root)
    session = TrainingSession(
        make_agent(order), run, checkpoint_freq=order.checkpoint_freq, flush_interval_s=0.05,
        metadata_interval_s=0.05, queue_capacity=64,
    )  # fmt: skip
    played = [0] * order.n_actors
    steps = 0
    evals = 0

    async def play(actor_id: int) -> None:
        nonlocal steps
        rng = np.random.default_rng((order.seed, actor_id))
        n_rows = LENGTH // 2 if actor_id % 2 else 1  # every other actor sends columns
        while not session.is_done:
            for k in range(0, LENGTH, n_rows):
                first, second = rng.uniform(-1, 1, (2, n_rows, 4)).astype(np.float32)
                over = np.arange(k, k + n_rows) == LENGTH - 1
                if n_rows == 1:
                    status = EpisodeStatus.of(bool(over[0]), truncated=False)
                    await session.observe(Experience(first[0], k % 2, 1.0, second[0], status, actor_id))
                else:
                    actions, rewards, actor_ids = np.arange(n_rows) % 2, np.ones(n_rows), (actor_id,) * n_rows
                    await session.observe_batch(
                        ExperienceBatch(first, actions, rewards, second, over, over & False, actor_ids)
                    )
                steps += n_rows
            await session.on_episode(
                float(played[actor_id] + 1), LENGTH, EpisodeStatus.TERMINATED, actor_id=actor_id
            )
            played[actor_id] += 1
            await anyio.sleep(order.pause_s)

    async def confirm(cycle: int) -> None:
        nonlocal evals
        await session.on_eval_episode(EpisodeRecord(float(evals + 1), LENGTH, EpisodeStatus.TERMINATED))
        evals += 1
        accepted, accepted_evals = list(played), evals
        await session.flush()
        said.episodes, said.evals = accepted, accepted_evals
        tell()
        if cycle % order.save_every == 0:
            accepted_steps = said.from_steps + steps
            await session.checkpoint()
            said.steps = accepted_steps
            tell()
        if cycle % 4 == 3 and await session.maybe_save_best(value := (session.best_value or 0.0) + 1.0):
            said.best = value
            tell()

    async with session:
        said.attempt = run.attempt
        said.from_steps, said.from_episodes = session.total_steps, session.total_episodes
        said.episodes = list(played)
        tell()
        async with anyio.create_task_group() as actors:
            for actor_id in range(order.n_actors):
                actors.start_soon(play, actor_id)
            for cycle in range(order.cycles):
                await confirm(cycle)
                await anyio.sleep(order.pause_s)
            actors.cancel_scope.cancel()
        said.steps = said.from_steps + steps
    said.episodes, said.evals, said.has_ended = list(played), evals, True
    await run.aclose()
    tell()


def work(order: Order, channel: socket.socket) -> int:
    """A worker's life; returns the status to exit with."""
    signal.alarm(order.lifetime_s)
    if order.held:
        channel.recv(1)
    said = Confirmed()

    def tell() -> None:
        channel.send(msgspec.json.encode(said))

    try:
        anyio.run(train, order, said, tell, backend=order.backend)
    except Exception as group:
        error = first_error(group)
        if not isinstance(error, StokerError):
            raise
        said.error, said.text, said.error_at = type(error).__name__, str(error), time.time()
        tell()
        print(f"{said.error}: {said.text}", file=sys.stderr)
        return 1
    return 0


def serve(orders: socket.socket) -> int:
    """Fork one worker per order, tell its pid, wait for its end and tell how it ended."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(orders, 1 << 16, 2)
        if not data:
            return 0
        channel = socket.socket(fileno=descriptors[0])
        pid = os.fork()
        if pid == 0:
            orders.close()
            os.dup2(descriptors[1], 2)
            os.close(descriptors[1])
            return work(msgspec.json.decode(data, type=Order), channel)
        os.setpgid(pid, pid)  # here, so that a kill of the group can come as soon as the pid is told
        channel.close()
        os.close(descriptors[1])
        orders.send(b"%d" % pid)
        _, status = os.waitpid(pid, 0)
        orders.send(b"%d" % os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.save({"warm": torch.zeros(1)}, "/dev/null")  # imports what the first save imports
    server = socket.socket(fileno=int(sys.argv[1]))
    server.send(b"ready")
    sys.exit(serve(server))
