"""Limits and periods in optimization steps: exact, over resumes, and the same in a replay of the journal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_parts import bits, dqn, feed, unequal

from stoker import ConfigError, TrainingRun, TrainingSession
from stoker.session.replaying import replay_run
from stoker.testing import FakeAgent

pytestmark = pytest.mark.anyio


async def test_max_opts_is_exact_and_ends_the_session(tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    agent = dqn()
    async with TrainingSession(agent, run, max_opts=25, opt_interval=2, keep_journal="all") as session:
        await feed(session, 0, 40)
        await session.flush()
        assert not session.is_done
        await feed(session, 40, 120)
        await session.flush()
        assert session.is_done
        assert not session.is_stopped
    assert agent.opt_steps == session.opt_steps == 25
    assert session.total_steps + session.refused_steps == 120
    assert session.total_steps >= 58  # the tenth transition allows the first step, every second one is one

    again = await TrainingRun.resume(run.directory)
    fresh = dqn()
    async with TrainingSession(fresh, again, max_opts=25, opt_interval=2) as session:
        assert session.is_done, "the limit is one of all attempts"
        await feed(session, 0, 5)
    assert fresh.opt_steps == 25
    replayed = dqn()
    found = replay_run(again, replayed)
    assert found.opt_steps == 25
    assert all(not comparison.differences for comparison in found.comparisons)
    assert not list(unequal(bits(replayed)["agent"]["network"], bits(agent)["agent"]["network"]))


async def test_nothing_is_learned_before_the_warmup_is_over(tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    agent = FakeAgent()
    async with TrainingSession(agent, run, warmup_period=13, opt_interval=5, keep_journal="all") as session:
        await feed(session, 0, 31)
    assert agent.learned_at == [15, 20, 25, 30]
    replayed = FakeAgent()
    replay_run(await TrainingRun.open(run.directory), replayed)
    assert replayed.learned_at == [15, 20, 25, 30]


async def test_checkpoints_and_evaluations_in_optimization_steps(tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    settings = {"save_interval": 20, "eval_interval": 30, "checkpoint_freq": 0, "keep_checkpoints": None}
    async with TrainingSession(dqn(), run, **settings) as session:
        await feed(session, 0, 39)  # 30 optimization steps
        snapshot = await session.next_evaluation()
        await feed(session, 39, 60)
    assert snapshot.total_steps == 39
    assert run.checkpoint_steps() == [29, 49, 60]


@pytest.mark.parametrize("journal", [False, True])
async def test_optimizing_without_experiences_counts_saves_and_stops_at_the_limit(
    tmp_path: Path, journal: bool
) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    settings = {"opt_interval": 0, "journal": journal, "save_interval": 300, "max_opts": 1000}
    agent = dqn()
    async with TrainingSession(agent, run, **settings) as session:
        await feed(session, 0, 30)
        assert await session.optimize(0) == 0
        assert await session.optimize(700) == 700
        assert (session.opt_steps, agent.opt_steps) == (700, 700)
        await session.flush()
        assert await session.optimize(700) == 300
        assert session.is_done
    again = dqn()
    async with TrainingSession(again, await TrainingRun.resume(run.directory), **settings) as session:
        assert session.opt_steps == 1000
    assert not list(unequal(bits(again), bits(agent)))


async def test_optimizing_tells_when_the_agent_skips() -> None:
    async with TrainingSession(dqn(), opt_interval=0) as session:
        await feed(session, 0, 5)
        assert await session.optimize(10) == 0
        with pytest.raises(ConfigError, match="n=-1"):
            await session.optimize(-1)


class Remembering(FakeAgent):
    needs_policy_extras = True


async def test_an_agent_that_needs_policy_extras_gets_no_action_that_it_did_not_choose() -> None:
    from training_parts import transition

    mine = transition(0)
    agent = Remembering(mine.action, policy_extras=True)
    async with TrainingSession(agent) as session:
        with pytest.raises(Exception, match="session.act"):
            await session.observe(mine)
        await session.act(mine.observation, actor_id=mine.actor_id)
        await session.observe(mine)
        with pytest.raises(Exception, match="actor 0.*session.act"):
            await session.observe(mine)
        await session.act(mine.observation, actor_id=mine.actor_id)
        with pytest.raises(Exception, match="experience 1 of 2"):
            await session.observe_many([mine, mine])
        await session.observe_many([mine])
    assert [experience.policy_extras is not None for experience in agent.experiences] == [True, True]


@pytest.mark.parametrize(("opt_interval", "warmup"), [(1, 0), (3, 0), (4, 50)])
async def test_samples_per_insert_are_what_the_settings_say(opt_interval: int, warmup: int) -> None:
    """Within one batch at any moment, whatever the actors' pace: batch_size / opt_interval."""
    agent = dqn(learning_starts=4)
    drawn = 0
    sample = agent.replay.sample

    def counting(batch_size: int) -> Any:
        nonlocal drawn
        drawn += batch_size
        return sample(batch_size)

    agent.replay.sample = counting  # type: ignore[method-assign]
    async with TrainingSession(agent, opt_interval=opt_interval, warmup_period=warmup) as session:
        for first in range(0, 300, 37):
            await feed(session, first, first + 37)
            await session.flush()
            learned_from = max(warmup, 4)
            expected = 4 * max(0, session.total_steps - learned_from) / opt_interval
            assert abs(drawn - expected) <= 4
