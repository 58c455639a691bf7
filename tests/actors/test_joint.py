"""Agents of joint environments as actors: rewards, births, deaths, last observations, passes, exact ends."""

from __future__ import annotations

import importlib
import math
import re
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from gymnasium import spaces
from joint_worlds import (
    AecColony,
    PaidAec,
    PaidParallel,
    Pair,
    ParallelColony,
    RandomSeat,
    Turns,
    Watched,
)

from stoker import (
    ActorFailed,
    ConfigError,
    EpisodeStatus,
    Experience,
    FailureLimit,
    TrainingRun,
    TrainingSession,
)
from stoker.actors import LearningSeat, run_joint_actors
from stoker.envs import episode_seed
from stoker.testing import ChainEnv, FakeAgent

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


# Faults ---------------------------------------------------------------------------------------------

AT_ONCE = FailureLimit(failures=3, window_s=1000.0, first_delay_s=0.0)
Spoil = Callable[..., Any]


def bury(env: Any, seen: Any, rewards: Any, terminated: Any, *_: Any) -> None:
    """Blue dies in good order; and red stays with what belongs to blue in the next step."""
    env.agents.remove("blue")
    terminated["blue"] = True
    step = env.step
    env.step = lambda actions: haunted(step(actions))


def haunted(result: Any) -> Any:
    result[0]["blue"] = np.zeros(4)
    return result


def paid_when_dead(env: Any, *parts: Any) -> None:
    bury(env, *parts)
    step = type(env).step
    env.step = lambda actions: (result := step(env, actions), result[1].update(blue=2.0))[0]


def dead_turn(env: Any) -> None:
    env.agent_selection = "green"


def stays_dead(env: Any) -> None:
    env.terminations["blue"], env.agent_selection = True, "blue"
    env.step = lambda _: None


FAULTS: dict[str, tuple[Any, Spoil, str]] = {
    "missing everywhere": (
        Pair,
        lambda _, *parts: [part.pop("blue") for part in parts],
        "agent 'blue' acted and is missing from the observations, rewards, terminations, truncations",
    ),
    "no reward": (Pair, lambda _, seen, rewards, *__: rewards.pop("red"), "'red' acted .* the rewards of"),
    "observed when dead": (Pair, bury, "agent 'blue' has an observation and does not play: it is dead"),
    "paid when dead": (Pair, paid_when_dead, "agent 'blue' got a reward of 2.0 .float. without an action"),
    "left alive": (Pair, lambda env, *_: env.agents.remove("red"), "agent 'red' has left env.agents with"),
    "dead and there": (
        Pair,
        lambda env, seen, rewards, ends, *_: ends.update(red=True),
        "agent 'red' is still in env.agents with terminated=True",
    ),
    "NaN": (Pair, lambda _, seen, rewards, *__: rewards.update(blue=math.nan), "'blue' got reward=nan"),
    "text": (Pair, lambda _, seen, rewards, *__: rewards.update(blue="1"), "'blue' got reward='1'"),
    "never seen": (
        Pair,
        lambda env, seen, *_: (env.agents.append("green"), seen.update(green=np.zeros(4))),
        "agent 'green' is none of the agents 'red', 'blue'",
    ),
    "born blind": (Pair, lambda env, *_: env.agents.append("green"), "'green' plays and has no observation"),
    "another shape": (Pair, lambda _, seen, *__: seen.update(blue=np.zeros(3)), "agent 'blue' .* shape"),
    "raises": (Pair, lambda *_: 1 / 0, "ZeroDivisionError"),
    "turn of nobody": (Turns, dead_turn, "agent 'green' has the turn and does not play"),
    "stays dead": (Turns, stays_dead, "agent 'blue' is dead and still in env.agents"),
    "NaN turn": (
        Turns,
        lambda env: env._cumulative_rewards.update(blue=math.nan),
        "agent 'blue' got reward=nan",
    ),
}


@on_asyncio
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_costs_one_episode_and_names_the_agent(fault: str) -> None:
    kind, spoil, message = FAULTS[fault]
    spoils = [spoil]
    agent = FakeAgent()
    async with TrainingSession(agent, max_steps=30) as session:
        make = lambda: kind(spoils.pop() if spoils else None)  # noqa: E731
        reports = await run_joint_actors(session, make, 1, limit=AT_ONCE)
    assert len(agent.experiences) == 30, "the session goes on"
    assert [report.restarts for report in reports] == [1] * len(reports)
    assert re.search(message, str(reports[0].last_error))
    assert {report.actor_id for report in reports} == {"0/red", "0/blue"}
    n_ended = sum(step.status.is_done for step in agent.experiences)
    assert session.total_episodes == n_ended >= 7, "one episode of each is lost, and one may be running"


