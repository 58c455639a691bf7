"""How the environments of a training are stepped: what is chosen, kept, refused, and played to the end."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import gymnasium
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from stoker import (
    PPO,
    ConfigError,
    PolicySnapshot,
    PPOConfig,
    Trainer,
    TrainerConfig,
    TrainingRun,
    evaluate,
    train,
)
from stoker.actors.places import n_workers_for
from stoker.envs.stepping import SLOW_STEP_S
from stoker.testing import AsyncChainEnv, ChainEnv, CrashingEnv, FakeAgent
from stoker.trainer import config_from
from stoker.trainer.training import trainer_config
from stoker.trainer.vectorizing import (
    LEAST_ENVS,
    choose,
    decided,
    eval_factory_for,
    vector_env_for,
    vector_factory_for,
)

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]
on_asyncio = pytest.mark.parametrize(
    "anyio_backend", [("asyncio", {"use_uvloop": False})], ids=["asyncio"], indirect=True
)
MANY: dict[str, Any] = {"env": "CartPole-v1", "num_envs": LEAST_ENVS}
TINY: dict[str, Any] = {
    "env": "CartPole-v1", "agent": "ppo", "num_envs": 4, "total_timesteps": 330, "seed": 1, "eval_freq": 150,
    "eval_episodes": 2, "checkpoint_freq": 0, "rollout_steps": 128, "batch_size": 64, "n_epochs": 1,
    "hidden_sizes": [8],
}  # fmt: skip


class SlowChain(ChainEnv):
    """A chain whose steps take longer than what is stepped on the event loop."""

    def step(self, action: Any) -> Any:
        time.sleep(1.5 * SLOW_STEP_S)
        return super().step(action)


class HangingChain(ChainEnv):
    """A chain whose steps do not come back until they are let go."""

    let_go, closed = threading.Event(), threading.Event()  # made anew by the test

    def step(self, action: Any) -> Any:
        assert self.let_go.wait(60.0)
        raise RuntimeError("let go")

    def close(self) -> None:
        self.closed.set()


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    made = {
        "Chain": lambda: ChainEnv(3),
        "Crash": lambda: CrashingEnv(ChainEnv(3), {2}),
        "Slow": lambda: SlowChain(3),
        "Hang": lambda: HangingChain(3),
    }
    for name, make in made.items():
        gymnasium.register(f"Vectorizing{name}-v0", make)
    yield
    for name in made:
        del gymnasium.registry[f"Vectorizing{name}-v0"]


def test_many_environments_are_measured_in_each_way_and_one_is_chosen() -> None:
    config, why = choice = choose(config_from(MANY))
    assert config.vectorize in ("none", "sync", "native")
    assert [word for word in ("none", "sync", "native") if f"{word} " in why] == ["none", "sync", "native"]
    assert choice.line() == f"vectorize={config.vectorize}: {why}"
    _, why = choose(config_from({**MANY, "env": "VectorizingChain-v0"}))
    assert "native" not in why, "it has no vector form of its own"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"num_envs": LEAST_ENVS - 1}, "environments are few"),
        ({"lockstep": True}, "lockstep=True"),
        ({"actors": "processes"}, "actors='processes'"),
        ({"sync_interval": 3}, "sync_interval=3"),
        ({"max_staleness": 99}, "max_staleness=99"),
        ({"env": "VectorizingCrash-v0"}, "measuring it failed: RuntimeError: simulator crashed"),
        ({"env": "VectorizingSlow-v0"}, " ms, and actors step on threads"),
        ({"env": "stoker.testing:AsyncChainEnv", "agent": "stoker.testing:FakeAgent"}, "a AsyncChainEnv is"),
    ],
    ids=lambda value: next(iter(value), None) if isinstance(value, dict) else None,
)
def test_what_is_not_to_be_stepped_at_once_keeps_its_actors(settings: dict[str, Any], why: str) -> None:
    config, said = choose(config_from({**MANY, **settings}))
    assert config.vectorize == "none"
    assert why in said


async def test_an_environment_that_hangs_while_it_is_measured_keeps_its_actors() -> None:
    config = config_from({**MANY, "env": "VectorizingHang-v0", "actor_timeout_s": 0.05})
    HangingChain.let_go, HangingChain.closed = threading.Event(), threading.Event()
    try:
        with anyio.fail_after(60):
            config, why = await decided(config)
        assert (config.vectorize, why) == ("none", "a few steps took over 0.05 s")
        assert not HangingChain.closed.is_set(), "it was left behind"
    finally:
        HangingChain.let_go.set()
    assert HangingChain.closed.wait(60.0), "its thread ends once it comes back"


@pytest.mark.parametrize("way", ["sync", "async", "native"])
@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"lockstep": True}, "lockstep=True"),
        ({"lockstep": True, "actors": "threads"}, "lockstep=True"),
        ({"sync_interval": 3}, "sync_interval=3"),
    ],
    ids=["lockstep", "lockstep on threads", "copies"],
)
def test_settings_that_need_an_actor_for_each_are_refused(
    way: str, settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(
        ConfigError, match=f"vectorize='{way}' does not work with {problem}.*'none' or 'auto'"
    ):
        config_from({**MANY, "vectorize": way, **settings})


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"vectorize": "async", "actors": "processes"}, "'async' does not work with actors='processes'"),
        ({"workers": 2}, "workers=2 share environments that are stepped together"),
        ({"workers": 2, "actors": "processes", "vectorize": "none"}, "workers=2 share environments"),
        ({"workers": 2, "vectorize": "sync"}, "workers=2 share .* actors='threads' or 'processes'"),
    ],
    ids=["async", "alone", "none", "tasks"],
)
def test_workers_that_cannot_share_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        config_from({**MANY, **settings})


def test_each_worker_has_an_equal_share() -> None:
    shared = {**TINY, "num_envs": 6, "vectorize": "sync", "actors": "processes"}
    for workers, width in ((2, 3), (3, 2), (6, 1)):
        make = vector_factory_for(config_from({**shared, "workers": workers}))
        assert make is not None
        assert make().num_envs == width
    with pytest.raises(ConfigError, match="workers=4 cannot have equal shares of 6 actors"):
        vector_factory_for(config_from({**shared, "workers": 4}))
    assert n_workers_for(7, None) in (1, 7)
    assert n_workers_for(6, 2) == 2


def test_a_vector_form_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="'native' does not work with frame_stack=4"):
        config_from({**MANY, "vectorize": "native", "frame_stack": 4})
    for env in ("MountainCar-v0", "stoker.testing:ChainEnv"):
        agent = {} if env == "MountainCar-v0" else {"agent": "stoker.testing:FakeAgent"}
        config = config_from({**MANY, **agent, "env": env, "vectorize": "native"})
        with pytest.raises(ConfigError, match=f"env='{env}' has no vector form of its own.*'sync'"):
            vector_env_for(config)
    config = config_from({**MANY, "vectorize": "native", "env_kwargs": {"gravity": 1}})
    with pytest.raises(ConfigError, match="cannot be made: .*gravity"):
        vector_env_for(config)
    with pytest.raises(ConfigError, match="needs a named environment, not a factory"):
        vector_env_for(config_from({**MANY, "vectorize": "native"}), lambda: ChainEnv(3))
    with pytest.raises(ConfigError, match="a AsyncChainEnv is not a gymnasium.Env"):
        vector_env_for(config_from({**MANY, "vectorize": "sync"}), lambda: AsyncChainEnv(3))


@on_asyncio
@pytest.mark.parametrize(
    ("way", "actors"),
    [
        ("sync", "tasks"),
        ("async", "tasks"),
        ("native", "tasks"),
        ("sync", "processes"),
        ("sync", "threads"),
        ("native", "threads"),
    ],
)
async def test_a_training_is_exact_and_a_resume_plays_as_before(
    way: str, actors: str, tmp_path: Path
) -> None:
    run = await TrainingRun.create("poles", root=tmp_path)
    workers = None if actors == "tasks" else 2
    config = config_from({**TINY, "vectorize": way, "actors": actors, "workers": workers})
    result = await train(config, run, view="none")
    assert result.total_steps == 330
    assert result.last_eval_reward is not None
    stored = json.loads((run.directory / "config.json").read_text())
    assert stored["vectorize"] == way
    rows = [json.loads(line) for line in (run.directory / "train_episodes.jsonl").read_text().splitlines()]
    assert {row["actor_id"] for row in rows} <= {0, 1, 2, 3}
    assert len(rows) == result.total_episodes > 0
    resumed = await TrainingRun.resume(run.directory)
    again = await train(config_from({**stored, "total_timesteps": 400}), resumed, view="none")
    assert again.total_steps == 400


class Scored(ChainEnv):
    """Says how long its chain was, in a whole number if it was even, and whether that is short."""

    def __init__(self) -> None:
        super().__init__(9)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        result = super().reset(seed=seed)
        self.length = int(self.np_random.integers(1, 9))
        self.extras = {"half": self.length / 2 if self.length % 2 else self.length // 2}
        return result

    def step(self, action: Any) -> Any:
        *values, info = super().step(action)
        return (*values, {"is_success": self.length < 5} if self.length % 2 else info)

    def episode_extras(self) -> dict[str, float]:
        return self.extras


@on_asyncio
async def test_evaluations_play_the_same_episodes_at_once_with_all_their_extras() -> None:
    expected = None
    for vectorize in ("none", "sync", "async"):
        config = config_from({**TINY, "vectorize": vectorize, "num_envs": 2, "eval_episodes": 5})
        snapshot = PolicySnapshot(FakeAgent(action=1), total_steps=0, state={})
        found = await evaluate(snapshot, eval_factory_for(config, Scored), 5)
        expected = expected or found
        assert found == expected, vectorize
    assert expected is not None
    assert len({record.extras["half"] for record in expected.records}) > 2
    assert 0 < sum("is_success" in record.extras for record in expected.records) < 5


@on_asyncio
async def test_a_sub_environment_whose_episode_is_over_rests() -> None:
    steps: list[int] = []

    class Counted(Scored):
        def step(self, action: Any) -> Any:
            steps.append(1)
            return super().step(action)

    config = config_from({**TINY, "vectorize": "sync", "num_envs": 2, "eval_episodes": 3})
    snapshot = PolicySnapshot(FakeAgent(action=1), total_steps=0, state={})
    found = await evaluate(snapshot, eval_factory_for(config, Counted), 7)
    assert len(steps) == sum(record.length for record in found.records)


def test_the_processes_of_async_are_waited_for_in_a_thread_unless_told_otherwise() -> None:
    for settings, stepping in [
        ({"vectorize": "async"}, "thread"),
        ({"vectorize": "async", "stepping": "inline"}, "inline"),
        ({"vectorize": "sync"}, "auto"),
    ]:
        assert trainer_config(config_from({**TINY, **settings})).stepping == stepping


def test_an_evaluation_has_a_sub_environment_for_each_episode_but_few_processes() -> None:
    for vectorize, n_episodes, width in [
        ("sync", None, 6),
        ("native", None, 6),
        ("async", None, 4),
        ("sync", 3, 3),
        ("async", 3, 3),
        ("sync", 1000, 6),
    ]:
        config = config_from({**TINY, "vectorize": vectorize, "num_envs": 4, "eval_episodes": 6})
        env: Any = eval_factory_for(config, n_episodes=n_episodes)()
        assert env.num_envs == width, (vectorize, n_episodes)
        env.close()
    for vectorize in ("none", "auto"):
        env = eval_factory_for(config_from({**TINY, "vectorize": vectorize}))()
        assert isinstance(env, gymnasium.Env)


@on_asyncio
async def test_what_auto_has_chosen_is_kept(tmp_path: Path) -> None:
    run = await TrainingRun.create("poles", root=tmp_path)
    await train(config_from({**TINY, "num_envs": LEAST_ENVS, "eval_freq": 0}), run, view="none")
    stored = json.loads((run.directory / "config.json").read_text())
    assert stored["vectorize"] in ("none", "sync", "native")


@on_asyncio
async def test_a_factory_is_played_at_once_only_if_asked_for() -> None:
    made: list[ChainEnv] = []

    def make() -> ChainEnv:
        made.append(ChainEnv(3))
        return made[-1]

    config = config_from({**TINY, "num_envs": LEAST_ENVS})
    chosen, why = await decided(config, make)
    assert (chosen.vectorize, why, made) == ("none", "the environments are made by a function", [])
    vector = vector_env_for(config_from({**TINY, "vectorize": "sync"}), make)
    assert (vector.num_envs, len(made)) == (4, 4)


class Counting(ChainEnv):
    """A chain that says how many episodes it has begun, and what it was asked to say."""

    n_begun = 0
    said: Any = None

    def reset(self, **settings: Any) -> Any:
        self.n_begun += 1
        return super().reset(**settings)

    def episode_extras(self) -> Any:
        return {"n_begun": self.n_begun} if self.said is None else self.said


@on_asyncio
async def test_the_extras_of_an_environment_are_those_of_the_episode_that_has_ended(tmp_path: Path) -> None:
    run = await TrainingRun.create("extras", root=tmp_path)
    config = config_from({**TINY, "vectorize": "sync", "eval_freq": 0, "total_timesteps": 40})
    await train(config, run, agent=FakeAgent(action=1), factory=lambda: Counting(3), view="none")
    rows = [json.loads(line) for line in (run.directory / "train_episodes.jsonl").read_text().splitlines()]
    of_first = [row["extras"]["n_begun"] for row in rows if row["actor_id"] == 0]
    assert of_first == list(range(1, len(of_first) + 1))
    assert len(of_first) > 1


@on_asyncio
async def test_extras_that_are_no_mapping_are_refused_at_once(tmp_path: Path) -> None:
    def make() -> ChainEnv:
        env = Counting(3)
        env.said = [1.0]
        return env

    run = await TrainingRun.create("refused", root=tmp_path)
    config = config_from({**TINY, "vectorize": "sync", "eval_freq": 0})
    with pytest.raises(ConfigError, match=r"episode_extras returned \[1.0\].*give a mapping"):
        await train(config, run, agent=FakeAgent(action=1), factory=make, view="none")


async def test_a_trainer_plays_a_vector_environment() -> None:
    agent = FakeAgent(action=1)
    trainer = Trainer(
        agent,
        lambda: ChainEnv(3),
        TrainerConfig(max_steps=50, num_envs=4),
        vector_factory=lambda: SyncVectorEnv(
            [lambda: ChainEnv(3)] * 4, autoreset_mode=AutoresetMode.SAME_STEP
        ),
    )
    result = await trainer.train()
    assert (result.total_steps, len(agent.experiences)) == (50, 50)
    assert {e.actor_id for e in agent.experiences} == {0, 1, 2, 3}
    assert set(agent.batch_sizes) == {4}
    with pytest.raises(ConfigError, match="cannot be stepped one by one"):
        async with trainer:
            pass
    trainer = Trainer(
        FakeAgent(action=1),
        lambda: ChainEnv(3),
        TrainerConfig(max_steps=50, num_envs=5),
        vector_factory=lambda: SyncVectorEnv([lambda: ChainEnv(3)] * 4),
    )
    with pytest.raises(ConfigError, match="5 actor ids for a vector environment of 4"):
        await trainer.train()


async def test_a_trainer_s_workers_share_its_environments() -> None:
    env = ChainEnv(3)
    config = PPOConfig(rollout_steps=16, batch_size=8, n_epochs=1, hidden_sizes=(4,))
    for n_each, problem in ((2, None), (4, "2 actor ids for a vector environment of 4")):
        trainer = Trainer(
            PPO(env.observation_space, env.action_space, config, seed=0),
            lambda: ChainEnv(3),
            TrainerConfig(max_steps=100, num_envs=4, actors="threads", workers=2),
            vector_factory=lambda n_each=n_each: SyncVectorEnv([lambda: ChainEnv(3)] * n_each),
        )
        if problem is None:
            assert (await trainer.train()).total_steps == 100
            continue
        with pytest.raises(ConfigError, match=problem):
            await trainer.train()


def test_a_ctrl_c_in_the_terminal_leaves_the_processes_of_async_to_their_owner() -> None:
    vector: Any = vector_env_for(config_from({**TINY, "num_envs": 2, "vectorize": "async"}))
    try:
        vector.reset()
        for process in vector.processes:
            os.kill(process.pid, signal.SIGINT)
        for _ in range(5):
            observations, *_ = vector.step(vector.action_space.sample())
        assert observations.shape == (2, 4)
    finally:
        vector.close(terminate=True)
