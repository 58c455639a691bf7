"""Replaying a run: the same weights as the live training had, to the bit, with nobody acting."""

from __future__ import annotations

import contextlib
import random
import re
from pathlib import Path
from typing import Any

import anyio
import pytest
import torch
from training_parts import bits, dqn, feed, unequal

from stoker import (
    DQN,
    CheckpointNotFound,
    ConfigError,
    DQNConfig,
    JournalBroken,
    SessionFailed,
    TrainingDiverged,
    TrainingRun,
    TrainingSession,
    run_actors,
)
from stoker.journal import Optimized
from stoker.session.replaying import Replayed, replay_run
from stoker.testing import AsyncChainEnv, FakeAgent
from stoker.writer import load_checkpoint, publish_checkpoint

pytestmark = pytest.mark.anyio


class Failing(DQN):
    """A DQN whose learning fails at a step that is told to it."""

    fail_at = 1 << 60

    def learn(self) -> dict[str, float] | None:
        if self.opt_steps >= self.fail_at:
            raise TrainingDiverged("as it was set to")
        return super().learn()


def chain_agent(**settings: Any) -> Failing:
    env = AsyncChainEnv(4)
    config = DQNConfig(
        hidden_sizes=(8,),
        batch_size=4,
        learning_starts=10,
        buffer_size=60,
        epsilon_decay_steps=300,
        **settings,
    )
    return Failing(env.observation_space, env.action_space, config, seed=5)


async def attempt(
    run: TrainingRun, ending: str, until: int, n_actors: int, *, n_step: int = 1, **settings: Any
) -> None:
    """Go on with a run by concurrent actors with delays of their own, until it is ended in some way."""
    delays = random.Random(until)
    agent = chain_agent(n_step=n_step)
    common: dict[str, Any] = {"keep_checkpoints": None, "checkpoint_freq": 70, "journal_segment_bytes": 2000}
    session = TrainingSession(
        agent, run, **{**common, **settings}, max_steps=until if ending == "limit" else None
    )

    async def watch(scope: anyio.CancelScope) -> None:
        while session.total_steps < until:
            await anyio.lowlevel.checkpoint()
        if ending == "stop":
            session.stop()
        elif ending == "cancelled":
            scope.cancel()

    with anyio.CancelScope() as scope:
        async with session, anyio.create_task_group() as tasks:
            if ending == "failure":
                agent.fail_at = agent.opt_steps + 30
            tasks.start_soon(watch, scope)
            await run_actors(
                session,
                lambda: AsyncChainEnv(4, latency=lambda: delays.choice((0.0, 0.0, 0.001))),
                n_actors,
                seed=1,
            )
            tasks.cancel_scope.cancel()


def the_same(run: TrainingRun, replayed: Replayed, agent: DQN) -> None:
    """All checkpoints were passed, and none differed."""
    assert [comparison for comparison in replayed.comparisons if comparison.differences] == []
    steps = [step for step in run.checkpoint_steps() if step >= replayed.from_steps]
    assert [comparison.step for comparison in replayed.comparisons] == steps
    assert replayed.total_steps == agent.total_steps
    assert replayed.opt_steps == agent.opt_steps


@pytest.mark.parametrize(
    ("n_actors", "n_step", "intervals"), [(8, 1, (1, 1, 1, 1)), (16, 3, (3, 3, 3, 3)), (8, 2, (4, 1, 3, 2))]
)
async def test_it_equals_the_live_training_over_attempts_that_ended_in_every_way(
    tmp_path: Path, n_actors: int, n_step: int, intervals: tuple[int, ...]
) -> None:
    run = await TrainingRun.create("replayed", root=tmp_path)
    endings = ["stop", "cancelled", "failure", "limit"]
    for number, (ending, opt_interval) in enumerate(zip(endings, intervals, strict=True)):
        run = await TrainingRun.resume(run.directory) if number else run
        settings = {"opt_interval": opt_interval, "keep_journal": "all", "n_step": n_step}
        fails = pytest.raises(SessionFailed, match="as it was set to")
        with fails if ending == "failure" else contextlib.nullcontext():
            await attempt(run, ending, 130 * (number + 1), n_actors, **settings)
    assert len(run.metadata.attempts) == 4
    agent = chain_agent(n_step=n_step)
    replayed = replay_run(run, agent)
    the_same(run, replayed, agent)
    assert replayed.from_steps == 0
    assert replayed.total_steps == run.checkpoint_steps()[-1]
    assert len(replayed.comparisons) >= 6
    assert agent.opt_steps > 0
    final = load_checkpoint(run.latest_checkpoint_path)["agent"]
    for part in ("network", "target", "optimizer", "steps", "losses"):
        assert list(unequal(final[part], agent.state_dict()[part])) == []


