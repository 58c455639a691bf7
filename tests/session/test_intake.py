"""What a policy remembers of an action belongs to that action: in the session, and in what callers carry."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from typing import Any

import anyio
import gymnasium
import numpy as np
import pytest
import torch

from stoker import (
    DQN,
    PPO,
    ActMode,
    ConfigError,
    Decision,
    EpisodeStatus,
    Experience,
    InvalidExperience,
    SyncTrainingSession,
    TrainingSession,
)
from stoker.session.decisions import RememberedDecision
from stoker.testing import FakeAgent

pytestmark = pytest.mark.anyio
ON = EpisodeStatus.CONTINUING
OBSERVATIONS = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
TWO = gymnasium.spaces.Discrete(2, start=5)
BOX = gymnasium.spaces.Box(-0.1, 0.2, (2,), np.float32)
HERE, THERE = np.array([0.1, 0.2, 0.3], np.float32), np.array([9, 9, 9], np.float32)


def ppo(action_space: gymnasium.Space[Any] = TWO) -> PPO:
    return PPO(OBSERVATIONS, action_space, seed=3)


def step(observation: Any, action: Any, actor_id: int = 0, **extras: Any) -> Experience:
    return Experience(observation, action, 1.0, THERE, ON, actor_id, **extras)


def carried(decision: Decision, observation: Any = HERE, **changes: Any) -> Experience:
    extras: dict[str, Any] = {"policy_extras": decision.policy_extras, "action": decision.action, **changes}
    return step(observation, policy_version=decision.policy_version, **extras)


def actions_learned(agent: PPO) -> list[list[float]]:
    """The actions whose log-probabilities are in the rollout."""
    return agent.state_dict()["rollout"]["policy_extras"][:, 3:].tolist()


async def test_another_action_than_the_chosen_one_is_refused_and_changes_nothing() -> None:
    agent = ppo()
    async with TrainingSession(agent) as session:
        action = await session.act(HERE, actor_id=7)
        other = 11 - action
        message = rf"actor 7: action={other} .* is not the action that the policy chose last, {action} "
        with pytest.raises(InvalidExperience, match=message + r".*decide\("):
            await session.observe(step(HERE, other, 7))
        with pytest.raises(InvalidExperience, match="experience 0 of 1: actor 7: action"):
            await session.observe_many([step(HERE, other, 7)])
        with pytest.raises(
            InvalidExperience, match="actor 7: observation=.* that the last action was chosen"
        ):
            await session.observe(step(THERE, action, 7))
        assert session.accepted_steps == 0
        await session.observe(step(HERE, action, 7))
        with pytest.raises(InvalidExperience, match="each once"):
            await session.observe(step(HERE, action, 7))
        assert session.accepted_steps == 1
    assert actions_learned(agent) == [[action - 5]]


async def test_an_action_has_one_outcome_also_among_several() -> None:
    agent = FakeAgent(policy_extras=True)
    agent.needs_policy_extras = True
    async with TrainingSession(agent) as session:
        await session.act("here")
        outcome = step("here", 0)
        with pytest.raises(InvalidExperience, match="experience 1 of 2: .*each once.*none was taken"):
            await session.observe_many([outcome, outcome])
        with pytest.raises(InvalidExperience, match="event 1 of 2: .*each once.*none was taken"):
            await session.observe_events([outcome, outcome])
        assert session.accepted_steps == 0
        await session.observe_many([outcome])
    assert [e.policy_extras for e in agent.experiences] == ["here"]


async def test_of_two_open_actions_under_one_id_only_the_last_is_remembered() -> None:
    agent = FakeAgent(policy_extras=True)
    agent.needs_policy_extras = True
    async with TrainingSession(agent) as session:
        await session.act("first")
        await session.act("second")
        with pytest.raises(InvalidExperience, match="observation='first'.*'second'.*several open decisions"):
            await session.observe(step("first", 0))
        await session.observe(step("second", 0))
    assert [e.policy_extras for e in agent.experiences] == ["second"]


async def test_what_counts_as_the_same_observation_and_action() -> None:
    for observation, action in [
        (HERE.copy(), 5),
        (HERE.astype(np.float64), np.int64(5)),
        (HERE.tolist(), np.array(5)),
        (HERE.astype(np.float16), 5),
    ]:
        assert RememberedDecision(HERE, 5, None, None).mismatch(step(observation, action)) is None
    nested = {"a": (HERE, [1, "x"]), "b": torch.tensor([1.0])}
    remembered = RememberedDecision(nested, np.float32([0.5]), None, None)
    assert remembered.mismatch(step({**nested, "b": torch.tensor([1.0])}, [0.5])) is None
    for other in (
        {**nested, "b": torch.tensor([2.0])},
        {"a": nested["a"]},
        {**nested, "a": (HERE, [1, "y"])},
        {**nested, "a": (HERE, [1])},
        {**nested, "a": (THERE, [1, "x"])},
        None,
    ):
        assert remembered.mismatch(step(other, [0.5])) == "observation"
    assert remembered.mismatch(step(nested, [0.25])) == "action"
    own = object()
    assert RememberedDecision(own, 0, None, None).mismatch(step(object(), 0)) == "observation"


async def test_an_environment_that_writes_into_what_it_is_given_is_noticed() -> None:
    observation = HERE.copy()
    agent = ppo(BOX)
    async with TrainingSession(agent) as session:
        action = await session.act(observation)
        kept_action, kept = action.copy(), observation.copy()
        action *= 5
        observation += 1
        with pytest.raises(InvalidExperience, match="actor 0: action="):
            await session.observe(step(kept, action))
        with pytest.raises(InvalidExperience, match="a copy of it if the environment writes"):
            await session.observe(step(observation, kept_action))
        await session.observe(step(kept, kept_action))
    assert agent.total_steps == 1


async def test_actions_are_within_the_bounds_so_that_clipping_changes_nothing() -> None:
    agent = ppo(BOX)
    async with TrainingSession(agent) as session:
        for k in range(50):
            observation = np.full(3, k, np.float32)
            action = np.clip(await session.act(observation), BOX.low, BOX.high)
            await session.observe(step(observation, action if k % 2 else action.astype(np.float64)))
    learned = np.array(actions_learned(agent))
    assert ((learned < BOX.low) | (learned > BOX.high)).any(), "else nothing was clipped"


@pytest.mark.parametrize("action_space", [TWO, BOX], ids=["discrete", "box"])
async def test_several_decisions_may_be_open_under_one_id(action_space: gymnasium.Space[Any]) -> None:
    agent = ppo(action_space)
    observations = [np.full(3, k, np.float32) for k in range(8)]
    decisions: dict[int, Decision] = {}
    async with TrainingSession(agent) as session:

        async def decide(k: int) -> None:
            decisions[k] = await session.decide(observations[k])

        async with anyio.create_task_group() as tasks:
            for k in range(8):
                tasks.start_soon(decide, k)
        for k in reversed(range(8)):
            await session.observe(carried(decisions[k], observations[k]))
        with pytest.raises(InvalidExperience, match="session.act"):
            await session.observe(step(observations[0], decisions[0].action))
        await session.act(HERE)
        await session.observe(carried(decisions[0], observations[0]))
        exploited = await session.decide(HERE, ActMode.EXPLOIT)
    assert exploited.policy_extras is None
    assert actions_learned(agent) == [decisions[k].policy_extras[3:].tolist() for k in [*range(8)[::-1], 0]]


async def test_carried_policy_extras_are_checked_by_the_agent() -> None:
    for agent, other in ((ppo(), None), (ppo(BOX), np.zeros(2, np.float32))):
        async with TrainingSession(agent) as session:
            decision = await session.decide(HERE)
            extras = decision.policy_extras
            replaced = 11 - decision.action if other is None else other
            for changes, message in (
                ({"action": replaced}, "does not match its policy_extras, which are of"),
                ({"policy_extras": extras[:-1]}, f"{len(extras)} finite numbers"),
                ({"policy_extras": extras * np.nan}, "finite numbers"),
                ({"policy_extras": "none"}, "finite numbers"),
                ({"policy_extras": [None] * len(extras)}, "finite numbers"),
            ):
                with pytest.raises(InvalidExperience, match=message):
                    await session.observe(carried(decision, **changes))
            with pytest.raises(InvalidExperience, match="policy_version='new'"):
                await session.observe(step(HERE, decision.action, policy_extras=extras, policy_version="new"))
            revived = pickle.loads(pickle.dumps(decision))
            await session.observe(carried(revived))
            listed = json.loads(json.dumps([np.asarray(decision.action).tolist(), extras.tolist()]))
            await session.observe(carried(decision, action=decision.action, policy_extras=listed[1]))
        assert actions_learned(agent) == [extras[3:].tolist()] * 2


async def test_the_version_of_a_policy_is_not_joined_to_another_action() -> None:
    seen: list[int | None] = []

    class Noting(DQN):
        def observe(self, experiences: Sequence[Experience]) -> None:
            seen.extend(e.policy_version for e in experiences)
            super().observe(experiences)

    agent = Noting(OBSERVATIONS, TWO, seed=0)
    async with TrainingSession(agent, record_freq=10) as session:
        action = await session.act(HERE)
        await session.observe(step(HERE, 11 - action))
        await session.observe(step(THERE, action))
        await session.observe(step(HERE, action))
        await session.observe(step(HERE, action))
        decision = await session.decide(HERE)
        await session.act(HERE)
        await session.observe(carried(decision))
    assert seen == [None, None, 0, None, 0]


async def test_an_open_decision_cannot_be_paced() -> None:
    async with TrainingSession(DQN(OBSERVATIONS, TWO), max_staleness=4) as session:
        with pytest.raises(ConfigError, match="max_staleness=4"):
            await session.decide(HERE)
        assert (await session.decide(HERE, ActMode.EXPLOIT)).action in TWO


def test_a_plain_loop_is_checked_as_well_and_may_carry_decisions() -> None:
    agent = ppo()
    with SyncTrainingSession(agent) as session:
        action = session.act(HERE)
        with pytest.raises(InvalidExperience, match="not the action"):
            session.observe(step(HERE, 11 - action))
        with pytest.raises(InvalidExperience, match="not the observation"):
            session.observe_many([step(THERE, action)])
        open_ones = [session.decide(HERE), session.decide(THERE)]
        session.observe(step(HERE, action))
        session.observe_many([carried(open_ones[1], THERE), carried(open_ones[0])])
        assert session.accepted_steps == 3
    assert len(actions_learned(agent)) == session.total_steps == 3
