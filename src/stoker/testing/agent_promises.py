"""The promises of an agent, as checks to run on your own: ``LearningAgent`` and its optional capabilities.

Each check makes agents with the factory and drives them as a session does, with the interleaved steps of two
actors. An agent of the same factory plays these steps once, so the factory must make equal agents (same seed)
with a warm-up shorter than the suite's steps.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from functools import partial
from multiprocessing.reduction import ForkingPickler
from typing import Any, cast

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from stoker.agents.protocol import ChecksInput, LearningAgent, PortablePolicy, RebuildsReplay
from stoker.errors import ConfigError, InvalidExperience
from stoker.journal.codec import decode, encode
from stoker.testing.agent_driving import (
    ACTORS,
    AgentSuite,
    feed,
    greedy,
    is_close,
    load_state,
    reshaped,
    snapshot,
    state_of,
)
from stoker.testing.contract import (
    Contract,
    brief,
    difference,
    expect,
    expect_error,
    expect_numbers,
    expect_same,
    through_file,
)
from stoker.types import ActMode, Experience

__all__ = ["check_agent"]

check_agent = Contract(AgentSuite)
"""Checks every promise of an agent that a session relies on; ``AgentSuite`` lists the arguments."""


# Acting and learning ------------------------------------------------------------------------------


@check_agent.promise
def acts_once_per_observation(suite: AgentSuite) -> None:
    """Act gives one action of the action space per observation, and as many policy extras or none."""
    agent = suite.make_agent()
    for mode in ActMode:
        for count in (1, 2, 5):
            actions, extras = agent.policy().act(suite.observations[:count], mode)
            seen = f"{len(actions)} actions and {'no' if extras is None else len(extras)} extras for {count}"
            is_kept = len(actions) == count and (extras is None or len(extras) == count)
            expect(is_kept, "act answers each observation", seen, f"{count} actions")
            for action in actions:
                promise = "act gives the environment's actions"
                expect(action in suite.action_space, promise, brief(action), str(suite.action_space))


@check_agent.promise
def counts_total_steps(suite: AgentSuite) -> None:
    """The agent's total_steps grows by the number of transitions observed."""
    agent = suite.make_agent()
    expected, at = agent.total_steps, 0
    for count in (1, 3, 5):
        agent.observe(suite.experiences[at : at + count])
        at, expected = at + count, expected + count
        seen = f"{agent.total_steps} after {at}"
        expect(agent.total_steps == expected, "total_steps counts transitions", seen, str(expected))


@check_agent.promise
def learns_and_reports_metrics(suite: AgentSuite) -> None:
    """Learn gives None or finite numbers by name, and learns before the suite's steps are over."""
    metrics = [report.metrics for report in feed(suite.make_agent(), suite.experiences)]
    expect(
        any(each is not None for each in metrics),
        "learn does an optimization step after the warm-up",
        f"None in all of {len(metrics)} calls",
        "metrics in some: give the suite an agent with a shorter warm-up, or more steps",
    )
    for at, each in enumerate(metrics, 1):
        if each is not None:
            expect_numbers("learn gives None or finite numbers by name", each, f" after step {at}")


@check_agent.promise
def the_state_loads_with_weights_only(suite: AgentSuite) -> None:
    """``torch.load(weights_only=True)`` loads the agent's state unchanged."""
    state = suite.trained().state_dict()
    expect_same("a state comes back from a file", state, through_file(state), "state")


@check_agent.promise
def the_same_calls_give_the_same_agent(suite: AgentSuite) -> None:
    """Equal agents that get the same calls stay equal: all chance comes from their own seeded generators."""
    one, other = (suite.play(suite.make_agent()) for _ in range(2))
    for what in ("actions", "reports", "state"):
        mine, its = getattr(one, what), getattr(other, what)
        expect_same("equal agents stay equal", mine, its, what, "the same, from its own generators")


