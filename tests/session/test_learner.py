"""The learner is a function of the order of events: cut into batches in any way, it does the same."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from stoker import (
    DQN,
    DQNConfig,
    EpisodeRecord,
    EpisodeStatus,
    Experience,
    SessionConfig,
    StatsTracker,
    TrainingRun,
)
from stoker.journal import EpisodeEnded, EpisodeStarted
from stoker.replies import Reply
from stoker.session.events import EvalEpisodeEnded, Event, Outbox, Request
from stoker.session.learner import Learner
from stoker.testing import FakeAgent

TERMINATED = EpisodeStatus.TERMINATED
BOX = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
CONFIG = DQNConfig(
    hidden_sizes=(4,), batch_size=4, learning_starts=8, buffer_size=64, target_update_interval=5
)


def transition(k: int) -> Experience:
    rng = np.random.default_rng(k)
    first, second = rng.uniform(-1, 1, (2, 2)).astype(np.float32)
    status = TERMINATED if k % 7 == 6 else EpisodeStatus.CONTINUING
    return Experience(first, int(rng.integers(2)), float(rng.normal()), second, status, k % 3)


def script(n_steps: int = 60) -> list[Event]:
    events: list[Event] = []
    for k in range(n_steps):
        if k % 7 == 0:
            events.append(EpisodeStarted(k % 3))
        events.append(transition(k))
        if k % 7 == 6:
            events.append(EpisodeEnded(EpisodeRecord(float(k), 7, TERMINATED), k % 3))
    return events


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    root: Path = tmp_path_factory.mktemp("runs")

    async def create() -> TrainingRun:
        return await TrainingRun.create("x", root=root)

    return anyio.run(create)


def learner_with(agent: Any, run: TrainingRun | None, **config: Any) -> Learner:
    learner = Learner(agent, SessionConfig(**config), StatsTracker(), run)
    learner.begin()
    return learner


def described(outbox: Outbox) -> list[Any]:
    """An outbox without its clock times, with tensors as lists."""

    def plain(value: Any) -> Any:
        match value:
            case torch.Tensor():
                return value.tolist()
            case dict():
                return {key: plain(item) for key, item in value.items()}
            case list() | tuple():
                return [plain(item) for item in value]
            case _:
                return value

    found: list[Any] = [
        ("row", row.episode, row.total_steps, row.total_reward, row.extras, row.actor_id)  # type: ignore[union-attr]
        for rows in outbox.rows.values()
        for row in rows
    ]
    if (snapshot := outbox.evaluation) is not None:
        found.append(("evaluation", snapshot.total_steps, plain(snapshot.state)))
    if outbox.checkpoint is not None:
        step, state, _ = outbox.checkpoint
        found.append(("checkpoint", step, plain(state)))
    return found


def processed(learner: Learner, events: Sequence[Event]) -> list[Any]:
    """The results of each event in turn, however often the learner stops to have a checkpoint staged.

    They are described as they come: a staged copy is good until the next one is staged.
    """
    effects: list[Any] = []
    while events or learner.is_checkpoint_due:
        if learner.is_checkpoint_due:
            learner.stage_checkpoint()
        else:
            before, events = len(events), learner.process(events)
            assert len(events) < before
        effects += described(learner.take_outbox())
    return effects


def staged(learner: Learner) -> tuple[int, Mapping[str, Any], Reply[None]]:
    checkpoint = learner.take_outbox().checkpoint
    assert checkpoint is not None
    return checkpoint


def finished(learner: Learner) -> list[Any]:
    learner.finish()
    return processed(learner, [])


def outcome(run: TrainingRun, events: list[Event], cuts: list[int]) -> list[Any]:
    learner = learner_with(
        DQN(BOX, gymnasium.spaces.Discrete(2), CONFIG, seed=5),
        run,
        checkpoint_freq=25,
        eval_freq=20,
        opt_interval=3,
    )
    effects: list[Any] = []
    bounds = [0, *sorted(cuts), len(events)]
    for start, end in itertools.pairwise(bounds):
        if start < end:
            effects += processed(learner, events[start:end])
    return effects + finished(learner)


@settings(max_examples=8)
@given(cuts=st.lists(st.integers(0, len(script())), max_size=30))
def test_the_same_order_of_events_has_the_same_results_however_it_is_cut(
    run: TrainingRun, one_by_one: list[Any], cuts: list[int]
) -> None:
    found = outcome(run, script(), cuts)
    for kind in ("row", "checkpoint"):
        assert [one for one in found if one[0] == kind] == [one for one in one_by_one if one[0] == kind]
    evaluations = [one for one in found if one[0] == "evaluation"]
    assert evaluations
    assert all(one in one_by_one for one in evaluations), "a newer one replaces one that nobody fetched"


@pytest.fixture(scope="module")
def one_by_one(run: TrainingRun) -> list[Any]:
    events = script()
    return outcome(run, events, list(range(len(events))))


def test_results_come_in_the_order_of_what_caused_them(one_by_one: list[Any]) -> None:
    assert [(one[0], one[2 if one[0] == "row" else 1]) for one in one_by_one] == [
        ("row", 7), ("row", 14), ("evaluation", 20), ("row", 21), ("checkpoint", 25), ("row", 28),
        ("row", 35), ("evaluation", 40), ("row", 42), ("row", 49), ("checkpoint", 50), ("row", 56),
        ("evaluation", 60), ("checkpoint", 60),
    ]  # fmt: skip


async def no_reply() -> tuple[Reply[None], Reply[Any]]:
    return Reply(), Reply()


def test_requests_are_answered_in_their_place(run: TrainingRun) -> None:
    flushed, snapped = anyio.run(no_reply)
    learner = learner_with(FakeAgent(), run)
    steps: list[Event] = [transition(k) for k in range(4)]
    record = EpisodeRecord(1.0, 2, TERMINATED)
    rest = learner.process([
        steps[0], Request("flush", flushed), steps[1], Request("snapshot", snapped), steps[2],
        EvalEpisodeEnded(record, None), EvalEpisodeEnded(record, 1), steps[3],
    ])  # fmt: skip
    assert rest == []
    outbox = learner.take_outbox()
    assert outbox.flushes == [flushed]
    [(reply, snapshot)] = outbox.answers
    assert (reply, snapshot.total_steps) == (snapped, 2)
    [(_, rows)] = outbox.rows.items()
    assert [row.total_steps_at_eval for row in rows] == [3, 1]  # type: ignore[union-attr]
    assert learner.total_steps == 4


def test_it_stops_where_a_checkpoint_is_due_and_goes_on_behind_it(run: TrainingRun) -> None:
    (asked, _) = anyio.run(no_reply)
    learner = learner_with(FakeAgent(), run, checkpoint_freq=3)
    events: list[Event] = [transition(k) for k in range(5)]
    rest = learner.process(events)
    assert (learner.is_checkpoint_due, len(rest), learner.total_steps) == (True, 2, 3)
    assert learner.process(rest) == rest, "nothing is taken in before the copy is made"
    learner.stage_checkpoint()
    assert staged(learner)[0] == 3
    rest = learner.process([rest[0], Request("checkpoint", asked), rest[1]])
    assert (learner.is_checkpoint_due, len(rest), learner.total_steps) == (True, 1, 4)
    assert learner.stage_checkpoint() is asked
    step, _, reply = staged(learner)
    assert (step, reply) == (4, asked)
    assert learner.process(rest) == []
    assert learner.process([transition(5)]) == []
    assert learner.stage_checkpoint() is not asked, "which is answered: the next copy would not wait for this"


@pytest.mark.parametrize(
    ("opt_interval", "checkpoint_freq", "eval_freq"),
    [(1, 0, 0), (3, 7, 5), (10, 10, 10), (4, 1, 0), (50, 50, 49)],
)
def test_each_period_fires_at_exactly_its_multiples(
    run: TrainingRun, opt_interval: int, checkpoint_freq: int, eval_freq: int
) -> None:
    agent = FakeAgent()
    learner = learner_with(
        agent, run, opt_interval=opt_interval, checkpoint_freq=checkpoint_freq, eval_freq=eval_freq
    )
    effects = [effect for k in range(100) for effect in processed(learner, [transition(k)])]
    saved = [step for kind, step, _ in effects if kind == "checkpoint"]
    due = [step for kind, step, _ in effects if kind == "evaluation"]
    assert agent.learned_at == list(range(opt_interval, 101, opt_interval))
    assert saved == (list(range(checkpoint_freq, 101, checkpoint_freq)) if checkpoint_freq else [])
    assert due == (list(range(eval_freq, 101, eval_freq)) if eval_freq else [])


def test_policies_are_published_while_nothing_is_learned() -> None:
    """Exploration goes by environment steps: during the warm-up, too."""

    class Exploring(FakeAgent):
        published_at = 0

        def publish(self, policy: Any) -> None:
            self.published_at = self.total_steps

    agent = Exploring()
    learner = Learner(agent, SessionConfig(warmup_period=1000), StatsTracker(), None)
    learner.begin()
    for n_steps in (3, 8):
        learner.process([transition(k) for k in range(agent.total_steps, n_steps)])
        assert agent.published_at == n_steps
    assert not agent.learned_at


def test_the_final_checkpoint_is_not_written_twice(run: TrainingRun) -> None:
    learner = learner_with(FakeAgent(), run, checkpoint_freq=10)
    processed(learner, [transition(k) for k in range(10)])
    assert finished(learner) == []
    processed(learner, [EpisodeEnded(EpisodeRecord(1.0, 1, TERMINATED), 0)])
    assert [effect[:2] for effect in finished(learner)] == [("checkpoint", 10)], (
        "an episode more is something new"
    )
    processed(learner, [EpisodeStarted(0)])
    assert [effect[:2] for effect in finished(learner)] == [("checkpoint", 10)], "and so is its beginning"
    learner.process([EvalEpisodeEnded(EpisodeRecord(1.0, 1, TERMINATED), None)])
    learner.take_outbox()
    assert [effect[:2] for effect in finished(learner)] == [("checkpoint", 10)], "and an evaluation"


def test_without_a_run_nothing_is_staged() -> None:
    learner = learner_with(FakeAgent(), None, checkpoint_freq=1)
    assert processed(learner, script()) == []
    assert finished(learner) == []


def test_a_checkpoint_is_a_copy_of_its_moment_in_the_one_place_there_is(run: TrainingRun) -> None:
    agent = DQN(BOX, gymnasium.spaces.Discrete(2), CONFIG, seed=5)
    learner = learner_with(agent, run, checkpoint_freq=30)
    assert len(learner.process([transition(k) for k in range(60)])) == 30
    learner.stage_checkpoint()
    _, first, _ = staged(learner)
    weights = first["agent"]["network"]
    early = {name: weight.clone() for name, weight in weights.items()}
    assert all(torch.equal(early[name], weight) for name, weight in agent.state_dict()["network"].items())
    learner.process([transition(k) for k in range(30, 60)])
    assert all(torch.equal(early[name], weight) for name, weight in weights.items()), "learning leaves it be"
    assert any(not torch.equal(early[name], late) for name, late in agent.state_dict()["network"].items())
    learner.stage_checkpoint()
    _, second, _ = staged(learner)
    for name, weight in second["agent"]["network"].items():
        assert weight.data_ptr() == weights[name].data_ptr(), "the same memory, again"


def test_a_restored_learner_goes_on_as_the_first_would_have(run: TrainingRun) -> None:
    events = script()
    learner = learner_with(DQN(BOX, gymnasium.spaces.Discrete(2), CONFIG, seed=5), run, checkpoint_freq=25)
    rest = learner.process(events)
    learner.stage_checkpoint()
    _, first, _ = staged(learner)
    other = Learner(
        DQN(BOX, gymnasium.spaces.Discrete(2), CONFIG, seed=99),
        SessionConfig(checkpoint_freq=25),
        StatsTracker(),
        run,
    )
    other.restore(run.checkpoint_path(25), first, run.journal)
    other.begin()
    assert (other.total_steps, other.total_episodes, other.opt_steps) == (25, 3, learner_opt_steps(25))
    assert other.n_events == len(events) - len(rest)
    assert finished(other) == [], "it begins where it was saved"
    ours, theirs = processed(other, rest), processed(learner, rest)
    assert ours + finished(other) == theirs + finished(learner)


def learner_opt_steps(total_steps: int) -> int:
    return max(0, total_steps - CONFIG.learning_starts + 1)
