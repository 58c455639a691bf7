"""The web application with a service in it, over real HTTP: clients play on it, and it is restarted."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import gymnasium
import httpx2

SERVICE = "import service; service.main(port=0)"
STOP_S = 30.0


class Client:
    """An actor that plays CartPole on its side, with actions from the service."""

    def __init__(self, http: httpx2.AsyncClient, actor: str) -> None:
        self._http, self._actor, self._next = http, actor, 1
        self.played: list[tuple[float, int]] = []

    async def go_on(self) -> None:
        """Find where the actor's stream stands, if it has one."""
        answer = await self._http.get(f"/rl/v1/actors/{self._actor}")
        if answer.status_code != 404:
            self._next = answer.raise_for_status().json()["answer"]["next"]

    async def step(self, **record: Any) -> Any:
        message = {"steps": [{"actor": self._actor, "seq": self._next, **record}]}
        answer = (await self._http.post("/rl/v1/step", json=message)).raise_for_status().json()
        mine = answer["actors"][self._actor]
        self._next = mine["next"]
        return mine["action"]

    async def play(self, episodes: int) -> None:
        env = gymnasium.make("CartPole-v1")
        for episode in range(episodes):
            observation, _ = env.reset(seed=episode)
            action = await self.step(start=True, observation=observation.tolist())
            total_reward, length, ends = 0.0, 0, {"terminated": False, "truncated": False}
            while not any(ends.values()):
                observation, reward, terminated, truncated, _ = env.step(action)
                total_reward, length = total_reward + float(reward), length + 1
                ends = {"terminated": terminated, "truncated": truncated}
                action = await self.step(reward=float(reward), observation=observation.tolist(), **ends)
            self.played.append((total_reward, length))
        env.close()


async def play_all(address: str, actors: list[str], episodes: int) -> dict[str, list[tuple[float, int]]]:
    async with httpx2.AsyncClient(base_url=address, timeout=STOP_S) as http:
        clients = {actor: Client(http, actor) for actor in actors}

        async def one(client: Client) -> None:
            await client.go_on()
            await client.play(episodes)

        with anyio.fail_after(60):
            await until_open(http)
            async with anyio.create_task_group() as tasks:
                for client in clients.values():
                    tasks.start_soon(one, client)
    return {actor: client.played for actor, client in clients.items()}


async def until_open(http: httpx2.AsyncClient) -> None:
    while (await http.get("/rl/readyz")).status_code != 200:
        pass


def test_clients_play_on_it_and_a_restart_goes_on(
    served: Any, tmp_path: Path, run_on_disk: Callable[[], Any]
) -> None:
    with served(SERVICE, tmp_path) as address:
        first = anyio.run(play_all, address, ["ann", "bob", "cid", "dee"], 3)
        stats = httpx2.get(f"{address}/stats").raise_for_status().json()
    run = run_on_disk()
    steps = sum(length for episodes in first.values() for _, length in episodes)

    assert Path(stats["run"]).name == run.directory.name
    assert stats["n_episodes"] == 12
    assert run.metadata["total_steps"] == steps
    assert run.metadata["total_episodes"] == len(run.rows) == 12
    for actor, episodes in first.items():
        rows = [row for row in run.rows if row["actor_id"] == actor]
        assert [(row["total_reward"], row["length"]) for row in rows] == episodes
    assert run.checkpoint()["session"]["total_steps"] == steps

    with served(SERVICE, tmp_path) as address:
        again = anyio.run(play_all, address, ["ann"], 1)
    run = run_on_disk()  # there is still only one
    assert run.metadata["total_steps"] == steps + sum(length for _, length in again["ann"])
    assert [row["attempt"] for row in run.rows] == [1] * 12 + [2]


def test_nonsense_is_refused_by_name_and_costs_nobody_a_stream(served: Any, tmp_path: Path) -> None:
    start = {"actor": "a", "seq": 1, "start": True, "observation": [0, 0, 0, 0]}
    with served(SERVICE, tmp_path) as address, httpx2.Client(base_url=address, timeout=STOP_S) as http:
        deadline = time.monotonic() + STOP_S
        while http.get("/rl/readyz").status_code != 200:
            assert time.monotonic() < deadline
        refused = http.post("/rl/v1/step", json={"steps": [{**start, "observation": [0, 0]}]})
        assert (refused.status_code, refused.json()["path"]) == (422, "steps[0].observation")
        answer = http.post("/rl/v1/step", json={"steps": [start]}).raise_for_status().json()
        assert answer["actors"]["a"]["action"] in (0, 1)
