"""A web application with a learning service in it: actors play over /rl, and the other routes are its own.

Needs `pip install 'stoker[service]'`.

python examples/service.py, then, from any language:

POST /rl/v1/step   {"steps": [{"actor": "a", "seq": 1, "start": true, "observation": [0, 0, 0, 0]}]}
                   -> {"actors": {"a": {"next": 2, "action": 1, ...}}, "training": "running"}
POST /rl/v1/step   {"steps": [{"actor": "a", "seq": 2, "reward": 1, "observation": [0, 0.2, 0, -0.3]}]}
GET  /stats

docs/protocol.md describes all that actors can send. Restarted, the service goes on with its run.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec
import torch
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

import stoker
from stoker.service import make_app, service_lifespan

ENV = "CartPole-v1"


def make_host(runs_dir: str) -> Starlette:
    env = stoker.make_gym(ENV)  # only for its spaces: the clients play

    @asynccontextmanager
    async def session() -> AsyncGenerator[stoker.TrainingSession]:
        try:
            run = await stoker.TrainingRun.resume(f"{runs_dir}/service")  # go on after a restart
        except stoker.RunNotFound:
            run = await stoker.TrainingRun.create("service", root=runs_dir)
        agent = stoker.DQN(env.observation_space, env.action_space, stoker.preset("dqn", ENV), seed=0)
        async with stoker.TrainingSession(agent, run, numbered=True) as session:
            yield session

    service = make_app(session, spaces=(env.observation_space, env.action_space))

    async def stats(request: Request) -> JSONResponse:
        open_session = service.state.stoker.session
        if open_session is None:
            return JSONResponse({"error": "the run is being opened"}, 503)
        recent = msgspec.to_builtins(open_session.stats.window())
        return JSONResponse({"run": str(open_session.run.directory), **recent})

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        async with service_lifespan(service):
            yield

    return Starlette(routes=[Mount("/rl", service), Route("/stats", stats)], lifespan=lifespan)


def main(runs_dir: str = "runs", port: int = 8000) -> None:
    torch.set_num_threads(1)  # the fastest for a network this small
    uvicorn.run(make_host(runs_dir), port=port, access_log=False, timeout_graceful_shutdown=10)


if __name__ == "__main__":
    main()
