"""The process that is broken: it trains, flushes and checkpoints, and confirms what may never be lost.

Run as a program with a socket's descriptor it serves: it has everything imported, and forks one worker per
order, so that a death costs milliseconds. What a worker confirms goes out by ``sendto``, and nothing else
of it writes but the run: ``write`` and ``fsync`` in a trace are the run's own.

Each actor numbers its episodes in every attempt (``total_reward`` is the ``serial`` of both numbers), and so
does evaluation. Rows can thus be told apart, and a missing or doubled one is seen.
"""

from __future__ import annotations

import itertools
import logging
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

from stoker import (
    DQN,
    PPO,
    DQNConfig,
    EpisodeStatus,
    ExperienceBatch,
    PPOConfig,
    TrainingRun,
    TrainingSession,
)
from stoker.errors import StokerError, first_error
from stoker.stats import EpisodeRecord
from stoker.testing import FakeAgent

LENGTH = 10
"""Transitions in an episode."""
RECORD_FREQ = 500
"""Environment steps between records of the metrics."""


def serial(attempt: int, number: int) -> float:
    """What marks an actor's n-th episode of an attempt, also where a later attempt writes its row."""
    return float(attempt * 1_000_000 + number)


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is to do.

    Attributes:
        root: the runs directory; the run's name is ``fault``, made there unless it is there.
        agent: ``fake``, ``dqn`` (a tiny one, with a replay) or ``ppo`` (with half-filled rollouts).
        learning_rate, opt_interval: of this attempt; each may have its own.
        n_actors: how many play at the same time.
        checkpoint_freq: environment steps between checkpoints, besides those that are asked for.
        keep_all: keep the journal from its first event and every checkpoint, to train again and compare.
        cycles: how often to flush, evaluate and checkpoint before leaving in good order.
        save_every: cycles between checkpoints that are asked for; the first cycle asks for one. 0: none.
        pause_s: how long each actor rests after an episode.
        seed: of the transitions.
        dies_at_learn: the call of ``learn`` at which it kills itself, those of the tail counted; 0: never.
        held: wait for a byte on the socket before anything else, so that a tracer can be attached.
        backend: the event loop.
        lifetime_s: after this the worker dies, whatever has become of its parent.
    """

    root: str
    agent: str = "fake"
    learning_rate: float = 3e-4
    opt_interval: int = 1
    n_actors: int = 8
    checkpoint_freq: int = 10_000
    keep_all: bool = False
    cycles: int = 1_000_000
    save_every: int = 0
    pause_s: float = 0.002
    seed: int = 0
    dies_at_learn: int = 0
    held: bool = False
    backend: str = "asyncio"
    lifetime_s: int = 120


class Confirmed(msgspec.Struct, kw_only=True):
    """What a worker has said so far; every count is of its own attempt unless it says otherwise.

    Attributes:
        attempt: its number; 0: the session has not begun.
        is_relearning: it learns what the journal has behind the checkpoint.
        from_steps, from_episodes: what it went on from, over all attempts.
        episodes: for each actor, how many of its episodes are durable.
        evals: how many evaluation rows are durable.
        flushed: the journal has at least so many steps, over all attempts.
        steps: a durable checkpoint has at least so many steps, over all attempts.
        best: ``best.pt`` holds at least this value.
        has_ended: the session was left in good order.
        error, text: the class and the message of what it died of; empty: nothing.
        error_at: when it died of that, in seconds since the epoch.
    """

    attempt: int = 0
    is_relearning: bool = False
    from_steps: int = 0
    from_episodes: int = 0
    episodes: list[int] = []
    evals: int = 0
    flushed: int = 0
    steps: int = 0
    best: float = 0.0
    has_ended: bool = False
    error: str = ""
    text: str = ""
    error_at: float = 0.0


def make_agent(name: str, learning_rate: float = 3e-4) -> Any:
    """The agent of an attempt: nearly free, or a real one with all that it can remember."""
    box, actions = gymnasium.spaces.Box(-1, 1, (4,), np.float32), gymnasium.spaces.Discrete(2)
    match name:
        case "dqn":
            return DQN(
                box,
                actions,
                DQNConfig(
                    hidden_sizes=(16,),
                    learning_rate=learning_rate,
                    batch_size=16,
                    learning_starts=32,
                    buffer_size=2000,
                    n_step=3,
                    prioritized=True,
                    normalize_observations=True,
                    normalize_rewards=True,
                ),
            )
        case "ppo":
            return PPO(
                box,
                actions,
                PPOConfig(
                    hidden_sizes=(16,),
                    learning_rate=learning_rate,
                    batch_size=64,
                    rollout_steps=500,
                    n_epochs=2,
                    normalize_observations=True,
                    normalize_rewards=True,
                ),
            )
        case _:
            return FakeAgent()


def let_die(agent: Any, at_learn: int) -> None:
    """Let the n-th call of ``learn`` kill this process."""
    learn, calls = agent.learn, itertools.count(1)

    def learn_or_die() -> Any:
        if next(calls) == at_learn:
            os.kill(os.getpid(), signal.SIGKILL)
        return learn()

    agent.learn = learn_or_die


class Relearning(logging.Handler):
    """Tells when the session begins to learn the journal's tail."""

    def __init__(self, said: Confirmed, tell: Callable[[], None]) -> None:
        super().__init__()
        self._said, self._tell = said, tell

    def emit(self, record: logging.LogRecord) -> None:
        del record
        if not self._said.is_relearning:
            self._said.is_relearning = True
            self._tell()


