"""A run that is trained from a data set: it is one data set, observed once, and the journal has all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import msgspec
import numpy as np
import pytest

from stoker import DQN, ConfigError, DQNConfig, EpisodeStatus, Experience, Trainer, TrainerConfig, TrainingRun
from stoker.data import DatasetInfo, Episode, write_dataset
from stoker.errors import InvalidDataset
from stoker.journal import DatasetGiven, Optimized
from stoker.nested import differences
from stoker.runs.verifying import verify_run
from stoker.session import TrainingSession
from stoker.session.replaying import replay_run
from stoker.testing import ChainEnv
from stoker.trainer import TrainConfig, config_from, preparing, train as train_config
from stoker.trainer.digests import TransitionDigest
from stoker.trainer.making import agent_for
from stoker.trainer.parts import parts_of
from stoker.trainer.preparing import prepared
from stoker.types import ExperienceBatch

pytestmark = pytest.mark.anyio
BOX = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
N = 600
KEPT: dict[str, Any] = {"keep_journal": "all", "keep_checkpoints": None}


def agent(**settings: Any) -> DQN:
    small: dict[str, Any] = {"hidden_sizes": (8,), "batch_size": 8, "learning_starts": 50, "n_step": 3}
    return DQN(BOX, gymnasium.spaces.Discrete(2), DQNConfig(**{**small, **settings}), seed=2)


def dataset(n: int = N, seed: int = 0) -> list[Experience]:
    """One actor's; the last episode is long, and broken off."""
    rng = np.random.default_rng(seed)
    rows = rng.uniform(-1, 1, (n, 2, 3)).astype(np.float32)
    actions, rewards = rng.integers(2, size=n).tolist(), rng.normal(size=n).tolist()
    return [
        Experience(
            rows[k, 0],
            actions[k],
            rewards[k],
            rows[k, 1],
            EpisodeStatus.TRUNCATED if k < 200 and k % 20 == 19 else EpisodeStatus.CONTINUING,
        )
        for k in range(n)
    ]


def columns(steps: list[Experience]) -> dict[str, Any]:
    return {
        "observations": np.stack([step.observation for step in steps]),
        "actions": np.array([step.action for step in steps]),
        "rewards": np.array([step.reward for step in steps]),
        "next_observations": np.stack([step.next_observation for step in steps]),
        "terminated": np.array([step.status.is_terminal for step in steps]),
        "truncated": np.array([step.status.is_truncated for step in steps]),
    }


def bits(trained: DQN) -> dict[str, Any]:
    return {"agent": trained.state_dict(), "replay": trained.replay.state_dict()}


async def train(run: TrainingRun, data: Any, max_opts: int = 100, **settings: Any) -> DQN:
    trained = agent()
    config = TrainerConfig(max_opts=max_opts, save_interval=40)
    await Trainer(trained, ChainEnv, config, run=run, **KEPT, **settings).train_offline(data)
    return trained


