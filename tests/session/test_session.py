"""The session as its users meet it: exactness, order, triggers, exit, bad input."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import anyio
import msgspec
import numpy as np
import pytest
import torch
from anyio import wait_all_tasks_blocked

from stoker import (
    ActMode,
    ActorConflict,
    ConfigError,
    EpisodeRecord,
    EpisodeStatus,
    Experience,
    InvalidExperience,
    SessionClosed,
    SessionError,
    StatsTracker,
    TrainingRun,
    TrainingSession,
)
from stoker.stats import Max, extra, total_reward
from stoker.testing import FakeAgent

pytestmark = pytest.mark.anyio
TERMINATED = EpisodeStatus.TERMINATED


def step(k: Any, actor_id: int | str = 0, **changes: Any) -> Experience:
    fields: dict[str, Any] = {"action": 0, "reward": 1.0, "next_observation": k, "actor_id": actor_id}
    return Experience(observation=k, status=EpisodeStatus.CONTINUING, **{**fields, **changes})


@pytest.mark.parametrize(
    ("n_actors", "total"),
    [
        (1, 8_000),
        (64, 8_000),
        (2000, 20_000),
        *[pytest.param(n_actors, 200_000, marks=pytest.mark.faults) for n_actors in (1, 64, 2000)],
    ],
)
async def test_every_experience_is_consumed_once_in_order_per_actor(
    tmp_path: Path, n_actors: int, total: int
) -> None:
    per_actor, episode_length = total // n_actors, 10
    agent = FakeAgent()
    run = await TrainingRun.create("exact", root=tmp_path)
    async with TrainingSession(agent, run, checkpoint_freq=0) as session:

        async def play(actor_id: int) -> None:
            for k in range(per_actor):
                await session.observe(step(k, actor_id))
                if (k + 1) % episode_length == 0:
                    await session.on_episode(float(k), episode_length, TERMINATED, actor_id=actor_id)

        async with anyio.create_task_group() as actors:
            for actor_id in range(n_actors):
                actors.start_soon(play, actor_id)
    seen: dict[Any, list[int]] = {actor_id: [] for actor_id in range(n_actors)}
    for experience in agent.experiences:
        seen[experience.actor_id].append(experience.observation)
    assert all(order == list(range(per_actor)) for order in seen.values())
    n_episodes = n_actors * (per_actor // episode_length)
    rows = [json.loads(line) for line in (run.directory / "train_episodes.jsonl").read_text().splitlines()]
    metadata = json.loads((run.directory / "metadata.json").read_text())
    assert [row["episode"] for row in rows] == list(range(1, n_episodes + 1))
    assert metadata["total_episodes"] == n_episodes == session.total_episodes
    assert metadata["total_steps"] == n_actors * per_actor == session.total_steps
    rewards: dict[Any, list[float]] = {actor_id: [] for actor_id in range(n_actors)}
    for row in rows:
        rewards[row["actor_id"]].append(row["total_reward"])
    assert all(mine == [float(k) for k in range(9, per_actor, 10)] for mine in rewards.values())


async def test_learning_happens_at_exactly_the_multiples_of_opt_interval() -> None:
    agent = FakeAgent()
    async with TrainingSession(agent, opt_interval=7) as session:
        await session.observe_many([step(k) for k in range(100)])
    assert agent.learned_at == list(range(7, 101, 7))
    assert session.opt_steps == 14


@pytest.mark.parametrize(("freq", "steps"), [(10, [10, 20, 30, 35]), (0, [35]), (35, [35])])
async def test_checkpoints_are_at_exact_multiples_and_at_the_end(
    tmp_path: Path, freq: int, steps: list[int]
) -> None:
    run = await TrainingRun.create("exact", root=tmp_path)
    async with TrainingSession(FakeAgent(), run, checkpoint_freq=freq, keep_checkpoints=None) as session:
        await session.observe_many([step(k) for k in range(35)])  # one batch steps over several multiples
    assert run.checkpoint_steps() == steps
    for at in steps:
        state = torch.load(run.checkpoint_path(at), weights_only=True)
        assert state["session"]["total_steps"] == state["agent"]["total_steps"] == at
    assert run.latest_checkpoint_path.samefile(run.checkpoint_path(steps[-1]))


async def test_the_oldest_checkpoints_are_pruned(tmp_path: Path) -> None:
    run = await TrainingRun.create("exact", root=tmp_path)
    async with TrainingSession(FakeAgent(), run, checkpoint_freq=5, keep_checkpoints=2) as session:
        await session.observe_many([step(k) for k in range(32)])
    assert run.checkpoint_steps() == [30, 32]


async def test_max_steps_is_exact_for_racing_actors() -> None:
    agent = FakeAgent()
    async with TrainingSession(agent, max_steps=1000) as session:

        async def play(actor_id: int) -> None:
            k = 0
            while not session.is_done:
                await session.observe(step(k, actor_id))
                k += 1

        async with anyio.create_task_group() as actors:
            for actor_id in range(50):
                actors.start_soon(play, actor_id)
        before = session.refused_steps
        await session.observe(step(0))
        assert session.refused_steps == before + 1
    assert session.total_steps == agent.total_steps == len(agent.experiences) == 1000
    assert session.is_done


async def test_a_loop_that_does_not_look_whether_it_is_done_lets_others_run() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with TrainingSession(FakeAgent(), max_steps=1) as session, anyio.create_task_group() as tasks:
        await session.observe(step(0))
        tasks.start_soon(other)
        await anyio.lowlevel.checkpoint()
        before = turns
        for k in range(1, 51):
            await session.observe(step(k))
        assert session.refused_steps == 50
        assert turns - before >= 40
        tasks.cancel_scope.cancel()


async def test_an_episode_cut_by_the_limit_is_not_counted() -> None:
    async with TrainingSession(FakeAgent(), max_steps=3) as session:
        for k in range(5):
            await session.observe(step(k, 1))
        await session.on_episode(5.0, 5, TERMINATED, actor_id=1)
        await session.on_episode(0.0, 0, TERMINATED, actor_id=2)
    assert session.total_episodes == 1
    assert session.refused_steps == 2


async def test_stop_ends_it_as_the_limit_does() -> None:
    async with TrainingSession(FakeAgent()) as session:
        await session.observe(step(0))
        session.stop()
        assert session.is_done
        await session.observe(step(1))
    assert (session.total_steps, session.refused_steps) == (1, 1)


async def test_a_full_queue_makes_observe_wait_and_loses_nothing() -> None:
    agent = FakeAgent()
    async with TrainingSession(agent, queue_capacity=2) as session, anyio.create_task_group() as actors:
        for actor_id in range(100):
            actors.start_soon(session.observe, step(actor_id, actor_id))
    assert sorted(experience.observation for experience in agent.experiences) == list(range(100))


async def test_episode_row_env_extras_then_agent_extras(tmp_path: Path) -> None:
    run = await TrainingRun.create("rows", root=tmp_path)
    agent = FakeAgent()
    async with TrainingSession(agent, run) as session:
        await session.observe(step(0, "robot-7"))
        await session.on_episode(
            23.0, 23, EpisodeStatus.TRUNCATED, {"seen": -1.0, "distance": 2.5}, actor_id="robot-7"
        )
    (line,) = (run.directory / "train_episodes.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert row.pop("time").endswith("Z")
    assert len(row.pop("crc")) == 8
    assert row == {
        "total_reward": 23.0,
        "length": 23,
        "status": "Truncated",
        "extras": {"seen": 1.0, "distance": 2.5},
        "total_steps": 1,
        "episode": 1,
        "actor_id": "robot-7",
        "attempt": 1,
    }
    assert agent.started == ["robot-7"], "the next episode begins with the end of the last"


async def test_stats_are_kept_globally_and_per_actor() -> None:
    stats = StatsTracker.empty().with_stat("best", total_reward, Max()).with_stat("x", extra("x"), Max())
    async with TrainingSession(FakeAgent(), stats=stats) as session:
        await session.on_episode(1.0, 1, TERMINATED, {"x": 5.0}, actor_id=1)
        await session.on_episode(2.0, 1, TERMINATED, actor_id=2)
        await session.flush()
        assert session.stats_summary() == {"best": 2.0, "x": 5.0}
        assert session.stats_summary(1) == {"best": 1.0, "x": 5.0}
        assert session.stats_summary(2)["best"] == 2.0
        assert math.isnan(session.stats_summary(2)["x"])


async def test_flush_returns_when_everything_is_on_disk(tmp_path: Path) -> None:
    run = await TrainingRun.create("flush", root=tmp_path)
    async with TrainingSession(FakeAgent(), run) as session:
        for episode in range(1, 4):
            await session.observe(step(episode))
            await session.on_episode(1.0, 1, TERMINATED)
            await session.flush()
            lines = (run.directory / "train_episodes.jsonl").read_text().splitlines()
            assert len(lines) == episode
            assert json.loads((run.directory / "metadata.json").read_text())["total_episodes"] == episode


async def test_checkpoint_is_written_now_whatever_the_period(tmp_path: Path) -> None:
    run = await TrainingRun.create("now", root=tmp_path)
    async with TrainingSession(FakeAgent(), run, checkpoint_freq=0) as session:
        await session.observe_many([step(k) for k in range(3)])
        await session.checkpoint()
        assert run.checkpoint_steps() == [3]


async def test_checkpoint_without_a_run_is_refused() -> None:
    async with TrainingSession(FakeAgent()) as session:
        with pytest.raises(ConfigError, match="no run"):
            await session.checkpoint()


async def test_a_body_that_raises_still_gets_everything_saved(tmp_path: Path) -> None:
    run = await TrainingRun.create("raises", root=tmp_path)

    async def body() -> None:
        async with TrainingSession(FakeAgent(), run) as session:
            await session.observe(step(0))
            await session.on_episode(1.0, 1, TERMINATED)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await body()
    assert run.checkpoint_steps() == [1]
    assert (await run.read_train_episodes())["episode"].tolist() == [1]


async def test_a_cancelled_session_still_saves_everything(tmp_path: Path) -> None:
    run = await TrainingRun.create("cancelled", root=tmp_path)
    with anyio.CancelScope() as scope:
        async with TrainingSession(FakeAgent(), run) as session:
            await session.observe_many([step(k) for k in range(500)])
            await session.on_episode(1.0, 1, TERMINATED)
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert run.checkpoint_steps() == [500]
    assert (await run.read_train_episodes())["episode"].tolist() == [1]


async def test_policy_extras_join_the_experience_of_their_action_and_no_other() -> None:
    agent = FakeAgent(policy_extras=True)
    async with TrainingSession(agent) as session:
        await session.act("a0", actor_id="a")
        await session.act("b0", actor_id="b")
        await session.act("evaluation", ActMode.EXPLOIT, actor_id="a")
        await session.observe(step("b0", "b"))
        await session.observe(step("elsewhere", "a"))
        await session.observe(step("a0", "a"))
        await session.observe(step("a0", "a"))
        await session.act("a2", actor_id="a")
        await session.on_episode_start("a")
        await session.observe(step("a2", "a"))
    assert [experience.policy_extras for experience in agent.experiences] == ["b0", None, "a0", None, None]


async def test_concurrent_acts_share_forward_passes() -> None:
    agent = FakeAgent()
    async with TrainingSession(agent) as session, anyio.create_task_group() as actors:
        for actor_id in range(256):
            actors.start_soon(session.act, float(actor_id), ActMode.EXPLORE, actor_id)
    assert sum(agent.batch_sizes) == 256
    assert len(agent.batch_sizes) <= 4


async def test_two_actors_under_one_id_are_told() -> None:
    conflicts: list[ActorConflict] = []

    async def act(session: TrainingSession, mode: ActMode) -> None:
        try:
            await session.act(0.0, mode, actor_id=7)
        except ActorConflict as conflict:
            conflicts.append(conflict)

    async with TrainingSession(FakeAgent()) as session:
        async with anyio.create_task_group() as actors:
            actors.start_soon(act, session, ActMode.EXPLORE)
            actors.start_soon(act, session, ActMode.EXPLORE)
        assert [str(conflict)[:46] for conflict in conflicts] == [
            "actor 7 is already waiting in act(): an actor_"
        ]
        async with anyio.create_task_group() as actors:
            actors.start_soon(act, session, ActMode.EXPLOIT)
            actors.start_soon(act, session, ActMode.EXPLOIT)
        assert len(conflicts) == 1, "scoring leaves nothing behind and may overlap"
        await session.act(0.0, actor_id=7)


BAD = [
    ({"reward": math.nan}, "reward=nan"),
    ({"reward": math.inf}, "reward=inf"),
    ({"reward": "1"}, "reward='1'"),
    ({"reward": None}, "reward=None"),
    ({"status": "Terminated"}, "status='Terminated'"),
    ({"status": None}, "status=None"),
    ({"actor_id": 1.5}, "actor_id=1.5"),
    ({"actor_id": None}, "actor_id=None"),
    ({"actor_id": 1 << 63}, "actor_id=9223372036854775808"),
    ({"actor_id": -1 << 63}, "actor_id=-9223372036854775808"),
    ({"policy_version": "new"}, "policy_version='new'"),
    ({"policy_version": -1}, "policy_version=-1"),
    ({"seq": "first"}, "seq='first'"),
    ({"seq": -1}, "seq=-1"),
]


async def test_bad_experiences_are_refused_and_cost_nothing() -> None:
    agent = FakeAgent()
    fields: dict[str, Any] = {
        "observation": 0, "action": 0, "reward": 1.0, "next_observation": 0,
        "status": EpisodeStatus.CONTINUING, "actor_id": 0,
    }  # fmt: skip
    async with TrainingSession(agent, max_steps=2) as session:
        for changes, message in BAD:
            bad = Experience(**{**fields, **changes})
            with pytest.raises(InvalidExperience, match=message):
                await session.observe(bad)
            with pytest.raises(InvalidExperience, match=f"experience 1 of 2: {message}"):
                await session.observe_many([step(0), bad])
        things: list[Any] = [None, (1, 2, 3), {"observation": 1}, [1]]
        for thing in things:
            with pytest.raises(InvalidExperience, match="takes an Experience"):
                await session.observe(thing)
        await session.observe_many([step(1), step(2)])
    assert [experience.observation for experience in agent.experiences] == [1, 2]


async def test_bad_experiences_are_refused_while_the_learner_is_busy() -> None:
    """Then ``observe`` appends to the queue without a further call."""
    agent = FakeAgent()
    good = step(1)
    async with TrainingSession(agent) as session:
        for changes, message in BAD:
            await session.observe(good)  # the learner has not run since
            with pytest.raises(InvalidExperience, match=message):
                await session.observe(msgspec.structs.replace(good, **changes))
    assert agent.experiences == [good] * len(BAD)


@pytest.mark.parametrize("name", ["policy_version", "seq"])
async def test_counts_may_be_integers_of_numpy(name: str) -> None:
    agent = FakeAgent()
    async with TrainingSession(agent, record_freq=1) as session:
        for actor_id in (0, 1):
            await session.observe(msgspec.structs.replace(step(1, actor_id), **{name: np.int64(0)}))
            await session.barrier()
    assert [type(getattr(experience, name)) for experience in agent.experiences] == [int, int]


async def test_bad_episodes_are_refused() -> None:
    cases: list[tuple[tuple[Any, ...], str]] = [
        ((math.nan, 1, TERMINATED), "total_reward"),
        ((1.0, -1, TERMINATED), "length"),
        ((1.0, 1, "Terminated"), "status"),
        ((1.0, 1, EpisodeStatus.CONTINUING), "Terminated or Truncated"),
        ((1.0, 1, TERMINATED, {"x": math.inf}), "x"),
        ((1.0, 1, TERMINATED, {"x": "fast"}), "x"),
        ((1.0, 1, TERMINATED, 5), "extras"),
        ((1.0, 1, TERMINATED, None, 2.5), "actor_id"),
    ]
    async with TrainingSession(FakeAgent()) as session:
        for arguments, message in cases:
            with pytest.raises(InvalidExperience, match=message):
                await session.on_episode(*arguments)
        await session.on_episode(1.0, 1, TERMINATED)
    assert session.total_episodes == 1


async def test_before_entering_and_after_leaving() -> None:
    session = TrainingSession(FakeAgent())
    with pytest.raises(SessionClosed, match=r"observe: the session has not been entered"):
        await session.observe(step(0))
    assert not session.is_done
    async with session:
        await session.observe(step(0))
    for call in (
        lambda: session.observe(step(1)),
        lambda: session.observe_many([step(1)]),
        lambda: session.act(0.0),
        lambda: session.on_episode(1.0, 1, TERMINATED),
        session.flush,
        session.checkpoint,
        session.snapshot,
    ):
        with pytest.raises(SessionClosed, match="has been left"):
            await call()
    assert session.total_steps == 1
    with pytest.raises(SessionError, match="opened once"):
        await session.__aenter__()


async def test_best_is_kept_when_strictly_better(tmp_path: Path) -> None:
    run = await TrainingRun.create("best", root=tmp_path)
    async with TrainingSession(FakeAgent(), run) as session:
        await session.observe(step(0))
        pinned = await session.snapshot()
        await session.observe_many([step(k) for k in range(10)])
        assert await session.maybe_save_best(-5.0, pinned)
        assert not await session.maybe_save_best(-5.0, pinned)
        assert torch.load(run.best_checkpoint_path, weights_only=True)["best"] == {
            "value": -5.0,
            "total_steps": 1,
        }
        assert await session.maybe_save_best(3.0)
        with pytest.raises(InvalidExperience, match="nan"):
            await session.maybe_save_best(math.nan)
    best = torch.load(run.best_checkpoint_path, weights_only=True)
    assert best["best"] == {"value": 3.0, "total_steps": 11}
    assert best["agent"]["total_steps"] == 11
    assert run.metadata.best_value == 3.0


async def test_eval_report_is_over_evaluation_episodes_only(tmp_path: Path) -> None:
    run = await TrainingRun.create("eval", root=tmp_path)
    async with TrainingSession(FakeAgent(), run) as session:
        await session.observe(step(0))
        await session.on_episode(1000.0, 1, TERMINATED)
        for reward in (1.0, 2.0, 3.0):
            await session.on_eval_episode(EpisodeRecord(reward, 5, TERMINATED))
        await session.flush()
        report = session.eval_report(2)
    assert report.stats == {"episode_reward": 2.5, "episode_length": 5.0}
    assert str(report).splitlines()[0] == "=== Eval @ step 1 (2 episodes) ==="
    columns = await run.read_eval_episodes()
    assert columns["total_reward"].tolist() == [1.0, 2.0, 3.0]
    assert columns["total_steps_at_eval"].tolist() == [1, 1, 1]


async def test_evaluations_are_due_at_exact_multiples_and_the_newest_waits() -> None:
    async with TrainingSession(FakeAgent(), eval_freq=10) as session:
        await session.observe_many([step(k) for k in range(12)])
        assert (await session.next_evaluation()).total_steps == 10
        await session.observe_many([step(k) for k in range(25)])
        await session.flush()
        assert (await session.next_evaluation()).total_steps == 30
        with anyio.move_on_after(0.01) as nothing_due:
            await session.next_evaluation()
        assert nothing_due.cancelled_caught


async def test_steps_per_sec_counts_this_process_only() -> None:
    agent = FakeAgent(total_steps=1_000_000_000)
    async with TrainingSession(agent) as session:
        assert session.steps_per_sec == 0.0
        await session.observe(step(0))
        await session.flush()
        assert session.total_steps == 1_000_000_001
        assert 0.0 < session.steps_per_sec < 1_000_000
    rate = session.steps_per_sec
    await wait_all_tasks_blocked()
    assert session.steps_per_sec == rate, "it stands still when the session has ended"


async def test_several_actors_act_in_one_pass_and_each_learns_from_its_own_action() -> None:
    agent = FakeAgent()
    async with TrainingSession(agent) as session:
        alone = [await session.act(np.full(2, k, np.float32), actor_id=k) for k in range(4)]
        before = session.n_forward_passes
        together = await session.act_many(np.arange(4, dtype=np.float32).repeat(2).reshape(4, 2), range(4))
        assert len(together) == len(alone) == 4
        assert session.n_forward_passes == before + 1
        assert await session.act_many([], []) == []
        with pytest.raises(InvalidExperience, match="3 observations for 2 actor_ids"):
            await session.act_many([0, 1, 2], [0, 1])
        with pytest.raises(ActorConflict, match="'a'"):
            await session.act_many([0, 1], ["a", "a"])
