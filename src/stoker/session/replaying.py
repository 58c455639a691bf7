"""Training again from the journal: the same events in the same order give the same weights, to the bit.

No environment and no actor takes part, and nothing is written: a learner is fed what the journal holds.
Where the live run saved a checkpoint, the two can be held side by side.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from stoker.agents.protocol import ChangesByActing, LearningAgent, RebuildsReplay
from stoker.errors import CheckpointCorrupt, CheckpointNotFound, ConfigError, JournalBroken
from stoker.journal import Journal
from stoker.nested import differences
from stoker.runs import TrainingRun
from stoker.session.config import SessionConfig
from stoker.session.events import Outbox
from stoker.session.learner import Learner
from stoker.session.relearning import Relearning, as_in_attempts, periods_of
from stoker.stats import StatsTracker
from stoker.writer import load_checkpoint

_logger = logging.getLogger("stoker.session")


class Comparison(msgspec.Struct, frozen=True):
    """A checkpoint of the live run beside the same point of the replay.

    Attributes:
        step: ``total_steps`` of the checkpoint.
        differences: where the two are not equal to the bit, as paths into the state; empty: nowhere.
    """

    step: int
    differences: tuple[str, ...]


class Replayed(msgspec.Struct, frozen=True):
    """The result of a replay.

    Attributes:
        from_steps: where it began; 0: at the beginning, else at a checkpoint.
        total_steps, total_episodes, opt_steps: the counters where it ended.
        comparisons: one for each checkpoint on the way, in their order.
    """

    from_steps: int
    total_steps: int
    total_episodes: int
    opt_steps: int
    comparisons: tuple[Comparison, ...]


def replay_run(
    run: TrainingRun,
    agent: LearningAgent,
    *,
    to_step: int | None = None,
    from_step: int | None = None,
    watch: Callable[[int], None] | None = None,
) -> Replayed:
    """Let a new agent learn what the run's agent learned. Blocks; may be called on a run that is training.

    It begins with the first event if the journal still has it, else at the oldest checkpoint from which the
    journal leads on. Agents whose ``state_dict`` is also changed by acting name those entries in
    ``acting_state``; they are not compared, because nobody acts.

    Args:
        run: where the journal and the checkpoints are.
        agent: made as the run's was, with the same seed. It ends in the state of the run's agent. What was
            learned with other settings than its own is learned with those (``ChangesSettings``).
        to_step: the environment step to stop at; None: the journal's end.
        from_step: the checkpoint to begin at; None: the earliest possible.
        watch: called now and then with ``total_steps``.

    Raises:
        ConfigError: ``to_step`` cannot be reached.
        CheckpointNotFound: There is no checkpoint at ``from_step``.
        JournalBroken: The journal is damaged or gone where it is needed.
    """
    journal = run.journal
    last = journal.n_events()
    learner = _learner_of(agent, journal)
    with as_in_attempts(learner):
        _go_to_start(learner, run, from_step, last)
        return _replay(learner, run, last, to_step, watch)


def _replay(
    learner: Learner, run: TrainingRun, last: int, to_step: int | None, watch: Callable[[int], None] | None
) -> Replayed:
    journal, began_at = run.journal, learner.total_steps
    marks = _marks(run, learner.n_events, last, to_step)
    if to_step is not None and to_step < began_at:
        raise ConfigError(f"to_step={to_step}: the journal can be replayed from step {began_at} on")
    comparisons: list[Comparison] = []

    def fed(_: Outbox) -> None:
        if watch is not None:
            watch(learner.total_steps)

    relearning = Relearning(learner, journal, last, to_step=to_step, fed=fed)
    for position in sorted(marks):
        relearning.learn(position)
        step, saved = marks[position]
        saved = load_checkpoint(run.checkpoint_path(step)) if saved is None else saved
        comparisons.append(Comparison(step, tuple(_differences(saved, learner))))
    relearning.learn()
    fed(learner.take_outbox())
    if to_step is not None and learner.total_steps < to_step:
        raise ConfigError(f"to_step={to_step}: the journal ends at step {learner.total_steps}")
    return Replayed(
        began_at, learner.total_steps, learner.total_episodes, learner.opt_steps, tuple(comparisons)
    )


def _learner_of(agent: LearningAgent, journal: Journal) -> Learner:
    headers = journal.headers()
    if not headers:
        raise JournalBroken(
            journal.directory, "nothing can be read there: trained with journal=False, or the journal is lost"
        )
    # Nobody acts: the policy need not be published.
    config = SessionConfig(**periods_of(headers[0])._asdict(), publish_interval=1 << 62)
    return Learner(agent, config, StatsTracker.empty(), None)


def _go_to_start(learner: Learner, run: TrainingRun, from_step: int | None, last: int) -> None:
    """Let a new learner begin, at the first event or at a checkpoint."""
    journal = run.journal
    leads_from = journal.leads_from(last)
    if from_step is None and leads_from == 0:
        learner.begin()
        return
    problem: Exception | None = None
    for step in [from_step] if from_step is not None else run.checkpoint_steps():
        try:
            path = run.checkpoint_path(step)
            learner.restore(path, load_checkpoint(path), journal)
        except (JournalBroken, CheckpointCorrupt, CheckpointNotFound) as error:
            problem = error
            continue
        if from_step is None and (leads_from is None or learner.n_events < leads_from):
            continue
        learner.begin()
        return
    raise problem or JournalBroken(
        journal.directory,
        f"it leads to its end only from event {leads_from} on, and there is no checkpoint to begin at; "
        "keep_journal='all' keeps it whole",
    )


def _marks(
    run: TrainingRun, first: int, last: int, to_step: int | None
) -> dict[int, tuple[int, Mapping[str, Any] | None]]:
    """The checkpoints on the way by the number of events before them.

    Those of a run that is training are held in memory: they may be gone before they are needed.
    """
    is_live = run.holder() is not None
    marks: dict[int, tuple[int, Mapping[str, Any] | None]] = {}
    for step in run.checkpoint_steps():
        if to_step is not None and step > to_step:
            continue
        try:
            state = load_checkpoint(run.checkpoint_path(step))
        except CheckpointNotFound:  # pruned since
            continue
        except CheckpointCorrupt as error:
            _logger.warning("%s; it is not compared", error)
            continue
        if first <= (events := int(state["session"]["events"])) <= last:
            marks[events] = (step, state if is_live else None)
    return marks


def _differences(saved: Mapping[str, Any], learner: Learner) -> Iterator[str]:
    """The paths of all values that are not the same, to the bit, in a checkpoint and in a learner."""
    agent = learner.agent
    left_out = agent.acting_state if isinstance(agent, ChangesByActing) else frozenset[str]()
    state = {key: value for key, value in agent.state_dict().items() if key not in left_out}
    counters = {name: getattr(learner, name) for name in ("total_steps", "total_episodes", "opt_steps")}
    pairs: list[tuple[str, Any, Any]] = [
        ("agent", state, {key: saved["agent"].get(key) for key in state}),
        ("session", counters, {name: saved["session"][name] for name in counters}),
    ]
    position = saved["journal"]
    if isinstance(agent, RebuildsReplay) and position is not None and position["replay"] is not None:
        pairs.append(("replay", agent.replay_reference(), position["replay"]))
    for where, ours, theirs in pairs:
        yield from (path for path, _ in differences(ours, theirs, where))
