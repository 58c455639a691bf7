"""Acting: callers share passes, no policy is too old when learned from, no weights are half-written."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import numpy as np
import pytest
import torch
from anyio.lowlevel import checkpoint
from gymnasium.spaces import Box, Discrete

from stoker import (
    DQN,
    DQNConfig,
    EpisodeStatus,
    Experience,
    SessionError,
    SessionFailed,
    SyncTrainingSession,
    TrainingSession,
)
from stoker.errors import ConfigError, StokerError
from stoker.service.suspending import begun
from stoker.session.acting import SLOW_PASS_S, SLOW_PASSES, TURN_S, Inference
from stoker.session.pacing import LearnerProgress, Pacing
from stoker.session.publishing import PolicyBuffer, PolicySnapshot
from stoker.session.timing import COMPUTING, OFFLOADED
from stoker.testing import FakeAgent
from stoker.types import ActMode, ActorId

pytestmark = pytest.mark.anyio
EXPLORE, EXPLOIT = ActMode.EXPLORE, ActMode.EXPLOIT


class Doubling:
    """Answers an observation with its double, remembers it, and notes who asked together and where."""

    def __init__(self, *, extras: bool = True) -> None:
        self.policy_extras = extras
        self.batches: list[tuple[list[Any], ActMode]] = []
        self.threads: set[str] = set()

    def act(self, observations: Sequence[Any], mode: ActMode) -> tuple[Sequence[Any], Sequence[Any] | None]:
        self.batches.append((list(observations), mode))
        self.threads.add(threading.current_thread().name)
        return [2 * o for o in observations], [str(o) for o in observations] if self.policy_extras else None


def inference_of(policy: Any, place: str = "inline") -> Inference:
    snapshot = PolicySnapshot(policy, total_steps=0, state={})
    return Inference(snapshot.answer, place)


@asynccontextmanager
async def running(policy: Any, place: str = "inline") -> AsyncIterator[Inference]:
    inference = inference_of(policy, place)
    try:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(inference.run)
                yield inference
                tasks.cancel_scope.cancel()
    finally:
        inference.close(RuntimeError)


@pytest.mark.parametrize("place", ["inline", "thread", "auto"])
async def test_everybody_gets_the_answer_to_the_own_observation(place: str) -> None:
    policy = Doubling()
    answers: dict[int, Any] = {}

    async def act(k: int) -> None:
        answers[k] = await inference.ask(k, EXPLOIT if k % 3 == 0 else EXPLORE, 0)

    async with running(policy, place) as inference:
        for _ in range(3):
            async with anyio.create_task_group() as actors:
                for k in range(100):
                    actors.start_soon(act, k)
            assert answers == {k: (2 * k, str(k), 0) for k in range(100)}
    assert sum(len(observations) for observations, _ in policy.batches) == 300
    assert inference.n_passes == len(policy.batches) <= 12, "by mode, two or so per round"
    for observations, mode in policy.batches:
        assert all((k % 3 == 0) == (mode is EXPLOIT) for k in observations), "modes are not mixed"
    assert ("stoker-inference" in policy.threads) == (place == "thread")


class ForActors(Doubling):
    """Remembers of each observation whose it was."""

    def act_for(
        self, observations: Sequence[Any], mode: ActMode, actor_ids: Sequence[ActorId]
    ) -> tuple[Sequence[Any], Sequence[Any]]:
        return self.act(observations, mode)[0], list(zip(observations, actor_ids, strict=True))

    def end_episode(self, actor_id: ActorId) -> None:
        raise AssertionError(actor_id)


class ForActorsAgent(FakeAgent):
    """Keeps the policy extras that come back, by actor."""

    def __init__(self) -> None:
        super().__init__()
        self.extras: dict[ActorId, Any] = {}

    def policy(self) -> Any:
        return ForActors()

    def observe(self, experiences: Sequence[Experience]) -> None:
        super().observe(experiences)
        self.extras |= {each.actor_id: each.policy_extras for each in experiences}


def outcome(observation: int, actor_id: ActorId) -> Experience:
    return Experience(observation, 2 * observation, 0.0, 2, EpisodeStatus.CONTINUING, actor_id)


async def test_a_policy_that_acts_for_actors_gets_their_ids() -> None:
    async def act(actor_id: ActorId) -> None:
        await session.act(2, actor_id=actor_id)
        await session.observe(outcome(2, actor_id))

    agent = ForActorsAgent()
    async with TrainingSession(agent) as session:
        assert (await session.decide(1, actor_id="d")).policy_extras == (1, "d")
        async with anyio.create_task_group() as actors:
            for actor_id in ("a", 7):
                actors.start_soon(act, actor_id)
        await session.act_many([3, 4], ["b", 0])
        await session.observe_many([outcome(3, "b"), outcome(4, 0)])
    assert agent.extras == {"a": (2, "a"), 7: (2, 7), "b": (3, "b"), 0: (4, 0)}


def test_it_gets_them_without_an_event_loop_too() -> None:
    agent = ForActorsAgent()
    with SyncTrainingSession(agent) as session:
        assert session.decide(1, actor_id="d").policy_extras == (1, "d")
        session.act(2, actor_id="a")
        session.act_many([3], ["b"])
        session.observe_many([outcome(2, "a"), outcome(3, "b")])
    assert agent.extras == {"a": (2, "a"), "b": (3, "b")}


async def test_nothing_to_remember_is_none() -> None:
    async with running(Doubling(extras=False)) as inference:
        assert await inference.ask(4, EXPLORE, 0) == (8, None, 0)


async def test_a_caller_that_was_cancelled_changes_no_other_answer() -> None:
    inference = inference_of(Doubling())
    with anyio.CancelScope() as scope:
        scope.cancel()
        await inference.ask(1, EXPLORE, 0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(inference.run)
        assert await inference.ask(2, EXPLORE, 0) == (4, "2", 0)
        tasks.cancel_scope.cancel()
    inference.close(RuntimeError)


async def ask_and_note(inference: Inference, observation: int, told: list[BaseException]) -> None:
    """Ask for an action, and note the error that comes instead."""
    try:
        await inference.ask(observation, EXPLORE, 0)
    except StokerError as error:
        told.append(error)


async def test_closing_tells_those_who_wait_and_those_who_come() -> None:
    inference = inference_of(Doubling())
    told: list[BaseException] = []
    with anyio.fail_after(10):
        async with anyio.create_task_group() as actors:
            for k in range(3):
                actors.start_soon(ask_and_note, inference, k, told)
            await anyio.wait_all_tasks_blocked()
            inference.close(lambda: StokerError("over"))
    await ask_and_note(inference, 9, told)
    assert [str(error) for error in told] == ["over"] * 4
    assert len({id(error) for error in told}) == 4, "one error each"


@pytest.mark.parametrize("place", ["inline", "thread"])
async def test_what_the_policy_raises_ends_it_and_those_who_waited_are_told(place: str) -> None:
    class Broken(Doubling):
        def act(self, observations: Sequence[Any], mode: ActMode) -> Any:
            raise ArithmeticError("no action")

    inference = inference_of(Broken(), place)
    told: list[BaseException] = []
    with anyio.fail_after(10):
        async with anyio.create_task_group() as actors:
            for k in range(3):
                actors.start_soon(ask_and_note, inference, k, told)
            with pytest.raises(ArithmeticError, match="no action"):
                await inference.run()
            inference.close(lambda: StokerError("over"))
    assert [str(error) for error in told] == ["over"] * 3


async def test_an_array_is_answered_at_once_or_together_with_those_who_have_come() -> None:
    policy = Doubling()
    inference = inference_of(policy)  # nothing runs it: the pass is computed by the caller
    actions, extras, _ = await inference.ask_many(np.arange(3), EXPLORE, range(3))
    assert list(actions) == [0, 2, 4]
    assert extras == ["0", "1", "2"]
    inference = inference_of(policy)  # another one, whose first caller lets others run
    async with anyio.create_task_group() as tasks:
        async with anyio.create_task_group() as actors:
            actors.start_soon(inference.ask_many, np.arange(3), EXPLORE, range(3))
            actors.start_soon(inference.ask, 7, EXPLORE, 7)
            await anyio.wait_all_tasks_blocked()
            assert inference.n_waiting == 4, "passes never overlap, also if one came as this was about to be"
            tasks.start_soon(inference.run)
        tasks.cancel_scope.cancel()
    inference.close(RuntimeError)
    assert (inference.n_passes, len(policy.batches)) == (1, 2)
    assert sorted(policy.batches[1][0]) == [0, 1, 2, 7]


async def test_those_who_come_with_several_in_one_turn_share_a_pass_that_needs_no_other_task() -> None:
    policy, answers = Doubling(), dict[int, Any]()
    inference = inference_of(policy)  # nothing runs it

    async def act(k: int) -> None:
        answers[k] = await inference.ask_many([k, k + 1], EXPLORE, (k, k + 1))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as actors:
            for k in (0, 10, 20):
                actors.start_soon(act, k)
    assert answers == {k: ([2 * k, 2 * k + 2], [str(k), str(k + 1)], 0) for k in (0, 10, 20)}
    assert inference.n_passes == len(policy.batches) == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_caller_that_lets_others_run_is_answered_without_another_turn() -> None:
    """A service lets them run between two messages: a turn more would be most of a message's time."""
    async with running(Doubling()) as inference:
        await inference.ask_many(np.arange(3), EXPLORE, range(3))
        until = time.monotonic() + 5 * TURN_S
        while time.monotonic() < until:
            await checkpoint()
            is_over, answer = begun(inference.ask_many(np.arange(3), EXPLORE, range(3)))
            assert is_over
            assert list(answer[0]) == [0, 2, 4]