async def train(order: Order, said: Confirmed, tell: Callable[[], None]) -> None:
    """Make or resume the run, and play until the cycles are done."""
    if any(Path(order.root).glob("fault/*/*/metadata.json")):  # noqa: ASYNC240 - nothing else runs yet
        run = await TrainingRun.resume(Path(order.root) / "fault")
    else:  # none, or one whose maker was killed before it was a run
        run = await TrainingRun.create("fault", root=order.root)
    agent = make_agent(order.agent, order.learning_rate)
    let_die(agent, order.dies_at_learn)
    kept: dict[str, Any] = (
        {"keep_journal": "all", "keep_checkpoints": None}
        if order.keep_all
        else {"journal_segment_bytes": 1 << 16}
    )
    session = TrainingSession(
        agent, run, checkpoint_freq=order.checkpoint_freq, flush_interval_s=0.05, metadata_interval_s=0.05,
        queue_capacity=64, opt_interval=order.opt_interval, record_freq=RECORD_FREQ, **kept,
    )  # fmt: skip
    played = [0] * order.n_actors
    steps = 0
    evals = 0

    async def play(actor_id: int) -> None:
        nonlocal steps
        rng = np.random.default_rng((order.seed, actor_id))
        n_rows = LENGTH // 2 if actor_id % 2 else 1  # every other actor sends columns
        while not session.is_done:
            path = rng.uniform(-1, 1, (LENGTH + 1, 4)).astype(np.float32)
            for k in range(0, LENGTH, n_rows):
                first, second = path[k : k + n_rows], path[k + 1 : k + 1 + n_rows]
                over = np.arange(k, k + n_rows) == LENGTH - 1
                actions, extras = np.arange(k, k + n_rows) % 2, None
                if agent.needs_policy_extras:
                    decisions = [await session.decide(each, actor_id=actor_id) for each in first]
                    actions = np.array([decision.action for decision in decisions])
                    extras = np.array([decision.policy_extras for decision in decisions])
                batch = ExperienceBatch(
                    first, actions, np.ones(n_rows), second, over, over & False, (actor_id,) * n_rows, extras
                )
                if n_rows == 1:
                    await session.observe(batch.experiences()[0])
                else:
                    await session.observe_batch(batch)
                steps += n_rows
            reward = serial(run.attempt, played[actor_id] + 1)
            await session.on_episode(reward, LENGTH, EpisodeStatus.TERMINATED, actor_id=actor_id)
            played[actor_id] += 1
            await anyio.sleep(order.pause_s)

    async def confirm(cycle: int) -> None:
        nonlocal evals
        reward = serial(run.attempt, evals + 1)
        await session.on_eval_episode(EpisodeRecord(reward, LENGTH, EpisodeStatus.TERMINATED))
        evals += 1
        accepted, accepted_evals, accepted_steps = list(played), evals, said.from_steps + steps
        await session.flush()
        said.episodes, said.evals, said.flushed = accepted, accepted_evals, accepted_steps
        tell()
        if order.save_every and cycle % order.save_every == 0:
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
        said.is_relearning = False
        said.episodes = list(played)
        tell()
        async with anyio.create_task_group() as actors:
            for actor_id in range(order.n_actors):
                actors.start_soon(play, actor_id)
            for cycle in range(order.cycles):
                await confirm(cycle)
                await anyio.sleep(order.pause_s)
            actors.cancel_scope.cancel()
        said.steps = said.flushed = said.from_steps + steps
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

    logger = logging.getLogger("stoker.session.resume")
    logger.setLevel(logging.INFO)
    logger.addHandler(Relearning(said, tell))
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
