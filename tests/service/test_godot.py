"""Games that speak the wire of Godot RL Agents, over real sockets; each is a stand-in for the plugin."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from anyio import to_thread
from godot_game import Game
from gymnasium.spaces import Box, Discrete

from stoker import DQN, PPO, DQNConfig, TrainingRun, TrainingSession
from stoker.listening import listening_socket
from stoker.protocol import ProtocolError, SpaceCodec, Spaces
from stoker.service import make_app, service_lifespan
from stoker.service.godot import serve_games
from stoker.service.limits import Limits
from stoker.service.steps import StepService

pytestmark = pytest.mark.anyio
SPACES = Box(-np.inf, np.inf, (1,)), Discrete(2)
QUICK = DQNConfig(
    learning_starts=50, batch_size=32, hidden_sizes=(16,), learning_rate=0.01, epsilon_decay_steps=200
)


@asynccontextmanager
async def bridge(
    session: TrainingSession, spaces: tuple[Any, Any] = SPACES, **limits: Any
) -> AsyncGenerator[int]:
    """The port of a bridge to this session."""
    listener, bounds = listening_socket("127.0.0.1", 0), Limits(**limits)
    service = StepService(session, SpaceCodec(*spaces), bounds, has_disk=session.run is not None)

    async def service_for(given: Spaces) -> StepService:
        if given != Spaces.of(*spaces):
            raise ProtocolError("spaces-differ", "the run has other ones", path="spaces")
        return service

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.run)
        tasks.start_soon(serve_games, listener, service_for, bounds)
        yield listener.getsockname()[1]
        tasks.cancel_scope.cancel()


async def play(game: Callable[[], Game]) -> tuple[Game, list[str]]:
    made = await to_thread.run_sync(game)
    return made, await to_thread.run_sync(made.play)


async def test_several_games_at_once_teach_one_agent(tmp_path: Path) -> None:
    run = await TrainingRun.create("game", root=tmp_path)
    agent = DQN(*SPACES, QUICK, seed=0)
    games: list[Game] = []

    async def play_one(port: int, n_agents: int) -> None:
        game, types = await play(lambda: Game(port, n_agents, n_steps=200))
        games.append(game)
        assert types[:3] == ["handshake", "env_info", "reset"]
        assert {*types[3:]} == {"action"}

    async with (
        TrainingSession(agent, run, numbered=True) as session,
        bridge(session) as port,
        anyio.create_task_group() as tasks,
    ):
        for n_agents in (1, 3):
            tasks.start_soon(play_one, port, n_agents)
    rows = [json.loads(line) for line in (run.directory / "train_episodes.jsonl").read_text().splitlines()]
    found = sorted((row["total_reward"], row["length"], row["status"] == "Truncated") for row in rows)
    assert found == sorted(ended for game in games for ended in game.ended)
    assert {row["extras"]["is_success"] == (row["total_reward"] == 5) for row in rows} == {True}
    assert session.total_steps == 4 * 200
    assert {row["actor_id"] for row in rows} >= {"godot-0-0", "godot-1-0"}
    for game in games:
        assert np.mean(game.rewards[-100:]) > 0.85  # random actions: 0.5


async def test_a_game_that_comes_again_goes_on_with_its_streams() -> None:
    agent = DQN(*SPACES, QUICK, seed=0)
    async with TrainingSession(agent, numbered=True) as session, bridge(session) as port:
        for _ in range(2):
            game, _ = await play(lambda: Game(port, 2, n_steps=7, is_detailed=False))
            assert [is_cut_off for _, _, is_cut_off in game.ended] == [False, False]
        await session.barrier()
        assert session.total_steps == 2 * 2 * 7
        assert session.total_episodes == 4


async def test_a_game_is_closed_when_the_training_is_done() -> None:
    agent = DQN(*SPACES, QUICK, seed=0)
    async with TrainingSession(agent, numbered=True, max_steps=20) as session, bridge(session) as port:
        game, types = await play(lambda: Game(port, 2, n_steps=1000))
    assert (types[-1], game.messages[-1]["reason"]) == ("close", "the training is done")
    assert session.total_steps == 20


async def test_the_first_game_says_the_spaces_and_others_must_have_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def session(*spaces: Any) -> TrainingSession:
        return TrainingSession(DQN(*spaces, QUICK, seed=0), numbered=True)

    listener, app = listening_socket("127.0.0.1", 0), make_app(session)
    hosted, port = app.state.stoker, listener.getsockname()[1]
    wider = {"observation_space": [{"obs": {"size": [2], "space": "box"}}]}
    async with service_lifespan(app), anyio.create_task_group() as tasks:
        tasks.start_soon(serve_games, listener, hosted.service_for, Limits())
        _, types = await play(lambda: Game(port))
        assert types[-1] == "action"
        assert hosted.described == Spaces.of(*SPACES)
        _, types = await play(lambda: Game(port, **wider))
        assert types[-1] == "close"
        tasks.cancel_scope.cancel()
    assert "observation.shape[0] is 1, yours 2" in caplog.text
    assert hosted.failure is None


async def test_images_and_several_continuous_actions() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    space = Box(0, 255, (2, 2, 3), np.uint8), Box(-1.0, 1.0, (3,))
    seen = [{"camera_2d": image.tobytes().hex()}]
    info = {
        "observation_space": {"camera_2d": {"size": [2, 2, 3], "space": "box"}},
        "action_space": {
            "move": {"size": 2, "action_type": "continuous"},
            "turn": {"size": 1, "action_type": "continuous"},
        },
    }

    def one_step(port: int) -> dict[str, Any]:
        with Game(port, **info) as game:
            game.receive(), game.receive()
            game.send(game.info)
            game.receive()
            game.send({"type": "reset", "obs": seen})
            action = game.receive()["action"]
            game.send({"type": "step", "obs": seen, "reward": [1.0], "done": [False]})
            game.receive()
        return action[0]

    async with TrainingSession(PPO(*space, seed=0), numbered=True) as session, bridge(session, space) as port:
        action = await to_thread.run_sync(one_step, port)
        await session.barrier()
        assert {name: len(numbers) for name, numbers in action.items()} == {"move": 2, "turn": 1}
        assert session.total_steps == 1


BOX = {"size": [1], "space": "box"}
CHOICE = {"size": 2, "action_type": "discrete"}
DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"observation_space": [{"obs": {"size": [2], "space": "box"}}]}, "the run has other ones"),
        ({"observation_space": [{"obs": BOX}, {"obs": {**BOX, "size": [3]}}]}, "the agents differ"),
        ({"agent_policy_names": ["chaser", "runner"]}, "chaser, runner"),
        ({"action_space": [{"a": CHOICE, "b": {**CHOICE, "action_type": "continuous"}}]}, "not both"),
        ({"action_space": [{}]}, "no action"),
        ({"observation_space": [{"obs": {"size": [-3], "space": "box"}}]}, "the run has other ones"),
        ({"n_agents": 10**9}, "512"),
        ({"type": "reset"}, "type"),
        (b"{]", "malformed"),
        (DEEP, "deep"),
    ],
)
async def test_a_game_that_cannot_play_is_closed_and_says_why(
    said: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    agent = DQN(*SPACES, QUICK, seed=0)

    def talk(port: int) -> None:
        with Game(port) as game:
            game.receive(), game.receive()
            game.send(said if isinstance(said, bytes) else game.info | said)
            assert game.receive()["type"] == "close"

    async with TrainingSession(agent, numbered=True) as session, bridge(session) as port:
        await to_thread.run_sync(talk, port)
        _, types = await play(lambda: Game(port))
        assert types[-1] == "action", "others are not disturbed"
    assert reason in caplog.text


async def test_a_game_beyond_the_limit_is_told_in_its_handshake() -> None:
    agent = DQN(*SPACES, QUICK, seed=0)

    def second(port: int) -> dict[str, Any]:
        with Game(port) as first:
            first.receive()
            with Game(port) as game:
                return game.receive()

    async with TrainingSession(agent, numbered=True) as session, bridge(session, connections=1) as port:
        told = await to_thread.run_sync(second, port)
    assert told["major_version"] == "of a trainer that has no room for more than 1 games"


async def test_a_message_that_is_too_long_is_not_read() -> None:
    agent = DQN(*SPACES, QUICK, seed=0)

    def talk(port: int) -> dict[str, Any]:
        with Game(port) as game:
            game.receive(), game.receive()
            game.connection.sendall(struct.pack("<I", 2**32 - 1))
            return game.receive()

    async with TrainingSession(agent, numbered=True) as session, bridge(session) as port:
        said = await to_thread.run_sync(talk, port)
    assert said["type"] == "close"
    assert "4,294,967,295 bytes" in said["reason"]
