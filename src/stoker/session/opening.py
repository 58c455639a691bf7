"""Open a session on its run: restore the newest checkpoint, begin an attempt, open the journal.

It blocks, in the learner's thread before the first event, on a locked run. With ``lockstep`` it also finds
the running episodes: resetting an environment with an episode's seed and repeating its actions brings a
deterministic environment back.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from typing import Any, cast

import msgspec
import torch

from stoker.agents.protocol import config_of
from stoker.errors import CheckpointCorrupt, JournalBroken
from stoker.journal import EpisodeStarted, Journal
from stoker.recorders import RunContext, flat_params
from stoker.runs import TrainingRun
from stoker.session.learner import Learner
from stoker.session.state import EventJournal
from stoker.types import ActorId, Experience

__all__ = ["ResumePoint", "RunningEpisode", "context_of", "open_learning"]

logger = logging.getLogger("stoker.session")


class RunningEpisode(msgspec.Struct, frozen=True):
    """An episode up to a checkpoint.

    Attributes:
        seed: the seed of its environment's reset.
        steps: its transitions so far, in order.
    """

    seed: int | None
    steps: tuple[Experience, ...]

    @property
    def is_done(self) -> bool:
        """Whether its last transition ended it; only its record is still to come."""
        return bool(self.steps) and self.steps[-1].status.is_done


class ResumePoint(msgspec.Struct, frozen=True):
    """Where actors that take turns stood.

    Attributes:
        episodes: the running episodes by actor.
        last_actor: the actor of the last event; None: there was none.
    """

    episodes: Mapping[ActorId, RunningEpisode] = {}
    last_actor: ActorId | None = None


def context_of(learner: Learner) -> RunContext:
    """Describe the training to recorders: which run, from which step, with what settings."""
    settings: dict[str, Any] = {"agent_type": type(learner.agent).__name__}
    if (agent_config := config_of(learner.agent)) is not None:
        settings["agent"] = msgspec.to_builtins(agent_config)
    settings["session"] = cast("dict[str, Any]", msgspec.to_builtins(learner.config))
    params, run = flat_params(settings), learner.run
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


def open_learning(learner: Learner) -> ResumePoint:
    """Restore the newest checkpoint, if there is one, and let the learner begin.

    Returns:
        With lockstep, after a resume: where the running episodes stood.

    Raises:
        CheckpointCorrupt, JournalBroken: There are checkpoints, and none can be restored. Nothing is
            changed: the next try finds the same.
        CheckpointNotFound: There were checkpoints, and they are gone.
        ConfigError: The run is of another agent.
        WriteFailed: Nothing can be written there.
    """
    torch.get_num_threads()  # a new thread follows set_num_threads only once it has asked
    point, run, config = ResumePoint(), learner.run, learner.config
    if run is not None:
        if run.is_new:
            run.is_new = False
        else:
            point = _restore_newest(learner, run)
            learner.best = run.load_best_score()
            run.begin_attempt(
                learner.total_steps, learner.total_episodes, learner.n_events, learner.opt_steps
            )
        if config.journal:
            learner.journal = EventJournal(run, learner.agent, config, learner.n_events)
    learner.begin()
    if not point.episodes:
        learner.abandon_episodes()
    return point


def _restore_newest(learner: Learner, run: TrainingRun) -> ResumePoint:
    """Restore the newest checkpoint that can be restored whole."""
    problem: JournalBroken | None = None
    for path, state in run.candidates():
        session = state["session"]
        if session.get("run_started_at") not in (None, learner.run_started_at):
            raise CheckpointCorrupt(path, "it is of another run: put this run's own file back, or remove it")
        try:
            learner.restore(state, run.journal)
            is_exact = learner.config.lockstep and session["lockstep"]
            point = _read_resume_point(learner, run.journal) if is_exact else ResumePoint()
        except JournalBroken as error:
            if problem is None:
                problem = error
                error.add_note(_way_out(run, session["total_steps"]))
            logger.warning("%s cannot be resumed: %s; trying the one before", path.name, error)
            continue
        for lost in run.lost_rows(learner.total_episodes, learner.eval_episodes, learner.n_records):
            verify = shlex.join(["stoker", "verify", str(run.directory)])
            logger.warning("%s; training continues without them; `%s` says more", lost, verify)
        return point
    if problem is not None:
        raise problem
    return ResumePoint()


def _way_out(run: TrainingRun, step: int) -> str:
    command = f"{shlex.join(['stoker', 'fork', str(run.directory)])} --at-step {step} --name NEW"
    return f"to continue from step {step} with an empty replay, in a new run: `{command} --without-replay`"


def _read_resume_point(learner: Learner, journal: Journal) -> ResumePoint:
    """The running episodes of a learner that was just restored.

    Raises:
        JournalBroken: The journal does not reach back to where they began.
    """
    last = learner.n_events
    if last == 0:
        return ResumePoint()
    starts = learner.actors.running
    seeds: dict[ActorId, int | None] = {}
    steps: dict[ActorId, list[Experience]] = {actor_id: [] for actor_id in starts}
    last_actor: ActorId | None = None
    for number, event in journal.read(min([last - 1, *starts.values()]), last):
        actor_id = last_actor = event.actor_id
        if number >= starts.get(actor_id, last):
            if isinstance(event, Experience):
                steps[actor_id].append(event)
            elif isinstance(event, EpisodeStarted):
                seeds[actor_id] = event.seed
    episodes = {actor_id: RunningEpisode(seeds.get(actor_id), tuple(steps[actor_id])) for actor_id in starts}
    return ResumePoint(episodes, last_actor)
