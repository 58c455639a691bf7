"""A FastAPI application that learns which offer to show; the reward of a decision comes later, or never.

Needs `pip install fastapi uvicorn`.

python examples/fastapi_app.py, then:

POST /decide   {"context": [0.3, 0.9]}                  -> {"decision_id": "5f0c...", "offer": 2}
POST /outcome  {"decision_id": "5f0c...", "reward": 1}  -> {"accepted": true}
GET  /health

Each decision is an episode of one step with an actor_id of its own. docs/services.md explains the pattern.
"""

from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import anyio
import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse
from gymnasium.spaces import Box, Discrete
from pydantic import BaseModel, Field

import stoker

CONTEXTS = Box(0.0, 1.0, (2,), np.float32)  # hour of the day and loyalty of the visitor, both from 0 to 1
OFFERS = Discrete(3)
SETTINGS = stoker.DQNConfig(learning_starts=200, epsilon_decay_steps=2_000)
MOST_OPEN = 10_000  # decisions whose outcome is awaited; the oldest is forgotten


class Visit(BaseModel):
    """What POST /decide takes."""

    context: list[float] = Field(min_length=2, max_length=2)


class Outcome(BaseModel):
    """What POST /outcome takes."""

    decision_id: str
    reward: float = Field(allow_inf_nan=False)


def make_app(runs_dir: str) -> FastAPI:
    open_decisions: dict[str, tuple[Any, int]] = {}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> Any:
        try:
            run = await stoker.TrainingRun.resume(f"{runs_dir}/offers")  # after a restart
        except stoker.RunNotFound:
            run = await stoker.TrainingRun.create("offers", root=runs_dir)
        agent = stoker.DQN(CONTEXTS, OFFERS, SETTINGS, seed=0)
        async with stoker.TrainingSession(agent, run, checkpoint_freq=500) as session:
            app.state.session = session
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/decide")
    async def decide(visit: Visit) -> dict[str, Any]:
        context, decision_id = np.array(visit.context, np.float32), uuid4().hex
        offer = int(await app.state.session.act(context, actor_id=decision_id))
        open_decisions[decision_id] = context, offer
        if len(open_decisions) > MOST_OPEN:
            del open_decisions[next(iter(open_decisions))]
        return {"decision_id": decision_id, "offer": offer}

    @app.post("/outcome")
    async def outcome(given: Outcome) -> dict[str, bool]:
        session, over = app.state.session, stoker.EpisodeStatus.TERMINATED
        if (decision := open_decisions.pop(given.decision_id, None)) is None:
            raise HTTPException(404, f"decision {given.decision_id} is not open")
        context, offer = decision
        step = stoker.Experience(context, offer, given.reward, context, over, given.decision_id)
        try:
            with anyio.fail_after(2):  # observe waits while the learner is behind
                await session.observe(step)
        except BaseException:  # it was not accepted: the client may try again
            open_decisions[given.decision_id] = decision
            raise
        await session.on_episode(given.reward, 1, over, actor_id=given.decision_id)
        return {"accepted": True}

    @app.get("/health")
    async def health() -> JSONResponse:
        found = app.state.session.health()
        report = {"failure": found.failure, "waits": found.waits, "open_decisions": len(open_decisions)}
        return JSONResponse(report, 200 if found.is_running else 503)

    def refusal(status: int) -> Any:
        return lambda request, error: JSONResponse({"error": str(error)}, status)

    app.add_exception_handler(stoker.InvalidExperience, refusal(422))  # a value that the agent cannot take
    app.add_exception_handler(stoker.SessionError, refusal(503))  # the session has failed, or is closing
    app.add_exception_handler(TimeoutError, refusal(503))  # learning is behind
    return app


def main(runs_dir: str = "runs", port: int = 8000) -> None:
    torch.set_num_threads(1)  # the fastest for a network this small
    uvicorn.run(make_app(runs_dir), port=port, access_log=False, timeout_graceful_shutdown=10)


if __name__ == "__main__":
    main()
