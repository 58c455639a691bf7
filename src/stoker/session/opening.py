"""Open a session on its run: restore the newest checkpoint, begin an attempt, open the journal.

All of this but ``context_of`` blocks; it runs in the learner's thread before the
first event, on a locked run.
"""

from __future__ import annotations

import logging
import shlex
from typing import Any, NamedTuple, cast

import msgspec
import torch

from stoker.agents.protocol import RebuildsReplay, config_of
from stoker.errors import CheckpointCorrupt, JournalBroken
from stoker.recorders import RunContext, flat_params
from stoker.runs import TrainingRun
from stoker.runs.agreement import lost_rows
from stoker.session.config import SessionConfig
from stoker.session.journaling import EventJournal
from stoker.session.learner import Learner
from stoker.session.policies import PolicyBuffer
from stoker.session.resume_point import ResumePoint, read_resume_point
from stoker.session.saving import restore
from stoker.session.state import TrainingState

__all__ = ["Opened", "context_of", "open_learning"]

logger = logging.getLogger("stoker.session")


def context_of(learner: TrainingState, run: TrainingRun | None, config: SessionConfig) -> RunContext:
    """Which run it is, from where it goes on, and with what settings."""
    settings: dict[str, Any] = {"agent_type": type(learner.agent).__name__}
    if (agent_config := config_of(learner.agent)) is not None:
        settings["agent"] = msgspec.to_builtins(agent_config)
    settings["session"] = cast("dict[str, Any]", msgspec.to_builtins(config))
    params = flat_params(settings)
    if run is None:
        return RunContext(name="training", params=params, total_steps=learner.total_steps)
    return RunContext(
        name=run.metadata.name,
        version=run.metadata.version,
        run_id=run.metadata.run_id,
        directory=run.directory,
        params=params,
        resumed=run.attempt > 1,
        total_steps=learner.total_steps,
    )


class Opened(NamedTuple):
    """What a session starts with.

    Attributes:
        policies: the copies that act.
        turn: with lockstep, after a resume: where the running episodes stood.
        best: the highest mean reward so far that is on disk, and the steps of its policy.
    """

    policies: PolicyBuffer
    turn: ResumePoint
    best: tuple[float, int] | None


def open_learning(learner: Learner, config: SessionConfig, run: TrainingRun | None) -> Opened:
    """Restore the newest checkpoint, if there is one, and let the learner begin.

    Raises:
        CheckpointCorrupt, CheckpointNotFound, JournalBroken, ConfigError: As for ``_restore_newest``.
        WriteFailed: Nothing can be written there.
    """
    turn, best = ResumePoint(), None
    if run is not None:
        turn = _restore_newest(learner, run)
        if run.is_new:
            run.is_new = False
        else:
            best = run.load_best_score()
            run.note_attempt(learner.total_steps, learner.total_episodes, learner.n_events, learner.opt_steps)
    return Opened(_begin_learning(learner, config, run, turn), turn, best)


def _restore_newest(learner: Learner, run: TrainingRun) -> ResumePoint:
    """Become what the newest checkpoint holds that can be given back whole; older ones are tried, and told.

    Returns:
        Where running episodes stood, if both then and now are in lockstep.

    Raises:
        CheckpointCorrupt, JournalBroken: There are checkpoints, and none can be given back. Nothing is
            changed: the next try finds what this one found.
        CheckpointNotFound: There were checkpoints, and they are gone.
        ConfigError: The run is of another agent.
    """
    if run.is_new:
        return ResumePoint()
    problem: JournalBroken | None = None
    for path, state in run.candidates():
        if state["session"].get("run_started_at") not in (None, learner.run_started_at):
            raise CheckpointCorrupt(path, "it is of another run: put this run's own file back, or remove it")
        try:
            restore(learner, state, run.journal)
            is_exact = learner.is_lockstep and state["session"]["lockstep"]
            turn = read_resume_point(learner, run.journal) if is_exact else ResumePoint()
        except JournalBroken as error:
            if problem is None:
                problem = error
                error.add_note(_way_out(run, state["session"]["total_steps"]))
            logger.warning("%s cannot be resumed: %s; trying the one before", path.name, error)
            continue
        _tell_lost_rows(learner, run)
        return turn
    if problem is not None:
        raise problem
    return ResumePoint()


def _way_out(run: TrainingRun, step: int) -> str:
    words = [
        "stoker",
        "fork",
        str(run.directory),
        "--at-step",
        str(step),
        "--name",
        "NEW",
        "--without-replay",
    ]
    return f"to go on from step {step} with an empty replay, in a new run: `{shlex.join(words)}`"


def _tell_lost_rows(learner: Learner, run: TrainingRun) -> None:
    """Warn about rows that are gone; training continues without them."""
    for lost in lost_rows(run, learner.total_episodes, learner.eval_episodes, learner.n_records):
        words = shlex.join(["stoker", "verify", str(run.directory)])
        logger.warning("%s; the training goes on all the same; `%s` says more", lost, words)


def _begin_learning(
    learner: Learner, config: SessionConfig, run: TrainingRun | None, turn: ResumePoint
) -> PolicyBuffer:
    """Open the journal, make the acting copies, and abandon the episodes that no actor continues."""
    torch.get_num_threads()  # a new thread follows set_num_threads only once it has asked
    journal = None if run is None or not config.journal else _journal(learner, config, run)
    policies = learner.begin(journal)
    if not turn.episodes:
        learner.give_up_episodes()
    return policies


def _journal(learner: Learner, config: SessionConfig, run: TrainingRun) -> EventJournal:
    run.begin_journal()
    agent = learner.agent
    # A point is of use only if nothing is missing behind it: an attempt may have been without a journal.
    first = run.journal.leads_from(learner.n_events)
    points = [
        (header.first_event, int(header.rebuild["n_added"]))
        for _, header in run.journal.headers()
        if header.rebuild is not None
        and first is not None
        and first <= header.first_event <= learner.n_events
    ]
    return EventJournal(
        run.open_segment,
        attempt=run.attempt,
        periods=config.periods,
        segment_bytes=config.journal_segment_bytes,
        rebuild_point=agent.rebuild_point if isinstance(agent, RebuildsReplay) else None,
        points=points,
    )