@check_agent.promise
def grouping_does_not_change_greedy_actions(suite: AgentSuite) -> None:
    """With EXPLOIT an action depends on its observation alone: not on its place, on others or on chance."""
    policy, observations = suite.trained().policy(), suite.observations
    together = greedy(policy, observations)
    for how, apart in (
        ("one by one", [greedy(policy, [observation])[0] for observation in observations]),
        ("in reverse", greedy(policy, observations[::-1])[::-1]),
        ("a second time", greedy(policy, observations)),
    ):
        for place, (one, other) in enumerate(zip(together, apart, strict=True)):
            promise = "a greedy action depends on its observation alone"
            seen = f"{brief(other)} when asked {how}, {brief(one)} together, for observation {place}"
            expect(is_close(one, other), promise, seen, "the same action")


@check_agent.promise
def policies_are_copies(suite: AgentSuite) -> None:
    """A policy changes neither when the agent learns nor when the agent publishes to another policy."""
    agent = suite.make_agent()
    policy, other = agent.policy(), agent.policy()
    if cast("Any", policy) is agent:
        return  # an agent without parameters may be its own policy
    before = snapshot(policy, suite)
    feed(agent, suite.experiences)
    expect_same("a policy is independent of learning", before, snapshot(policy, suite), "policy")
    agent.publish(other)
    expect_same("policies are independent of each other", before, snapshot(policy, suite), "policy")


@check_agent.promise
def publish_brings_a_policy_up_to_date(suite: AgentSuite) -> None:
    """After publish a policy equals a new one."""
    agent = suite.make_agent()
    policy = agent.policy()
    feed(agent, suite.experiences)
    agent.publish(policy)
    new, published = snapshot(agent.policy(), suite), snapshot(policy, suite)
    expect_same("publish brings a policy up to date", new, published, "policy", "what policy() gives")


@check_agent.promise
def slices_do_not_matter(suite: AgentSuite) -> None:
    """Observing many transitions in one call equals observing them one by one."""
    one, other = suite.make_agent(), suite.make_agent()
    for experience in suite.experiences:
        one.observe([experience])
    rest, counts = suite.experiences, itertools.cycle((1, 7, 2, 30))
    while rest:
        count = next(counts)
        other.observe(rest[:count])
        rest = rest[count:]
    promise = "slices of any length give the same agent"
    expect_same(promise, state_of(one), state_of(other), "state", "equal states")


# Episodes -----------------------------------------------------------------------------------------


@check_agent.promise
def extras_are_finite_numbers(suite: AgentSuite) -> None:
    """The extras of an episode are finite numbers by name, also for an unknown actor."""
    agent = suite.trained()
    for actor_id in (*ACTORS, "unknown"):
        expect_numbers("episode_extras gives finite numbers by name", agent.episode_extras(actor_id))


