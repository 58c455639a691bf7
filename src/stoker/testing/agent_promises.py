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
import torch
from msgspec.structs import astuple, replace

from stoker.agents.protocol import (
    ChangesSettings,
    ChecksInput,
    LearningAgent,
    ObservesBatches,
    PortablePolicy,
    RebuildsReplay,
    settings_of,
)
from stoker.errors import ConfigError, InvalidExperience
from stoker.journal.codec import decode, encode
from stoker.nested import difference
from stoker.plain import shown
from stoker.testing.agent_driving import (
    ACTORS,
    AgentSuite,
    as_batch,
    feed,
    greedy,
    load_state,
    state_of,
)
from stoker.testing.batch_promises import (
    actors_explore_independently,
    batches_are_checked,
    batches_equal_single_experiences,
    steps_to_learn_are_exact,
)
from stoker.testing.contract import Contract, expect, expect_error, expect_numbers, expect_same, through_file
from stoker.types import ActMode, Experience

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
            expect(is_kept, seen, f"{count} actions, and as many extras or None")
            for action in actions:
                expect(action in suite.action_space, shown(action), f"an action of {suite.action_space}")


@check_agent.promise
def counts_total_steps(suite: AgentSuite) -> None:
    """The agent's total_steps grows by the number of transitions observed."""
    agent = suite.make_agent()
    before = agent.total_steps
    for first, last in itertools.pairwise((0, 1, 4, 9)):
        agent.observe(suite.experiences[first:last])
        found = agent.total_steps
        expect(found == before + last, f"{found} after {last}", str(before + last))


@check_agent.promise
def input_is_left_alone(suite: AgentSuite) -> None:
    """Observing writes into no array: the journal and other transitions have the same one."""
    given = suite.experiences[:20]
    columns = [as_batch(given)] if suite.has_columns else []
    taken = [*columns, *given]
    before = [copy.deepcopy(astuple(each)) for each in taken]
    agent, other = suite.make_agent(), suite.make_agent()
    agent.observe(given)
    agent.learn()
    if isinstance(other, ObservesBatches):
        for batch in columns:
            other.observe_batch(batch)
        other.learn()
    for was, each in zip(before, taken, strict=True):
        expect_same(was, astuple(each), "what was observed", "unchanged")


@check_agent.promise
def learns_and_reports_metrics(suite: AgentSuite) -> None:
    """Learn gives None or finite numbers by name, and learns before the suite's steps are over."""
    reports = feed(suite.make_agent(), suite.experiences)
    expect(
        any(metrics is not None for metrics, _ in reports),
        f"None in all of {len(reports)} calls",
        "metrics in some: give the suite an agent with a shorter warm-up, or more steps",
    )
    for at, (metrics, _) in enumerate(reports, 1):
        if metrics is not None:
            expect_numbers(metrics, f" after step {at}")


@check_agent.promise
def the_state_loads_with_weights_only(suite: AgentSuite) -> None:
    """``torch.load(weights_only=True)`` loads the agent's state unchanged."""
    state = suite.trained().state_dict()
    expect_same(state, through_file(state), "state")


@check_agent.promise
def the_same_calls_give_the_same_agent(suite: AgentSuite) -> None:
    """Equal agents that get the same calls stay equal: all chance comes from their own seeded generators."""
    one, other = (_game(suite) for _ in range(2))
    expect_same(one, other, "game", "the same, from its own generators")


@check_agent.promise
def grouping_does_not_change_greedy_actions(suite: AgentSuite) -> None:
    """With EXPLOIT an action depends on its observation alone: not on its place, on others or on chance."""
    policy, observations = suite.trained().policy(), suite.observations
    together = greedy(policy, observations)
    ways = [
        ("one by one", [greedy(policy, [observation])[0] for observation in observations]),
        ("in reverse", greedy(policy, observations[::-1])[::-1]),
        ("a second time", greedy(policy, observations)),
    ]
    if all(type(observation) is np.ndarray for observation in observations):
        array: Any = np.stack(observations)
        ways.append(("as one array", list(policy.act(array, ActMode.EXPLOIT)[0])))
    for how, apart in ways:
        for place, (one, other) in enumerate(zip(together, apart, strict=True)):
            seen = f"{shown(other)} when asked {how}, {shown(one)} together, for observation {place}"
            expect(_is_close(one, other), seen, "the same action")


