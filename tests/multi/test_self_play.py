"""Self-play: frozen opponents on disk, sides in turn, results that are counted, and what is learned."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from counting_game import CountingGame

from stoker import DQN, DQNConfig, TrainingRun, TrainingSession
from stoker.actors import JointActorGroup, LearningSeat
from stoker.envs.pettingzoo import joint_env
from stoker.errors import ConfigError
from stoker.multi import OpponentEnv, OpponentPool, SelfPlay
from stoker.multi.standings import Choice, Opponent, Standings, thinned
from stoker.testing import FakeAgent, check_env

pytestmark = pytest.mark.anyio


def agent() -> DQN:
    spaces = joint_env(CountingGame()).spaces("first")
    return DQN(
        *spaces, DQNConfig(hidden_sizes=(8,), batch_size=8, learning_starts=20, buffer_size=500), seed=1
    )


async def play(
    run: TrainingRun | None, steps: int, pool: OpponentPool, learner: Any = None
) -> TrainingSession:
    async with TrainingSession(learner or agent(), run, max_steps=steps, queue_capacity=4) as session:
        await pool.open(session)
        games = SelfPlay(session, pool, ("first", "second"))
        await JointActorGroup(games.seats, CountingGame, 2, assign=games.assign, seed=3).run()
        await pool.close()
    return session


async def test_the_learner_alternates_sides_and_only_its_steps_are_learned(tmp_path: Path) -> None:
    run = await TrainingRun.create("game", root=tmp_path)
    pool = OpponentPool(freq=20, keep=3, seed=5)
    session = await play(run, 100, pool)
    assert session.total_steps == 100
    assert session.agent.total_steps == 100
    rows = await run.read_train_episodes()
    sides = Counter(str(actor).partition("/")[2] for actor in rows["actor_id"])
    assert abs(sides["first"] - sides["second"]) <= 2, "each side as often"
    standings = pool.standings
    assert len(rows["episode"]) - 2 <= standings.games <= len(rows["episode"]) + 2
    steps = [one.step for one in standings.opponents]
    assert 2 <= len(steps) <= 3
    assert steps[0] == 0, "the oldest stays"
    files = {path.name for path in (run.directory / "opponents").glob("*.pt")}
    assert files == {f"step_{step}.pt" for step in steps}
    assert sum(one.wins for one in standings.opponents) <= (rows["total_reward"] > 0).sum()
    recorded = await run.read_metrics()
    assert recorded["metrics.self_play/opponents"].tolist()[:2] == [1.0, 2.0]
    assert recorded["metrics.self_play/elo"][0] == 1000.0


async def test_agents_of_one_side_play_together(tmp_path: Path) -> None:
    run = await TrainingRun.create("game", root=tmp_path)
    pool = OpponentPool(freq=20, keep=3, seed=5)
    async with TrainingSession(agent(), run) as session:
        await pool.open(session)
        games = SelfPlay(session, pool, ("red_1", "blue_1", "red_2"), lambda name: name.partition("_")[0])
        for episode, mine in enumerate(("red", "blue", "red")):
            seats = games.assign(0, episode)
            learning = {name for name, seat in seats.items() if isinstance(seat, LearningSeat)}
            assert learning == {name for name in seats if name.startswith(mine)}
        await pool.close()


async def test_a_resume_restores_the_opponents_and_their_weights(tmp_path: Path) -> None:
    run = await TrainingRun.create("game", root=tmp_path)
    first = OpponentPool(freq=20, keep=10, seed=5)
    await play(run, 70, first)
    second = OpponentPool(freq=1000, keep=10, seed=5)  # none is due
    async with TrainingSession(agent(), await TrainingRun.resume(run.directory), max_steps=80) as session:
        await second.open(session)
        steps = [one.step for one in second.standings.opponents]
        assert steps == [one.step for one in first.standings.opponents]
        assert second.standings == first.standings
        seen = joint_env(CountingGame()).spaces("first")[0].sample()
        for step in steps:
            restored, frozen = (pool._frozen[step]._policy.weights() for pool in (second, first))  # pyright: ignore
            for name, value in frozen.items():
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(restored[name]))
        assert len(second.choose(0, 1).act([seen], ["0/first"])) == 1
        assert second.choose(0, 1).standing == second.choose(0, 1).standing, "seeded"


async def test_opponents_behind_the_resume_are_set_aside_and_damaged_ones_passed_over(tmp_path: Path) -> None:
    run = await TrainingRun.create("game", root=tmp_path)
    await play(run, 70, OpponentPool(freq=20, keep=10))
    places = sorted((run.directory / "opponents").glob("step_*.pt"))
    (run.directory / "opponents" / "step_9999.pt").write_bytes(places[0].read_bytes())
    whole = places[1].read_bytes()
    places[1].write_bytes(whole[:-30] + bytes(30))
    pool = OpponentPool(freq=1000, keep=10)
    async with TrainingSession(agent(), await TrainingRun.resume(run.directory), max_steps=80) as session:
        await pool.open(session)
        assert len(pool.standings.opponents) == len(places) - 1
    assert (run.directory / "opponents" / "step_9999.pt.abandoned").exists()


async def test_an_agent_without_copies_is_refused() -> None:
    with pytest.raises(ConfigError, match="self-play needs copies of the policy"):
        await play(None, 10, OpponentPool(), FakeAgent())


def test_ratings_follow_elo() -> None:
    standings = Standings(opponents=[Opponent(step=0)])
    opponent = standings.opponents[0]
    standings.add(opponent, 1.0)
    assert standings.rating == 1008.0
    standings.add(opponent, 0.0)
    assert standings.rating == pytest.approx(1008 - 16 / (1 + 10 ** (-8 / 400)))
    assert (opponent.wins, opponent.draws, opponent.losses, opponent.win_rate) == (1, 0, 1, 0.5)
    assert standings.metrics()["self_play/score/step_0"] == 0.5


def test_how_opponents_are_chosen() -> None:
    opponents = [Opponent(step=step, recent=[1.0] * 20 if step else [0.0] * 20) for step in range(4)]

    def counts(choose: str) -> list[int]:
        choice, rng = Choice.parse(choose), np.random.default_rng(0)
        found = Counter(choice.pick(opponents, rng).step for _ in range(1000))
        return [found[one.step] for one in opponents]

    assert counts("latest") == [0, 0, 0, 1000]
    assert min(counts("uniform")) > 200
    assert 580 < counts("latest:0.5,uniform:0.5")[3] < 670
    assert counts("pfsp")[0] > 900, "the one that is not beaten"
    for text in ("best", "latest:0", "latest:x", "latest,latest", ""):
        with pytest.raises(ConfigError, match="choose="):
            Choice.parse(text)


def test_the_newest_and_the_oldest_stay_and_the_past_is_covered() -> None:
    kept: list[int] = []
    for step in range(100):
        kept = thinned([*kept, step], 5)
    assert kept[0] == 0
    assert kept[-1] == 99
    assert max(np.diff(kept)) <= 60
    assert thinned([1, 2, 3], 1) == [3]
    assert thinned([1, 2, 3], 2) == [1, 3]


def test_a_game_against_an_opponent_is_an_environment() -> None:
    check_env(lambda: OpponentEnv(CountingGame))
    env = OpponentEnv(CountingGame)
    for seed in range(6):
        env.reset(seed=seed)
        done, total, info = False, 0.0, {}
        while not done:
            _, reward, terminated, truncated, info = env.step(1)
            done, total = terminated or truncated, total + float(reward)
        assert info["is_success"] == (total > 0), "always the higher number wins"
