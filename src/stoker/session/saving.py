"""What a checkpoint holds, and how a session becomes it again.

    step_<N>.pt, latest.pt   format, kind="step", agent_type, agent, replay (if the agent has one), session
    best.pt                  format, kind="best", agent_type, agent, session, best (value, total_steps)

Everything in one file comes from one point between two events.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stoker.agents.protocol import HasReplay
from stoker.errors import ConfigError
from stoker.writer import stage

if TYPE_CHECKING:
    from stoker.session.learner import Learner

__all__ = ["agent_type", "best_state", "restore", "step_state", "weights_state"]

FORMAT = 1


def agent_type(agent: Any) -> str:
    """What kind of agent this is, as checkpoints name it."""
    return type(agent).__name__


def step_state(learner: Learner) -> dict[str, Any]:
    """Stage all that a resume needs."""
    agent = learner.agent
    state: dict[str, Any] = {**weights_state(learner), "kind": "step"}
    state["session"] |= {
        "stats": stage(learner.stats.state_dict(), "stats"),
        "actor_episodes": dict(learner.actor_episodes),
    }
    if isinstance(agent, HasReplay):
        state["replay"] = stage(agent.replay.state_dict(), "replay")
    return state


def weights_state(learner: Learner) -> dict[str, Any]:
    """Stage the agent without its replay: what ``best`` needs."""
    return {
        "format": FORMAT,
        "agent_type": agent_type(learner.agent),
        "agent": stage(learner.agent.state_dict(), "agent"),
        "session": {
            "total_steps": learner.total_steps,
            "total_episodes": learner.total_episodes,
            "opt_steps": learner.opt_steps,
        },
    }


def best_state(weights: Mapping[str, Any], value: float, total_steps: int) -> dict[str, Any]:
    """The content of ``best.pt`` for a candidate that has won."""
    return {**weights, "kind": "best", "best": {"value": value, "total_steps": total_steps}}


def restore(learner: Learner, state: Mapping[str, Any]) -> None:
    """Let the learner and its agent become what a step checkpoint holds.

    Raises:
        ConfigError: It is of another format, kind or agent.
    """
    if state.get("format") != FORMAT:
        raise ConfigError(f"the checkpoint has format {state.get('format')!r}, this stoker reads {FORMAT}")
    if state["agent_type"] != agent_type(learner.agent):
        raise ConfigError(
            f"the run was trained by the agent {state['agent_type']}, this is {agent_type(learner.agent)}: "
            f"resume it with {state['agent_type']}, or create a new run"
        )
    learner.agent.load_state_dict(state["agent"])
    if isinstance(learner.agent, HasReplay) and "replay" in state:
        learner.agent.replay.load_state_dict(state["replay"])
    session = state["session"]
    learner.total_steps = session["total_steps"]
    learner.total_episodes = session["total_episodes"]
    learner.opt_steps = session["opt_steps"]
    learner.actor_episodes = dict(session["actor_episodes"])
    learner.stats.load_state_dict(session["stats"])
