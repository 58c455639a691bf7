"""A web service of two requests for each step, ``/act`` and ``/experience``: what one writes by hand.

Runs as ``two_requests.py RUNS_DIR SETTINGS``, with settings of the session as JSON.
"""

import json
import socket
import sys
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
import numpy as np
import torch
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import stoker

ENV = "CartPole-v1"
BODY_LIMIT_BYTES = 1_000_000
ActorId = int | Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """What POST /act takes."""

    actor_id: ActorId
    observation: list[float]


class Step(Asked):
    """What POST /experience takes."""

    action: int
    reward: float
    next_observation: list[float]
    status: stoker.EpisodeStatus


class Ended(msgspec.Struct, forbid_unknown_fields=True):
    """What POST /episode takes."""

    actor_id: ActorId
    total_reward: float
    steps: int
    status: stoker.EpisodeStatus


async def act(session: stoker.TrainingSession, asked: Asked) -> Any:
    return {"action": int(await session.act(np.array(asked.observation), actor_id=asked.actor_id))}


async def experience(session: stoker.TrainingSession, given: Step | list[Step]) -> Any:
    steps = given if isinstance(given, list) else [given]
    await session.observe_many([experience_of(step) for step in steps])  # all of them or none
    return {"accepted": len(steps)}


async def episode(session: stoker.TrainingSession, ended: Ended) -> Any:
    await session.on_episode(ended.total_reward, ended.steps, ended.status, actor_id=ended.actor_id)
    return {"accepted": 1}


def experience_of(step: Step) -> stoker.Experience:
    before, after = np.array(step.observation), np.array(step.next_observation)
    return stoker.Experience(before, step.action, step.reward, after, step.status, step.actor_id)


def post(work: Any, kind: Any) -> Route:
    async def endpoint(request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > BODY_LIMIT_BYTES:
                raise HTTPException(413, f"more than {BODY_LIMIT_BYTES:,} bytes: send shorter lists")
        return answer(await work(request.state.session, msgspec.json.decode(body, type=kind)))

    return Route(f"/{work.__name__}", endpoint, methods=["POST"])


def answer(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def refusal(status: int) -> Any:
    return lambda request, error: answer({"error": str(error)}, status)


ERRORS = {
    msgspec.DecodeError: refusal(400),  # not JSON
    msgspec.ValidationError: refusal(422),  # not the fields and types above
    stoker.InvalidExperience: refusal(422),  # a value that the agent cannot take
    stoker.ActorConflict: refusal(409),  # two requests at once under one actor_id
    stoker.SessionError: refusal(503),  # the session has failed, or is going down
}


def make_app(runs_dir: str, settings: dict[str, Any]) -> Starlette:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> Any:
        run = await stoker.TrainingRun.create("service", root=runs_dir)
        env = stoker.make_gym(ENV)  # only for its spaces: the clients play
        agent = stoker.DQN(
            env.observation_space, env.action_space, stoker.DQNConfig(hidden_sizes=(64, 64)), seed=0
        )
        async with stoker.TrainingSession(agent, run, **settings) as session:
            yield {"session": session}

    posts = [post(act, Asked), post(experience, Step | list[Step]), post(episode, Ended)]
    return Starlette(routes=posts, exception_handlers=ERRORS, lifespan=lifespan)


def main(runs_dir: str, settings: str) -> None:
    torch.set_num_threads(1)  # the fastest for a network this small
    app = make_app(runs_dir, json.loads(settings))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run([listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
