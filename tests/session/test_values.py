"""Whatever value comes in, in whatever place: it is refused by name, or every reader can read it back."""

from __future__ import annotations

import enum
import math
import tempfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings, strategies as st

from stoker import (
    ConfigError,
    EpisodeRecord,
    EpisodeStatus,
    Experience,
    InvalidExperience,
    TrainingRun,
    TrainingSession,
)
from stoker.runs.verifying import verify_run
from stoker.testing import FakeAgent

DONE = EpisodeStatus.TERMINATED


class OwnFloat(float):
    """A float of a subclass, as units libraries have."""


class OwnText(str):
    """A str of a subclass."""

    __slots__ = ()


class OwnNumber(enum.IntEnum):
    """An int of a subclass."""

    ONE = 1


class SayingAgent(FakeAgent):
    """Says of each episode and of each optimization step what it was given to say."""

    def __init__(self) -> None:
        super().__init__()
        self.said: dict[Any, Any] = {}
        self.exploration_rate: Any = 0.5

    def episode_extras(self, actor_id: Any) -> dict[Any, Any]:
        return self.said

    def learn(self) -> dict[Any, Any]:
        return self.said


texts = st.text(st.characters(), max_size=4) | st.sampled_from(["\ud800", "a\udfffb", "é字", ""])
scalars = st.one_of(
    st.floats(),
    st.integers(),
    st.sampled_from([1 << 53, (1 << 63) - 1, 1 << 63, -(1 << 63) - 1, 1 << 64, 1 << 70, 10**400]),
    st.booleans(),
    st.none(),
    texts,
    st.sampled_from(
        [
            *[np.float32(0.5), np.float64(math.nan), np.int64(3), np.uint64(1 << 63), np.True_, np.str_("a")],
            *[np.float16(1.0), np.longdouble(2.0), np.array(1.5), np.array([1.5]), np.ones((2, 2))],
            *[np.array("x"), torch.tensor(1.5), torch.tensor([1.5]), torch.ones((), dtype=torch.bool)],
            *[torch.tensor(1.0, requires_grad=True), torch.empty((), device="meta"), object(), float],
            *[Decimal("1.5"), Fraction(1, 3), 1j, b"bytes", OwnFloat(1.5), OwnText("own"), OwnNumber.ONE],
            *[datetime(2026, 1, 1, tzinfo=UTC), datetime.min, DONE, EpisodeStatus.CONTINUING],  # noqa: DTZ901
        ]
    ),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2)
)
keys = st.one_of(texts, st.sampled_from([3, None, 1.5, "x" * 300, OwnText("own"), np.str_("n"), ("a",)]))

Call = Callable[[TrainingSession, SayingAgent, TrainingRun, Any, Any], Awaitable[object]]


def experience(**fields: Any) -> Experience:
    return Experience(
        **{"observation": [0.0], "action": 0, "reward": 1.0, "next_observation": [0.0]}
        | {"status": EpisodeStatus.CONTINUING}
        | fields
    )


async def agent_says(session: TrainingSession, agent: SayingAgent, key: Any, value: Any) -> None:
    agent.said, agent.exploration_rate = {key: value}, value
    await session.observe(experience())
    await session.on_episode(1.0, 1, DONE)
    await session.flush()
    agent.said, agent.exploration_rate = {}, 0.5


async def store(session: TrainingSession, key: Any, value: Any) -> None:
    session.store({key: value})


