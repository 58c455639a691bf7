"""What a checkpoint holds: the state of a training at one point between two events.

    step_<N>.pt, latest.pt   format, kind="step", agent_type, agent, session, journal, replay
    best.pt                  format, kind="best", agent_type, agent, session, best (value, total_steps)

``journal`` says where the journal of events stood, from where a resume must read it, and all of the replay
but its transitions; it is None without a journal. ``replay`` holds the transitions where the journal cannot
give them back. ``stoker.session.restoring`` is the way back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stoker.agents.protocol import ChangesByActing, HasReplay, LearningAgent, RebuildsReplay
from stoker.session.state import TrainingState
from stoker.writer import StagingArea, stage

__all__ = ["FORMAT", "acting_state", "agent_state", "agent_type", "best_state", "step_state", "weights_state"]

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
        "actor_episodes": learner.actors.episodes,
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
