"""What an agent promises of being saved and brought back; checks of the agent suite."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any, cast

import torch

from stoker.agents.protocol import LearningAgent, RebuildsReplay
from stoker.errors import ConfigError
from stoker.journal.codec import decode, encode
from stoker.testing.contract import ContractViolation, difference
from stoker.testing.lessons import (
    Lessons,
    changed,
    feed,
    greedy,
    load_state,
    state_of,
    through_file,
    weights_of,
)
from stoker.types import ActMode, Experience

__all__ = [
    "a_deep_copy_is_an_agent_of_its_own",
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
    """Saved at any point, an agent that loads the state goes on as the one that gave it, bit by bit."""
    experiences = lessons.experiences
    ends = [*sorted({0, 1, *range(0, len(experiences), max(1, len(experiences) // 6))}), len(experiences)]
    stretches = [experiences[first:last] for first, last in itertools.pairwise(ends)]
    agent = lessons.make_agent()
    states: list[Any] = [state_of(agent)]
    expected: list[Any] = []
    for stretch in stretches:
        expected.append(_go_on(agent, stretch, lessons))
        states.append(state_of(agent))
    for place, (at, state) in enumerate(zip(ends, states, strict=True)):
        resumed = lessons.make_agent()
        load_state(resumed, state)
        if resumed.total_steps != at:
            raise ContractViolation(
                "a resume goes on counting", f"total_steps={resumed.total_steps}", str(at)
            )
        found = [_go_on(resumed, stretch, lessons) for stretch in stretches[place:]]
        for problem in (
            difference(expected[place:], found, "then"),
            difference(states[-1], state_of(resumed), "state"),
        ):
            if problem:
                raise ContractViolation(
                    f"saved after {at} of {len(experiences)} transitions, a resume goes on bit by bit",
                    problem,
                    "the same as without a resume",
                )


def a_deep_copy_is_an_agent_of_its_own(lessons: Lessons) -> None:
    """If copy.deepcopy takes it, the copy learns and acts as the agent would, by its own weights."""
    first, second = lessons.halves
    agent, uncopied = lessons.make_agent(), lessons.make_agent()
    for each in (agent, uncopied):
        feed(each, first)
    try:
        copied = copy.deepcopy(agent)
    except Exception:  # noqa: BLE001 - whatever it is: it cannot be copied, and says so
        return
    before, policy = state_of(agent), copied.policy()
    said, expected = feed(copied, second), feed(uncopied, second)
    copied.publish(policy)
    acting, expected_acting = (
        {"weights": weights_of(each), "actions": greedy(each, lessons.observations)}
        for each in (policy, uncopied.policy())
    )
    for problem in (
        difference(expected, said, "said"),
        difference(state_of(uncopied), state_of(copied), "state"),
        difference(expected_acting, acting, "policy"),
    ):
        if problem:
            raise ContractViolation(
                "a deep copy goes on bit by bit",
                problem,
                "the same as without a copy, or an error from the copy",
            )
    if problem := difference(before, state_of(agent), "state"):
        raise ContractViolation("an agent does not learn with its copy", problem, "as it was before")


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


def _go_on(agent: LearningAgent, experiences: Sequence[Experience], lessons: Lessons) -> dict[str, Any]:
    """What an agent says of these, and how it explores then, which moves its generator, if it has one."""
    said = feed(agent, experiences)
    explored = agent.policy().act(lessons.observations, ActMode.EXPLORE)[0]
    return {"said": said, "explored": list(explored)}


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
