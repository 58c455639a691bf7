"""Agents of joint environments as actors: rewards, births, deaths, last observations, passes, exact ends."""

from __future__ import annotations

import importlib
from fractions import Fraction
from typing import Any

import pytest
from joint_worlds import AecColony, PaidAec, PaidParallel, ParallelColony, RandomSeat, Watched

from stoker import EpisodeStatus, Experience, TrainingSession
from stoker.actors import run_joint_actors
from stoker.testing import FakeAgent

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:The old environment creation API:DeprecationWarning"),
]
on_asyncio = pytest.mark.parametrize(
    "anyio_backend", [("asyncio", {"use_uvloop": False})], ids=["asyncio"], indirect=True
)


@pytest.mark.parametrize("kind", [ParallelColony, AecColony])
async def test_each_action_is_learned_once_with_all_that_it_was_given(kind: Any) -> None:
    worlds: list[Any] = []

    def make() -> Any:
        worlds.append(kind())
        return worlds[-1]

    agent = FakeAgent()
    async with TrainingSession(agent, max_steps=700) as session:
        reports = await run_joint_actors(session, make, 3, seed=5)
    assert len(agent.experiences) == 700 == session.total_steps
    given = {key: reward for world in worlds for key, reward in world.given.items()}
    learned: dict[Any, Experience] = {}
    for step in agent.experiences:
        key = tuple(map(int, step.observation))
        assert key not in learned, "each action once"
        learned[key] = step
        assert Fraction(step.reward) == given[key]
        assert [*map(int, step.next_observation)] == [*key[:3], key[3] + 1]
        assert str(step.actor_id).endswith(f"/ant_{key[2]}")
    lives: dict[Any, list[Experience]] = {}
    for key in sorted(learned):
        lives.setdefault(key[:3], []).append(learned[key])
    for key, steps in lives.items():
        assert [int(step.observation[3]) for step in steps] == [*range(len(steps))]
        assert all(step.status is EpisodeStatus.CONTINUING for step in steps[:-1])
        if key[1] < worlds[key[0] - worlds[0].world].episode:  # the episode is over
            assert steps[-1].status.is_done
    statuses = {step.status for step in agent.experiences}
    assert statuses == {*EpisodeStatus}
    episodes = {key[:2] for key in lives}
    assert max(sum(key[:2] == episode for key in lives) for episode in episodes) > 3, "some are born later"
    assert sum(report.episodes for report in reports) >= session.total_episodes > 50
    assert sum(report.steps for report in reports) >= 700


OWN = "pettingzoo.test.example_envs."
PLAYED = [
    ("mpe2.simple_spread_v3", "parallel_env"),
    ("mpe2.simple_tag_v3", "parallel_env"),
    ("mpe2.simple_speaker_listener_v4", "env"),
    ("pettingzoo.classic.connect_four_v3", "env"),
    ("pettingzoo.classic.tictactoe_v3", "env"),
    ("pettingzoo.classic.rps_v2", "env"),
    (f"{OWN}generated_agents_parallel_v0", "parallel_env"),
    (f"{OWN}generated_agents_parallel_cust_agentid_v0", "parallel_env"),
    (f"{OWN}generated_agents_env_v0", "env"),
    (f"{OWN}generated_agents_env_action_mask_info_v0", "env"),
]


class Everybody(dict[str, Any]):
    """One seat, also for agents whose names are not known yet."""

    def __init__(self, seat: Any) -> None:
        self.get = lambda _: seat


@on_asyncio
@pytest.mark.parametrize(("module", "name"), PLAYED, ids=[f"{m.split('.')[-1]}-{n}" for m, n in PLAYED])
async def test_rewards_learned_are_rewards_given(module: str, name: str) -> None:
    """Those of agents that had not acted are no action's; those of open actions are still to come."""
    env = getattr(importlib.import_module(module), name)()
    paid: Any = (PaidParallel if name == "parallel_env" else PaidAec)(env)
    watched = Watched(paid)
    agent = FakeAgent()

    async def stop_after_two(_: int) -> None:
        if watched.n_over == 2 or watched.n_steps == 150:
            session.stop()

    async with TrainingSession(agent) as session:
        seat = RandomSeat(session)
        seat.env = watched
        settings: Any = {"assign": lambda *_: Everybody(seat), "on_joint_step": stop_after_two}
        await run_joint_actors({"random": seat}, lambda: watched, 1, seed=1, **settings)
    assert watched.n_steps == seat.n_calls, "one call of the seat for each joint step"
    learned = sum((Fraction(step.reward) for step in agent.experiences), Fraction(0))
    assert learned + watched.unearned + paid.outstanding() == paid.given
    assert watched.n_acts - len(agent.experiences) == watched.n_open
