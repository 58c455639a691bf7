"""OpenEnv's server with an environment that does nothing; runs where ``openenv`` is installed, alone.

``openenv_server.py async``: with an asynchronous environment, whose steps OpenEnv does not give to a thread.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

import uvicorn
from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State

MOST_SESSIONS = 128


class Move(Action):
    """One of a few actions."""

    move: int


class Seen(Observation):
    """Four numbers."""

    obs: list[float]


class Null(Environment):
    """As OpenEnv's documents show one: its methods block."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, *_: Any, **__: Any) -> Seen:
        return Seen(obs=[0.0] * 4, reward=0.0)

    def step(self, action: Move, *_: Any, **__: Any) -> Seen:
        del action
        return Seen(obs=[0.0273956, -0.0061122, 0.0358532, 0.0197379], reward=1.0)

    @property
    def state(self) -> State:
        return State()


class AsyncNull(Null):
    """The same with methods that are awaited."""

    async def reset_async(self, *_: Any, **__: Any) -> Seen:
        return self.reset()

    async def step_async(self, action: Move, *_: Any, **__: Any) -> Seen:
        return self.step(action)


def main() -> None:
    env = AsyncNull if sys.argv[1:] == ["async"] else Null
    app = create_fastapi_app(env, Move, Seen, max_concurrent_envs=MOST_SESSIONS)
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        print(listener.getsockname()[1], flush=True)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        server.run([listener])


if __name__ == "__main__":
    main()