@pytest.mark.parametrize("opt_interval", [0, 3])
async def test_optimizing_without_experiences_is_replayed_at_its_place(
    tmp_path: Path, opt_interval: int
) -> None:
    run = await TrainingRun.create("optimized", root=tmp_path)
    settings: dict[str, Any] = {
        "opt_interval": opt_interval, "save_interval": 7, "record_interval": 5, "keep_checkpoints": None
    }  # fmt: skip
    for attempt_number in range(2):
        agent = dqn(prioritized=True)
        async with TrainingSession(agent, run, **settings) as session:
            for k in range(100 * attempt_number, 100 * attempt_number + 60, 20):
                await feed(session, k, k + 20)
                assert await session.optimize(k + 1) == k + 1
        run = await TrainingRun.resume(run.directory)
    again = dqn(prioritized=True)
    replayed = replay_run(run, again)
    the_same(run, replayed, again)
    assert len(replayed.comparisons) >= 5
    assert list(unequal(bits(again), bits(agent))) == []
    events = [event for _, event in run.journal.read(0, run.journal.n_events())]
    optimized = [event.n for event in events if isinstance(event, Optimized)]
    assert sum(optimized) == 1 + 21 + 41 + 101 + 121 + 141


async def test_it_begins_at_a_checkpoint_where_the_journals_beginning_is_gone(tmp_path: Path) -> None:
    run = await TrainingRun.create("pruned", root=tmp_path)
    first, second, third = dqn(), dqn(), dqn()
    settings: dict[str, Any] = {"journal_segment_bytes": 500, "checkpoint_freq": 40, "keep_checkpoints": 3}
    async with TrainingSession(first, run, **settings) as session:
        for k in range(0, 300, 10):
            await feed(session, k, k + 10)
            await session.flush()
    assert run.journal.leads_from(run.journal.n_events())
    replayed = replay_run(run, second)
    the_same(run, replayed, second)
    assert replayed.from_steps == 240
    assert [comparison.step for comparison in replayed.comparisons] == [240, 280, 300]
    assert list(unequal(bits(first), bits(second))) == []
    from_280 = replay_run(run, third, from_step=280)
    assert (from_280.from_steps, from_280.total_steps) == (280, 300)
    assert list(unequal(bits(first), bits(third))) == []


async def trained(root: Path, n: int = 120, **settings: Any) -> TrainingRun:
    run = await TrainingRun.create("trained", root=root)
    async with TrainingSession(
        dqn(), run, checkpoint_freq=40, keep_checkpoints=None, keep_journal="all", **settings
    ) as session:
        await feed(session, 0, n)
    return run


def flip(tensor: torch.Tensor) -> None:
    tensor.view(torch.uint8).reshape(-1)[0] ^= 1


TAMPERED = [
    (
        lambda s: flip(s["agent"]["network"]["mlp.layers.0.weight"]),
        r"agent\['network'\]\['mlp.layers.0.weight'\]",
    ),
    (
        lambda s: flip(s["agent"]["optimizer"]["mean"]),
        r"agent\['optimizer'\]\['mean'\]",
    ),
    (lambda s: s["agent"].update(opt_steps=7), r"agent\['opt_steps'\]"),
    (lambda s: s["agent"]["network"].popitem(), r"agent\['network'\]\[.*\]"),
    (lambda s: s["session"].update(total_episodes=99), r"session\['total_episodes'\]"),
    (lambda s: flip(s["journal"]["replay"]["generator"]), r"replay\['generator'\]"),
    (lambda s: s["journal"]["replay"].update(position=3), r"replay\['position'\]"),
]


