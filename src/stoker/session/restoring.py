"""How a session becomes what a checkpoint holds: weights from the file, the replay from the journal.

    checkpoint --> agent, counters, stats
    journal ----> replay; with lockstep also the running episodes

Nothing is guessed: what cannot be given back is an error, and the caller goes on to an older checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stoker.agents.protocol import HasReplay, LearningAgent, RebuildsReplay
from stoker.errors import ConfigError, JournalBroken, RunBroken
from stoker.journal import Journal
from stoker.session.saving import FORMAT, agent_type
from stoker.session.state import TrainingState
from stoker.types import Experience

__all__ = ["restore"]

_CHUNK = 1024


def restore(learner: TrainingState, state: Mapping[str, Any], journal: Journal) -> None:
    """Let the learner and its agent become what a step checkpoint holds. Blocks.

    Raises:
        ConfigError: It is of another format, kind or agent.
        JournalBroken: The journal cannot give the replay back.
    """
    if state.get("format") != FORMAT or state.get("kind") != "step":
        raise ConfigError(
            f"the checkpoint is a {state.get('kind')!r} of format {state.get('format')!r}, this stoker "
            f"resumes a 'step' of format {FORMAT}"
        )
    if state["agent_type"] != agent_type(learner.agent):
        raise ConfigError(
            f"the run was trained by the agent {state['agent_type']}, this is {agent_type(learner.agent)}: "
            f"resume it with {state['agent_type']}, or create a new run"
        )
    _restore_agent(learner.agent, state, journal)
    session = state["session"]
    learner.total_steps = session["total_steps"]
    learner.total_episodes = session["total_episodes"]
    learner.opt_steps = session["opt_steps"]
    learner.n_events = session["events"]
    learner.eval_episodes = session["eval_episodes"]
    learner.n_records = session.get("records", 0)
    learner.kept_steps = session.get("kept_steps", 0)
    learner.actors.restore(session["actor_episodes"], session["open_episodes"])
    learner.stats.load_state_dict(session["stats"])
    learner.metrics.load_state_dict(session.get("recent_episodes", ()))
    learner.note_saved()


def _restore_agent(agent: LearningAgent, state: Mapping[str, Any], journal: Journal) -> None:
    position: Mapping[str, Any] | None = state["journal"]
    if position is None or position["replay"] is None:
        agent.load_state_dict(state["agent"])
        if isinstance(agent, HasReplay) and "replay" in state:
            agent.replay.load_state_dict(state["replay"])
        return
    if not isinstance(agent, RebuildsReplay):
        raise ConfigError(
            f"the checkpoint's replay is in the journal, which {type(agent).__name__} cannot read: it lacks "
            "the methods of RebuildsReplay"
        )
    before = agent.replay.state_dict()
    try:
        _observe_again(agent, journal, position)
    except (JournalBroken, RunBroken):
        agent.replay.load_state_dict(before)  # an older checkpoint may bring no replay
        raise
    agent.load_state_dict(state["agent"])
    agent.end_rebuild(position["replay"])


def _observe_again(agent: RebuildsReplay, journal: Journal, position: Mapping[str, Any]) -> None:
    """Let the agent observe what its replay held, without learning from it."""
    first, last = position["rebuild_from"], position["events"]
    points = {header.first_event: header.rebuild for _, header in journal.headers()}
    if points.get(first) is None:
        raise JournalBroken(
            journal.directory, f"no segment begins at event {first}, where the replay must begin"
        )
    agent.begin_rebuild(points[first], position["replay"])
    chunk: list[Experience] = []
    for _, event in journal.read(first, last):
        if isinstance(event, Experience):
            chunk.append(event)
        if chunk and (len(chunk) == _CHUNK or not isinstance(event, Experience)):
            agent.observe(chunk)
            chunk = []
        if not isinstance(event, Experience):
            agent.on_episode_start(event.actor_id)
    if chunk:
        agent.observe(chunk)