CALLS: dict[str, Call] = {
    "a reward": lambda session, agent, run, key, value: session.observe(experience(reward=value)),
    "a reward among several": lambda session, agent, run, key, value: session.observe_many(
        [experience(), experience(reward=value)]
    ),
    "the actor of a step": lambda session, agent, run, key, value: session.observe(
        experience(actor_id=value)
    ),
    "the actor of an action": lambda session, agent, run, key, value: session.act([0.0], actor_id=value),
    "the actor of an episode": lambda session, agent, run, key, value: session.on_episode(
        1.0, 1, DONE, actor_id=value
    ),
    "an actor that begins": lambda session, agent, run, key, value: session.on_episode_start(value),
    "a seed": lambda session, agent, run, key, value: session.on_episode_start(0, value),
    "a total reward": lambda session, agent, run, key, value: session.on_episode(value, 1, DONE),
    "a length": lambda session, agent, run, key, value: session.on_episode(1.0, value, DONE),
    "a status": lambda session, agent, run, key, value: session.on_episode(1.0, 1, value),
    "an extra": lambda session, agent, run, key, value: session.on_episode(1.0, 1, DONE, {key: value}),
    "the extras": lambda session, agent, run, key, value: session.on_episode(1.0, 1, DONE, value),
    "an evaluation": lambda session, agent, run, key, value: session.on_eval_episode(
        EpisodeRecord(value, 1, DONE, {key: value})
    ),
    "a mean": lambda session, agent, run, key, value: session.maybe_save_best(value),
    "a metric": lambda session, agent, run, key, value: store(session, key, value),
    "a record": lambda session, agent, run, key, value: session.record({key: value}),
    "the step of a record": lambda session, agent, run, key, value: session.record({"a": 1.0}, value),
    "what the agent says": lambda session, agent, run, key, value: agent_says(session, agent, key, value),
    "a setting": lambda session, agent, run, key, value: run.write_config({key: value}),
}


async def play(session: TrainingSession) -> None:
    """Something that is as it should be, so that what comes after the value is read too."""
    await session.observe(experience())
    await session.on_episode(1.0, 1, DONE, {"ok": 1.0})
    await session.on_eval_episode(EpisodeRecord(1.0, 1, DONE))
    await session.record({"ok": 1.0})


def counted(session: TrainingSession, run: TrainingRun) -> object:
    names = ("train_episodes.jsonl", "eval_episodes.jsonl", "metrics.jsonl", "config.json")
    sizes = [(run.directory / name).stat().st_size for name in names if (run.directory / name).exists()]
    return session.total_steps, session.total_episodes, session.is_done, sizes


async def try_values(root: Path, calls: list[tuple[str, Any, Any]]) -> None:
    run, agent = await TrainingRun.create("values", root=root), SayingAgent()
    async with TrainingSession(agent, run, record_interval=1, checkpoint_freq=0) as session:
        await run.write_config({"a": 1})
        await play(session)
        for name, key, value in calls:
            await session.flush()
            before = counted(session, run)
            try:
                await CALLS[name](session, agent, run, key, value)
            except (InvalidExperience, ConfigError):
                await session.flush()
                assert counted(session, run) == before
        await play(session)
    await read_everything(run)
    again = await TrainingRun.resume(run.directory)
    async with TrainingSession(SayingAgent(), again, record_interval=1) as session:
        assert session.total_steps >= 2
        await play(session)
    await read_everything(again)


async def read_everything(run: TrainingRun) -> None:
    assert {finding.kind for finding in verify_run(run)} <= {"ok", "note"}, verify_run(run)
    assert len((await run.read_train_episodes())["episode"]) >= 2
    assert len((await run.read_eval_episodes())["length"]) >= 2
    assert len((await run.read_metrics())["total_steps"]) >= 2
    await run.read_config()


@settings(max_examples=12)
@given(st.lists(st.tuples(st.sampled_from(sorted(CALLS)), keys, values), min_size=1, max_size=20))
@example([("what the agent says", "loss", np.float32(0.5)), ("what the agent says", "won", np.True_)])
@example([("a length", "x", 1 << 64)])
@example([("the actor of a step", "x", "\ud800")])
@example([("the actor of an episode", "x", 1 << 70)])
@example([("a metric", "x", np.str_("a"))])
def test_a_value_is_refused_or_can_be_read_back(calls: list[tuple[str, Any, Any]]) -> None:
    with tempfile.TemporaryDirectory() as root:
        anyio.run(try_values, Path(root), calls)


