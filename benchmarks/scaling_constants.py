"""The constants of ``scaling_model``, measured on this machine: seconds of a processor for each part."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import anyio
import torch

import stoker.actors.messages as messages
from benchmarks.measure import QUICK
from benchmarks.scaling_envs import SPACES, Simulated, Steps
from benchmarks.scaling_model import Costs
from stoker import DQN, PPO, SAC, DQNConfig, PPOConfig, SACConfig, TrainingRun, TrainingSession, run_actors
from stoker.actors.messages import Mailbox, Played, Ready, WorkerExited, decode_message, encode_message
from stoker.actors.worker import Assignment, OwnPolicy, Worker
from stoker.types import Experience

FED_STEPS, PLAYED_STEPS = (3_000, 1_000) if QUICK else (12_000, 4_000)
IMAGES = 5
"""Steps on images are divided by this: each takes longer."""


@dataclass(frozen=True)
class Case:
    """An agent, the spaces it learns on, and how many updates it makes per step.

    Attributes:
        name: for tables.
        kind: of ``SPACES``.
        make: the agent.
        opt_interval: environment steps for each update; of PPO, for each look whether a rollout is full.
        updates_per_step: the same as a rate, with a rollout of PPO as an update.
        sync_interval: updates between two sets of weights for the workers.
    """

    name: str
    kind: str
    make: Callable[..., Any]
    opt_interval: int
    updates_per_step: float
    sync_interval: int = 100


def _dqn(kind: str, **settings: Any) -> Any:
    config = DQNConfig(
        learning_starts=256, initial_epsilon=0.05, buffer_size=20_000 if kind == "small" else 600, **settings
    )
    return DQN(*SPACES[kind], config, seed=0)


def _ppo(kind: str) -> Any:
    config = PPOConfig(rollout_steps=1_024, batch_size=256, n_epochs=4, hidden_sizes=(64, 64))
    return PPO(*SPACES[kind], config, seed=0)


def _sac(kind: str) -> Any:
    config = SACConfig(learning_starts=256, hidden_sizes=(256, 256), batch_size=256, buffer_size=20_000)
    return SAC(*SPACES[kind], config, seed=0)


CASES = {
    case.name: case
    for case in (
        Case("DQN", "small", partial(_dqn, hidden_sizes=(64, 64), batch_size=64), 4, 0.25),
        Case("PPO", "small", _ppo, 1, 1 / 1_024, sync_interval=1),
        Case("SAC", "continuous", _sac, 4, 0.25),
        Case("DQN, images", "image", partial(_dqn, batch_size=32), 4, 0.25),
    )
}


@cache
def costs_of(case: Case, env: Steps) -> Costs:
    """What its parts take, each measured by itself; the environment's waiting is measured, too."""
    spaced = Steps(case.kind)
    agent = case.make(case.kind)
    agent.observe(_experiences(case, 512))  # from then on it chooses most actions by itself
    policy = agent.policy()
    recorded = {batch: [_recorded(policy, spaced, batch, actor) for actor in range(2)] for batch in (1, 16)}
    fed = {batch: _fed(case, [data for data, _ in recorded[batch]]) for batch in (1, 16)}
    message_s = max(0.0, (fed[1].cpu_s - fed[16].cpu_s) / (1 - 1 / 16))
    weights = messages.Weights(1, policy.weights())
    weights_bytes = encode_message(weights)
    publish_s = _cpu_per(lambda: encode_message(messages.Weights(1, policy.weights())), 20)
    copy = policy.fork(0)

    def load() -> None:
        fresh = messages.decode_command(weights_bytes)
        assert isinstance(fresh, messages.Weights)
        copy.load_weights(fresh.weights)

    load_s = _cpu_per(load, 20)
    env_s, wait_s = alone(env)
    return Costs(
        step_s=max(0.0, fed[16].cpu_s - message_s / 16),
        message_s=message_s,
        update_s=_update_s(case),
        publish_s=publish_s,
        send_s=5e-5 + len(weights_bytes) / 2e9,
        turn_s=min(cpu_s for _, cpu_s in recorded[16]) + env_s,
        load_s=load_s,
        wait_s=wait_s,
        step_bytes=sum(map(len, recorded[16][0][0])) / fed[16].steps_recorded,
        weights_bytes=len(weights_bytes),
        journal_bytes=fed[16].journal_bytes,
    )


# The learner --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fed:
    """A training that was fed: processor seconds and bytes of the journal for each step."""

    cpu_s: float
    journal_bytes: float
    steps_recorded: int


class _Feeding:
    """A place whose worker sends recorded messages as fast as credit allows."""

    def __init__(self, recorded: list[list[bytes]]) -> None:
        self._recorded = recorded

    def check(self, factory: Any, policy: Any) -> None:
        """Nothing is sent anywhere."""

    def link(self, assignment: Assignment, factory: Any, policy: Any) -> _FeedingLink:
        return _FeedingLink(self._recorded[int(assignment.actor_id)], assignment.window_steps)


