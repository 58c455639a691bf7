"""An actor whose environment failed: what it gives back to others, and what its reports keep."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import anyio
import numpy as np
import pytest
from gymnasium.spaces import Box
from gymnasium.vector import SyncVectorEnv
from portable_parts import PortableAgent, Right, Wide, one_way

from stoker import (
    DQN,
    ActorFailed,
    ActorGroup,
    ConfigError,
    EpisodeStatus,
    Experience,
    FailureLimit,
    InvalidExperience,
    TrainingSession,
    run_actors,
    run_vector_actors,
)
from stoker.testing import AsyncChainEnv, ChainEnv, CrashingEnv, FakeAgent
from stoker.types import ActMode, ActorId

pytestmark = pytest.mark.anyio
PATIENT = FailureLimit(failures=1000, window_s=1000.0, first_delay_s=0.0)


def spoilt_once(make: Callable[[], Any]) -> Callable[[], Any]:
    """Makes environments of which the first is another one."""
    made = itertools.count()
    return lambda: ChainEnv() if next(made) else make()


def crashing_once(at: int) -> Callable[[], Any]:
    """Makes environments of which the first crashes in this step."""
    steps = itertools.count(1)
    return spoilt_once(lambda: CrashingEnv(ChainEnv(), {at}, steps=steps))


async def test_in_lockstep_the_next_actor_has_its_turn_at_once() -> None:
    agent = FakeAgent(action=1)
    with anyio.fail_after(30):
        async with TrainingSession(agent, max_steps=6, lockstep=True) as session:
            await run_actors(session, crashing_once(2), 2, limit=PATIENT)
    assert [step.actor_id for step in agent.experiences] == [0, 1, 1, 0, 1, 0]


class Gate:
    """Lets all pass and keeps what is given back."""

    def __init__(self) -> None:
        self.given_back: list[ActorId] = []

    async def enter(self, actor_id: ActorId) -> bool:
        return True

    def give_back(self, actor_id: ActorId) -> None:
        self.given_back.append(actor_id)


@pytest.mark.parametrize("place", ["tasks", "threads"])
async def test_the_step_that_it_will_not_do_is_given_back(place: Any) -> None:
    gate = Gate()
    with anyio.fail_after(30):
        async with TrainingSession(PortableAgent(), max_steps=6) as session:
            await run_actors(session, crashing_once(2), ["a"], limit=PATIENT, gate=gate, place=place)
    assert gate.given_back == ["a"]


@pytest.mark.parametrize("place", ["tasks", "threads"])
async def test_its_lost_action_holds_back_nobody(place: Any) -> None:
    def make() -> CrashingEnv:
        return CrashingEnv(ChainEnv(), {1})

    async with TrainingSession(PortableAgent(), max_staleness=1) as session:
        with pytest.raises(ActorFailed):
            await run_actors(session, make, 1, limit=FailureLimit(failures=1), place=place)
        for _ in range(5):
            await session.observe(
                Experience(np.zeros(1), 0, 0.0, np.zeros(1), EpisodeStatus.CONTINUING, "other")
            )
        await session.barrier()
        assert session.opt_steps == 5
        assert session.pacing.allows()


@pytest.mark.parametrize("place", ["tasks", "threads"])
async def test_the_lost_actions_of_a_vector_environment_hold_back_nobody(place: Any) -> None:
    def make() -> SyncVectorEnv:
        return SyncVectorEnv([lambda: CrashingEnv(ChainEnv(), {1})] * 3)

    workers = {} if place == "tasks" else {"workers": 1}
    async with TrainingSession(PortableAgent(), max_staleness=2) as session:
        with pytest.raises(ActorFailed):
            limit = FailureLimit(failures=1)
            await run_vector_actors(session, make, [0, 1, 2], limit=limit, place=place, **workers)
        await session.observe(Experience(np.zeros(1), 0, 0.0, np.zeros(1), EpisodeStatus.CONTINUING, "other"))
        await session.barrier()
        assert session.pacing.allows(n_actions=3)


class Hanging(AsyncChainEnv):
    async def step(self, action: Any) -> Any:
        await anyio.sleep_forever()


@pytest.mark.parametrize("settings", [{}, {"sync_interval": 1}], ids=["central", "copies"])
async def test_the_lost_action_of_a_cancelled_actor_holds_back_nobody(settings: dict[str, Any]) -> None:
    with anyio.fail_after(30):
        async with TrainingSession(PortableAgent(), max_staleness=0) as session:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(run_actors, session, Hanging, 1, **settings))
                while session.pacing.allows():
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            assert session.pacing.allows()


async def test_the_time_in_its_environments_adds_up() -> None:
    class Slow(ChainEnv):
        def step(self, action: Any) -> Any:
            time.sleep(0.02)
            raise RuntimeError("simulator crashed")

    async with TrainingSession(FakeAgent(action=1), max_steps=3) as session:
        (report,) = await run_actors(session, spoilt_once(Slow), 1, limit=PATIENT, stepping="inline")
    assert report.restarts == 1
    assert report.env_s >= 0.02


async def test_the_updates_of_its_copies_add_up() -> None:
    seen: list[int] = []
    async with TrainingSession(PortableAgent(), max_steps=12, publish_interval=1) as session:

        class Counting(Gate):
            async def enter(self, actor_id: ActorId) -> bool:
                await session.barrier()
                seen.append(group.reports[0].syncs)
                return True

        group = ActorGroup(session, crashing_once(6), 1, place="threads", limit=PATIENT, gate=Counting())
        with anyio.fail_after(30):
            await group.run()
    assert group.restarts == 1
    assert seen[4] > 0
    assert seen == sorted(seen)


class Refusing(PortableAgent):
    """Refuses the observation that its policy fails on."""

    def check_observation(self, observation: Any) -> None:
        super().check_observation(observation)
        if observation[0] == -13:
            raise InvalidExperience("13 is refused")


@pytest.mark.parametrize("settings", [{"sync_interval": 1}, {"place": "threads"}], ids=["tasks", "threads"])
async def test_an_observation_that_the_agent_refuses_is_its_fault_also_where_a_copy_fails_on_it(
    settings: dict[str, Any],
) -> None:
    class Unlucky(ChainEnv):
        def reset(self, **given: Any) -> Any:
            _, info = super().reset(**given)
            return np.full(1, -13.0, np.float32), info

    agent = Refusing()
    with anyio.fail_after(30):
        async with TrainingSession(agent, max_steps=6) as session:
            (report,) = await run_actors(session, spoilt_once(Unlucky), 1, limit=PATIENT, **settings)
    assert report.restarts == 1
    assert str(report.last_error).startswith("InvalidExperience: 13 is refused")
    assert agent.total_steps == 6


@pytest.mark.parametrize("place", ["tasks", "threads"])
async def test_an_environment_that_gives_nan_does_no_further_step(place: Any) -> None:
    n_steps = 0

    class Nan(ChainEnv):
        def step(self, action: Any) -> Any:
            nonlocal n_steps
            n_steps += 1
            seen, _, *ends = super().step(action)
            return seen, math.nan if n_steps == 2 else 0.0, *ends

    with anyio.fail_after(30):
        async with TrainingSession(PortableAgent(), max_steps=6) as session:
            (report,) = await run_actors(session, spoilt_once(Nan), 1, limit=PATIENT, place=place)
    assert (report.restarts, n_steps) == (1, 2)


class ForActors(Right):
    """Keeps for whom it acts, and whose episodes end."""

    seen: list[str]

    def fork(self, seed: int) -> ForActors:
        made = ForActors(self.opts, seed)
        made.seen = self.seen
        return made

    def act_for(
        self, observations: Sequence[Any], mode: ActMode, actor_ids: Sequence[ActorId]
    ) -> tuple[list[int], list[Any]]:
        self.seen += map(str, actor_ids)
        return self.act(observations, mode)

    def end_episode(self, actor_id: ActorId) -> None:
        self.seen.append(f"{actor_id} ended")


class Tired(ForActors):
    """Fails at the end of an episode."""

    def __init__(self, opts: int, seed: int | None = None) -> None:
        super().__init__(opts, seed)
        self.seen = []

    def fork(self, seed: int) -> Tired:
        return Tired(self.opts, seed)

    def end_episode(self, actor_id: ActorId) -> None:
        raise RuntimeError("no more episodes")


async def test_an_error_that_ends_its_thread_is_its_failure() -> None:
    class Agent(PortableAgent):
        def policy(self) -> Any:
            return Tired(self.opts)

    said = r"its thread has ended \(RuntimeError: no more episodes\)"
    with anyio.fail_after(10), pytest.raises(ActorFailed, match=said):
        async with TrainingSession(Agent()) as session:
            await run_actors(session, ChainEnv, 1, place="threads", limit=FailureLimit(failures=1))


async def test_a_copy_is_told_the_ends_of_its_episodes() -> None:
    seen: list[str] = []

    class Agent(PortableAgent):
        def policy(self) -> Any:
            made = ForActors(self.opts)
            made.seen = seen
            return made

    async with TrainingSession(Agent(), max_steps=4) as session:
        await run_actors(session, lambda: ChainEnv(2), ["a"], sync_interval=1)
    assert seen == ["a", "a", "a ended"] * 2


@pytest.mark.parametrize("place", ["tasks", "threads", "processes"])
@pytest.mark.parametrize(
    ("make", "spaces"),
    [
        (Wide, r"observation space is Box\(0.0, 5.0, \(2,\), .*made for Box\(0.0, 5.0, \(1,\), "),
        (one_way, r"action space is Discrete\(1\).*made for Discrete\(2\)"),
    ],
)
async def test_one_of_other_spaces_than_the_agents_is_not_made_again(
    place: Any, make: Callable[[], Any], spaces: str
) -> None:
    env = ChainEnv()
    agent = DQN(env.observation_space, env.action_space)
    with anyio.fail_after(60), pytest.raises(ConfigError, match=f"^env of actor 0 failed .*its {spaces}"):
        async with TrainingSession(agent, max_steps=100) as session:
            await run_actors(session, make, 1, place=place, limit=PATIENT)


async def test_a_vector_environment_of_other_spaces_is_not_made_again() -> None:
    env = ChainEnv()
    agent = DQN(env.observation_space, env.action_space)
    with anyio.fail_after(60), pytest.raises(ConfigError, match=r"is Discrete\(1\).* made for Discrete\(2\)"):
        async with TrainingSession(agent, max_steps=100) as session:
            await run_vector_actors(session, lambda: SyncVectorEnv([one_way] * 2), limit=PATIENT)


async def test_one_that_fails_with_the_agents_spaces_is_made_again_whatever_its_bounds() -> None:
    env = ChainEnv()
    agent = DQN(Box(-1.0, 1.0, (1,), np.float32), env.action_space)
    with anyio.fail_after(60):
        async with TrainingSession(agent, max_steps=6) as session:
            [report] = await run_actors(session, crashing_once(2), 1, limit=PATIENT)
    assert (report.restarts, report.steps) == (1, 6)
