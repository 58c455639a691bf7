"""A session on a real server: what actors do arrives once and in order, and each fault is one clear error."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import gymnasium
import numpy as np
import pytest
import uvicorn
from ledgers import CartPoleServer, Row, compare
from servers import ACTIONS, OBSERVATIONS, Service, served

import stoker
from stoker import (
    ActMode,
    ActorConflict,
    ConfigError,
    EpisodeStatus,
    Experience,
    InvalidExperience,
    SessionFailed,
)
from stoker.actors import run_actors, run_vector_actors
from stoker.client import RemoteSession, connect
from stoker.client.connection import Transport
from stoker.listening import listening_socket
from stoker.service.app import make_app
from stoker.testing import FakeAgent

pytestmark = pytest.mark.anyio
CONTINUING, TERMINATED, TRUNCATED = EpisodeStatus
WAIT_S = 30.0


class Corridor(gymnasium.Env[Any, Any]):
    """Episodes of 3 to 6 steps, told apart by their seeds."""

    observation_space = OBSERVATIONS
    action_space = ACTIONS

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._at, self._length = 0, int(self.np_random.integers(3, 7))
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        assert action in ACTIONS
        self._at += 1
        is_over = self._at == self._length
        return (
            self._seen(),
            float(self._at),
            is_over and self._length % 2 == 0,
            is_over,
            {"is_success": is_over},
        )

    def _seen(self) -> Any:
        return self.np_random.random(2, np.float32)


@pytest.fixture(scope="module")
def agent() -> Agent:
    return Agent(1)


@pytest.fixture(scope="module")
def service(agent: Agent) -> Iterator[Service]:
    """Without a run on disk."""
    with served(lambda: agent) as service:
        yield service


class Until:
    """A gate that opens for a number of steps of each actor."""

    def __init__(self, steps: int) -> None:
        self._left = defaultdict(lambda: steps)

    async def enter(self, actor_id: Any) -> bool:
        self._left[actor_id] -= 1
        return self._left[actor_id] >= 0

    def give_back(self, actor_id: Any) -> None:
        pass


class Agent(FakeAgent):
    """Tells when it has learned of a step."""

    def __init__(self, action: Any) -> None:
        super().__init__(action)
        self.told = threading.Condition()

    def observe(self, experiences: Sequence[Experience]) -> None:
        super().observe(experiences)
        with self.told:
            self.told.notify_all()


def steps_of(agent: Agent, prefix: str, count: int) -> dict[str, list[Experience]]:
    """The steps of the actors whose names begin so, by the rest of the name, once there are so many."""

    def is_there() -> bool:
        return sum(str(step.actor_id).startswith(prefix) for step in agent.experiences) >= count

    with agent.told:
        assert agent.told.wait_for(is_there, WAIT_S)
    found: defaultdict[str, list[Experience]] = defaultdict(list)
    for step in agent.experiences:
        if str(step.actor_id).startswith(prefix):
            found[str(step.actor_id).removeprefix(prefix)].append(step)
    return found


@pytest.mark.parametrize("transport", ["websocket", "http"])
async def test_actors_play_on_a_server_as_they_play_here(
    service: Service, agent: Agent, transport: Transport
) -> None:
    here = FakeAgent(1)
    async with stoker.TrainingSession(here) as local:
        await run_actors(local, Corridor, ["a", "b", "c"], seed=3, gate=Until(20))
    async with connect(service.url, transport=transport, spaces=(OBSERVATIONS, ACTIONS)) as session:
        await run_actors(session, Corridor, ["a", "b", "c"], seed=3, gate=Until(20))
        assert session.accepted_steps == 60
    there = steps_of(agent, session.prefix, 60)
    for actor_id in ("a", "b", "c"):
        mine = [step for step in here.experiences if step.actor_id == actor_id]
        theirs = there[actor_id]
        assert len(mine) == len(theirs) == 20
        assert [step.seq for step in theirs] == sorted({step.seq for step in theirs})
        for one, other in zip(mine, theirs, strict=True):
            assert np.array_equal(one.observation, other.observation)
            assert np.array_equal(one.next_observation, other.next_observation)
            assert (one.action, one.reward, one.status) == (other.action, other.reward, other.status)


async def test_what_waits_together_goes_in_one_message_and_one_pass(service: Service, agent: Agent) -> None:
    n_passes = len(agent.batch_sizes)
    async with connect(service.url) as session:
        seen = np.zeros((16, 2), np.float32)
        actions = await session.act_many(seen, range(16))
        assert actions.tolist() == [1] * 16
        assert [await session.act(seen[0], actor_id=0)] == [1], "the answer is here already"
    assert agent.batch_sizes[n_passes:] == [16]


async def test_vector_environments_play_on_a_server(service: Service, agent: Agent) -> None:
    async with connect(service.url) as session:

        class Ending(Corridor):
            def step(self, action: Any) -> Any:
                if session.accepted_steps >= 30:
                    session.stop()
                return super().step(action)

        make = partial(gymnasium.vector.SyncVectorEnv, [Ending, Corridor, Corridor])
        await run_vector_actors(session, make, seed=1)
        assert session.accepted_steps >= 30
    there = steps_of(agent, session.prefix, session.accepted_steps)
    assert sorted(there) == ["0", "1", "2"]
    assert sum(map(len, there.values())) == session.accepted_steps


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})], ids=["uvloop"], indirect=True)
async def test_a_kill_of_the_server_loses_and_doubles_nothing(tmp_path: Path, anyio_backend: Any) -> None:
    written: defaultdict[str, list[Row]] = defaultdict(list)
    reached = {60: anyio.Event(), 140: anyio.Event()}

    def write(rows: list[Row], *record: Any) -> None:
        rows.append(Row.of(len(rows) + 1, *record))
        if (event := reached.get(sum(map(len, written.values())))) is not None:
            event.set()

    async def play(session: RemoteSession, actor_id: str) -> None:
        env = gymnasium.make("CartPole-v1")
        rows = written[f"{session.prefix}{actor_id}"]
        while len(rows) < 120:
            await session.on_episode_start(actor_id, seed=len(rows))
            observation, _ = env.reset(seed=len(rows))
            write(rows, observation)
            status = CONTINUING
            while not status.is_done:
                action = await session.act(observation, actor_id=actor_id)
                after, reward, *ended, _ = env.step(action)
                status = EpisodeStatus.of(*ended)
                step = Experience(observation, action, float(reward), after, status, actor_id)
                write(rows, after, step)
                await session.observe(step)
                observation = after
            await session.on_episode(1.0, 1, status, actor_id=actor_id)
        env.close()

    with CartPoleServer(tmp_path) as server:
        async with connect(server.url, name="farm") as session, anyio.create_task_group() as tasks:
            for actor_id in ("left", "right"):
                tasks.start_soon(play, session, actor_id)
            for event in reached.values():
                with anyio.fail_after(WAIT_S):
                    await event.wait()
                await anyio.to_thread.run_sync(server.kill)
                await anyio.to_thread.run_sync(server.start)
        server.kill()  # the block has ended: all is on disk
        assert (
            compare(written, await stoker.TrainingRun.open(next(server.runs.rglob("metadata.json")).parent))
            >= 240
        )


async def test_a_client_that_is_started_again_continues_its_streams(tmp_path: Path) -> None:
    agent = Agent(2)
    with served(lambda: agent, tmp_path / "served" / "v1") as service:
        for count in (1, 2):
            async with connect(service.url, name="bot") as session:
                await session.observe(Experience(seen(0), 0, 1.0, seen(1), TERMINATED, "x"))
                await session.on_episode(1.0, 1, TERMINATED, actor_id="x")
            assert [step.seq for step in steps_of(agent, "bot-", count)["x"]] == [2, 4][:count]
        assert service.get("/v1/actors/bot-x").json()["answer"]["next"] == 5
        async with connect(service.url) as session:
            await session.observe(Experience(seen(0), 0, 1.0, seen(1), TERMINATED, "x"))
        assert service.get(f"/v1/actors/{session.prefix}x").status_code == 404, (
            "nobody will use that name again"
        )


async def test_a_server_takes_its_spaces_from_its_first_client() -> None:
    with served(lambda *_: Agent(1), from_client=True) as service:
        with pytest.raises(ConfigError, match="give spaces"):
            async with connect(service.url):
                pytest.fail("it is open")
        async with connect(service.url, spaces=(OBSERVATIONS, ACTIONS)) as session:
            assert await session.act(seen(0)) == 1
        async with connect(service.url) as session:
            assert (session.observation_space, session.action_space) == (OBSERVATIONS, ACTIONS)


# Errors --------------------------------------------------------------------------------------------------


def seen(number: int) -> Any:
    return np.full(2, number, np.float32)


@pytest.mark.parametrize(
    ("observation", "reward", "named"),
    [
        ([np.nan, 0.0], 1.0, r"observation\[0\]: nan is not finite"),
        ([0.0], 1.0, "observation"),
        ([0.0, 1.0], float("inf"), "reward=inf"),
        ([0.0, 1.0], -1e30, "reward=-1e.30.*at most 1e.09"),
    ],
)
async def test_a_bad_value_is_refused_by_the_call_and_changes_nothing(
    service: Service, agent: Agent, observation: Any, reward: float, named: str
) -> None:
    async with connect(service.url) as session:
        await session.act(seen(0))
        bad = Experience(seen(0), 1, reward, np.array(observation, np.float32), CONTINUING)
        with pytest.raises(InvalidExperience, match=named):
            await session.observe(bad)
        await session.observe(Experience(seen(0), 1, 2.0, seen(1), TRUNCATED))
        await session.on_episode(2.0, 1, TRUNCATED)
    [[step]] = steps_of(agent, session.prefix, 1).values()
    assert (step.reward, step.status) == (2.0, TRUNCATED)


async def test_extras_that_no_record_can_hold_are_refused_by_the_call(service: Service, agent: Agent) -> None:
    async with connect(service.url) as session:
        await session.observe(Experience(seen(0), 1, 1.0, seen(1), TERMINATED))
        with pytest.raises(InvalidExperience, match="actor 0: .*extras"):
            await session.on_episode(1.0, 1, TERMINATED, {"x" * 200: 1.0})
        await session.on_episode(1.0, 1, TERMINATED, {"x": 1.0})
    assert len(steps_of(agent, session.prefix, 1)["0"]) == 1


class Picky(Agent):
    """Refuses an observation that its space allows."""

    def check_observation(self, observation: Any) -> None:
        if observation[0] == 7:
            raise InvalidExperience("observation[0]=7: this agent takes no sevens")

    def check_experience(self, experience: Experience) -> None:
        self.check_observation(experience.next_observation)


async def test_a_record_that_the_server_refuses_costs_its_actor_the_episode_and_nobody_else() -> None:
    agent, heard = Picky(1), []
    with served(lambda: agent) as service:
        async with connect(service.url) as session:

            async def play(actor_id: str, second: int) -> None:
                assert await session.act(seen(0), actor_id=actor_id) == 1
                await session.observe(Experience(seen(0), 1, 1.0, seen(second), CONTINUING, actor_id))
                try:
                    await session.act(seen(second), actor_id=actor_id)
                except InvalidExperience as error:
                    heard.append(str(error))
                    await session.act(seen(3), actor_id=actor_id)  # begins another episode
                    await session.observe(Experience(seen(3), 1, 2.0, seen(4), TERMINATED, actor_id))

            async with anyio.create_task_group() as tasks:
                for actor_id, second in (("good", 1), ("bad", 7), ("fine", 2)):
                    tasks.start_soon(play, actor_id, second)
    assert [error for error in heard if "'bad'" in error and "no sevens" in error] == heard
    assert len(heard) == 1
    found = steps_of(agent, session.prefix, 3)
    assert {actor_id: [step.reward for step in steps] for actor_id, steps in found.items()} == {
        "good": [1.0],
        "bad": [2.0],
        "fine": [1.0],
    }


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"url": "ftp://host"}, "url='ftp://host'"),
        ({"url": "{url}/nowhere"}, "not found|no such address|404"),
        ({"spaces": (OBSERVATIONS, gymnasium.spaces.Discrete(4))}, r"action\.n is 4.* here, and 3"),
        ({"patience_s": -1.0}, "patience_s=-1.0"),
    ],
)
async def test_what_cannot_work_is_said_at_once(service: Service, options: Any, named: str) -> None:
    given = {"url": "{url}", **options}
    with pytest.raises(ConfigError, match=named):
        async with connect(given.pop("url").format(url=service.url), **given):
            pytest.fail("it is open")


async def test_a_server_that_is_not_there_is_said_after_the_patience() -> None:
    with pytest.raises(SessionFailed, match="out of reach"):
        async with connect("http://127.0.0.1:9", patience_s=0.0):
            pytest.fail("it is open")


async def test_a_server_that_goes_away_ends_the_session_after_the_patience() -> None:
    with ExitStack() as serving:
        service = serving.enter_context(served(lambda: Agent(1)))
        with pytest.raises(SessionFailed, match="out of reach"):
            async with connect(service.url, patience_s=0.1) as session:
                await session.act(seen(0))
                await anyio.to_thread.run_sync(serving.close)
                await session.observe(Experience(seen(0), 1, 1.0, seen(1), CONTINUING))
                await session.act(seen(1))
    assert session.is_done


async def test_two_clients_under_one_name_do_not_mix_their_records(service: Service) -> None:
    async with connect(service.url, name="twin", transport="websocket") as first:
        await first.act(seen(0))
        async with connect(service.url, name="twin", transport="websocket") as second:
            with pytest.raises(ActorConflict, match="another client"):
                await second.act(seen(0))
        async with connect(service.url, name="twin", transport="websocket", take_over=True) as third:
            assert await third.act(seen(0)) == 1
            await first.observe(Experience(seen(0), 1, 1.0, seen(1), CONTINUING))
            with pytest.raises(ActorConflict, match="another client"):
                await first.act(seen(1))
            await third.observe(Experience(seen(0), 1, 1.0, seen(1), TERMINATED))


async def test_the_end_of_the_training_ends_its_actors(tmp_path: Path) -> None:
    agent = FakeAgent(1)
    with served(lambda: agent, tmp_path / "served" / "v1", max_steps=40) as service:
        async with connect(service.url) as session:
            await run_actors(session, Corridor, 3, seed=1)
            assert session.has_ended
            assert await session.act(seen(0), ActMode.EXPLOIT) in ACTIONS
            await session.observe(Experience(seen(0), 1, 1.0, seen(1), CONTINUING))
    assert len(agent.experiences) == session.accepted_steps == 40


async def test_where_websockets_are_refused_requests_do() -> None:
    with served_by_requests_only(Agent(1)) as url:
        async with connect(url) as session:
            assert await session.act(seen(0)) == 1
        with pytest.raises(ConfigError, match="speaks no WebSocket"):
            async with connect(url, transport="websocket"):
                pytest.fail("it is open")


@contextmanager
def served_by_requests_only(agent: Agent) -> Iterator[str]:
    """The same application in a server that knows no WebSocket, as behind some proxies."""
    app = make_app(
        lambda: stoker.TrainingSession(agent, numbered=True),
        spaces=(OBSERVATIONS, ACTIONS),  # type: ignore[arg-type]
    )
    server = uvicorn.Server(uvicorn.Config(app, ws="none", log_level="error", lifespan="on"))
    with listening_socket("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(WAIT_S)
    assert not thread.is_alive()
