"""The FastAPI application over real HTTP: late and missing outcomes, nonsense, a stop and a restart."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx2

APPLICATION = "import fastapi_app; fastapi_app.main(port=0)"
LIMIT_S = 60.0


async def visits(address: str, seed: int, n: int) -> int:
    """One source of visitors; every third never answers. Returns how many outcomes were accepted."""
    chance, accepted, late = random.Random(seed), 0, []
    async with httpx2.AsyncClient(base_url=address, timeout=LIMIT_S) as client:
        for visit in range(n):
            asked = {"context": [chance.random(), chance.random()]}
            decided = (await client.post("/decide", json=asked)).raise_for_status().json()
            assert decided["offer"] in (0, 1, 2)
            if visit % 3:
                late.append({"decision_id": decided["decision_id"], "reward": chance.random()})
        chance.shuffle(late)  # outcomes come in any order, long after their decisions
        for outcome in late:
            answer = await client.post("/outcome", json=outcome)
            accepted += answer.raise_for_status().json()["accepted"]
    return accepted


async def visits_of_many(address: str, sources: int, n: int) -> int:
    accepted: list[int] = []

    async def one(seed: int) -> None:
        accepted.append(await visits(address, seed, n))

    with anyio.fail_after(LIMIT_S):
        async with anyio.create_task_group() as group:
            for seed in range(sources):
                group.start_soon(one, seed)
    return sum(accepted)


def test_late_outcomes_are_learned_and_a_restart_continues(
    served: Any, tmp_path: Path, run_on_disk: Callable[[], Any]
) -> None:
    with served(APPLICATION, tmp_path) as address:
        accepted = anyio.run(visits_of_many, address, 4, 15)
        health = httpx2.get(f"{address}/health").raise_for_status().json()
    assert accepted == 4 * 10
    assert health == {"failure": None, "waits": health["waits"], "open_decisions": 4 * 5}
    run = run_on_disk()
    assert run.metadata["total_steps"] == run.metadata["total_episodes"] == len(run.rows) == accepted
    assert len({row["actor_id"] for row in run.rows}) == accepted
    assert run.checkpoint()["session"]["total_steps"] == accepted

    with served(APPLICATION, tmp_path) as address:
        more = anyio.run(visits, address, 9, 3)
    assert run_on_disk().metadata["total_steps"] == accepted + more


def test_what_cannot_be_learned_is_refused_and_the_decision_stays_open(served: Any, tmp_path: Path) -> None:
    with (
        served(APPLICATION, tmp_path) as address,
        httpx2.Client(base_url=address, timeout=LIMIT_S) as client,
    ):
        assert client.post("/decide", json={"context": [0.1]}).status_code == 422
        decided = client.post("/decide", json={"context": [0.1, 0.2]}).raise_for_status().json()
        outcome = {"decision_id": decided["decision_id"], "reward": 1.0}
        bad = client.post(
            "/outcome", content=b'{"decision_id": "%s", "reward": NaN}' % decided["decision_id"].encode()
        )
        assert (bad.status_code, "reward" in bad.text) == (422, True)
        assert client.post("/outcome", json={**outcome, "decision_id": "other"}).status_code == 404
        assert client.post("/outcome", json=outcome).raise_for_status().json() == {"accepted": True}
        assert client.post("/outcome", json=outcome).status_code == 404  # once