@check_agent.promise
def policies_are_copies(suite: AgentSuite) -> None:
    """A policy changes neither when the agent learns nor when the agent publishes to another policy."""
    agent = suite.make_agent()
    policy, other = agent.policy(), agent.policy()
    if cast("Any", policy) is agent:
        return  # an agent without parameters may be its own policy
    before = suite.snapshot(policy)
    feed(agent, suite.experiences)
    expect_same(before, suite.snapshot(policy), "a policy after learning")
    agent.publish(other)
    expect_same(before, suite.snapshot(policy), "a policy after publishing to another one")


@check_agent.promise
def publish_brings_a_policy_up_to_date(suite: AgentSuite) -> None:
    """After publish a policy equals a new one."""
    agent = suite.make_agent()
    policy = agent.policy()
    feed(agent, suite.experiences)
    agent.publish(policy)
    expect_same(suite.snapshot(agent.policy()), suite.snapshot(policy), "policy", "what policy() gives")


@check_agent.promise
def slices_do_not_matter(suite: AgentSuite) -> None:
    """Observing many transitions in one call equals observing them one by one."""
    one, other = suite.make_agent(), suite.make_agent()
    for experience in suite.experiences:
        one.observe([experience])
    rest, counts = iter(suite.experiences), itertools.cycle((1, 7, 2, 30))
    while some := list(itertools.islice(rest, next(counts))):
        other.observe(some)
    expect_same(state_of(one), state_of(other), "state", "equal states")


# Episodes -----------------------------------------------------------------------------------------


@check_agent.promise
def extras_are_finite_numbers(suite: AgentSuite) -> None:
    """The extras of an episode are finite numbers by name, also for an unknown actor."""
    agent = suite.trained()
    for actor_id in (*ACTORS, "unknown"):
        expect_numbers(agent.episode_extras(actor_id))


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
    expect_same(one, other, "extras, with other rewards for another actor")


@check_agent.promise
def beginning_twice_does_no_harm(suite: AgentSuite) -> None:
    """A second on_episode_start in a row changes nothing, also for an unknown actor."""
    agent = suite.trained()
    for actor_id in (*ACTORS, "unknown"):
        agent.on_episode_start(actor_id)
        before = state_of(agent)
        agent.on_episode_start(actor_id)
        expect_same(before, state_of(agent), "state")


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
        saved = f"saved after {point} of {len(experiences)} transitions:"
        expect(resumed.total_steps == point, f"{saved} total_steps={resumed.total_steps}", str(point))
        found = [_learn_and_explore(resumed, stretch, suite) for stretch in stretches[place:]]
        expect_same(expected[place:], found, f"{saved} then", "the same as without a resume")
        expect_same(states[-1], state_of(resumed), f"{saved} state", "the same as without a resume")


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
    one = {"reports": expected, "state": state_of(uncopied), "policy": suite.snapshot(uncopied.policy())}
    other = {"reports": reports, "state": state_of(copied), "policy": suite.snapshot(policy)}
    expect_same(one, other, "the copy", "the same as without copying, or an error from copying")
    expect_same(before, state_of(agent), "the agent when its copy learns")


@check_agent.promise
def a_foreign_state_is_refused(suite: AgentSuite) -> None:
    """The state of another kind of agent, or of other shapes, is a ConfigError and changes nothing."""
    agent = suite.trained()
    before = state_of(agent)
    for what, state in (
        ("of another agent", {"agent": "of another kind"}),
        ("of other shapes", _reshaped(before["agent"])),
    ):
        if difference(state, before["agent"]):  # an agent without tensors has no other shapes
            expect_error(ConfigError, f"loading a state {what}", partial(agent.load_state_dict, state))
            expect_same(before, state_of(agent), f"after refusing a state {what}, state")


