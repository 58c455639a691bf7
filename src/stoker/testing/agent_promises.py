"""What an agent promises, as checks to run on your own: ``LearningAgent`` and what it may be besides.

Each check makes agents with the factory and drives them as a session does, with two actors whose steps are
interleaved. What they are fed was played once, by an agent of the same factory; so the factory must make
equal agents (the same seed), with a warm-up shorter than the suite's steps.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from stoker.agents.protocol import ChecksInput, LearningAgent, PortablePolicy
from stoker.errors import InvalidExperience, StokerError
from stoker.testing.agent_saving import (
    a_deep_copy_is_an_agent_of_its_own,
    a_foreign_state_is_refused,
    a_resume_goes_on_bit_equal,
    policy_extras_survive_a_journal,
    the_replay_can_be_rebuilt,
    the_state_loads_with_weights_only,
)
from stoker.testing.contract import Check, ContractViolation, brief, difference, named_checks, run_checks
from stoker.testing.lessons import (
    ACTORS,
    Lessons,
    changed,
    feed,
    greedy,
    is_close,
    state_of,
    through_file,
    weights_of,
)
from stoker.types import ActMode

__all__ = ["agent_contract", "check_agent"]


def check_agent(
    make_agent: Callable[[], LearningAgent], make_env: Callable[[], Any], *, steps: int = 300
) -> None:
    """Hold an agent against every promise that a session relies on.

    Args:
        make_agent: makes the agent, each time the same one: of the same seed and settings.
        make_env: makes a ``gymnasium.Env`` that it can learn from.
        steps: how many transitions it is fed; let it be past its warm-up by half of them.

    Raises:
        ContractViolation: It names the broken promise, what was seen, and what was expected.
    """
    run_checks(agent_contract(make_agent, make_env, steps=steps))


def agent_contract(
    make_agent: Callable[[], LearningAgent], make_env: Callable[[], Any], *, steps: int = 300
) -> list[Check]:
    """The same as a list of named checks, for a test framework to go through."""
    return named_checks(_CHECKS, Lessons(make_agent, make_env, steps))


# Acting -------------------------------------------------------------------------------------------


def acts_once_per_observation(lessons: Lessons) -> None:
    """Act gives one action per observation, each one of the environment's, and as many extras or none."""
    agent = lessons.make_agent()
    for mode in ActMode:
        for count in (1, 2, 5):
            actions, extras = agent.policy().act(lessons.observations[:count], mode)
            if len(actions) != count or (extras is not None and len(extras) != count):
                seen = f"{len(actions)} actions and {'no' if extras is None else len(extras)} extras"
                raise ContractViolation(
                    "act answers each observation", f"{seen} for {count}", f"{count} actions"
                )
            for action in actions:
                if action not in lessons.action_space:
                    raise ContractViolation(
                        "act gives the environment's actions", brief(action), str(lessons.action_space)
                    )


def grouping_does_not_change_greedy_actions(lessons: Lessons) -> None:
    """With EXPLOIT the action depends on its observation alone: not on its place, its company or chance."""
    agent = lessons.trained()
    policy, observations = agent.policy(), lessons.observations
    together = greedy(policy, observations)
    for name, apart in (
        ("one by one", [greedy(policy, [observation])[0] for observation in observations]),
        ("in reverse", greedy(policy, observations[::-1])[::-1]),
        ("a second time", greedy(policy, observations)),
    ):
        for place, (one, other) in enumerate(zip(together, apart, strict=True)):
            if not is_close(one, other):
                raise ContractViolation(
                    "greedy actions do not depend on who else is asked",
                    f"{brief(other)} when asked {name}, {brief(one)} together, for observation {place}",
                    "the same action",
                )


def policies_are_copies(lessons: Lessons) -> None:
    """A policy does not change when the agent learns, nor when another policy is published to."""
    agent = lessons.make_agent()
    policy, other = agent.policy(), agent.policy()
    if cast("Any", policy) is agent:
        return  # one without parameters may be its own policy
    before = _acting(policy, lessons)
    feed(agent, lessons.experiences)
    if problem := difference(before, _acting(policy, lessons), "policy"):
        raise ContractViolation("a policy is independent of learning", problem, "as it was before")
    agent.publish(other)
    if problem := difference(before, _acting(policy, lessons), "policy"):
        raise ContractViolation("policies are independent of each other", problem, "as it was before")


def publish_brings_a_policy_up_to_date(lessons: Lessons) -> None:
    """After publish a policy is what a new one would be."""
    agent = lessons.make_agent()
    policy = agent.policy()
    feed(agent, lessons.experiences)
    agent.publish(policy)
    if problem := difference(_acting(agent.policy(), lessons), _acting(policy, lessons), "policy"):
        raise ContractViolation("publish brings a policy up to date", problem, "what policy() gives")


