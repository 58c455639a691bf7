"""Numbered streams after a kill: where each stands, what goes on, and what was learned."""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from dying import agent_for, kept_of
from numbered import Order, events_of, held, send, states_of
from training_parts import dqn, unequal

import launching
from stoker import ConfigError, EpisodeRecord, EpisodeStatus, Experience, TrainingRun, TrainingSession
from stoker.journal import EpisodeEnded, EpisodeStarted, StreamEvent, StreamMoved
from stoker.runs.verifying import verify_run
from stoker.session import StreamPoint
from stoker.session.replaying import replay_run
from stoker.testing import FakeAgent

pytestmark = pytest.mark.anyio

PROGRAM = Path(__file__).with_name("numbered.py")
SETTINGS: dict[str, Any] = {"checkpoint_freq": 40, "keep_journal": "all", "keep_checkpoints": None}
ON, OVER = EpisodeStatus.CONTINUING, EpisodeStatus.TERMINATED
SEEN = np.zeros(3, np.float32)


def killed(root: Path, kind: str, until: int, *, flushes: bool = True) -> None:
    order = Order(root=str(root), agent=kind, until=until, flushes=flushes, settings=SETTINGS)
    argument = msgspec.json.encode(order).decode()
    assert launching.run([sys.executable, str(PROGRAM), argument]).returncode == -signal.SIGKILL


async def resumed(root: Path) -> TrainingRun:
    return await TrainingRun.resume(root / "numbered")


@pytest.mark.parametrize("kind", ["dqn", "ppo"])
async def test_after_kills_each_stream_stands_where_the_journal_ends(tmp_path: Path, kind: str) -> None:
    """And the training goes on as if nobody had been killed."""
    events = events_of(kind)
    states = list(states_of(events))
    done = next(n for n, event in enumerate(events) if isinstance(event, EpisodeEnded))
    assert done < 60
    for until, flushes in ((done, True), (90, False), (140, True)):
        killed(tmp_path, kind, until, flushes=flushes)
        run = await resumed(tmp_path)
        n_durable = run.journal.n_events()
        assert n_durable == until if flushes else done <= n_durable <= until
        if until == done:
            await check_other_session(root=tmp_path, state=states[done], kind=kind)
        events_in = [event for _, event in run.journal.read(0)]
        assert [(type(event), event.actor_id) for event in events_in] == [
            (type(event), event.actor_id) for event in events[:n_durable]
        ]
    agent = agent_for(kind)
    run = await resumed(tmp_path)
    async with TrainingSession(agent, run, numbered=True, **SETTINGS) as session:
        assert held(session.streams) == states[140]
        await send(session, events, len(events))
        await session.barrier()
        assert held(session.streams) == states[-1]
        was = kept_of(session, agent)
    expected = agent_for(kind)
    async with TrainingSession(expected, numbered=True, **SETTINGS) as session:
        await send(session, events, len(events), size=1)
        await session.barrier()
        assert session.opt_steps > 0
        assert list(unequal(kept_of(session, expected), was)) == []
    assert [finding.text for finding in verify_run(run) if finding.kind == "damaged"] == []
    replayed = replay_run(run, agent_for(kind))
    assert replayed.total_steps == session.total_steps
    assert len(replayed.comparisons) >= 2
    assert [found for found in replayed.comparisons if found.differences] == []
    async with TrainingSession(agent_for(kind), await resumed(tmp_path), numbered=True) as session:
        assert held(session.streams) == states[-1], "from a checkpoint alone"


async def check_other_session(root: Path, state: Any, kind: str) -> None:
    """A session that is not numbered keeps the numbers, of the journal alone, and ends the episodes."""
    shutil.copytree(root, root / "copy")
    async with TrainingSession(agent_for(kind), await resumed(root / "copy")) as session:
        assert {actor: point.seq for actor, point in session.streams.items()} == {
            actor: point[0] for actor, point in state.items()
        }
        assert session.core.learner.actors.running == {}
        assert not any(point.is_learning for point in session.streams.values())


