"""What a checkpoint holds, and how a session restores it: weights from the file, the replay from the journal.

    step_<N>.pt, latest.pt   format, kind="step", agent_type, agent, session, journal, replay
    best.pt                  format, kind="best", agent_type, agent, session, best (value, total_steps)

``journal`` is the position in the journal, from where a resume must read it, and all of the replay but its
transitions; it is None without a journal. ``replay`` holds the transitions that the journal cannot give back.
What cannot be restored is an error, and the caller tries an older checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stoker.agents.protocol import ChangesByActing, HasReplay, LearningAgent, RebuildsReplay
from stoker.errors import ConfigError, JournalBroken, RunBroken
from stoker.journal import Journal
from stoker.session.state import TrainingState
from stoker.types import Experience
from stoker.writer import StagingArea, stage

__all__ = [
    "FORMAT",
    "acting_state",
    "agent_state",
    "agent_type",
    "best_state",
    "restore",
    "step_state",
    "weights_state",
]

FORMAT = 2


def agent_type(agent: Any) -> str:
    """What kind of agent this is, as checkpoints name it."""
    return type(agent).__name__


def acting_state(agent: LearningAgent) -> dict[str, Any]:
    """Stage the entries of an agent's state that acting changes."""
    if not isinstance(agent, ChangesByActing):
        return {}
    state = agent.state_dict()
    return {name: stage(state[name], f"agent[{name!r}]") for name in agent.acting_state}


def step_state(learner: TrainingState, area: StagingArea, acting: Mapping[str, Any]) -> dict[str, Any]:
    """Copy all that a resume needs into the staging area, whose last content is given up.

    Args:
        learner: between two events.
        area: where to.
        acting: what acting changes, where somebody may have drawn for a step that is not learned yet.
    """
    agent = learner.agent
    state: dict[str, Any] = {
        **_header(learner, "step"),
        "agent": {**agent.state_dict(), **acting},
        "journal": _journal_position(learner),
    }
    state["session"] |= {
        "stats": learner.stats.state_dict(),
        "recent_episodes": learner.metrics.state_dict(),
        "actor_episodes": dict(learner.actors.episodes),
        "open_episodes": learner.actors.running,
        "lockstep": learner.is_lockstep,
        "attempt": learner.attempt,
        "run_started_at": learner.run_started_at,
    }
    if isinstance(agent, HasReplay) and (state["journal"] is None or state["journal"]["replay"] is None):
        state["replay"] = agent.replay.state_dict()
    return area.stage(state)


def _journal_position(learner: TrainingState) -> dict[str, Any] | None:
    """Where the journal stands, and from where it is needed; None without a journal."""
    agent, journal = learner.agent, learner.journal
    if journal is None:
        return None
    needs_from, reference, rebuild_from = learner.n_events, None, None
    if isinstance(agent, RebuildsReplay):
        standing = agent.replay_reference()
        rebuild_from = journal.rebuild_from(int(standing["n_added"]) - int(standing["size"]))
        if rebuild_from is not None:
            needs_from, reference = rebuild_from, standing
    if (
        learner.is_lockstep
    ):  # running episodes are brought back; at least the last event says whose turn it was
        needs_from = min([needs_from, max(learner.n_events - 1, 0), *learner.actors.running.values()])
    return {
        "events": learner.n_events,
        "needs_from": needs_from,
        "rebuild_from": rebuild_from,
        "replay": reference,
    }


def weights_state(learner: TrainingState) -> dict[str, Any]:
    """Stage the agent without its replay: what ``best`` needs."""
    return {**_header(learner, "weights"), "agent": stage(learner.agent.state_dict(), "agent")}


def agent_state(agent: LearningAgent) -> dict[str, Any]:
    """Stage an agent that no session has: what ``torch.load`` finds in the file of a replay."""
    return {
        "format": FORMAT,
        "kind": "weights",
        "agent_type": agent_type(agent),
        "agent": stage(agent.state_dict(), "agent"),
        "session": {"total_steps": agent.total_steps},
    }


def best_state(weights: Mapping[str, Any], value: float, total_steps: int) -> dict[str, Any]:
    """The content of ``best.pt`` for a candidate that has won."""
    return {**weights, "kind": "best", "best": {"value": value, "total_steps": total_steps}}


def _header(learner: TrainingState, kind: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "kind": kind,
        "agent_type": agent_type(learner.agent),
        "session": {
            "total_steps": learner.total_steps,
            "total_episodes": learner.total_episodes,
            "opt_steps": learner.opt_steps,
            "events": learner.n_events,
            "eval_episodes": learner.eval_episodes,
            "records": learner.n_records,
            "kept_steps": learner.kept_steps,
        },
    }


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
