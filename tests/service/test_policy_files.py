"""The newest policy as a file, while a session learns and several clients ask for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import numpy as np
import pytest
from anyio import wait_all_tasks_blocked
from gymnasium.spaces import Box, Discrete
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from stoker import DQN, DQNConfig, EpisodeStatus, Experience, TrainingSession
from stoker.policies.exported import policy_from_bytes
from stoker.protocol import ProtocolError
from stoker.service.policy_files import PolicyFile, PolicyFiles, SessionPolicies, policy_endpoint
from stoker.testing import FakeAgent

pytestmark = pytest.mark.anyio
OBSERVATIONS = np.random.default_rng(0).normal(0, 1, (200, 4)).astype(np.float32)
QUICK = DQNConfig(learning_starts=4, batch_size=4, hidden_sizes=(8,), learning_rate=0.1)


def made() -> TrainingSession:
    return TrainingSession(DQN(Box(-1.0, 1.0, (4,)), Discrete(3), QUICK, seed=0))


async def learn(session: TrainingSession, n: int = 8) -> None:
    """Take in steps, and let the agent learn from them."""
    for k in range(n):
        seen = OBSERVATIONS[k], OBSERVATIONS[k + 1]
        await session.observe(Experience(seen[0], k % 3, 1.0, seen[1], EpisodeStatus.CONTINUING))
    await session.barrier()


@asynccontextmanager
async def client_of(files: PolicyFiles, admitted: list[str]) -> AsyncGenerator[httpx2.AsyncClient]:
    def admit(request: Request) -> None:
        admitted.append(request.url.path)

    def problem(request: Request, error: Any) -> JSONResponse:
        return JSONResponse({"detail": error.detail, "path": error.path}, error.status)

    app = Starlette(
        routes=[Route("/v1/policy", policy_endpoint(lambda: files, admit, max_wait_s=30))],
        exception_handlers={ProtocolError: problem},
    )
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def test_clients_that_wait_share_one_export_of_the_next_policy() -> None:
    found: list[PolicyFile] = []
    async with made() as session:
        files = PolicyFiles(SessionPolicies(session), interval_s=0)
        first = await files.newest("numpy")

        async def wait() -> None:
            found.append(await files.newest("numpy", after=first.version))

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(wait)
            await wait_all_tasks_blocked()
            assert found == []
            await learn(session)
        snapshot = await session.snapshot()
        files.close()
    assert (first.version, files.n_exports) == (0, 2)
    assert {each.version for each in found} == {snapshot.opt_steps}
    assert found[0].digest != first.digest
    policy = policy_from_bytes(found[0].content, "numpy")
    assert policy.act(OBSERVATIONS).tolist() == [*snapshot.act([*OBSERVATIONS])]


async def test_a_client_fetches_what_it_lacks() -> None:
    admitted: list[str] = []
    async with made() as session:
        files = PolicyFiles(SessionPolicies(session), interval_s=0)
        async with client_of(files, admitted) as client:
            answer = await client.get("/v1/policy")
            assert (answer.status_code, answer.headers["stoker-policy-version"]) == (200, "0")
            assert policy_from_bytes(answer.content, "onnx").act(OBSERVATIONS[0]) in (0, 1, 2)
            again = await client.get(
                "/v1/policy", headers={"if-none-match": f'"x", {answer.headers["etag"]}'}
            )
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == answer.headers["etag"]
            assert (await client.get("/v1/policy?after=0&wait=0")).status_code == 204
            await learn(session)
            newer = await client.get("/v1/policy?after=0", headers={"if-none-match": answer.headers["etag"]})
            assert newer.status_code == 200
            assert int(newer.headers["stoker-policy-version"]) == session.policy_version > 0
        files.close()
    assert set(admitted) == {"/v1/policy"}


async def test_a_client_that_is_gone_does_not_wait_on() -> None:
    gone = anyio.Event()

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async with made() as session, anyio.create_task_group() as tasks:
        files = PolicyFiles(SessionPolicies(session))
        endpoint = policy_endpoint(lambda: files, lambda _: None, max_wait_s=3600)
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b"after=5"}
        tasks.start_soon(endpoint, Request(scope, receive))
        await wait_all_tasks_blocked()
        gone.set()
    files.close()


async def test_closing_ends_the_waits() -> None:
    async with made() as session:
        files = PolicyFiles(SessionPolicies(session))
        async with client_of(files, []) as client, anyio.create_task_group() as tasks:

            async def wait() -> None:
                answer = await client.get("/v1/policy?after=5")
                assert answer.status_code == 503

            tasks.start_soon(wait)
            await wait_all_tasks_blocked()
            files.close()


@pytest.mark.parametrize(
    ("query", "status", "path", "named"),
    [
        ("format=pickle", 422, "format", "pickle"),
        ("after=x", 422, "after", "int"),
        ("after=-7", 422, "after", ">= -1"),
        ("wait=nan", 422, "wait", "float"),
        ("wait=null", 422, "wait", "float"),
        ("colour=red", 422, None, "colour"),
        ("format=numpy", 404, None, r"FakeAgent"),
    ],
)
async def test_what_cannot_be_given_is_named(query: str, status: int, path: str | None, named: str) -> None:
    async with TrainingSession(FakeAgent()) as session:
        files = PolicyFiles(SessionPolicies(session))
        async with client_of(files, []) as client:
            answer = await client.get(f"/v1/policy?{query}")
        files.close()
    assert (answer.status_code, answer.json()["path"]) == (status, path)
    assert named in answer.json()["detail"]