def step(actor: Any, seq: int, status: EpisodeStatus = ON) -> Experience:
    return Experience(SEEN, 0, 0.5, SEEN, status, actor, seq=seq)


async def new_run(root: Path) -> TrainingRun:
    return await TrainingRun.create("numbered", root=root)


async def test_an_episode_whose_record_is_missing_says_how_it_ended(tmp_path: Path) -> None:
    events: list[StreamEvent] = [EpisodeStarted("a", None, 1, SEEN), step("a", 2), step("a", 3, OVER)]
    async with TrainingSession(dqn(), await new_run(tmp_path), numbered=True) as session:
        await session.observe_events([*events, StreamMoved("b", 4, SEEN, 2.5, 3)])
    async with TrainingSession(dqn(), await resumed(tmp_path), numbered=True) as session:
        point = session.streams["a"]
        assert point.is_done
        assert (point.seq, point.observation, point.total_reward, point.length, point.status) == (
            3,
            None,
            1.0,
            2,
            OVER,
        )
        assert session.streams["b"].learns is False
        record = EpisodeRecord(point.total_reward, point.length, point.status)
        await session.observe_events([EpisodeEnded(record, "a"), EpisodeStarted("a", None, 4, SEEN)])
        await session.barrier()
        assert session.total_episodes == 1
        assert held(session.streams)["a"] == held({"a": StreamPoint(4, SEEN)})["a"]


async def test_only_episodes_of_streams_go_on_after_a_resume(tmp_path: Path) -> None:
    """A run may be trained by local actors before and after it is served."""
    async with TrainingSession(dqn(), await new_run(tmp_path)) as session:
        await session.observe(Experience(SEEN, 0, 1.0, SEEN, ON, "local"))
        assert session.streams == {}
    async with TrainingSession(dqn(), await resumed(tmp_path), numbered=True) as session:
        assert session.core.learner.actors.running == {}
        await session.observe_events([EpisodeStarted("a", None, 1, SEEN), step("a", 2)])
        await session.observe_events([EpisodeStarted("b", None, 1, SEEN), StreamMoved("b", 2, SEEN, 1.0, 1)])
    async with TrainingSession(dqn(), await resumed(tmp_path), numbered=True) as session:
        assert [*session.core.learner.actors.running] == ["a"]
        assert {actor: point.seq for actor, point in session.streams.items()} == {"a": 2, "b": 2}
    async with TrainingSession(dqn(), await resumed(tmp_path)) as session:
        assert session.core.learner.actors.running == {}
        await session.observe(Experience(SEEN, 0, 1.0, SEEN, ON, "local"))
    async with TrainingSession(dqn(), await resumed(tmp_path), numbered=True) as session:
        point = session.streams["a"]
        assert (point.seq, point.observation) == (2, None), "its number is kept, and its episode is not"
        assert session.streams["b"].observation is not None
        assert session.core.learner.actors.running == {}


async def test_observations_of_streams_keep_their_types(tmp_path: Path) -> None:
    observations = [
        3,
        (1, 2.5),
        {"a": np.arange(3), "b": "text"},
        np.float64(2),
        [np.zeros((2, 2), np.uint8)],
    ]
    async with TrainingSession(FakeAgent(), await new_run(tmp_path), numbered=True) as session:
        await session.observe_events(
            [EpisodeStarted(number, None, 1, seen) for number, seen in enumerate(observations)]
        )
    async with TrainingSession(FakeAgent(), await resumed(tmp_path), numbered=True) as session:
        kept = [point.observation for point in session.streams.values()]
    assert list(map(repr, kept)) == list(map(repr, observations))


async def test_numbered_actors_take_no_turns() -> None:
    with pytest.raises(ConfigError, match="numbered=True and lockstep=True"):
        TrainingSession(dqn(), numbered=True, lockstep=True)
