"""The promises about what comes together: batches of columns, and several actors in one call of a policy.

``agent_promises`` has them among the others.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from msgspec.structs import replace

from stoker.agents.protocol import ActsForActors, ChecksBatches, LearnsSeldom, ObservesBatches
from stoker.errors import InvalidExperience
from stoker.plain import shown
from stoker.testing.agent_driving import AgentSuite, as_batch, state_of
from stoker.testing.contract import expect, expect_same
from stoker.types import ActMode, ActorId, Experience


def batches_equal_single_experiences(suite: AgentSuite) -> None:
    """With ``ObservesBatches``: observing columns, alone or mixed, equals observing their experiences."""
    one, other = suite.make_agent(), suite.make_agent()
    if not isinstance(other, ObservesBatches) or not suite.has_columns:
        return
    rest, counts = iter(suite.experiences), itertools.cycle((1, 7, 2, 2, 2, 30))
    for number in itertools.count():
        if not (some := list(itertools.islice(rest, next(counts)))):
            return
        batch = as_batch(some)
        one.observe(batch.experiences())
        if number % 4 == 3:
            other.observe(batch.experiences())
        else:
            other.observe_batch(batch)
        for agent in (one, other):
            for experience in some:
                if experience.status.is_done:
                    agent.on_episode_start(experience.actor_id)
        expect_same(one.learn(), other.learn(), "metrics after batches", "those after single experiences")
        expect_same(state_of(one), state_of(other), "state after batches", "that after single experiences")


def batches_are_checked(suite: AgentSuite) -> None:
    """With ``ChecksBatches``: no batch passes that has a row which ``check_experience`` refuses."""
    agent = suite.make_agent()
    if not isinstance(agent, ChecksBatches) or not suite.has_columns:
        return
    before = state_of(agent)
    valid = as_batch(suite.experiences[:8], with_extras=False)
    agent.check_batch(valid)
    for number in (-1, 1_000_000, np.inf):
        columns = valid.actions, np.asarray(valid.rewards)
        for name, column in zip(("actions", "rewards"), columns, strict=True):
            if isinstance(column, dict) or (column.dtype.kind in "iu" and number == np.inf):
                continue
            rows = column.astype(np.int64) if column.dtype.kind in "iu" else column.copy()
            rows[5] = number
            batch = replace(valid, **{name: rows})
            if _is_refused(agent, batch.experiences()[5]):
                expect(
                    not agent.check_batch(batch), f"check_batch passed {number} in row 5 of {name}", "False"
                )
    for name in ("observations", "next_observations", "actions"):
        column: Any = getattr(valid, name)
        if isinstance(column, dict):
            continue
        invalid: dict[str, Any] = {"another shape": np.zeros((*column.shape, 2), column.dtype)}
        if column.dtype.kind == "f" and column.size:
            invalid["NaN in row 5"] = column.copy()
            invalid["NaN in row 5"][5] = np.nan
        for what, rows in invalid.items():
            passed = agent.check_batch(replace(valid, **{name: rows}))
            expect(not passed, f"check_batch passed {what} as {name}", "False")
            if name == "observations":
                passed = agent.check_observations(rows)
                expect(not passed, f"check_observations passed {what}", "False")
    expect_same(before, state_of(agent), "after checking batches, state")


def _is_refused(agent: ChecksBatches, experience: Experience) -> bool:
    try:
        agent.check_experience(experience)
    except InvalidExperience:
        return True
    return False


def steps_to_learn_are_exact(suite: AgentSuite) -> None:
    """With ``LearnsSeldom``: learn does nothing while steps are missing, and each transition is one fewer."""
    agent = suite.make_agent()
    if not isinstance(agent, LearnsSeldom):
        return
    for at, experience in enumerate(suite.experiences, 1):
        before = agent.steps_to_learn
        agent.observe([experience])
        missing = agent.steps_to_learn
        if before > 0:
            expect(
                missing == before - 1, f"{before} steps to learn, then {missing} at step {at}", "one fewer"
            )
        metrics = agent.learn()
        if missing > 0:
            expect(metrics is None, f"metrics with {missing} steps to learn at step {at}", "None")
        if experience.status.is_done:
            agent.on_episode_start(experience.actor_id)


def actors_explore_independently(suite: AgentSuite) -> None:
    """With ``ActsForActors``: no other actor in a call, and no order, changes an actor's exploring action."""
    together, apart = (suite.make_agent().policy() for _ in range(2))
    if not isinstance(together, ActsForActors) or not isinstance(apart, ActsForActors):
        return
    ids: list[ActorId] = [3, "a", 0, "3"]
    observations = suite.observations[: len(ids)]
    for step in range(6):
        expected = together.act_for(observations, ActMode.EXPLORE, ids)[0]
        for row in (2, 0, 3, 1):
            found = apart.act_for([observations[row]], ActMode.EXPLORE, [ids[row]])[0][0]
            # The order of a sum may differ.
            is_same = np.allclose(np.asarray(found), np.asarray(expected[row]), rtol=1e-3, atol=1e-5)
            seen = f"{shown(found)} alone, {shown(expected[row])} together, in step {step} of {ids[row]!r}"
            expect(is_same, seen, "the same action")
