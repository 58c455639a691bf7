"""The double buffer: whoever acts sees whole weights of one version, and nobody waits for anybody."""

from __future__ import annotations

import threading
import time
from typing import Any

import torch

from stoker.session.policies import PinnedPolicy, PolicyBuffer


class Weights:
    """An acting copy: one tensor, all of one value."""

    def __init__(self, version: int) -> None:
        self.tensor = torch.full((64, 64), float(version))

    def act(self, observations: Any, mode: Any) -> Any:
        return [self.tensor], None


class Versioned:
    """An agent whose weights are all equal to its version."""

    def __init__(self) -> None:
        self.version = 0

    def policy(self) -> Weights:
        return Weights(self.version)

    def publish(self, policy: Any) -> None:
        for row in policy.tensor:  # row by row, so that a reader could see it half-written
            row.fill_(float(self.version))


def version_of(policy: Any) -> float:
    values = policy.tensor.unique().tolist()
    assert len(values) == 1, f"half-written weights: {values}"
    return values[0]


def test_publishing_turns_the_copies_round() -> None:
    agent: Any = Versioned()
    buffer = PolicyBuffer(agent, opt_steps=40)
    assert (buffer.version, buffer.published) == (0, 40)
    for version in range(1, 6):
        agent.version = version
        buffer.publish(40 + version)
        policy, ticket = buffer.acquire()
        assert version_of(policy) == buffer.version == version
        assert buffer.opt_steps(ticket) == buffer.published == 40 + version
        buffer.release(ticket)


def test_publishing_never_waits_and_never_writes_to_a_copy_in_use() -> None:
    agent: Any = Versioned()
    buffer = PolicyBuffer(agent)
    held = []
    for version in range(1, 5):  # each of these goes on acting
        held.append((version - 1, *buffer.acquire()))
        agent.version = version
        buffer.publish(10 * version)
    for version, policy, ticket in held:
        assert version_of(policy) == version
        assert buffer.opt_steps(ticket) == 10 * version
    newest, ticket = buffer.acquire()
    assert version_of(newest) == 4
    assert len({id(policy) for _, policy, _ in held} | {id(newest)}) == 5


def test_a_copy_that_was_given_back_is_used_again() -> None:
    agent: Any = Versioned()
    buffer = PolicyBuffer(agent)
    _, first = buffer.acquire()
    _, second = buffer.acquire()
    seen = set()
    for version in range(1, 20):
        agent.version = version
        buffer.publish(version)
        policy, ticket = buffer.acquire()
        seen.add(id(policy))
        buffer.release(ticket)
        if version == 3:  # until then the first one is in use, by two
            buffer.release(first)
            buffer.release(second)
    assert len(seen) == 3


def test_a_thread_that_acts_while_another_publishes_never_sees_half_written_weights() -> None:
    agent: Any = Versioned()
    buffer = PolicyBuffer(agent)
    done = threading.Event()
    problems: list[BaseException] = []
    seen: list[list[float]] = [[], []]

    def act(versions: list[float]) -> None:
        try:
            while not done.is_set():
                policy, ticket = buffer.acquire()
                try:
                    versions.append(version_of(policy))
                finally:
                    buffer.release(ticket)
        except BaseException as problem:  # noqa: BLE001 - shown below
            problems.append(problem)

    threads = [threading.Thread(daemon=True, target=act, args=(versions,)) for versions in seen]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while min(len(set(versions)) for versions in seen) < 20 and not problems and time.monotonic() < deadline:
        agent.version += 1
        buffer.publish(agent.version)
    done.set()
    for thread in threads:
        thread.join()
    assert problems == []
    for versions in seen:
        assert versions == sorted(versions), "never back to older weights"
        assert len(set(versions)) >= 20, "they did meet"


def test_a_pinned_policy_is_always_the_same() -> None:
    policy: Any = Weights(3)
    pinned = PinnedPolicy(policy)
    for _ in range(3):
        found, ticket = pinned.acquire()
        pinned.release(ticket)
        assert found is policy
