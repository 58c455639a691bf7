"""What goes between an actor and its session: the metrics of its steps, and copies of the policy."""

from __future__ import annotations

import math
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from portable_parts import PortableAgent

from stoker.actors.processes import PicklerByValue
from stoker.actors.streams import ActorStream, PolicyFeed, StepMetrics
from stoker.errors import ConfigError, InvalidExperience
from stoker.journal import EpisodeStarted
from stoker.session import TrainingSession
from stoker.session.publishing import PolicyBuffer
from stoker.testing import FakeAgent
from stoker.types import EpisodeStatus, Experience


def test_a_copy_is_due_when_it_is_behind_by_the_interval() -> None:
    agent = PortableAgent()
    policies = PolicyBuffer(agent, 10)
    feed = PolicyFeed(policies, 3)
    copy = feed.fork(1, "a", 0)
    assert (copy.version, copy.syncs, feed.is_due(copy.version)) == (10, 0, False)
    for opts, is_due in ((12, False), (13, True), (20, True)):
        agent.opts = opts
        policies.publish(opts)
        assert feed.is_due(10) == is_due
    fresh = feed.newest()
    assert feed.newest() is fresh, "those who are due together share one copy of the weights"
    copy.load(fresh)
    assert (copy.version, copy.syncs, copy.policy.weights()["opts"]) == (20, 1, 20)
    agent.opts = 21
    policies.publish(21)
    assert feed.newest().version == 21
    assert not feed.is_due(20)
    newest = policies.acquire()
    assert newest.n_users == 1, "no copy that was made holds it"


def test_copies_of_one_seed_actor_and_episode_are_alike_and_others_are_not() -> None:
    feed = PolicyFeed(PolicyBuffer(PortableAgent()), 1)
    seeds = [
        feed.fork(*of).policy.seed  # type: ignore[attr-defined]
        for of in [
            (1, "a", 0),
            (1, "a", 0),
            (1, "a", 1),
            (1, "b", 0),
            (2, "a", 0),
            (None, "a", 0),
            (None, "a", 0),
        ]
    ]
    assert seeds[0] == seeds[1]
    assert len(set(seeds)) == 6


def test_a_policy_that_does_not_travel_is_refused_and_not_held() -> None:
    policies = PolicyBuffer(FakeAgent())
    with pytest.raises(ConfigError, match="FakeAgent is not a PortablePolicy"):
        PolicyFeed(policies, 1)


def test_tensors_go_to_a_process_by_value_also_those_that_share_memory() -> None:
    one = torch.arange(6.0)
    views = [one[:3], one[3:]]
    data = PicklerByValue.dumps(views)
    assert not one.is_shared()
    first, second = ForkingPickler.loads(data)
    assert torch.equal(first, one[:3])
    assert torch.equal(second, one[3:])
    assert not first.is_shared()


@pytest.mark.anyio
async def test_the_metrics_of_a_resumed_episode_count_what_came_before() -> None:
    seen: list[StepMetrics] = []

    async def on_step(metrics: StepMetrics) -> None:
        seen.append(metrics)

    def step(reward: float) -> Experience:
        return Experience(0, 0, reward, 0, EpisodeStatus.CONTINUING)

    async with TrainingSession(FakeAgent()) as session:
        stream = ActorStream(session, 0, on_step)
        stream.begin()
        await stream.start_episode(7)
        before = [step(1.0), step(2.0)]
        for each in before:
            await stream.observe(each)
        resumed = ActorStream(session, 0, on_step)
        resumed.begin()
        resumed.resume_episode(before)
        await resumed.observe(step(4.0))
        await resumed.publish(step(4.0))
        await resumed.start_episode(8)
        await resumed.observe(step(8.0))
        await resumed.publish(step(8.0))
    found = [(each.episode_step, each.episode_reward, each.reward, each.total_steps) for each in seen]
    assert found == [(3, 7.0, 4.0, 3), (1, 8.0, 8.0, 4)]
    assert resumed.report.steps == 2


@pytest.mark.anyio
async def test_steps_count_once_also_where_one_of_them_is_refused() -> None:
    steps = [Experience(0, 0, reward, 0, EpisodeStatus.CONTINUING) for reward in (1.0, 2.0, math.nan, 4.0)]
    async with TrainingSession(FakeAgent()) as session:
        stream = ActorStream(session, 0)
        stream.begin()
        await stream.send([EpisodeStarted(0, 7), *steps[:2]])
        with pytest.raises(InvalidExperience):
            await stream.send(steps[1:])
        assert (stream.report.steps, stream.episode_steps, stream.episode_reward) == (3, 3, 5.0)
        assert session.accepted_steps == 3
