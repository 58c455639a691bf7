"""Settings that are refused; and when something is due, against a loop that looks at every transition."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, strategies as st

from stoker import ConfigError, SessionConfig, TrainingSession
from stoker.session.config import Due, Triggers
from stoker.testing import FakeAgent


class Table:
    """What was done at which counters."""

    def __init__(self) -> None:
        self.learned_at: list[int] = []
        self.due: list[tuple[int, int, Due]] = []


def driven(config: SessionConfig, sizes: list[int], skips: int = 0, *, has_run: bool = True) -> Table:
    """Feed batches as a learner does, the agent skipping its first calls of ``learn``."""
    table = Table()
    total_steps = opt_steps = calls = 0
    triggers = Triggers(config, 0, 0, has_run=has_run)
    for size in sizes:
        left = size
        while left:
            count = min(left, triggers.room())
            assert count >= 1
            start = total_steps
            for stop in range(triggers.next_learn, start + count + 1, config.opt_interval or 1 << 60):
                calls += 1
                table.learned_at.append(stop)
                opt_steps += calls > skips
            total_steps = start + count
            left -= count
            due = triggers.reached(total_steps, opt_steps)
            if due is not None:
                table.due.append((total_steps, opt_steps, due))
    return table


def naive(config: SessionConfig, n: int, skips: int = 0, *, has_run: bool = True) -> Table:
    table = Table()
    opt_steps = calls = 0
    most = 1 << 60 if config.max_opts is None else config.max_opts
    for step in range(1, n + 1):
        before = opt_steps
        if (
            config.opt_interval
            and step % config.opt_interval == 0
            and step >= config.warmup_period
            and opt_steps < most
        ):
            calls += 1
            table.learned_at.append(step)
            opt_steps += calls > skips

        has_learned = opt_steps != before

        def at(
            freq: int, interval: int, counters: tuple[int, int, bool] = (step, opt_steps, has_learned)
        ) -> bool:
            steps, opts, is_new = counters
            return (is_new and bool(interval) and opts % interval == 0) or (bool(freq) and steps % freq == 0)

        due = Due(
            checkpoint=has_run and at(config.checkpoint_freq, config.save_interval),
            evaluation=at(config.eval_freq, config.eval_interval),
            record=at(config.record_freq, config.record_interval),
            limit=opt_steps >= most and has_learned,
        )
        if any(due):
            table.due.append((step, opt_steps, due))
    return table


periods = st.integers(0, 9)


@given(
    config=st.builds(
        SessionConfig,
        opt_interval=st.integers(0, 5),
        warmup_period=st.integers(0, 20),
        max_opts=st.none() | st.integers(0, 12),
        checkpoint_freq=periods,
        save_interval=periods,
        eval_freq=periods,
        eval_interval=periods,
        record_freq=periods,
        record_interval=periods,
    ),
    sizes=st.lists(st.integers(1, 30), max_size=8),
    skips=st.integers(0, 6),
    has_run=st.booleans(),
)
def test_however_batches_are_cut_the_same_is_due_at_the_same_counters(
    config: SessionConfig, sizes: list[int], skips: int, has_run: bool
) -> None:
    found = driven(config, sizes, skips, has_run=has_run)
    expected = naive(config, sum(sizes), skips, has_run=has_run)
    assert found.learned_at == expected.learned_at
    assert [row for row in found.due if any(row[2])] == expected.due


def test_a_table_by_hand() -> None:
    config = SessionConfig(
        opt_interval=2, warmup_period=5, max_opts=4, checkpoint_freq=0, save_interval=3, eval_interval=2
    )
    found = driven(config, [30])
    assert found.learned_at == [6, 8, 10, 12]
    assert found.due == [
        (8, 2, Due(checkpoint=False, evaluation=True, record=False, limit=False)),
        (10, 3, Due(checkpoint=True, evaluation=False, record=False, limit=False)),
        (12, 4, Due(checkpoint=False, evaluation=True, record=False, limit=True)),
    ]


def test_the_first_step_of_learning_is_at_the_warmups_end() -> None:
    assert driven(SessionConfig(opt_interval=2, warmup_period=6), [10]).learned_at == [6, 8, 10]


@pytest.mark.parametrize(("opt_steps", "may_learn"), [(3, True), (4, False), (9, False)])
def test_what_reached_the_limit_before_learns_no_more(opt_steps: int, may_learn: bool) -> None:
    triggers = Triggers(SessionConfig(max_opts=4), 100, opt_steps, has_run=False)
    assert triggers.may_learn is may_learn
    assert (triggers.next_learn == 101) is may_learn


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"keep_every": -1}, "keep_every=-1: give an int of at least 0"),
    ({"keep_best": 0}, "keep_best=0: give an int of at least 1"),
    ({"keep_best": None}, "keep_best=None"),
    ({"journal": 1}, "journal=1: give True or False"),
    ({"lockstep": "yes"}, "lockstep='yes': give True or False"),
    ({"lockstep": True, "journal": False}, "lockstep=True needs journal=True"),
    ({"keep_journal": "some"}, "keep_journal='some': give 'all' or 'needed'"),
    ({"journal_segment_bytes": 0}, "journal_segment_bytes=0"),
    ({"flush_bytes": 0}, "flush_bytes=0"),
    ({"stall_timeout_s": 0}, "stall_timeout_s=0: give a finite number above 0"),
    ({"stall_timeout_s": float("inf")}, "stall_timeout_s=inf"),
    ({"actor_timeout_s": -1.0}, "actor_timeout_s=-1.0"),
    ({"actor_timeout_s": True}, "actor_timeout_s=True"),
    ({"on_stall": "restart"}, "on_stall='restart': give 'fail' or 'warn'"),
    ({"on_silent_actor": "ignore"}, "on_silent_actor='ignore': give 'fail' or 'restart' or 'warn'"),
    ({"inference": "gpu"}, "inference='gpu'"),
    ({"keep_checkpoints": -1}, "keep_checkpoints=-1"),
    ({"keep_checkpoints": 1.5}, "keep_checkpoints=1.5"),
    ({"max_steps": 10.5}, "max_steps=10.5"),
    ({"opt_interval": True}, "opt_interval=True"),
    ({"queue_capacity": None}, "queue_capacity=None"),
    ({"flush_interval_s": float("nan")}, "flush_interval_s=nan"),
    ({"stall_timeout_s": "soon"}, "stall_timeout_s='soon'"),
]


@pytest.mark.parametrize(
    ("total_steps", "opt_steps", "was_interrupted", "limits"),
    [
        (0, 0, False, (100, 30)),
        (99, 29, False, (100, 30)),
        (100, 30, False, (200, 60)),
        (100, 30, True, (100, 30)),  # a kill between the last step and the end
        (101, 31, True, (200, 60)),
        (0, 0, True, (100, 30)),
    ],
)
def test_a_repeated_limit_is_at_the_next_multiple_that_was_not_trained_to(
    total_steps: int, opt_steps: int, was_interrupted: bool, limits: tuple[int, int]
) -> None:
    config = SessionConfig(max_steps=100, max_opts=30, repeated_limits=("max_steps", "max_opts"))
    found = config.beginning_at(total_steps, opt_steps, was_interrupted=was_interrupted)
    assert (found.max_steps, found.max_opts) == limits


def test_a_setting_that_cannot_be_is_refused_by_name_and_value() -> None:
    for settings, message in REFUSED:
        with pytest.raises(ConfigError, match=re.escape(message)):
            SessionConfig(**settings)
        with pytest.raises(ConfigError, match=re.escape(message)):
            TrainingSession(FakeAgent(), **settings)
    with pytest.raises(
        ConfigError, match=r"TrainingSession: unknown key 'max_step'; did you mean 'max_steps'"
    ):
        TrainingSession(FakeAgent(), max_step=5)
