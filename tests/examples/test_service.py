"""The web service, over real HTTP: several clients play on it, some send nonsense, and it is stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import gymnasium
import httpx2
import pytest

SERVICE = "import service; service.main(port=0)"
STOP_S = 30.0
OBSERVATION = [0.0, 0.0, 0.0, 0.0]
STEP: dict[str, Any] = {
    "actor_id": "a",
    "observation": OBSERVATION,
    "action": 1,
    "reward": 1.0,
    "next_observation": OBSERVATION,
    "status": "Continuing",
}


async def play(address: str, actor_id: str, episodes: int) -> list[tuple[float, int]]:
    """A client: CartPole on its side, actions from the service; what it played, in order."""
    env = gymnasium.make("CartPole-v1")
    played: list[tuple[float, int]] = []
    async with httpx2.AsyncClient(base_url=address, timeout=STOP_S) as client:
        for episode in range(episodes):
            observation, _ = env.reset(seed=episode)
            total_reward, steps, status = 0.0, 0, "Continuing"
            while status == "Continuing":
                asked = {"actor_id": actor_id, "observation": observation.tolist()}
                action = (await client.post("/act", json=asked)).raise_for_status().json()["action"]
                next_observation, reward, terminated, truncated, _ = env.step(action)
                status = "Terminated" if terminated else "Truncated" if truncated else "Continuing"
                step = {
                    **asked,
                    "action": action,
                    "reward": float(reward),
                    "next_observation": next_observation.tolist(),
                    "status": status,
                }
                (await client.post("/experience", json=step)).raise_for_status()
                observation, total_reward, steps = next_observation, total_reward + float(reward), steps + 1
            ended = {"actor_id": actor_id, "total_reward": total_reward, "steps": steps, "status": status}
            (await client.post("/episode", json=ended)).raise_for_status()
            played.append((total_reward, steps))
    env.close()
    return played


async def play_all(address: str, actor_ids: list[str], episodes: int) -> dict[str, list[tuple[float, int]]]:
    played: dict[str, list[tuple[float, int]]] = {}

    async def one(actor_id: str) -> None:
        played[actor_id] = await play(address, actor_id, episodes)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as clients:
            for actor_id in actor_ids:
                clients.start_soon(one, actor_id)
    return played


def test_clients_play_on_it_and_a_restart_goes_on(
    served: Any, tmp_path: Path, run_on_disk: Callable[[], Any]
) -> None:
    with served(SERVICE, tmp_path) as address:
        first = anyio.run(play_all, address, ["ann", "bob", "cid", "dee"], 3)
        stats = httpx2.get(f"{address}/stats").raise_for_status().json()
    run = run_on_disk()
    steps = sum(length for episodes in first.values() for _, length in episodes)

    assert Path(stats["run"]).name == run.directory.name
    assert run.metadata["total_steps"] == steps
    assert run.metadata["total_episodes"] == len(run.rows) == 12
    for actor_id, episodes in first.items():
        rows = [row for row in run.rows if row["actor_id"] == actor_id]
        assert [(row["total_reward"], row["length"]) for row in rows] == episodes
    final = run.checkpoint()
    assert final["session"]["total_steps"] == steps
    assert final["session"]["total_episodes"] == 12

    with served(SERVICE, tmp_path) as address:
        before = httpx2.get(f"{address}/stats").raise_for_status().json()
        anyio.run(play_all, address, ["ann"], 1)
    run = run_on_disk()  # there is still only one
    assert before["total_steps"] == steps
    assert run.metadata["total_episodes"] == 13
    assert [row["attempt"] for row in run.rows] == [1] * 12 + [2]


REFUSED = [
    pytest.param("/experience", {**STEP, "observation": [0.0] * 3}, 422, "shape", id="shape"),
    pytest.param("/experience", {**STEP, "action": 2}, 422, "action=2", id="action out of range"),
    pytest.param("/experience", {**STEP, "observation": [0, 0, 1e300, 0]}, 422, "observation[2]", id="huge"),
    pytest.param("/experience", {**STEP, "status": "Done"}, 422, "status", id="unknown status"),
    pytest.param("/experience", {**STEP, "actor_id": ""}, 422, "actor_id", id="no actor id"),
    pytest.param("/experience", {**STEP, "surprise": 1}, 422, "surprise", id="unknown field"),
    pytest.param("/experience", {"actor_id": "a"}, 422, "observation", id="missing field"),
    pytest.param("/experience", [STEP, {**STEP, "action": -1}], 422, "experience 1 of 2", id="one of a list"),
    pytest.param("/experience", b'{"reward": NaN', 400, "JSON", id="not JSON"),
    pytest.param("/experience", b"[" + b" " * 1_100_000 + b"]", 413, "1,000,000 bytes", id="too large"),
    pytest.param("/act", {"actor_id": "a", "observation": [0.0]}, 422, "shape", id="act on a shape"),
    pytest.param(
        "/episode",
        {"actor_id": "a", "total_reward": 1, "steps": 1, "status": "Continuing"},
        422,
        "Terminated",
        id="an episode that has not ended",
    ),
]


@pytest.fixture(scope="module")
def address(served: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(SERVICE, tmp_path_factory.mktemp("service")) as address:
        yield address


@pytest.mark.parametrize(("path", "sent", "status", "named"), REFUSED)
def test_nonsense_is_refused_by_name_and_changes_nothing(
    address: str, path: str, sent: Any, status: int, named: str
) -> None:
    with httpx2.Client(base_url=address, timeout=STOP_S) as client:
        before = client.get("/stats").raise_for_status().json()
        body = {"content": sent} if isinstance(sent, bytes) else {"json": sent}
        answer = client.post(path, **body)
        assert answer.status_code == status
        assert named in answer.text
        asked = {"actor_id": "a", "observation": OBSERVATION}
        assert client.post("/act", json=asked).raise_for_status().json()["action"] in (0, 1)
        assert client.get("/stats").raise_for_status().json() == before


def test_a_list_is_taken_in_one_request(address: str) -> None:
    with httpx2.Client(base_url=address, timeout=STOP_S) as client:
        answer = client.post("/experience", json=[{**STEP, "actor_id": i} for i in range(20)])
        assert answer.raise_for_status().json() == {"accepted": 20}


def test_a_session_that_failed_is_told_as_unavailable(served: Any, tmp_path: Path) -> None:
    ended = {"actor_id": "a", "total_reward": 1.0, "steps": 1, "status": "Terminated"}
    answer = None
    with (
        served(SERVICE, tmp_path, logs="SessionFailed: the writer failed") as address,
        httpx2.Client(base_url=address, timeout=STOP_S) as client,
    ):
        client.post("/episode", json=ended).raise_for_status()
        (tmp_path / "runs").rename(tmp_path / "gone")  # the writer cannot go on
        deadline = time.monotonic() + STOP_S
        while time.monotonic() < deadline:
            answer = client.post("/episode", json=ended)
            if answer.status_code != 200:
                break
        assert answer is not None
        assert answer.status_code == 503
        assert "writer failed" in answer.json()["error"]
        assert client.post("/act", json={"actor_id": "a", "observation": OBSERVATION}).status_code == 503
