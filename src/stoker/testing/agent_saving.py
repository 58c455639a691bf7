"""What an agent promises of being saved and brought back; checks of the agent suite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch

from stoker.agents.protocol import RebuildsReplay
from stoker.errors import ConfigError
from stoker.journal.codec import decode, encode
from stoker.testing.contract import ContractViolation, difference
from stoker.testing.lessons import Lessons, changed, feed, load_state, state_of, through_file
from stoker.types import ActMode

__all__ = [
    "a_foreign_state_is_refused",
    "a_resume_goes_on_bit_equal",
    "policy_extras_survive_a_journal",
    "the_replay_can_be_rebuilt",
    "the_state_loads_with_weights_only",
]


def the_state_loads_with_weights_only(lessons: Lessons) -> None:
    """Its state is of types that ``torch.load(weights_only=True)`` takes, and comes back as it was."""
    agent = lessons.trained()
    state = agent.state_dict()
    if problem := difference(state, through_file(state), "state"):
        raise ContractViolation("a state comes back from a file", problem, "the same")


def a_resume_goes_on_bit_equal(lessons: Lessons) -> None:
    """An agent that loaded a state goes on as the one that gave it: same metrics, actions and state."""
    first, second = lessons.halves
    agent, resumed = lessons.make_agent(), lessons.make_agent()
    feed(agent, first)
    agent.policy().act(lessons.observations, ActMode.EXPLORE)  # moves the generator, if it has one
    load_state(resumed, state_of(agent))
    if resumed.total_steps != agent.total_steps:
        raise ContractViolation(
            "a resume goes on counting", f"total_steps={resumed.total_steps}", str(agent.total_steps)
        )
    said, again = feed(agent, second), feed(resumed, second)
    explored, explored_again = (
        list(each.policy().act(lessons.observations, ActMode.EXPLORE)[0]) for each in (agent, resumed)
    )
    for problem in (
        difference(said, again, "said"),
        difference(explored, explored_again, "explored"),
        difference(state_of(agent), state_of(resumed), "state"),
    ):
        if problem:
            raise ContractViolation("a resume goes on bit by bit", problem, "the same as without a resume")


def a_foreign_state_is_refused(lessons: Lessons) -> None:
    """A state of another kind of agent, or of other shapes, is a ConfigError and changes nothing."""
    agent = lessons.trained()
    before = state_of(agent)
    own = before["agent"]
    foreign: list[tuple[str, Any]] = [("another agent's", {"agent": "of another kind"})]
    if (reshaped := _reshaped(own)) is not None:
        foreign.append(("one with a tensor of another shape", reshaped))
    for what, state in foreign:
        try:
            agent.load_state_dict(state)
        except ConfigError:
            pass
        except Exception as error:
            raise ContractViolation(
                f"a foreign state ({what}) is refused", f"{type(error).__name__}: {error}", "a ConfigError"
            ) from error
        else:
            raise ContractViolation(f"a foreign state ({what}) is refused", "it was loaded", "a ConfigError")
        if problem := difference(before, state_of(agent), "state"):
            raise ContractViolation(f"a refused state ({what}) changes nothing", problem, "as it was before")


def policy_extras_survive_a_journal(lessons: Lessons) -> None:
    """What a policy remembers can be written to a journal, and read back it is learned from alike."""
    read = [
        changed(experience, policy_extras=decode(encode(experience.policy_extras, "policy_extras")))
        for experience in lessons.experiences
    ]
    one, other = lessons.make_agent(), lessons.make_agent()
    if problem := difference(feed(one, lessons.experiences), feed(other, read), "said"):
        raise ContractViolation(
            "policy extras from a journal are as good as new", problem, "the same metrics"
        )
    if problem := difference(state_of(one), state_of(other), "state"):
        raise ContractViolation("policy extras from a journal are as good as new", problem, "an equal state")


def the_replay_can_be_rebuilt(lessons: Lessons) -> None:
    """If it says that its replay can be rebuilt, observing again gives the same replay."""
    agent, rebuilt = lessons.make_agent(), lessons.make_agent()
    if not isinstance(agent, RebuildsReplay) or not isinstance(rebuilt, RebuildsReplay):
        return
    point = through_file(agent.rebuild_point())
    feed(agent, lessons.experiences)
    reference = through_file(agent.replay_reference())
    rebuilt.begin_rebuild(point, reference)
    for experience in lessons.experiences:
        rebuilt.observe([experience])
        if experience.status.is_done:
            rebuilt.on_episode_start(experience.actor_id)
    rebuilt.load_state_dict(through_file(agent.state_dict()))
    rebuilt.end_rebuild(reference)
    if problem := difference(state_of(agent), state_of(rebuilt), "state"):
        raise ContractViolation("a replay is rebuilt by observing again", problem, "an equal replay")


def _reshaped(state: Any) -> Any:
    """The state with its first matrix, or else its first vector of floats, one row longer; None: no such."""
    for n_axes in (2, 1):
        found, changed = _lengthened(state, n_axes)
        if found:
            return changed
    return None


def _lengthened(value: Any, n_axes: int) -> tuple[bool, Any]:
    if isinstance(value, torch.Tensor) and value.is_floating_point() and value.ndim == n_axes:
        return True, torch.cat([value, value[:1]])
    if isinstance(value, dict | list | tuple):
        whole: Any = cast("Any", value)
        places: Sequence[Any] = list(whole) if isinstance(value, dict) else range(len(whole))
        for place in places:
            found, changed = _lengthened(whole[place], n_axes)
            if found:
                parts: Any = dict(whole) if isinstance(value, dict) else list(whole)
                parts[place] = changed
                return True, tuple(parts) if isinstance(value, tuple) else parts
    return False, None