async def test_a_pass_over_an_array_that_fails_is_not_done_again_and_ends_inference() -> None:
    class Broken(Doubling):
        def act(self, observations: Sequence[Any], mode: ActMode) -> Any:
            super().act(observations, mode)
            raise ArithmeticError("no action")

    policy, told = Broken(), list[BaseException]()
    inference = inference_of(policy)

    async def ask() -> None:
        try:
            await inference.ask_many(np.arange(3), EXPLORE, range(3))
        except StokerError as error:
            told.append(error)

    async with anyio.create_task_group() as actors:
        actors.start_soon(ask)
        actors.start_soon(ask)
        with pytest.raises(ArithmeticError, match="no action"), anyio.fail_after(20):
            await inference.run()
        inference.close(lambda: StokerError("over"))
    assert [str(error) for error in told] == ["over"] * 2
    assert len(policy.batches) == 1
    await ask()
    assert len(told) == 3
    assert len(policy.batches) == 1


async def test_a_cancelled_array_is_not_computed() -> None:
    policy = Doubling()
    inference = inference_of(policy)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await inference.ask_many(np.arange(3), EXPLORE, range(3))
    assert policy.batches == []


async def test_an_answer_of_another_length_is_refused() -> None:
    class Wrong:
        def __init__(self, answer: Any) -> None:
            self.answer = answer

        def act(self, observations: Sequence[Any], mode: ActMode) -> Any:
            return self.answer

    async def ask(inference: Inference) -> None:
        with pytest.raises(RuntimeError):
            await inference.ask(0, EXPLORE, 0)

    for answer, message in (
        (([], None), "answered 1 observations with 0 actions"),
        (([1, 2], None), "with 2 actions"),
        (([1], []), "with 1 actions and 0 policy extras"),
    ):
        inference = inference_of(Wrong(answer))
        async with anyio.create_task_group() as actors:
            actors.start_soon(ask, inference)
            with pytest.raises(ConfigError, match=message):
                await inference.run()
            inference.close(RuntimeError)