# Learning -----------------------------------------------------------------------------------------


def counts_total_steps(lessons: Lessons) -> None:
    """Total_steps grows by the number of transitions observed."""
    agent = lessons.make_agent()
    expected, at = agent.total_steps, 0
    for count in (1, 3, 5):
        agent.observe(lessons.experiences[at : at + count])
        at, expected = at + count, expected + count
        if agent.total_steps != expected:
            raise ContractViolation(
                "total_steps counts transitions", f"{agent.total_steps} after {at}", str(expected)
            )


def learns_and_says_what(lessons: Lessons) -> None:
    """Learn gives None or finite numbers by name, and does something before the suite's steps are over."""
    metrics = [said.metrics for said in feed(lessons.make_agent(), lessons.experiences)]
    if all(each is None for each in metrics):
        raise ContractViolation(
            "learn does an optimization step once the warm-up is over",
            f"None in all of {len(metrics)} calls",
            "metrics in some: give the suite an agent with a shorter warm-up, or more steps",
        )
    for at, each in enumerate(metrics, 1):
        if each is not None and (problem := _no_numbers(each)):
            raise ContractViolation(
                "learn gives None or finite numbers by name",
                f"{problem} after step {at}",
                "a str and a float",
            )


def the_same_calls_give_the_same_agent(lessons: Lessons) -> None:
    """Two equal agents that do the same are equal: all chance comes from their own seeded generators."""
    one, other = (lessons.play(lessons.make_agent()) for _ in range(2))
    for what in ("actions", "said", "state"):
        if problem := difference(getattr(one, what), getattr(other, what), what):
            raise ContractViolation("equal agents stay equal", problem, "the same, from its own generators")


def slices_do_not_matter(lessons: Lessons) -> None:
    """Observing many transitions at once is observing them one by one."""
    one, other = lessons.make_agent(), lessons.make_agent()
    for experience in lessons.experiences:
        one.observe([experience])
    rest, counts = lessons.experiences, (1, 7, 2, 30)
    for at in range(len(rest)):
        count = counts[at % len(counts)]
        if rest:
            other.observe(rest[:count])
        rest = rest[count:]
    if problem := difference(state_of(one), state_of(other), "state"):
        raise ContractViolation("slices of any length come to the same", problem, "equal states")


# Episodes -----------------------------------------------------------------------------------------


def extras_are_finite_numbers(lessons: Lessons) -> None:
    """What it has to say of an episode is finite numbers by name, also for an unknown actor."""
    agent = lessons.trained()
    for actor_id in (*ACTORS, "unknown"):
        if problem := _no_numbers(agent.episode_extras(actor_id)):
            raise ContractViolation(
                "episode_extras gives finite numbers by name", problem, "a str and a float"
            )