async def test_one_bit_that_differs_is_named(tmp_path: Path) -> None:
    run = await trained(tmp_path)
    path = run.checkpoint_path(80)
    whole = path.read_bytes()
    for tamper, place in TAMPERED:
        path.write_bytes(whole)
        state = load_checkpoint(path)
        tamper(state)
        publish_checkpoint(state, path)
        comparisons = {found.step: found.differences for found in replay_run(run, dqn()).comparisons}
        assert comparisons[40] == comparisons[120] == ()
        (difference,) = comparisons[80]
        assert re.fullmatch(place, difference)


async def test_another_seed_is_another_training(tmp_path: Path) -> None:
    run = await trained(tmp_path)
    compared = replay_run(run, dqn(seed=4)).comparisons
    assert all(
        any(place.startswith("agent['network']") for place in comparison.differences)
        for comparison in compared
    )


@pytest.mark.parametrize("to_step", [0, 39, 40, 41, 120])
async def test_it_ends_exactly_where_it_is_told_to(tmp_path: Path, to_step: int) -> None:
    run = await trained(tmp_path, journal_segment_bytes=700)
    agent, live = dqn(), dqn()
    seen: list[int] = []
    replayed = replay_run(run, agent, to_step=to_step, watch=seen.append)
    assert (replayed.total_steps, agent.total_steps) == (to_step, to_step)
    assert [c.step for c in replayed.comparisons] == [s for s in (40, 80, 120) if s <= to_step]
    assert all(not comparison.differences for comparison in replayed.comparisons)
    assert seen == sorted(seen)
    assert seen[-1] == to_step
    async with TrainingSession(live) as session:
        await feed(session, 0, to_step)
    assert list(unequal(bits(agent), bits(live))) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"to_step": 121}, "to_step=121: the journal ends at step 120"),
        ({"to_step": -1}, "to_step=-1"),
        ({"to_step": 79, "from_step": 80}, "to_step=79: the journal can be replayed from step 80 on"),
    ],
)
async def test_where_it_cannot_go_is_refused(tmp_path: Path, settings: Any, message: str) -> None:
    run = await trained(tmp_path)
    with pytest.raises(ConfigError, match=message):
        replay_run(run, dqn(), **settings)


@pytest.mark.parametrize("from_step", [41, 10_000, -5])
async def test_a_checkpoint_that_is_not_there_is_refused_by_its_step(tmp_path: Path, from_step: int) -> None:
    run = await trained(tmp_path)
    with pytest.raises((ConfigError, CheckpointNotFound), match=str(from_step)):
        replay_run(run, dqn(), from_step=from_step)


async def test_without_a_journal_there_is_nothing_to_replay(tmp_path: Path) -> None:
    run = await TrainingRun.create("none", root=tmp_path)
    async with TrainingSession(dqn(), run, journal=False) as session:
        await feed(session, 0, 20)
    with pytest.raises(JournalBroken, match="journal=False"):
        replay_run(run, dqn())


async def test_an_agent_without_a_replay_is_replayed_too(tmp_path: Path) -> None:
    run = await TrainingRun.create("plain", root=tmp_path)
    agent, again = FakeAgent(), FakeAgent()
    async with TrainingSession(agent, run, checkpoint_freq=10, keep_checkpoints=None) as session:
        await feed(session, 0, 35)
    assert replay_run(run, again).comparisons
    assert again.learned_at == agent.learned_at
    assert [step.reward for step in again.experiences] == [step.reward for step in agent.experiences]


async def test_a_run_that_is_being_trained_may_be_replayed(tmp_path: Path) -> None:
    run = await TrainingRun.create("running", root=tmp_path)
    async with TrainingSession(dqn(), run, checkpoint_freq=40, keep_journal="all") as session:
        await feed(session, 0, 90)
        await session.flush()
        replayed = replay_run(await TrainingRun.open(run.directory), dqn())
        assert [(c.step, c.differences) for c in replayed.comparisons] == [(40, ()), (80, ())]
        assert replayed.total_steps == 90