async def test_auto_moves_to_a_thread_when_passes_are_long() -> None:
    class Slow(Doubling):
        def act(self, observations: Sequence[Any], mode: ActMode) -> Any:
            until = time.thread_time() + 2 * SLOW_PASS_S
            while time.thread_time() < until:  # computes, as a large network does
                pass
            return super().act(observations, mode)

    policy = Slow()
    async with running(policy, "auto") as inference:
        for k in range(SLOW_PASSES):
            await inference.ask(k, EXPLORE, 0)
        assert policy.threads == {threading.current_thread().name}
        for k in range(2):
            assert await inference.ask(k, EXPLORE, 0) == (2 * k, str(k), 0)
    assert "stoker-inference" in policy.threads
    assert inference.clock.seconds(COMPUTING, OFFLOADED) >= (SLOW_PASSES + 2) * 2 * SLOW_PASS_S


GOES_ON = EpisodeStatus.CONTINUING


class Versioned(FakeAgent):
    """Counts the staleness of what it learns from."""

    def __init__(self) -> None:
        super().__init__()
        self.opt_steps = 0
        self.lags: list[int] = []

    def observe(self, experiences: Any) -> None:
        super().observe(experiences)
        self.lags += [
            self.opt_steps - experience.policy_version
            for experience in experiences
            if experience.policy_version is not None
        ]

    def learn(self) -> Any:
        self.opt_steps += 1
        return super().learn()


