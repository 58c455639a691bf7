"""Batches of columns in a session: to the bit what single experiences come to, and refused as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import gymnasium
import numpy as np
import pytest
import torch
from msgspec.structs import replace
from training_parts import batch_of, bits, dqn, transition, unequal

from stoker import (
    DQN,
    PPO,
    ActorConflict,
    EpisodeStatus,
    Experience,
    ExperienceBatch,
    InvalidExperience,
    PPOConfig,
    SyncTrainingSession,
    TrainingRun,
    TrainingSession,
    replay_run,
)
from stoker.journal.codec import encode
from stoker.lru import MAX_ACTORS
from stoker.runs.verifying import verify_run
from stoker.session.decisions import RememberedBatch, RememberedBatches
from stoker.testing import FakeAgent

pytestmark = pytest.mark.anyio
ON = EpisodeStatus.CONTINUING
BOX = gymnasium.spaces.Box(-5, 5, (3,), np.float32)
TWO = gymnasium.spaces.Discrete(2)
IDS = (0, "left", 2, 3)


class Taking(FakeAgent):
    """An agent that takes batches, and notes how many rows each had."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.sizes: list[int] = []

    def observe_batch(self, batch: ExperienceBatch) -> None:
        self.sizes.append(len(batch))
        self.observe(batch.experiences())


def numbered(numbers: Sequence[int], actor_ids: Sequence[Any]) -> list[Experience]:
    return [
        Experience(np.array([k]), 0, float(k), np.array([k + 1]), ON, actor_id)
        for k, actor_id in zip(numbers, actor_ids, strict=True)
    ]


def ppo(**settings: Any) -> PPO:
    config = PPOConfig(rollout_steps=24, batch_size=8, n_epochs=2, hidden_sizes=(8,), **settings)
    return PPO(BOX, TWO, config, seed=3)


async def observe_rows(session: Any, steps: Sequence[Experience], size: int) -> None:
    """Transitions in batches of this size; 0: one by one. Behind each come the records of its episodes."""
    for start in range(0, len(steps), size or 1):
        rows = steps[start : start + (size or 1)]
        await (session.observe_batch(batch_of(rows)) if size else session.observe(rows[0]))


# Order and limits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("make_agent", [Taking, FakeAgent])
async def test_batches_and_single_experiences_stay_in_order_per_actor(make_agent: Any) -> None:
    agent = make_agent()

    async def play(actor_ids: tuple[Any, ...], width: int) -> None:
        for start in range(0, 60, width):
            numbers = range(start, start + width)
            if start % 3 == 0:
                rows = [(k, actor_id) for k in numbers for actor_id in actor_ids]
                await session.observe_batch(batch_of(numbered(*zip(*rows, strict=True))))
            else:
                for k in numbers:
                    for actor_id in actor_ids:
                        await session.observe(numbered([k], [actor_id])[0])
            await anyio.lowlevel.checkpoint()

    async with TrainingSession(agent, queue_capacity=8) as session, anyio.create_task_group() as tasks:
        tasks.start_soon(play, (0, 1, 2), 1)
        tasks.start_soon(play, ("a",), 5)
        tasks.start_soon(play, ("b", "c"), 10)
    seen: dict[Any, list[int]] = {}
    for step in agent.experiences:
        seen.setdefault(step.actor_id, []).append(int(step.observation[0]))
    assert seen == {actor_id: list(range(60)) for actor_id in (0, 1, 2, "a", "b", "c")}
    assert session.total_steps == session.accepted_steps == 360


@pytest.mark.parametrize(("size", "n_refused"), [(4, 2), (10, 2), (7, 2), (12, 2)])
async def test_max_steps_is_exact_inside_a_batch(size: int, n_refused: int) -> None:
    agent = Taking()
    steps = numbered(range(12), [k % 3 for k in range(12)])
    async with TrainingSession(agent, max_steps=10) as session:
        await observe_rows(session, steps, size)
        assert session.is_done
        assert (session.accepted_steps, session.refused_steps) == (10, n_refused)
        await session.observe_batch(batch_of(steps[:3]))
        assert session.refused_steps == n_refused + 3
        await session.on_episode(1.0, 1, EpisodeStatus.TERMINATED, actor_id=2)
    assert [int(step.observation[0]) for step in agent.experiences] == list(range(10))
    assert session.total_episodes == 0, "a transition of it was refused"