@on_asyncio
async def test_an_agent_that_is_not_born_again_after_a_failure_has_no_episode() -> None:
    def fall_ill(env: Any, *_: Any) -> None:
        raise RuntimeError("ill")

    worlds = [Pair(fall_ill), Pair(agents=("red",))]
    agent = FakeAgent()
    async with TrainingSession(agent, max_steps=9) as session:
        await run_joint_actors(session, lambda: worlds.pop(0), 1, limit=AT_ONCE)
    assert agent.started.count("0/blue") == 2, "once it began, once it was abandoned"


@on_asyncio
async def test_an_agent_that_is_born_again_after_failures_is_abandoned_once() -> None:
    def fall_ill(env: Any, *_: Any) -> None:
        raise RuntimeError("ill")

    class Unborn(Pair):
        def reset(self, seed: int | None = None, options: Any = None) -> Any:
            raise RuntimeError("ill from the beginning")

    worlds = [Pair(fall_ill), Unborn(), Pair(agents=("red",))]
    agent = FakeAgent()
    async with TrainingSession(agent, max_steps=4) as session:
        reports = await run_joint_actors(session, lambda: worlds.pop(0), 1, limit=AT_ONCE)
    assert [report.restarts for report in reports] == [2, 2]
    assert [each.actor_id for each in agent.experiences[2:]] == ["0/red", "0/red"]
    assert agent.started == ["0/red", "0/blue", "0/red", "0/blue"]


@on_asyncio
async def test_an_environment_that_fails_too_often_ends_the_group() -> None:
    async with TrainingSession(FakeAgent(), max_steps=90) as session:
        with pytest.raises(ActorFailed, match="actor 0: .* 3 times .* agent 'red' acted and is missing"):
            await run_joint_actors(session, lambda: Pair(FAULTS["no reward"][1]), 2, limit=AT_ONCE)


# Policies -------------------------------------------------------------------------------------------


@on_asyncio
async def test_each_policy_has_one_pass_per_joint_step() -> None:
    agents = {"warm": FakeAgent(), "cold": FakeAgent(1)}
    env = Watched(Pair(agents=("red", "blue", "crimson")))
    async with TrainingSession(agents["warm"], max_steps=60) as warm, TrainingSession(agents["cold"]) as cold:
        seats = {"warm": LearningSeat(warm), "cold": LearningSeat(cold)}
        policy_of = {"red": "warm", "blue": "cold", "crimson": "warm"}.__getitem__
        await run_joint_actors(seats, lambda: env, 1, policy_of=policy_of)
    assert env.n_steps == 30
    for name, n_agents in (("warm", 2), ("cold", 1)):
        assert agents[name].batch_sizes == [n_agents] * 30
        assert len(agents[name].experiences) == 30 * n_agents
        assert {step.action for step in agents[name].experiences} == {agents[name].action}


@on_asyncio
async def test_environments_that_wait_together_share_a_pass() -> None:
    agent = FakeAgent()
    async with TrainingSession(agent, max_steps=600) as session:
        await run_joint_actors(session, Pair, 4, stepping="inline")
    assert len(agent.batch_sizes) < 600 / 2 / 2


@on_asyncio
async def test_max_steps_is_exact_in_the_middle_of_a_joint_step() -> None:
    agent = FakeAgent()
    async with TrainingSession(agent, max_steps=7) as session:
        reports = await run_joint_actors(session, Pair, 1)
    assert session.total_steps == len(agent.experiences) == 7
    assert session.refused_steps == 1
    assert sum(report.steps for report in reports) == 8


@on_asyncio
@pytest.mark.parametrize("stepping", ["inline", "thread"])
async def test_episodes_are_seeded_by_environment_and_number(stepping: Any) -> None:
    worlds: list[Pair] = []

    def make() -> Pair:
        worlds.append(Pair())
        return worlds[-1]

    def begun(world: Pair) -> list[int]:
        return [seed for seed in world.seeds if seed is not None]

    async def stop_when_all_have_begun_two(_: int) -> None:
        if len(worlds) == 2 and all(len(begun(world)) > 1 for world in worlds):
            session.stop()

    async with TrainingSession(FakeAgent()) as session:
        settings: Any = {"stepping": stepping, "on_joint_step": stop_when_all_have_begun_two}
        await run_joint_actors(session, make, 2, seed=3, **settings)
    worlds.sort(key=lambda world: begun(world)[0] != episode_seed(3, 0, 0))  # made at the same time
    for index, world in enumerate(worlds):
        assert begun(world) == [episode_seed(3, index, episode) for episode in range(len(begun(world)))]