@check_agent.promise
def policy_extras_survive_a_journal(suite: AgentSuite) -> None:
    """Policy extras can be written to a journal, and the agent learns the same from them when read back."""
    read = [
        replace(experience, policy_extras=decode(encode(experience.policy_extras, "policy_extras")))
        for experience in suite.experiences
    ]
    one, other = suite.make_agent(), suite.make_agent()
    expect_same(feed(one, suite.experiences), feed(other, read), "reports")
    expect_same(state_of(one), state_of(other), "state")


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
    expect_same(state_of(agent), state_of(rebuilt), "state", "equal replays")


@check_agent.promise
def its_own_settings_are_no_change(suite: AgentSuite) -> None:
    """With ``ChangesSettings``: with its own settings, as a journal keeps them, an agent is itself."""
    agent = suite.make_agent()
    if isinstance(agent, ChangesSettings) and (settings := settings_of(agent)) is not None:
        same = agent.with_settings(decode(encode(settings)))
        expect(same is agent, f"with_settings gave {shown(same)}", "the agent itself")


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
    array: Any = valid.observation
    invalid: dict[str, Any] = {}
    if isinstance(valid.observation, np.ndarray):
        invalid["another shape"] = np.zeros((*array.shape, 2), array.dtype)
        if array.dtype.kind == "f" and array.size:
            invalid["NaN"] = np.full_like(array, np.nan)
    for what, observation in invalid.items():
        observe = partial(agent.check_observation, observation)
        expect_error(InvalidExperience, f"check_observation of {what}", observe)
        for name in ("observation", "next_observation"):
            learn = partial(agent.check_experience, replace(valid, **{name: observation}))
            expect_error(InvalidExperience, f"check_experience of {what} as {name}", learn)
    expect_same(before, state_of(agent), "after checking, state")


for _promise in (
    batches_equal_single_experiences,
    batches_are_checked,
    steps_to_learn_are_exact,
    actors_explore_independently,
):
    check_agent.promise(_promise)


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
    expect_same(one, other, "actions of two forks of one seed")
    expect_same(before, state_of(agent), "after its forks explored, state")
    old = policy.weights()
    kept = through_file(old)
    feed(agent, suite.experiences)
    agent.publish(policy)
    expect_same(kept, old, "after publishing, earlier weights()", "the weights at the time of the call")
    expect_same(kept, fork.weights(), "after publishing, a fork's weights()")
    for name, each in (("fork", fork), ("copy", copied)):
        each.load_weights(through_file(policy.weights()))
        expect_same(suite.snapshot(policy), suite.snapshot(each), f"with its weights a {name}")


def _game(suite: AgentSuite) -> dict[str, Any]:
    """What a new agent does, reports and becomes."""
    agent = suite.make_agent()
    experiences, reports = suite.play(agent)
    actions = [experience.action for experience in experiences]
    return {"actions": actions, "reports": reports, "state": state_of(agent)}


def _learn_and_explore(agent: LearningAgent, experiences: Sequence[Experience], suite: AgentSuite) -> Any:
    """The agent's reports, and its exploring actions then, which advance its generator."""
    reports = feed(agent, experiences)
    explored = agent.policy().act(suite.observations, ActMode.EXPLORE)[0]
    return {"reports": reports, "explored": list(explored)}


def _is_close(one: Any, other: Any) -> bool:
    """Whether two actions are equal; floats may differ by what the order of a sum changes."""
    mine, its = np.asarray(one), np.asarray(other)
    if mine.dtype.kind == "f":
        return mine.shape == its.shape and np.allclose(mine, its, rtol=1e-3, atol=1e-5)
    return np.array_equal(mine, its)


def _reshaped(state: Any) -> Any:
    """The state with each of its float tensors one entry longer."""
    match state:
        case torch.Tensor() if state.ndim and state.is_floating_point():
            return torch.cat([state, state[:1]])
        case dict():
            return {key: _reshaped(part) for key, part in cast("dict[Any, Any]", state).items()}
        case list() | tuple():
            return [_reshaped(part) for part in cast("Sequence[Any]", state)]
        case _:
            return state