def step(actor_id: int) -> Experience:
    observation = np.zeros(2, np.float32)
    return Experience(observation, 0, 1.0, observation, GOES_ON, actor_id)


@pytest.mark.parametrize(("limit", "opt_interval"), [(0, 4), (1, 1), (8, 3)])
async def test_fast_actors_wait_for_slow_ones_and_nothing_is_thrown_away(
    limit: int, opt_interval: int
) -> None:
    agent = Versioned()
    n_actors, n_steps = 7, 15
    rng = random.Random(limit)

    async def play(session: TrainingSession, actor_id: int) -> None:
        for _ in range(n_steps):
            await session.act(np.zeros(2, np.float32), actor_id=actor_id)
            for _ in range(rng.randrange(20) if actor_id else 60):  # actor 0 is slow
                await anyio.lowlevel.checkpoint()
            await session.observe(step(actor_id))

    async with TrainingSession(agent, max_staleness=limit, opt_interval=opt_interval) as session:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for actor_id in range(n_actors):
                    tasks.start_soon(play, session, actor_id)
    assert len(agent.lags) == n_actors * n_steps
    assert max(agent.lags) <= limit
    assert agent.opt_steps == n_actors * n_steps // opt_interval


async def test_without_a_limit_the_same_actors_fall_further_behind() -> None:
    agent = Versioned()
    async with TrainingSession(agent, record_freq=10**6) as session:
        await session.act(np.zeros(2, np.float32), actor_id="slow")
        for _ in range(30):
            await session.act(np.zeros(2, np.float32), actor_id=1)
            await session.observe(step(1))
        await session.flush()
        late = step(1)
        await session.observe(
            Experience(*[getattr(late, name) for name in late.__struct_fields__[:5]], "slow")
        )
        await session.flush()
        report = session.staleness
    assert agent.lags[-1] == 30
    assert report.max == 30
    assert sum(report.histogram.values()) == 31
    assert report.mean == pytest.approx(sum(agent.lags) / 31)


async def test_exploration_reaches_the_policies_also_while_nothing_is_learned() -> None:
    box, config = Box(-1, 1, (2,)), DQNConfig(epsilon_decay_steps=10, final_epsilon=0.0, learning_starts=1000)
    async with TrainingSession(DQN(box, Discrete(2), config)) as session:
        policies = session.policy_source()
        found: list[float] = []
        for _ in range(3):
            published = policies.acquire()
            policy: Any = published.policy
            found.append(policy.published["epsilon"])
            policies.release(published)
            for _ in range(5):
                await session.observe(step(0))
            await session.barrier()
        assert session.opt_steps == 0
    assert found == pytest.approx([1.0, 0.5, 0.0])