async def test_a_batch_after_a_stop_is_refused_as_a_whole() -> None:
    agent = Taking()
    steps = numbered(range(12), [0] * 12)
    async with TrainingSession(agent) as session:
        await session.observe_batch(batch_of(steps[:5]))
        session.stop()
        await session.observe_batch(batch_of(steps[5:]))
        assert (session.accepted_steps, session.refused_steps) == (5, 7)
    assert [int(step.observation[0]) for step in agent.experiences] == list(range(5))


async def test_an_empty_batch_is_nothing() -> None:
    async with TrainingSession(dqn()) as session:
        await session.observe_batch(batch_of([transition(0)])[:0])
        await session.observe_batch(ExperienceBatch(np.empty((0, 3)), [], [], np.empty((0, 3)), [], [], ()))
        await session.flush()
        assert session.total_steps == session.refused_steps == 0


CUTS: list[dict[str, Any]] = [
    {"checkpoint_freq": 25},
    {"checkpoint_freq": 25, "opt_interval": 3},
    {"checkpoint_freq": 0, "save_interval": 7, "opt_interval": 4},
    {"checkpoint_freq": 10, "warmup_period": 31, "eval_freq": 9},
    {"checkpoint_freq": 40, "max_opts": 20},
]


async def trained(root: Path, agent: DQN, size: int, last: int = 100, **settings: Any) -> TrainingRun:
    run = await TrainingRun.create("trained", f"v{size}", root=root)
    common: dict[str, Any] = {"keep_checkpoints": None, "keep_journal": "all", "max_steps": last - 3}
    async with TrainingSession(agent, run, **{**common, **settings}) as session:
        await observe_rows(session, [transition(k) for k in range(last)], size)
    return run


def events_of(run: TrainingRun) -> list[bytes]:
    n_events = run.journal.n_events()
    return [
        encode([event.observation, event.action, event.reward, event.next_observation, event.actor_id])
        for _, event in run.journal.read(0, n_events)
        if isinstance(event, Experience)
    ]


@pytest.mark.parametrize(
    ("settings", "normalize"), [*((settings, True) for settings in CUTS), (CUTS[0], False)], ids=str
)
async def test_a_batch_is_cut_where_something_is_due(
    tmp_path: Path, settings: dict[str, Any], normalize: bool
) -> None:
    more: dict[str, Any] = {"normalize_rewards": True, "n_step": 3} if normalize else {}
    single, found = dqn(**more), {}
    run = await trained(tmp_path, single, 0, **settings)
    steps = run.checkpoint_steps()
    assert len(steps) > 1
    for size in (7, 100):
        agent = dqn(**more)
        found[size] = await trained(tmp_path, agent, size, **settings)
        assert list(unequal(bits(single), bits(agent))) == []
        assert found[size].checkpoint_steps() == steps
        assert events_of(found[size]) == events_of(run)
        for step in steps:
            one, other = (
                torch.load(each.checkpoint_path(step), weights_only=True) for each in (run, found[size])
            )
            for part in ("agent", "replay", "journal"):
                assert list(unequal(one.get(part), other.get(part), part)) == []
        assert {finding.kind for finding in verify_run(found[size])} <= {"ok", "note"}
        replayed = replay_run(found[size], again := dqn(**more))
        assert [each.step for each in replayed.comparisons] == steps
        assert [each for each in replayed.comparisons if each.differences] == []
        assert list(unequal(bits(single), bits(again))) == []


@pytest.mark.parametrize("size", [0, 7, 64])
async def test_a_resume_from_a_checkpoint_inside_a_batch_is_bit_equal(tmp_path: Path, size: int) -> None:
    ended = []
    for sizes in ((0, 0), (40, size)):
        run = await trained(tmp_path, dqn(n_step=2), sizes[0], checkpoint_freq=25, max_steps=90)
        for name in ("step_75.pt", "step_90.pt", "latest.pt"):
            (run.checkpoints_directory / name).unlink()  # as if it had been killed
        run, agent = await TrainingRun.resume(run.directory), dqn(seed=9, n_step=2)
        settings: dict[str, Any] = {"checkpoint_freq": 25, "keep_journal": "all", "keep_checkpoints": None}
        async with TrainingSession(agent, run, max_steps=97, roll_forward=False, **settings) as session:
            assert session.total_steps == 50
            await observe_rows(session, [transition(k) for k in range(50, 100)], sizes[1])
        ended.append((bits(agent), events_of(run)))
        assert run.checkpoint_steps() == [25, 50, 75, 97]
        assert {finding.kind for finding in verify_run(run)} <= {"ok", "note"}
        replayed = replay_run(run, again := dqn(n_step=2))
        assert [each for each in replayed.comparisons if each.differences] == []
        assert list(unequal(bits(agent), bits(again))) == []
        run.directory.rename(tmp_path / f"done{sizes}")
    assert list(unequal(ended[0][0], ended[1][0])) == []
    assert ended[0][1] == ended[1][1]