async def test_the_run_is_replayed_without_the_data_set(tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    trained = await train(run, columns(dataset()), max_opts=300)
    events = [event for _, event in run.journal.read(0, run.journal.n_events())]
    assert sum(event.n for event in events if isinstance(event, Optimized)) == 300
    given = [event for event in events if isinstance(event, DatasetGiven)]
    assert given[-1].n == N
    assert len([event for event in events if isinstance(event, Experience)]) == N
    again = agent()
    replayed = replay_run(run, again)
    assert [(one.step, one.differences) for one in replayed.comparisons] == [
        (step, ()) for step in run.checkpoint_steps()
    ]
    assert list(differences(bits(again), bits(trained), "")) == []


@pytest.mark.parametrize("stop_at", [100, 256, 300, 513])
async def test_one_that_was_stopped_while_it_read_the_data_set_goes_on_there(
    tmp_path: Path, stop_at: int
) -> None:
    """Also within an episode, of which n-step windows are open: it does not end where the reading did."""
    data = dataset()
    whole = await train(await TrainingRun.create("whole", root=tmp_path), data)
    run = await TrainingRun.create("stopped", root=tmp_path)
    trainer = Trainer(agent(), ChainEnv, TrainerConfig(max_opts=100), run=run, **KEPT)

    def stopping() -> Iterator[Experience]:
        for k, step in enumerate(data):
            if k == stop_at:
                trainer.stop()
            yield step

    result = await trainer.train_offline(stopping())
    assert result.total_steps == 0
    resumed = await train(await TrainingRun.resume(run.directory), data)
    assert list(differences(bits(resumed), bits(whole), "")) == []


@pytest.mark.parametrize(
    ("form", "n_others"), [(list, 0), (list, 90), (columns, 0)], ids=["steps", "two actors", "columns"]
)
async def test_one_that_was_killed_in_the_middle_of_what_it_read_goes_on_there(
    tmp_path: Path, form: Callable[[list[Experience]], Any], n_others: int
) -> None:
    """The journal may end anywhere in what was read at once; an episode that broke off before ends, too."""
    data = dataset()
    data[:n_others] = [msgspec.structs.replace(step, actor_id="other") for step in data[:n_others]]
    whole = await train(await TrainingRun.create("whole", root=tmp_path), data)
    run, digest = await TrainingRun.create("killed", root=tmp_path), TransitionDigest()
    digest.add(data)
    settings: dict[str, Any] = {"offline": True, "opt_interval": 0, "warmup_period": 0, **KEPT}
    async with TrainingSession(agent(), run, **settings) as session:
        await session.on_dataset(N, digest.hexdigest())
        await session.observe_many(data[:300])
    resumed = await train(await TrainingRun.resume(run.directory), form(data))
    assert list(differences(bits(resumed), bits(whole), "")) == []


async def test_the_same_data_goes_on_in_any_form_and_longer(tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    await train(run, iter(dataset()[:400]))
    again = await train(await TrainingRun.resume(run.directory), columns(dataset()[:400]))
    assert (again.total_steps, again.opt_steps) == (400, 200)
    longer = await train(await TrainingRun.resume(run.directory), dataset())
    assert (longer.total_steps, longer.opt_steps) == (N, 300)


@pytest.mark.parametrize("sizes", [(N,), (1, 255, 256, 88), (300, 300)])
def test_a_digest_does_not_depend_on_how_transitions_are_cut(sizes: tuple[int, ...]) -> None:
    one_by_one, cut = TransitionDigest(), TransitionDigest()
    one_by_one.add(dataset())
    [whole] = parts_of(columns(dataset()))
    assert isinstance(whole, ExperienceBatch)
    start = 0
    for size in sizes:
        cut.add(whole[start : start + size])
        start += size
    assert cut.hexdigest() == one_by_one.hexdigest()
    cut.add(dataset()[:1])
    assert cut.hexdigest() != one_by_one.hexdigest()


def test_a_digest_knows_the_end_of_an_episode() -> None:
    [whole] = parts_of(columns(dataset()))
    assert isinstance(whole, ExperienceBatch)
    terminated = msgspec.structs.replace(whole, terminated=whole.truncated, truncated=whole.terminated)
    both = msgspec.structs.replace(whole, terminated=whole.truncated)
    digests = []
    for batch in (whole, terminated, both):
        for transitions in (batch, batch.experiences()):
            digests.append(TransitionDigest())
            digests[-1].add(transitions)
    truncates, same, terminates, *others = [digest.hexdigest() for digest in digests]
    assert truncates == same != terminates
    assert others == [terminates] * 3, "an episode that terminated was not truncated"


@pytest.mark.parametrize("other", [dataset(seed=1), dataset()[: N - 1], []], ids=["other", "shorter", "none"])
async def test_another_data_set_is_refused(tmp_path: Path, other: list[Experience]) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    trained = await train(run, dataset())
    message = (
        rf"another data set .* first {len(other)} transitions have the digest \w{{64}}, and those {N} the"
    )
    with pytest.raises(ConfigError, match=message):
        await train(await TrainingRun.resume(run.directory), other)
    resumed = await train(await TrainingRun.resume(run.directory), dataset())
    assert resumed.opt_steps == 2 * trained.opt_steps


async def test_without_a_journal_checkpoints_hold_the_replay(tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    first = await train(run, dataset(), journal=False)
    assert not run.journal.segments()
    again = await train(await TrainingRun.resume(run.directory), dataset(), journal=False)
    assert (again.total_steps, again.opt_steps) == (N, 2 * first.opt_steps)


async def test_a_replay_stops_at_any_optimization_step(tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    await train(run, columns(dataset()))
    at, until = agent(), agent()
    replayed = replay_run(run, at, to_step=73)
    assert (replayed.total_steps, at.opt_steps, at.total_steps) == (73, 73, N)
    await train(await TrainingRun.create("short", root=tmp_path), columns(dataset()), max_opts=73)
    replay_run(await TrainingRun.open(tmp_path / "short"), until)
    assert list(differences(bits(at), bits(until), "")) == []
    assert is_whole(await TrainingRun.open(run.directory))


def is_whole(run: TrainingRun) -> bool:
    return all(found.kind in ("ok", "note") for found in verify_run(run))


# Data sets that are read ----------------------------------------------------------------------------------


def episodes_of(steps: list[Experience]) -> list[Episode]:
    """Cut where an episode ends, and at the end, where the recording breaks off; observations are chained."""
    found: list[Episode] = []
    start = 0
    for k, step in enumerate(steps):
        if step.status.is_done or k == len(steps) - 1:
            part = steps[start : k + 1]
            rows = [one.observation for one in part] + [part[-1].next_observation]
            rewards = np.array([one.reward for one in part])
            actions = np.array([one.action for one in part])
            found.append(
                Episode(observations=np.stack(rows), actions=actions, rewards=rewards, status=step.status)
            )
            start = k + 1
    return found


def written(path: Path, steps: list[Experience]) -> Path:
    info = DatasetInfo(
        source="made", format="npz", observation_space=BOX, action_space=gymnasium.spaces.Discrete(2)
    )
    write_dataset(episodes_of(steps), info, path, "npz")
    return path


async def test_a_named_data_set_is_what_its_episodes_are_and_is_read_once(tmp_path: Path) -> None:
    path = written(tmp_path / "data.npz", dataset())
    run = await TrainingRun.create("named", root=tmp_path)
    named = await train(run, str(path))
    steps = [step for episode in episodes_of(dataset()) for step in episode.experiences()]
    steps[-1] = msgspec.structs.replace(steps[-1], status=EpisodeStatus.TRUNCATED)
    given = await train(await TrainingRun.create("given", root=tmp_path), columns(steps))
    assert list(differences(bits(named), bits(given), "")) == []
    path.unlink()
    for n_opts in (200, 300):  # the second one begins with an optimization step
        again = await train(await TrainingRun.resume(run.directory), str(path))
        assert again.opt_steps == n_opts
    assert is_whole(await TrainingRun.open(run.directory))
    [first] = {event.digest for _, event in run.journal.read(0, N + 2) if isinstance(event, DatasetGiven)}
    digest = TransitionDigest()
    digest.add(steps)
    assert first == digest.hexdigest()


async def test_a_named_data_set_that_is_gone_half_way_is_named(tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    trainer = Trainer(agent(), ChainEnv, TrainerConfig(max_opts=100), run=run, **KEPT)

    def stopping() -> Iterator[Experience]:
        for k, step in enumerate(dataset()):
            if k == 513:
                trainer.stop()
            yield step

    await trainer.train_offline(stopping())
    with pytest.raises(InvalidDataset, match=r"gone\.npz: there is no such file"):
        await train(await TrainingRun.resume(run.directory), tmp_path / "gone.npz")


# Configs --------------------------------------------------------------------------------------------------


def config_on(path: Path, **settings: Any) -> TrainConfig:
    given = {
        "offline": str(path),
        "agent": "dqn",
        "total_timesteps": 60,
        "hidden_sizes": [8],
        "batch_size": 8,
    }
    return config_from({**given, "learning_starts": 50, "checkpoint_freq": 25, **settings})


async def test_a_config_trains_on_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path / "data.npz", dataset())
    schedule: dict[str, Any] = {"learning_rate_schedule": "linear", "schedule_steps": 60}
    result = await train_config(config_on(path, buffer_size=100, keep_checkpoints=9, **schedule))
    assert (result.total_steps, result.opt_steps, result.best_eval_reward) == (60, 60, None)
    run = await TrainingRun.open(result.run)
    assert run.metadata.name == "data.npz"
    assert run.checkpoint_steps() == [0, 25, 50, 60]
    stored = config_from(await run.read_config(dict[str, Any]))
    assert stored.agent_settings.buffer_size == N
    assert stored.agent_settings.schedule_counts == "opt_steps"
    path.unlink()
    longer = msgspec.structs.replace(stored, total_timesteps=80)
    assert (await train_config(longer, await TrainingRun.resume(run.directory))).total_steps == 80
    again = agent_for(stored)
    replayed = replay_run(await TrainingRun.open(result.run), again)
    assert [one.step for one in replayed.comparisons if not one.differences] == run.checkpoint_steps()
    assert is_whole(await TrainingRun.open(run.directory))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"agent": "ppo"}, r"ppo learns from what its own policy does.* dqn, "),
        ({"num_envs": 4}, r"num_envs=4 is about actors"),
        ({"actors": "threads"}, r"actors='threads' is about actors"),
        ({"warmup_period": 4}, r"warmup_period=4 is about actors"),
        ({"offline": "", "env": "CartPole-v1", "ends": "terminal"}, r"ends='terminal' is about a data set"),
    ],
)
def test_settings_that_mean_nothing_on_a_data_set_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config_from({"offline": "data.npz", **settings})


def test_another_environment_than_that_of_the_data_set_is_refused_with_both_spaces(tmp_path: Path) -> None:
    path = written(tmp_path / "data.npz", dataset(30))
    with pytest.raises(
        ConfigError, match=r"observation space Box\(-1.*\(3,\).*CartPole-v1 has Box\(.*\(4,\)"
    ):
        prepared(config_on(path, env="CartPole-v1"))


def test_a_replay_that_memory_cannot_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "data.npz", dataset(600))
    monkeypatch.setattr(preparing, "_free_memory", lambda: 20_000)
    with pytest.raises(ConfigError, match="--memory-map DIR"):
        prepared(config_on(path, buffer_size=100))
    mapped, _ = prepared(config_on(path, buffer_size=100, memory_map=str(tmp_path)))
    assert mapped.agent_settings.buffer_size == 600