@check_agent.promise
def extras_belong_to_their_actor(suite: AgentSuite) -> None:
    """The extras of an actor's episode depend neither on the rewards nor on the episodes of other actors."""
    mine, theirs = ACTORS
    played = suite.experiences[: max(2, len(suite.experiences) // 2)]
    found: list[list[Any]] = []
    for is_changed in (False, True):
        agent = suite.make_agent()
        extras: list[Any] = []
        for experience in played:
            more = 1.0 if is_changed and experience.actor_id == theirs else 0.5
            agent.observe([replace(experience, reward=experience.reward + more)])
            if experience.status.is_done:
                if experience.actor_id == mine:
                    extras.append(dict(agent.episode_extras(mine)))
                agent.on_episode_start(experience.actor_id)
        if is_changed:
            agent.on_episode_start(theirs)
        found.append([*extras, dict(agent.episode_extras(mine))])
    one, other = found
    expect_same("an actor's extras depend on its own episode", one, other, "with other rewards for another")


@check_agent.promise
def beginning_twice_does_no_harm(suite: AgentSuite) -> None:
    """A second on_episode_start in a row changes nothing, also for an unknown actor."""
    agent = suite.trained()
    for actor_id in (*ACTORS, "unknown"):
        agent.on_episode_start(actor_id)
        before = state_of(agent)
        agent.on_episode_start(actor_id)
        expect_same("a second on_episode_start changes nothing", before, state_of(agent), "state")


# Saving, restoring, copying -----------------------------------------------------------------------


@check_agent.promise
def a_resume_is_bit_exact(suite: AgentSuite) -> None:
    """An agent that is saved at any point and restored continues bit by bit as without a resume."""
    experiences = suite.experiences
    points = [*sorted({0, 1, *range(0, len(experiences), max(1, len(experiences) // 6))}), len(experiences)]
    stretches = [experiences[first:last] for first, last in itertools.pairwise(points)]
    agent = suite.make_agent()
    states: list[Any] = [state_of(agent)]
    expected: list[Any] = []
    for stretch in stretches:
        expected.append(_learn_and_explore(agent, stretch, suite))
        states.append(state_of(agent))
    for place, (point, state) in enumerate(zip(points, states, strict=True)):
        resumed = suite.make_agent()
        load_state(resumed, state)
        seen = f"total_steps={resumed.total_steps}"
        expect(resumed.total_steps == point, "a resume restores the count", seen, str(point))
        found = [_learn_and_explore(resumed, stretch, suite) for stretch in stretches[place:]]
        promise = f"saved after {point} of {len(experiences)} transitions, a resume continues bit by bit"
        expect_same(promise, expected[place:], found, "then", "the same as without a resume")
        expect_same(promise, states[-1], state_of(resumed), "state", "the same as without a resume")


@check_agent.promise
def a_deep_copy_is_independent(suite: AgentSuite) -> None:
    """If copy.deepcopy copies the agent, it learns and acts as the agent would, with its own weights."""
    middle = len(suite.experiences) // 2  # usually in the middle of episodes
    first, second = suite.experiences[:middle], suite.experiences[middle:]
    agent, uncopied = suite.make_agent(), suite.make_agent()
    for each in (agent, uncopied):
        feed(each, first)
    try:
        copied = copy.deepcopy(agent)
    except Exception:  # noqa: BLE001 - an agent that cannot be copied may raise any error
        return
    before, policy = state_of(agent), copied.policy()
    reports, expected = feed(copied, second), feed(uncopied, second)
    copied.publish(policy)
    one = {"reports": expected, "state": state_of(uncopied), "policy": snapshot(uncopied.policy(), suite)}
    other = {"reports": reports, "state": state_of(copied), "policy": snapshot(policy, suite)}
    promise = "a deep copy continues bit by bit"
    expect_same(promise, one, other, "afterwards", "the same, or an error from copying")
    expect_same("an agent does not learn with its copy", before, state_of(agent), "state")


@check_agent.promise
def a_foreign_state_is_refused(suite: AgentSuite) -> None:
    """The state of another kind of agent, or of other shapes, is a ConfigError and changes nothing."""
    agent = suite.trained()
    before = state_of(agent)
    foreign = {"of another agent": {"agent": "of another kind"}, "of other shapes": reshaped(before["agent"])}
    for what, state in foreign.items():
        if difference(state, before["agent"]):  # an agent without tensors has no other shapes
            expect_error(f"a state {what} is refused", ConfigError, partial(agent.load_state_dict, state))
            expect_same(f"a refused state {what} changes nothing", before, state_of(agent), "state")


@check_agent.promise
def policy_extras_survive_a_journal(suite: AgentSuite) -> None:
    """Policy extras can be written to a journal, and the agent learns the same from them when read back."""
    read = [
        replace(experience, policy_extras=decode(encode(experience.policy_extras, "policy_extras")))
        for experience in suite.experiences
    ]
    one, other = suite.make_agent(), suite.make_agent()
    reports, again = feed(one, suite.experiences), feed(other, read)
    promise = "an agent learns the same from policy extras of a journal"
    expect_same(promise, reports, again, "reports")
    expect_same(promise, state_of(one), state_of(other), "state")


# Optional capabilities ----------------------------------------------------------------------------


@check_agent.promise
def the_replay_can_be_rebuilt(suite: AgentSuite) -> None:
    """With ``RebuildsReplay``: observing the same transitions again gives the same replay."""
    agent, rebuilt = suite.make_agent(), suite.make_agent()
    if not isinstance(agent, RebuildsReplay) or not isinstance(rebuilt, RebuildsReplay):
        return
    point = through_file(agent.rebuild_point())
    feed(agent, suite.experiences)
    reference = through_file(agent.replay_reference())
    rebuilt.begin_rebuild(point, reference)
    for experience in suite.experiences:
        rebuilt.observe([experience])
        if experience.status.is_done:
            rebuilt.on_episode_start(experience.actor_id)
    rebuilt.load_state_dict(through_file(agent.state_dict()))
    rebuilt.end_rebuild(reference)
    promise = "a replay is rebuilt by observing again"
    expect_same(promise, state_of(agent), state_of(rebuilt), "state", "equal replays")


@check_agent.promise
def input_is_checked(suite: AgentSuite) -> None:
    """With ``ChecksInput``: checks accept valid input, refuse NaN and wrong shapes, and change nothing."""
    agent = suite.make_agent()
    if not isinstance(agent, ChecksInput):
        return
    before = state_of(agent)
    for experience in suite.experiences:
        agent.check_experience(experience)
        agent.check_observation(experience.observation)
    valid = suite.experiences[0]
    for what, invalid in _invalid_like(valid.observation):
        observe = partial(agent.check_observation, invalid)
        expect_error(f"check_observation refuses {what}", InvalidExperience, observe)
        for name in ("observation", "next_observation"):
            learn = partial(agent.check_experience, replace(valid, **{name: invalid}))
            expect_error(f"check_experience refuses {what}", InvalidExperience, learn)
    expect_same("checking changes nothing", before, state_of(agent), "state")


@check_agent.promise
def portable_policies_travel(suite: AgentSuite) -> None:
    """With ``PortablePolicy``: forks and copies are independent, and act by the weights that they load."""
    agent = suite.make_agent()
    policy = agent.policy()
    if not isinstance(policy, PortablePolicy):
        return
    ForkingPickler.dumps(policy)
    copied = copy.deepcopy(policy)  # by the same methods as pickling
    before = state_of(agent)
    fork, twin = policy.fork(11), policy.fork(11)
    one, other = (list(each.act(suite.observations, ActMode.EXPLORE)[0]) for each in (fork, twin))
    expect_same("forks of one seed explore alike", one, other, "actions")
    expect_same("a fork draws from its own generator", before, state_of(agent), "state")
    old = policy.weights()
    kept = through_file(old)
    feed(agent, suite.experiences)
    agent.publish(policy)
    expect_same("weights() gives copies", kept, old, "weights", "the weights at the time of the call")
    expect_same("a fork is independent of its policy", kept, fork.weights(), "weights")
    fork.load_weights(through_file(policy.weights()))
    expect_same("load_weights takes what weights() gave", policy.weights(), fork.weights(), "weights")
    copied.load_weights(through_file(policy.weights()))
    for name, each in (("a fork", fork), ("a copied policy", copied)):
        promise = f"with its weights {name} acts as the policy"
        expect_same(promise, snapshot(policy, suite), snapshot(each, suite), "policy")


def _learn_and_explore(agent: LearningAgent, experiences: Sequence[Experience], suite: AgentSuite) -> Any:
    """The agent's reports, and its exploring actions then, which advance its generator."""
    reports = feed(agent, experiences)
    explored = agent.policy().act(suite.observations, ActMode.EXPLORE)[0]
    return {"reports": reports, "explored": list(explored)}


def _invalid_like(observation: Any) -> Sequence[tuple[str, Any]]:
    """Invalid observations, each with its fault; none for those that are not arrays."""
    if not isinstance(observation, np.ndarray):
        return []
    array = cast("NDArray[Any]", observation)
    invalid: list[tuple[str, Any]] = [("another shape", np.zeros((*array.shape, 2), array.dtype))]
    if array.dtype.kind == "f" and array.size:
        invalid.append(("NaN", np.full_like(array, np.nan)))
    return invalid