# Policy extras ------------------------------------------------------------------------------------


def world(seen: np.ndarray[Any, Any], actions: Sequence[Any], k: int) -> list[Experience]:
    """What comes of the actions in round k: a function of these alone."""
    rows: list[Experience] = []
    for row, (observation, action) in enumerate(zip(seen, actions, strict=True)):
        rng = np.random.default_rng([k, row, int(action)])
        after = rng.uniform(-1, 1, 3).astype(np.float32)
        status = EpisodeStatus.of(bool(rng.random() < 0.1), bool(rng.random() < 0.1))
        rows.append(Experience(observation, action, float(rng.normal()), after, status, IDS[row]))
    return rows


async def play_rounds(session: Any, first: int, last: int, way: str, seen: Any = None) -> Any:
    """Rounds of all actors, each learned before the next; as columns, one by one, or either."""
    is_sync = isinstance(session, SyncTrainingSession)
    seen = np.zeros((4, 3), np.float32) if seen is None else seen

    async def done(result: Any) -> Any:
        return result if is_sync else await result

    for k in range(first, last):
        as_array = way == "columns" or (way == "mixed" and k % 3)
        actions = await done(session.act_many(seen if as_array else list(seen), IDS))
        rows = world(seen, actions, k)
        if way == "columns" or (way == "mixed" and k % 2):
            await done(session.observe_batch(batch_of(rows)))
        elif way == "mixed":
            await done(session.observe(rows[0]))
            await done(session.observe_many(rows[1:]))
        else:
            await done(session.observe_many(rows))
        for row in rows:
            if row.status.is_done:
                await done(session.on_episode(1.0, 1, row.status, actor_id=row.actor_id))
        if is_sync:
            session.flush()
        else:
            await session.barrier()
        seen = np.stack([row.next_observation for row in rows])
    return seen


@pytest.mark.parametrize("settings", [{}, {"normalize_rewards": True}], ids=str)
async def test_extras_are_joined_to_batches_and_learned_to_the_same_bits(settings: dict[str, Any]) -> None:
    states = []
    for way in ("singles", "columns", "mixed"):
        agent = ppo(**settings)
        async with TrainingSession(agent) as session:
            await play_rounds(session, 0, 30, way)
        assert agent.opt_steps == 5
        states.append(agent.state_dict())
    for way in ("columns", "mixed"):
        agent = ppo(**settings)
        with SyncTrainingSession(agent, batch_size=3) as session:
            await play_rounds(session, 0, 30, way)
        states.append(agent.state_dict())
    for state in states[1:]:
        assert list(unequal(states[0], state)) == []


async def test_an_agent_gets_whole_batches_only_if_it_takes_them() -> None:
    agent = Taking()
    async with TrainingSession(agent, opt_interval=3) as session:
        await session.observe_batch(batch_of(numbered(range(7), [*IDS, *IDS[:3]])))
    assert agent.sizes == [3, 3, 1], "cut where it learns"
    plain = FakeAgent()
    async with TrainingSession(plain) as session:
        await session.observe_batch(batch_of(numbered(range(4), IDS)))
    assert [type(step.action) for step in plain.experiences] == [int] * 4
    assert [step.actor_id for step in plain.experiences] == list(IDS)


async def test_a_batch_that_is_no_outcome_is_refused_and_nothing_is_taken() -> None:
    agent, seen = ppo(), np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    async with TrainingSession(agent) as session:
        actions = await session.act_many(seen, IDS)
        rows = world(seen, actions, 0)
        wrong = [*rows[:2], replace(rows[2], action=1 - actions[2]), rows[3]]
        with pytest.raises(InvalidExperience, match=r"row 2 of 4: actor 2: action=.*none was taken"):
            await session.observe_batch(batch_of(wrong))
        wrong = [rows[0], replace(rows[1], observation=rows[1].next_observation), *rows[2:]]
        with pytest.raises(
            InvalidExperience, match=r"row 1 of 4: actor 'left': observation=.*none was taken"
        ):
            await session.observe_batch(batch_of(wrong))
        with pytest.raises(InvalidExperience, match=r"row 4 of 5: actor 0: the agent learns only from"):
            await session.observe_batch(batch_of([*rows, rows[0]]))
        assert session.accepted_steps == session.refused_steps == 0
        await session.observe_batch(batch_of(rows))
        with pytest.raises(InvalidExperience, match=r"row 0 of 4: actor 0: the agent learns only"):
            await session.observe_batch(batch_of(rows))
        await session.flush()
        assert session.total_steps == 4


