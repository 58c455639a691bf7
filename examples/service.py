"""A web service that learns from its clients.

python examples/service.py, then, from any language:

POST /act         {"actor_id": "a", "observation": [0, 0, 0, 0]}           -> {"action": 1}
POST /experience  {"actor_id": "a", "observation": [...], "action": 1, "reward": 1,
                   "next_observation": [...], "status": "Continuing"}, or a list of these
POST /episode     {"actor_id": "a", "total_reward": 9, "steps": 9, "status": "Terminated"}
GET  /stats

An actor that waits for each answer before it asks again is learned from in order.
"""

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


async def stats(request: Request) -> Response:
    session = request.state.session
    recent = msgspec.structs.asdict(session.stats.window())
    return answer({"run": str(session.run.directory), "total_steps": session.total_steps, **recent})


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


def make_app(runs_dir: str) -> Starlette:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> Any:
        try:
            run = await stoker.TrainingRun.resume(f"{runs_dir}/service")  # go on after a restart
        except stoker.RunNotFound:
            run = await stoker.TrainingRun.create("service", root=runs_dir)
        env = stoker.make_gym(ENV)  # only for its spaces: the clients play
        agent = stoker.DQN(env.observation_space, env.action_space, stoker.preset("dqn", ENV), seed=0)
        async with stoker.TrainingSession(agent, run) as session:
            yield {"session": session}

    posts = [post(act, Asked), post(experience, Step | list[Step]), post(episode, Ended)]
    return Starlette(routes=[*posts, Route("/stats", stats)], exception_handlers=ERRORS, lifespan=lifespan)


def main(runs_dir: str = "runs", port: int = 8000) -> None:
    torch.set_num_threads(1)  # the fastest for a network this small
    uvicorn.run(make_app(runs_dir), port=port, access_log=False, timeout_graceful_shutdown=10)


if __name__ == "__main__":
    main()