@on_asyncio
async def test_a_resumed_run_goes_on_with_the_seeds_behind_those_of_all_agents(tmp_path: Path) -> None:
    run = await TrainingRun.create("joint", root=tmp_path)
    async with TrainingSession(FakeAgent(), run, max_steps=10) as session:
        await run_joint_actors(session, lambda: Pair(agents=("red",)), 1, seed=3)
    world = Pair()
    async with TrainingSession(FakeAgent(), await TrainingRun.resume(run.directory), max_steps=20) as session:
        n_played = session.actor_episodes("0/red")
        assert n_played > session.actor_episodes("0/blue") == 0
        await run_joint_actors(session, lambda: world, 1, seed=3)
    seeds = [seed for seed in world.seeds if seed is not None]
    assert seeds[0] == episode_seed(3, 0, n_played)


@on_asyncio
async def test_the_lost_actions_of_an_environment_hold_back_nobody() -> None:
    def fall_ill(env: Any, *_: Any) -> None:
        raise RuntimeError("ill")

    async with TrainingSession(FakeAgent(), max_staleness=2) as session:
        with pytest.raises(ActorFailed):
            await run_joint_actors(session, lambda: Pair(fall_ill), 1, limit=FailureLimit(failures=1))
        for _ in range(9):
            await session.observe(Experience(0, 0, 0.0, 0, EpisodeStatus.CONTINUING, "other"))
        await session.barrier()
        assert session.opt_steps >= 9
        assert session.pacing.allows()


class OddReset(Pair):
    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed)[0]


REFUSED: dict[str, tuple[Any, dict[str, Any], dict[str, Any], str]] = {
    "lockstep": (Pair, {"lockstep": True}, {}, "lockstep=True"),
    "no environments": (Pair, {}, {"num_envs": 0}, "num_envs=0"),
    "unknown policy": (Pair, {}, {"policy_of": str.upper}, "policy_of\\('red'\\) is 'RED'"),
    "no environment": (ChainEnv, {}, {}, "a ChainEnv is not an environment of several agents"),
    "two spaces": (
        lambda: Pair(blue=spaces.Box(0.0, 1.0, (2,))),
        {},
        {},
        "agents 'red' and 'blue' under the policy have different observations",
    ),
    "turns and staleness": (Turns, {"max_staleness": 5}, {}, "max_staleness=5: agents that take turns"),
    "too many for staleness": (Pair, {"max_staleness": 0}, {}, "2 actors act at once"),
    "no mapping": (OddReset, {}, {}, "OddReset.reset returned .* 2 dicts by agent"),
}


@on_asyncio
@pytest.mark.parametrize("what", REFUSED)
async def test_what_cannot_be_played_is_refused(what: str) -> None:
    make, session_settings, settings, message = REFUSED[what]
    async with TrainingSession(FakeAgent(), max_steps=50, **session_settings) as session:
        with pytest.raises(ConfigError, match=message):
            await run_joint_actors(session, make, **{"num_envs": 1, **settings})


@on_asyncio
async def test_agents_that_act_at_once_keep_to_max_staleness() -> None:
    agent = FakeAgent()
    with anyio.fail_after(30):
        async with TrainingSession(agent, max_steps=200, max_staleness=3, opt_interval=2) as session:
            await run_joint_actors(session, Pair, 3)
    assert len(agent.experiences) == 200
    assert all(at // 2 - (step.policy_version or 0) <= 3 for at, step in enumerate(agent.experiences))


@on_asyncio
async def test_a_stuck_environment_is_restarted() -> None:
    release = threading.Event()

    def hang(*_: Any) -> None:
        release.wait(20)

    worlds = [Pair(hang)]
    agent = FakeAgent()
    settings: Any = {"actor_timeout_s": 0.3, "on_silent_actor": "restart", "max_steps": 20}
    async with TrainingSession(agent, **settings) as session:
        make = lambda: worlds.pop() if worlds else Pair()  # noqa: E731
        reports = await run_joint_actors(session, make, 1, stepping="thread", limit=AT_ONCE)
        release.set()
    assert len(agent.experiences) == 20
    assert "has not moved" in str(reports[0].last_error)


@on_asyncio
async def test_joint_steps_are_handed_over_whole_and_one_at_a_time() -> None:
    agents = {"red": FakeAgent(), "blue": FakeAgent()}
    sessions = {name: TrainingSession(agent) for name, agent in agents.items()}
    counts: list[tuple[int, int]] = []
    committing = 0

    async def commit(_: int) -> None:
        nonlocal committing
        committing += 1
        assert committing == 1
        counts.append((sessions["red"].accepted_steps, sessions["blue"].accepted_steps))
        await anyio.lowlevel.checkpoint()
        committing -= 1
        if len(counts) >= 40:
            for session in sessions.values():
                session.stop()

    async with sessions["red"], sessions["blue"]:
        seats = {name: LearningSeat(session) for name, session in sessions.items()}
        await run_joint_actors(seats, Pair, 3, policy_of=lambda agent: agent, on_joint_step=commit)
    assert all(red == blue for red, blue in counts)
    assert len(agents["red"].experiences) == counts[-1][0]