class Learned:
    """A learner that stands where a test says."""

    def __init__(self) -> None:
        self.at = LearnerProgress(total_steps=0, opt_steps=0, policy_version=0)
        self.accepted = 0

    def pace(self, limit: int | None, opt_interval: int = 1, lost_after_s: float = 60.0) -> Pacing:
        return Pacing(limit, opt_interval, lambda: self.at, lambda: self.accepted, lost_after_s)


async def test_an_old_copy_is_refused_where_the_newest_policy_would_do() -> None:
    learner = Learned()
    learner.at = LearnerProgress(total_steps=50, opt_steps=50, policy_version=50)
    learner.accepted = 50
    pace = learner.pace(2)
    assert not await pace.begin("a", 40)
    assert pace.allows(), "it has begun with the newest"
    assert await pace.begin("a", 48)
    assert not pace.allows(), "if another transition comes first, that of version 48 lags by three"


async def test_an_action_in_flight_holds_the_others_until_its_outcome_has_come() -> None:
    learner = Learned()
    pace = learner.pace(1)
    assert await pace.begin("slow")
    assert await pace.begin("fast")
    learner.accepted = 1  # the fast one's came
    pace.end("fast")
    assert not pace.allows(), "slow's transition, were it third, would be two behind"
    async with anyio.create_task_group() as tasks:
        with anyio.move_on_after(0.05) as waited:
            await pace.begin("fast")
        assert waited.cancelled_caught
        tasks.start_soon(pace.begin, "fast")
        await anyio.wait_all_tasks_blocked()
        learner.accepted = 2
        learner.at = LearnerProgress(total_steps=2, opt_steps=2, policy_version=2)
        pace.end("slow")
    assert not pace.allows() or pace.limit == 1


async def test_an_actor_that_never_comes_back_is_waited_for_so_long_and_no_longer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    learner = Learned()
    pace = learner.pace(0, lost_after_s=0.1)
    assert await pace.begin("gone")
    with anyio.fail_after(20):
        assert await pace.begin("here")
    assert "actor 'gone'" in caplog.text


async def test_without_a_limit_nobody_is_counted() -> None:
    pace = Learned().pace(None)
    for actor_id in range(1000):
        assert await pace.begin(actor_id, -(10**6))
    assert pace.allows()


class Slow(Versioned):
    """Takes its time to learn: who acts meanwhile must count the update that is under way."""

    def learn(self) -> Any:
        time.sleep(0.002)
        return super().learn()


async def test_the_limit_holds_while_the_learner_is_in_an_update() -> None:
    agent = Slow()

    async def play(session: TrainingSession, actor_id: int) -> None:
        for _ in range(25):
            await session.act(np.zeros(2, np.float32), actor_id=actor_id)
            await anyio.sleep(0.0005 * actor_id)
            await session.observe(step(actor_id))

    async with TrainingSession(agent, max_staleness=2) as session, anyio.create_task_group() as tasks:
        for actor_id in range(4):
            tasks.start_soon(play, session, actor_id)
    assert max(agent.lags) <= 2


async def test_actors_that_can_never_act_together_are_refused_wherever_the_counter_stands() -> None:
    """With an odd count of steps, the second of two transitions comes after an optimization step."""
    async with TrainingSession(Versioned(), max_staleness=0, opt_interval=2) as session:
        await session.act(np.zeros(2, np.float32))
        await session.observe(step(0))
        await session.barrier()
        with anyio.fail_after(30), pytest.raises(ConfigError, match="max_staleness=0: 2 actors .* by 1"):
            await session.act_many([np.zeros(2, np.float32)] * 2, range(2))