async def test_a_batch_of_decisions_is_taken_apart_for_one_actor() -> None:
    agent, seen = ppo(), np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    async with TrainingSession(agent) as session:
        rows = world(seen, await session.act_many(seen, IDS), 0)
        await session.observe(rows[2])
        await session.observe_batch(batch_of([rows[3], rows[0]]))
        await session.observe(rows[1])
        with pytest.raises(InvalidExperience, match="each once"):
            await session.observe(rows[1])
        # One of a batch decides anew, alone and then with others: only the last decision counts.
        await session.act_many(seen, IDS)
        await session.act(seen[0], actor_id=2)
        rows = world(seen, await session.act_many(seen, IDS), 1)
        await session.observe_batch(batch_of(rows))
        for row in rows:
            with pytest.raises(InvalidExperience, match="each once"):
                await session.observe(row)
    assert agent.total_steps == 8


async def test_a_new_decision_replaces_one_that_was_taken_out_of_a_batch() -> None:
    agent, seen = Taking(policy_extras=True), np.zeros((4, 1))

    class Answering(Taking):
        def act(self, observations: Sequence[Any], mode: Any) -> Any:
            del mode
            return [0] * len(observations), np.full((len(observations), 1), len(observations), float)

    agent = Answering()
    async with TrainingSession(agent) as session:
        await session.act(seen[0], actor_id=0)
        await session.act_many(seen, IDS)
        step = Experience(seen[0], 0, 0.0, seen[0], ON, 0)
        await session.observe_batch(batch_of([replace(step, actor_id=actor_id) for actor_id in IDS]))
        await session.observe(step)
    assert [step.policy_extras and step.policy_extras[0] for step in agent.experiences[:4]] == [4.0] * 4
    assert agent.experiences[4].policy_extras is None, "the extras of an older decision"


async def test_actors_of_an_array_are_acting_until_they_are_answered_or_cancelled() -> None:
    agent, seen = ppo(), np.zeros((4, 3), np.float32)
    conflicts: list[ActorConflict] = []

    async def act(call: Any) -> None:
        try:
            await call
        except ActorConflict as error:
            conflicts.append(error)

    async with TrainingSession(agent, max_staleness=3, opt_interval=1) as session:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(act, session.act_many(seen, IDS))
            tasks.start_soon(act, session.act(seen[0], actor_id="left"))
            tasks.start_soon(act, session.act_many(seen[:2], (7, 3)))
        assert 1 <= len(conflicts) <= 2, "either all of the array, or the others"
        for actor_id in (*IDS, 7):
            await session.on_episode_start(actor_id)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await session.act_many(seen, IDS)
        with pytest.raises(InvalidExperience, match="the agent learns only"):
            await session.observe_batch(batch_of(world(seen, [0] * 4, 0)))
        with anyio.fail_after(20):  # its actors count neither as acting nor as in flight
            rows = world(seen, await session.act_many(seen, IDS), 0)
            await session.observe_batch(batch_of(rows))
            await session.act_many(seen, IDS)


async def test_actors_of_several_calls_are_acting_each_until_its_own_is_answered() -> None:
    agent, seen = ppo(), np.zeros((2, 3), np.float32)
    async with TrainingSession(agent) as session:
        async with anyio.create_task_group() as tasks:
            for actor_ids in ((0, 1), (2, 3), (4, 5)):  # a list waits for a pass that all of them share
                tasks.start_soon(session.act_many, list(seen), actor_ids)
            await anyio.lowlevel.checkpoint()
            for actor_id in range(6):
                with pytest.raises(ActorConflict, match=f"actor {actor_id} "):
                    await session.act(seen[0], actor_id=actor_id)
                with pytest.raises(ActorConflict, match=f"actor {actor_id} "):
                    await session.act_many(seen, (actor_id, 6))
        assert len(await session.act_many(np.zeros((6, 3)), tuple(range(6)))) == 6, "nobody is left as acting"