def extras_belong_to_their_actor(lessons: Lessons) -> None:
    """What it has to say of an actor's episode does not depend on what others got, or whether they begin."""
    mine, theirs = ACTORS
    played = lessons.experiences[: max(2, len(lessons.experiences) // 2)]
    found: list[Any] = []
    for is_changed in (False, True):
        agent = lessons.make_agent()
        for experience in played:
            more = 1.0 if is_changed and experience.actor_id == theirs else 0.5
            agent.observe([changed(experience, reward=experience.reward + more)])
            if experience.status.is_done:
                if experience.actor_id == mine:
                    found.append(dict(agent.episode_extras(mine)))
                agent.on_episode_start(experience.actor_id)
        if is_changed:
            agent.on_episode_start(theirs)
        found.append(dict(agent.episode_extras(mine)))
    half = len(found) // 2
    if problem := difference(found[:half], found[half:], "extras"):
        raise ContractViolation(
            "an actor's extras are its own", f"with other rewards for another actor, {problem}", "the same"
        )


def beginning_twice_does_no_harm(lessons: Lessons) -> None:
    """Saying twice in a row that an episode begins is the same as once, also for an unknown actor."""
    agent = lessons.trained()
    for actor_id in (*ACTORS, "unknown"):
        agent.on_episode_start(actor_id)
        before = state_of(agent)
        agent.on_episode_start(actor_id)
        if problem := difference(before, state_of(agent), "state"):
            raise ContractViolation("a second on_episode_start changes nothing", problem, "an equal state")


# What it may be besides ---------------------------------------------------------------------------


def input_is_checked(lessons: Lessons) -> None:
    """If it checks its input, it takes what is right, refuses what is not, and is not changed by looking."""
    agent = lessons.make_agent()
    if not isinstance(agent, ChecksInput):
        return
    before = state_of(agent)
    for experience in lessons.experiences:
        agent.check_experience(experience)
        agent.check_observation(experience.observation)
    good = lessons.experiences[0]
    for what, spoilt in _spoilt(good.observation):
        for where, check in (
            ("check_observation", lambda bad=spoilt: agent.check_observation(bad)),
            ("check_experience", lambda bad=spoilt: agent.check_experience(changed(good, observation=bad))),
            (
                "check_experience",
                lambda bad=spoilt: agent.check_experience(changed(good, next_observation=bad)),
            ),
        ):
            try:
                check()
            except InvalidExperience:
                continue
            except StokerError as error:
                raise ContractViolation(
                    f"{where} refuses {what}", brief(error), "InvalidExperience"
                ) from error
            raise ContractViolation(f"{where} refuses {what}", "nothing was raised", "InvalidExperience")
    if problem := difference(before, state_of(agent), "state"):
        raise ContractViolation("checking changes nothing", problem, "an equal state")


def portable_policies_travel(lessons: Lessons) -> None:
    """If its policy is portable, forks are independent, and weights make one act as another."""
    agent = lessons.make_agent()
    policy = agent.policy()
    if not isinstance(policy, PortablePolicy):
        return
    ForkingPickler.dumps(policy)
    copied = copy.deepcopy(policy)  # as a pickle is made and read
    before = state_of(agent)
    fork, twin = policy.fork(11), policy.fork(11)
    explored = [list(each.act(lessons.observations, ActMode.EXPLORE)[0]) for each in (fork, twin)]
    if problem := difference(explored[0], explored[1], "actions"):
        raise ContractViolation("forks of one seed explore alike", problem, "the same actions")
    if problem := difference(before, state_of(agent), "state"):
        raise ContractViolation("a fork draws from its own generator", problem, "the agent as before")
    old = policy.weights()
    kept = through_file(old)
    feed(agent, lessons.experiences)
    agent.publish(policy)
    if problem := difference(kept, old, "weights"):
        raise ContractViolation("weights are of their own memory", problem, "as they were when given")
    if problem := difference(kept, fork.weights(), "weights"):
        raise ContractViolation("a fork is independent of its policy", problem, "as it was when made")
    fork.load_weights(through_file(policy.weights()))
    if problem := difference(policy.weights(), fork.weights(), "weights"):
        raise ContractViolation("load_weights takes what weights gave", problem, "the same weights")
    copied.load_weights(through_file(policy.weights()))
    for name, other in (("a fork", fork), ("a copied policy", copied)):
        if problem := difference(_acting(policy, lessons), _acting(other, lessons), "policy"):
            raise ContractViolation(
                f"with its weights {name} acts as the policy", problem, "the same actions"
            )


_CHECKS = [
    acts_once_per_observation,
    counts_total_steps,
    learns_and_says_what,
    the_state_loads_with_weights_only,
    the_same_calls_give_the_same_agent,
    grouping_does_not_change_greedy_actions,
    policies_are_copies,
    publish_brings_a_policy_up_to_date,
    slices_do_not_matter,
    extras_are_finite_numbers,
    extras_belong_to_their_actor,
    beginning_twice_does_no_harm,
    a_resume_goes_on_bit_equal,
    a_deep_copy_is_an_agent_of_its_own,
    a_foreign_state_is_refused,
    policy_extras_survive_a_journal,
    the_replay_can_be_rebuilt,
    input_is_checked,
    portable_policies_travel,
]


def _acting(policy: Any, lessons: Lessons) -> dict[str, Any]:
    """All of a policy that can be looked at: its weights, and what it would do."""
    return {"weights": weights_of(policy), "actions": greedy(policy, lessons.observations)}


def _no_numbers(values: Any) -> str | None:
    """What is wrong with finite numbers by name; None: nothing."""
    if not isinstance(values, Mapping):
        return brief(values)
    for key, value in cast("Mapping[Any, Any]", values).items():
        if not isinstance(key, str) or isinstance(value, bool) or not isinstance(value, int | float):
            return f"{key!r}: {brief(value)}"
        if not math.isfinite(value):
            return f"{key!r}: {value}"
    return None


def _spoilt(observation: Any) -> Sequence[tuple[str, Any]]:
    """Observations that are none, with what is wrong with them; nothing for those that are no arrays."""
    if not isinstance(observation, np.ndarray):
        return []
    array = cast("NDArray[Any]", observation)
    spoilt: list[tuple[str, Any]] = [("another shape", np.zeros((*array.shape, 2), array.dtype))]
    if array.dtype.kind == "f" and array.size:
        nan = array.copy()
        nan.flat[0] = np.nan
        spoilt.append(("NaN", nan))
    return spoilt
