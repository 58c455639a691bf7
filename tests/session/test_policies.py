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
    buffer = PolicyBuffer(agent)
    assert buffer.version == 0
    for version in range(1, 6):
        agent.version = version
        assert buffer.publish()
        policy, ticket = buffer.acquire()
        assert version_of(policy) == buffer.version == version
        buffer.release(ticket)


def test_while_the_idle_copy_is_in_use_publishing_is_put_off() -> None:
    agent: Any = Versioned()
    buffer = PolicyBuffer(agent)
    old, old_ticket = buffer.acquire()
    agent.version = 1
    assert buffer.publish(), "the other copy is free"
    agent.version = 2
    assert not buffer.publish(), "someone still acts on the idle copy"
    assert version_of(old) == 0
    assert buffer.version == 1
    new, new_ticket = buffer.acquire()
    assert version_of(new) == 1
    assert new is not old
    buffer.release(new_ticket)
    assert not buffer.publish()
    buffer.release(old_ticket)
    assert buffer.publish()
    newest, ticket = buffer.acquire()
    assert version_of(newest) == 2
    buffer.release(ticket)


def test_one_of_several_users_keeps_a_copy() -> None:
    agent: Any = Versioned()
    buffer = PolicyBuffer(agent)
    (_, first), (_, second) = buffer.acquire(), buffer.acquire()
    assert buffer.publish()
    buffer.release(first)
    assert not buffer.publish()
    buffer.release(second)
    assert buffer.publish()


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

    threads = [threading.Thread(target=act, args=(versions,)) for versions in seen]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while min(len(set(versions)) for versions in seen) < 20 and not problems and time.monotonic() < deadline:
        agent.version += 1
        buffer.publish()
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