async def test_decisions_without_outcomes_are_kept_for_the_most_recent_actors_only() -> None:
    """Actor ids may be those of connections, which never end."""
    agent, seen = ppo(), np.zeros((1000, 3), np.float32)
    rounds = [tuple(range(first, first + 1000)) for first in range(0, 21_000, 1000)]
    assert 2 * MAX_ACTORS < 21_000
    async with TrainingSession(agent) as session:
        actions = [await session.act_many(seen, ids) for ids in rounds]
        for number in (1, 11, 20):
            ids, chosen = rounds[number], actions[number]
            rows = [
                Experience(*row, 0.0, row[0], ON, actor)
                for *row, actor in zip(seen, chosen, ids, strict=True)
            ]
            if number == 1:
                with pytest.raises(InvalidExperience, match="row 0 of 1000: actor 1000: the agent"):
                    await session.observe_batch(batch_of(rows))
                with pytest.raises(InvalidExperience, match="actor 1999: the agent learns only"):
                    await session.observe(rows[-1])
            else:
                await session.observe_batch(batch_of(rows))
        ids = tuple(range(MAX_ACTORS + 1))
        seen = np.zeros((len(ids), 3), np.float32)
        chosen = await session.act_many(seen, ids)
        over = np.zeros(len(ids), bool)
        await session.observe_batch(
            ExperienceBatch(seen, np.array(chosen), np.zeros(len(ids)), seen, over, over, ids)
        )
        await session.flush()
        assert session.total_steps == 2000 + len(ids), "the last batch is kept, however large"


def test_remembered_batches_know_their_actors() -> None:
    def batch(*actor_ids: Any) -> RememberedBatch:
        rows = np.zeros(len(actor_ids))
        return RememberedBatch(actor_ids, rows, rows, None, 0)

    kept, (one, other) = RememberedBatches(), (batch(0, "a"), batch(1, 2, 3))
    assert not kept
    kept.put(one)
    kept.put(other)
    assert kept.get((0, "a")) is one
    assert kept.get((1, 2, 3)) is other
    assert kept.get(("a", 0)) is kept.get((1, 2)) is kept.get(()) is kept.get((9,)) is None
    assert kept.of_any((3, 9, 0, 1)) == [other, one]
    assert kept.of_any((9,)) == []
    kept.remove(one)
    kept.remove(one)
    assert kept.of_any((0, "a")) == []
    kept.put(again := batch("a", 7))
    kept.remove(one)
    assert kept.of_any(("a",)) == [again]
    kept.remove(other)
    kept.remove(again)
    assert not kept


async def test_actions_that_the_caller_changes_in_place_are_not_its_policys() -> None:
    agent = PPO(BOX, gymnasium.spaces.Box(-1, 1, (2,), np.float32), seed=3)
    seen = np.zeros((4, 3), np.float32)
    async with TrainingSession(agent) as session:
        actions = await session.act_many(seen, IDS)
        for action in actions:
            np.add(action, 0.5, out=action)
        rows = [
            Experience(observation, action, 0.0, observation, ON, actor_id)
            for observation, action, actor_id in zip(seen, actions, IDS, strict=True)
        ]
        with pytest.raises(InvalidExperience, match="row 0 of 4: actor 0: action="):
            await session.observe_batch(batch_of(rows))


@pytest.mark.parametrize(
    ("actions", "is_array"),
    [
        ([0, 1], True),
        ([0.5, 1.5], True),
        ([np.int8(3), np.int8(4)], True),
        ([np.zeros(2), np.ones(2)], True),
        ([np.zeros(2), np.ones(3)], False),
        ([1, 0.5], False),
        ([(1, 0.5), (2, 0.5)], False),
        ([{"go": 1}, {"go": 2}], False),
        (["left", "right"], False),
        ([1 << 70, 1 << 71], False),
    ],
    ids=str,
)
async def test_actions_for_an_array_are_those_of_the_policy(actions: list[Any], is_array: bool) -> None:
    class Answering(Taking):
        def act(self, observations: Sequence[Any], mode: Any) -> Any:
            return actions, None

    async with TrainingSession(Answering()) as session:
        found = await session.act_many(np.zeros((2, 1)), (0, 1))
        assert type(found) is (np.ndarray if is_array else list)
        assert encode(list(found)) == encode(list(np.array(actions)) if is_array else actions)
        step = [Experience(np.zeros(1), action, 0.0, np.zeros(1), ON, i) for i, action in enumerate(found)]
        await session.observe_many(step)