@pytest.mark.parametrize("how", ["cancelled", "abandoned"])
async def test_an_action_that_will_have_no_outcome_holds_nobody(how: str) -> None:
    async with TrainingSession(Versioned(), max_staleness=0) as session:
        with anyio.CancelScope() as scope:
            if how == "cancelled":
                scope.cancel()
            await session.act(np.zeros(2, np.float32), actor_id=0)
        if how == "abandoned":
            await session.on_episode_start(0)
        with anyio.fail_after(5):
            await session.act(np.zeros(2, np.float32), actor_id=1)


@pytest.mark.parametrize("how", ["max_steps", "stop", "failure", "left"])
async def test_nobody_waits_for_a_pace_that_nobody_keeps_any_more(how: str) -> None:
    """The outcome of one actor's action never comes, and others wait for it when the session ends."""
    agent = Versioned()
    if how == "failure":
        agent.fail_at = 3
    told: list[str] = []
    session = TrainingSession(agent, max_staleness=0, max_steps=3 if how == "max_steps" else None)

    async def play(actor_id: int) -> None:
        try:
            while not session.is_done:
                await session.act(np.zeros(2, np.float32), actor_id=actor_id)
                await session.observe(step(actor_id))
        except SessionError as error:
            told.append(type(error).__name__)
        else:
            told.append("done")

    with anyio.fail_after(30):
        async with anyio.create_task_group() as outside:
            try:
                async with session:
                    await session.act(np.zeros(2, np.float32), actor_id="away")
                    for actor_id in range(3):
                        outside.start_soon(play, actor_id)
                    await anyio.wait_all_tasks_blocked()
                    if how == "stop":
                        session.stop()
                    elif how != "left":
                        for _ in range(3):
                            await session.observe(step(9))
            except SessionFailed:
                assert how == "failure"
    assert len(told) == 3


class Weights:
    """An acting copy: one tensor, all of one value."""

    def __init__(self, version: int) -> None:
        self.tensor = torch.full((64, 64), float(version))

    def act(self, observations: Any, mode: Any) -> Any:
        return [self.tensor], None


class Filled:
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
    agent: Any = Filled()
    buffer = PolicyBuffer(agent, opt_steps=40)
    assert buffer.version == 40
    for version in range(1, 6):
        agent.version = version
        buffer.publish(40 + version)
        published = buffer.acquire()
        assert version_of(published.policy) == version
        assert published.opt_steps == buffer.version == 40 + version
        buffer.release(published)


def test_publishing_never_waits_and_never_writes_to_a_copy_in_use() -> None:
    agent: Any = Filled()
    buffer = PolicyBuffer(agent)
    held = []
    for version in range(1, 5):  # each of these goes on acting
        held.append((version - 1, buffer.acquire()))
        agent.version = version
        buffer.publish(10 * version)
    for version, published in held:
        assert version_of(published.policy) == version
        assert published.opt_steps == 10 * version
    newest = buffer.acquire().policy
    assert version_of(newest) == 4
    assert len({id(published.policy) for _, published in held} | {id(newest)}) == 5


def test_a_copy_that_was_given_back_is_used_again() -> None:
    agent: Any = Filled()
    buffer = PolicyBuffer(agent)
    first, second = buffer.acquire(), buffer.acquire()
    seen = set()
    for version in range(1, 20):
        agent.version = version
        buffer.publish(version)
        published = buffer.acquire()
        seen.add(id(published.policy))
        buffer.release(published)
        if version == 3:  # until then the first one is in use, by two
            buffer.release(first)
            buffer.release(second)
    assert len(seen) == 3


def test_a_thread_that_acts_while_another_publishes_never_sees_half_written_weights() -> None:
    agent: Any = Filled()
    buffer = PolicyBuffer(agent)
    done = threading.Event()
    problems: list[BaseException] = []
    seen: list[list[float]] = [[], []]

    def act(versions: list[float]) -> None:
        try:
            while not done.is_set():
                published = buffer.acquire()
                try:
                    versions.append(version_of(published.policy))
                finally:
                    buffer.release(published)
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
