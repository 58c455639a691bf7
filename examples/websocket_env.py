"""Environments behind a WebSocket: the server plays CartPole, each connection is one environment.

The client is an async environment with Gymnasium's ``reset`` and ``step``. ``run_actors`` plays it as any
other, and makes it again when the connection breaks.

Needs `pip install websockets`.

python examples/websocket_env.py
"""

import json
from typing import Any

import anyio
import numpy as np
import torch
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

from stoker import DQN, TrainingRun, TrainingSession, make_gym, preset, run_actors

ENV = "CartPole-v1"


async def host(connection: ServerConnection) -> None:
    """The server's side of one environment; in your case this is the simulator."""
    env = make_gym(ENV)
    async for message in connection:
        asked = json.loads(message)
        if "action" in asked:
            observation, reward, terminated, truncated, _ = env.step(asked["action"])
        else:
            (observation, _), reward, terminated, truncated = env.reset(seed=asked["seed"]), 0.0, False, False
        await connection.send(json.dumps([observation.tolist(), float(reward), terminated, truncated]))


class RemoteEnv:
    """The client's side: an async environment."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        observation, *_ = await self._ask(seed=seed)
        return observation, {}

    async def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Do one action."""
        return *await self._ask(action=int(action)), {}

    async def close(self) -> None:
        """Close the connection; the server closes its environment with it."""
        await self._connection.close()

    async def _ask(self, **message: Any) -> Any:
        with anyio.fail_after(5):
            await self._connection.send(json.dumps(message))
            observation, reward, terminated, truncated = json.loads(await self._connection.recv())
        return np.array(observation, np.float32), reward, terminated, truncated


async def train(steps: int, runs_dir: str, n_envs: int) -> None:
    spaces = make_gym(ENV)
    agent = DQN(spaces.observation_space, spaces.action_space, preset("dqn", ENV), seed=0)
    run = await TrainingRun.create("websocket", root=runs_dir)
    async with serve(host, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]

        async def make_env() -> RemoteEnv:
            return RemoteEnv(await connect(f"ws://127.0.0.1:{port}", proxy=None))

        async with TrainingSession(agent, run, max_steps=steps) as session:
            await run_actors(session, make_env, n_envs, seed=0)
    print(f"{session.total_steps:,} steps, {session.total_episodes} episodes; look at it with:")
    print(f"  stoker show {run.directory}")


def main(steps: int = 10_000, runs_dir: str = "runs", n_envs: int = 8) -> None:
    torch.set_num_threads(1)  # the fastest for a network this small
    anyio.run(train, steps, runs_dir, n_envs)


if __name__ == "__main__":
    main()
