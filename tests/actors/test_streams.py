"""Copies of a policy: when they are due, what they are made of, and how they are handed to a process."""

from __future__ import annotations

from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from portable_parts import PortableAgent

from stoker.actors.places import PicklerByValue
from stoker.actors.streams import PolicyFeed
from stoker.errors import ConfigError
from stoker.session.publishing import PolicyBuffer
from stoker.testing import FakeAgent


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