class _FeedingLink:
    def __init__(self, recorded: list[bytes], credit: int) -> None:
        self.messages: Mailbox[Any] = Mailbox()
        self._recorded, self._credit = recorded, threading.Semaphore(credit)
        self._is_over = False

    def open(self) -> None:
        threading.Thread(target=self._feed, daemon=True).start()

    def _feed(self) -> None:
        self.messages.post(Ready())
        while not self._is_over:
            for data in self._recorded:
                message = decode_message(data)
                assert isinstance(message, Played)
                for event in message.events:
                    if isinstance(event, Experience):
                        self._credit.acquire()
                self.messages.post(message)
        self.messages.post(WorkerExited())

    def send(self, command: Any) -> None:
        if isinstance(command, messages.Credit) and command.n_steps:
            self._credit.release(command.n_steps)
        elif isinstance(command, messages.Stop):
            self._is_over = True
            self._credit.release(10**6)

    def kill(self) -> None:
        self.send(messages.Stop())


def _fed(case: Case, recorded: list[list[bytes]]) -> _Fed:
    """Processor time of a session that takes recorded steps and never learns, with run, rows and journal."""
    n_steps = FED_STEPS // (IMAGES if case.kind == "image" else 1)

    async def main() -> _Fed:
        with _directory() as root:
            run = await TrainingRun.create("fed", root=root)
            settings: dict[str, Any] = {"opt_interval": 0, "max_steps": n_steps, "checkpoint_freq": 0}
            async with TrainingSession(case.make(case.kind), run, **settings) as session:
                began = time.process_time()
                await run_actors(
                    session, Steps(case.kind), 2, place=_Feeding(recorded), sync_interval=10**9, seed=0
                )
                cpu_s = (time.process_time() - began) / n_steps
                await session.flush()
                journal = sum(file.stat().st_size for file in run.directory.rglob("*.journal"))
        n = sum(isinstance(e, Experience) for data in recorded[0] for e in decode_message(data).events)  # type: ignore[union-attr]
        return _Fed(cpu_s, journal / n_steps, n)

    return anyio.run(main, backend_options={"use_uvloop": True})


def _update_s(case: Case) -> float:
    """Processor time of an update of the agent alone, which has learned before."""
    agent = case.make(case.kind)
    steps = _experiences(case, 256 if case.updates_per_step > 0.01 else 1_024)
    agent.observe(steps)
    if case.updates_per_step <= 0.01:  # PPO: an update is a rollout's
        agent.learn()
        total_s, n = 0.0, 1 if QUICK else 3
        for _ in range(n):
            agent.observe(steps)
            total_s += _cpu(agent.learn)
        return total_s / n
    agent.learn()
    return _cpu_per(agent.learn, (10 if QUICK else 60) // (3 if case.kind == "image" else 1))


def _experiences(case: Case, n: int) -> list[Experience]:
    """Steps of an environment, with what the policy remembers of them."""
    policy = case.make(case.kind).policy()
    data, _ = _recorded(policy, Steps(case.kind), 16)
    found: list[Experience] = []
    while len(found) < n:
        for message in map(decode_message, data):
            assert isinstance(message, Played)
            found += [event for event in message.events if isinstance(event, Experience)]
    return found[:n]


# The worker ---------------------------------------------------------------------------------------


def _recorded(policy: Any, env: Steps, batch_steps: int, actor: int = 0) -> tuple[list[bytes], float]:
    """What a worker sends for whole episodes, and the processor time of a step, packing included."""
    data: list[bytes] = []
    commands: Mailbox[Any] = Mailbox()
    n_steps = 0

    def post(message: Any) -> None:
        nonlocal n_steps
        if isinstance(message, Played):
            data.append(encode_message(message))
            n_steps += sum(isinstance(event, Experience) for event in message.events)
            if n_steps >= PLAYED_STEPS // (IMAGES if env.kind == "image" else 1):
                commands.post(messages.Stop())

    assignment = Assignment(
        actor_id=actor, seed=0, episode=0, window_steps=10**9, batch_steps=batch_steps, max_delay_s=10.0
    )
    worker = Worker(assignment, env, OwnPolicy(policy.fork(0), 0), commands, post)
    cpu_s = _cpu(lambda: anyio.run(worker.run))
    return data, cpu_s / n_steps


def alone(env: Steps) -> tuple[float, float]:
    """Processor and waiting time of a step of the environment, beyond one that does nothing."""
    made, bare = env(), Steps(env.kind)()
    n = 60 if env.wait_s else 400

    def steps(each: Simulated) -> tuple[float, float]:
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(n):
            each.step(None)
        return (time.process_time() - cpu) / n, (time.perf_counter() - wall) / n

    cpu_s, wall_s = steps(made)
    return max(0.0, cpu_s - steps(bare)[0]), max(0.0, wall_s - cpu_s) if env.wait_s else 0.0


# Shared -------------------------------------------------------------------------------------------


def _cpu(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _cpu_per(work: Callable[[], Any], n: int) -> float:
    work()
    return _cpu(lambda: [work() for _ in range(n)]) / n


@contextlib.contextmanager
def _directory() -> Generator[Path]:
    with tempfile.TemporaryDirectory(dir=".") as root:
        yield Path(root)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for each in CASES.values():
        began = time.perf_counter()
        print(each.name, costs_of(each, Steps(each.kind)), f"{time.perf_counter() - began:.1f} s")