async def test_versions_are_joined_where_only_staleness_is_counted() -> None:
    agent = dqn()
    seen = np.zeros((4, 3), np.float32)
    async with TrainingSession(agent, record_interval=1000) as session:
        actions = await session.act_many(seen, IDS)
        rows = world(seen, actions, 0)
        await session.observe_batch(batch_of(rows[:2]))
        await session.observe_batch(batch_of(rows[2:]))
        await session.flush()
        assert session.staleness.histogram == {0: 4}


# Refused input ------------------------------------------------------------------------------------


def changed(column: str, row: int, value: Any) -> dict[str, Any]:
    whole = np.array(getattr(batch_of([transition(k) for k in range(20)]), column))
    whole[row] = value
    return {column: whole}


def masked(column: str, row: int) -> dict[str, Any]:
    whole = np.array(getattr(batch_of([transition(k) for k in range(20)]), column))
    mask = np.zeros(whole.shape, bool)
    mask[row] = True
    return {column: np.ma.masked_array(whole, mask)}


REFUSED: list[tuple[dict[str, Any], str]] = [
    (changed("rewards", 17, np.nan), r"row 17 of 20, actor 2: reward=nan is not finite.*none was taken"),
    (changed("rewards", 17, 1e300), r"row 17 of 20: .*reward=.*none was taken"),
    (changed("actions", 5, 9), r"row 5 of 20: action=9 .*none was taken"),
    (changed("observations", 3, np.inf), r"row 3 of 20: observation.*none was taken"),
    (changed("next_observations", 4, np.nan), r"row 4 of 20: next_observation.*none was taken"),
    ({"rewards": np.zeros(19)}, r"rewards has 19 rows, and there are 20 actor_ids"),
    ({"rewards": 0.0}, r"rewards has no rows, and there are 20 actor_ids"),
    ({"rewards": ["1"] * 20}, r"rewards is <U1 \[20\]: give numbers \[20\]"),
    ({"rewards": np.zeros((20, 1))}, r"rewards is float64 \[20, 1\]: give numbers \[20\]"),
    ({"terminated": np.zeros(20)}, r"terminated is float64 \[20\]: give bools \[20\]"),
    ({"truncated": np.zeros(20, int)}, r"truncated is int64 \[20\]: give bools \[20\]"),
    ({"observations": np.zeros((21, 3))}, r"observations has 21 rows, and there are 20"),
    ({"observations": np.zeros((20, 3), object)}, r"observations=.* is an array of objects"),
    ({"observations": [np.zeros(2), *[np.zeros(3)] * 19]}, r"observations cannot be read as an array"),
    ({"next_observations": {"x": np.zeros((2, 3))}}, r"next_observations\['x'\] has 2 rows"),
    ({"next_observations": np.zeros((20, 4), np.float32)}, r"row 0 of 20: next_observation.*\[3\]"),
    ({"actor_ids": 7}, r"actor_ids=7 .*give a tuple"),
    ({"actor_ids": (*range(19), 1.5)}, r"row 19 of 20: actor_id=1.5 .*none was taken"),
    ({"actor_ids": (*range(19), True)}, r"row 19 of 20: actor_id=True .*none was taken"),
    ({"policy_versions": np.full(20, -1)}, r"row 0 of 20, actor 0: policy_version=-1 is negative"),
    ({"policy_versions": np.zeros(20)}, r"policy_versions is float64 \[20\]: give integers \[20\]"),
    ({"rewards": np.full(20, np.longdouble(10) ** 4000)}, r"row 0 of 20, actor 0: reward=inf is not finite"),
    (masked("rewards", 17), r"row 17: rewards is masked there: fill it.*none was taken"),
    (masked("observations", 3), r"row 3: observations is masked there"),
    ({"next_observations": {}}, r"next_observations is an empty dict"),
    ({"observations": torch.zeros((20, 3), requires_grad=True)}, r"observations cannot be read .*detach"),
    ({"actor_ids": "abcdefghijklmnopqrst"}, r"actor_ids='abc.*give a tuple"),
    ({"actor_ids": set(range(20))}, r"actor_ids=\{0, .*give a tuple, one for each row in its order"),
    ({"policy_extras": np.zeros(20)}, r"policy_extras is float64 \[20\]: give numbers \[20, size\]"),
]