async def try_row(root: Path, key: Any, value: Any) -> None:
    run = await TrainingRun.create("rows", root=root)
    rows = [
        lambda: run.log_train_episode(EpisodeRecord(1.0, 1, DONE, {key: 1.0}), actor_id=value),
        lambda: run.log_train_episode(EpisodeRecord(1.0, 1, DONE), total_steps=value),
        lambda: run.log_eval_episode(EpisodeRecord(value, 1, DONE), total_steps=1),
        lambda: run.log_eval_episode(EpisodeRecord(1.0, 1, DONE), total_steps=value),
        lambda: run.update_metadata(value, value),
        lambda: run.write_config({"key": value}),
    ]
    n_taken = 0
    for number, log in enumerate(rows):
        try:
            await log()
        except (InvalidExperience, ConfigError):
            continue
        n_taken += number < 2
    await run.aclose()
    assert len((await run.read_train_episodes())["episode"]) == n_taken
    await run.read_eval_episodes()
    assert (await TrainingRun.open(run.directory)).metadata.total_steps >= 0


@settings(max_examples=12)
@given(key=keys, value=values)
@example("x", 1 << 64)
@example("x", "\ud800")
def test_a_row_without_a_session_is_refused_or_can_be_read_back(key: Any, value: Any) -> None:
    with tempfile.TemporaryDirectory() as root:
        anyio.run(try_row, Path(root), key, value)


@pytest.mark.anyio
async def test_what_an_agent_says_is_made_plain_or_left_out_with_one_warning_per_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, agent = await TrainingRun.create("said", root=tmp_path), SayingAgent()
    async with TrainingSession(agent, run) as session:
        agent.said = {
            "loss": np.float32(0.5),
            "n": np.int64(3),
            "won": True,
            "grad": torch.tensor(1.5),
            7: 1.0,
        }
        for _ in range(3):
            await session.on_episode(1.0, 0, DONE, {"won": 0.25})
    columns = await run.read_train_episodes()
    assert list(columns["extras.loss"]) == [0.5] * 3
    assert list(columns["extras.n"]) == [3.0] * 3
    assert list(columns["extras.won"]) == [0.25] * 3, (
        "what the environment says stays where the agent's is left out"
    )
    assert not {"extras.grad", "extras.7"} & {*columns}
    assert sorted(record.getMessage().partition(": ")[2].partition("=")[0] for record in caplog.records) == [
        "a key",
        "grad",
        "won",
    ]


@pytest.mark.anyio
async def test_a_reward_is_never_read_out_of_what_is_no_real_number() -> None:
    agent = FakeAgent()
    async with TrainingSession(agent) as session:
        for value in (np.complex64(1 + 2j), torch.tensor(1 + 2j), np.array("1"), bytearray(b"1")):
            with pytest.raises(InvalidExperience, match="^reward=.* is not a number"):
                await session.observe(experience(reward=value))
    assert agent.experiences == []


class UnwritableRepr:
    def __repr__(self) -> str:
        return "half of a pair: \udfff"


def test_a_message_about_a_value_can_be_written_to_any_stream(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def learn() -> None:
        agent, run = SayingAgent(), await TrainingRun.create("said", root=tmp_path)
        agent.said = {"loss\udfff": True, "ok": UnwritableRepr()}
        async with TrainingSession(agent, run, record_interval=1) as session:
            await session.observe(experience())
            await session.on_episode(1.0, 1, DONE)
            with pytest.raises(InvalidExperience, match=r"half of a pair: \\udfff \(UnwritableRepr\)"):
                await session.observe(experience(reward=UnwritableRepr()))

    anyio.run(learn)
    assert {line.partition(":")[0].split()[-1] for line in caplog.messages} == {"recorded", "rows"}
    assert "\n".join(caplog.messages).encode()