@pytest.mark.parametrize(("columns", "message"), REFUSED, ids=range(len(REFUSED)))
async def test_bad_columns_are_refused_by_name_and_nothing_is_taken(
    columns: dict[str, Any], message: str
) -> None:
    steps = [transition(k) for k in range(20)]
    async with TrainingSession(dqn()) as session:
        await session.observe_batch(batch_of(steps, actor_ids=tuple(range(20))))
        with pytest.raises(InvalidExperience, match=message):
            await session.observe_batch(batch_of(steps, **columns))
        await session.flush()
        assert session.total_steps == session.accepted_steps == 20
        await session.observe_batch(batch_of(steps))
    assert session.total_steps == 40
    with SyncTrainingSession(dqn()) as session:
        with pytest.raises(InvalidExperience, match=message):
            session.observe_batch(batch_of(steps, **columns))
        session.flush()
        assert session.total_steps == session.accepted_steps == 0


async def test_what_is_no_batch_is_refused() -> None:
    async with TrainingSession(FakeAgent()) as session:
        for thing in (transition(0), None, [transition(0)]):
            with pytest.raises(InvalidExperience, match="observe_batch takes an ExperienceBatch, not"):
                await session.observe_batch(thing)
        with pytest.raises(InvalidExperience, match="observe takes an Experience, not"):
            await session.observe(batch_of([transition(0)]))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("make_agent", [dqn, Taking, FakeAgent])
async def test_arrays_that_the_caller_changes_afterwards_are_copied(make_agent: Any) -> None:
    """As a vector environment does that has one set of arrays for all its steps."""
    steps = [transition(k) for k in range(6)]
    agent, other = make_agent(), make_agent()
    async with TrainingSession(agent) as session:
        batch = batch_of(steps)
        await session.observe_batch(batch)
        for name in ("observations", "actions", "rewards", "next_observations", "terminated", "truncated"):
            getattr(batch, name)[:] = 1
    async with TrainingSession(other) as session:
        await session.observe_batch(batch_of(steps))
    if isinstance(agent, DQN):
        assert list(unequal(bits(agent), bits(other))) == []
    else:
        key = [encode([step.observation, step.action, step.reward]) for step in agent.experiences]
        assert key == [encode([step.observation, step.action, step.reward]) for step in other.experiences]
        assert {step.status for step in agent.experiences} == {ON}


async def test_an_episode_that_terminates_at_its_time_limit_is_not_truncated() -> None:
    batches: list[ExperienceBatch] = []

    class Keeping(Taking):
        def observe_batch(self, batch: ExperienceBatch) -> None:
            batches.append(batch)

    both = np.array([True, True, False, False]), np.array([True, False, True, False])
    steps = numbered(range(4), list(range(4)))
    async with TrainingSession(Keeping(), opt_interval=0) as session:
        await session.observe_batch(batch_of(steps, terminated=both[0], truncated=both[1]))
    (batch,) = batches
    assert batch.terminated.tolist() == [True, True, False, False]
    assert batch.truncated.tolist() == [False, False, True, False]


async def test_lists_are_columns_too_and_a_terminated_episode_is_not_truncated() -> None:
    agent = Taking()
    async with TrainingSession(agent) as session:
        await session.observe_batch(
            ExperienceBatch([[1], [2]], ["a", "b"], [1, 2], [[2], [3]], [True, False], [True, True], [5, 6])  # pyright: ignore[reportArgumentType]
        )
        await session.observe_batch(
            ExperienceBatch(
                {"x": np.zeros((1, 2)), "y": {"z": [4]}},
                {"go": [1.0]},
                [1.0],
                {"x": [1]},
                [False],
                [False],
                (5,),
            )
        )
    assert [step.status for step in agent.experiences] == [
        EpisodeStatus.TERMINATED,
        EpisodeStatus.TRUNCATED,
        ON,
    ]
    assert [step.action for step in agent.experiences[:2]] == ["a", "b"]
    last = agent.experiences[2]
    assert last.observation["x"].tolist() == [0, 0]
    assert last.observation["y"]["z"] == 4
    assert last.action["go"] == 1.0


FORMS: dict[str, Any] = {
    "fortran": np.asfortranarray,
    "strided": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
    "reversed": lambda array: array[::-1].copy()[::-1],
    "big endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "float64": lambda array: array.astype(np.float64) if array.dtype == np.float32 else array,
    "unmasked": np.ma.masked_array,
    "tensors": torch.as_tensor,
    "lists": lambda array: array.tolist(),
}


@pytest.mark.parametrize("form", FORMS)
async def test_columns_in_any_form_are_the_same_transitions(form: str, tmp_path: Path) -> None:
    steps, agents = [transition(k) for k in range(20)], [dqn(), dqn()]
    for agent, changed in zip(agents, (lambda array: array, FORMS[form]), strict=True):
        run = await TrainingRun.create("forms", root=tmp_path)
        plain = batch_of(steps)
        columns = {
            name: getattr(plain, name) if name == "actor_ids" else changed(getattr(plain, name))
            for name in plain.__struct_fields__[:7]
        }
        for column in columns.values():
            if isinstance(column, np.ndarray):
                column.flags.writeable = False
        async with TrainingSession(agent, run) as session:
            await session.observe_batch(ExperienceBatch(**columns))
        replayed = replay_run(run, again := dqn())
        assert [each for each in replayed.comparisons if each.differences] == []
        assert list(unequal(bits(agent), bits(again))) == []
    assert list(unequal(bits(agents[0]), bits(agents[1]))) == []


NOBODY: list[tuple[Any, Any, str]] = [
    (
        np.zeros((4, 2), np.float32),
        IDS,
        r"row 0 of 4: actor.*: observation=.*shape \[2\]: give float32 \[3\]",
    ),
    (
        np.where(np.arange(12).reshape(4, 3) == 7, np.nan, 0.0),
        IDS,
        r"row 2 of 4: actor .*, step 0: observation\[1\] is nan",
    ),
    ([[0, 0, 0], [0, np.inf, 0]], (0, 1), r"row 1 of 2: actor 1, step 0: observation\[1\] is inf"),
    (np.zeros((3, 3)), IDS, r"3 observations for 4 actor_ids"),
    (np.array(1.0), (0,), r"act_many: observations=array\(1.\).*give one of each actor"),
    ({"x": np.zeros((1, 3))}, (0,), r"act_many: observations=\{'x'.*give one of each actor"),
    (None, (0,), r"act_many: observations=None.*give one of each actor"),
    (np.zeros((4, 3)), None, r"actor_ids=None.*give a tuple"),
    (np.zeros((4, 3)), {*IDS}, r"actor_ids=\{.*give a tuple, one for each row in its order"),
    (np.zeros((4, 3)), (0, 1, 2, True), r"row 3 of 4: actor_id=True"),
]


@pytest.mark.parametrize(("observations", "actor_ids", "message"), NOBODY, ids=range(len(NOBODY)))
async def test_what_several_cannot_act_on_is_refused_by_its_row(
    observations: Any, actor_ids: Any, message: str
) -> None:
    async with TrainingSession(ppo()) as session:
        with pytest.raises(InvalidExperience, match=message):
            await session.act_many(observations, actor_ids)
        with pytest.raises(ActorConflict, match="actor 2 "):
            await session.act_many(np.zeros((4, 3)), (0, 2, 1, 2))
        assert await session.act_many(np.zeros((0, 3)), ()) == []
        assert len(await session.act_many(np.zeros((4, 3)), IDS)) == 4, "nobody is left as acting"
    with SyncTrainingSession(ppo()) as session, pytest.raises(InvalidExperience, match=message):
        session.act_many(observations, actor_ids)


# Lockstep -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["columns", "mixed"])
async def test_a_lockstep_resume_of_batches_is_bit_equal(tmp_path: Path, way: str) -> None:
    whole = ppo()
    async with TrainingSession(whole, lockstep=True) as session:
        await play_rounds(session, 0, 30, way)
    run, seen = await TrainingRun.create("pieces", root=tmp_path), None
    agent = ppo()
    for first, last in ((0, 4), (4, 17), (17, 30)):
        run = await TrainingRun.resume(run.directory) if first else run
        agent = ppo()
        async with TrainingSession(agent, run, lockstep=True, keep_journal="all") as session:
            seen = await play_rounds(session, first, last, way, seen)
    assert list(unequal(whole.state_dict(), agent.state_dict())) == []
    assert {finding.kind for finding in verify_run(run)} <= {"ok", "note"}
    replayed = replay_run(run, again := ppo())
    assert [each for each in replayed.comparisons if each.differences] == []
    assert replayed.total_steps == again.total_steps == 120
