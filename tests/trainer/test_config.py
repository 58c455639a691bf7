"""Configs from plain values and TOML: where settings come from, what is refused, and the way to a file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from stoker import ConfigError, DQNConfig, TrainConfig, preset
from stoker.agents.registry import presets
from stoker.envs.wrapping import EnvWrapper
from stoker.settings import read_toml, settings_from
from stoker.trainer import EvaluationSettings, TrainerConfig, config_from

CARTPOLE = {"env": "CartPole-v1"}


def test_only_the_environment_is_needed() -> None:
    config = config_from(CARTPOLE)
    assert config == TrainConfig(env="CartPole-v1", agent_settings=preset("dqn", "CartPole-v1"))
    assert config_from({"env": "MyGame-v3"}) == TrainConfig(env="MyGame-v3", agent_settings=DQNConfig())


def test_a_config_made_in_python_is_read_back_from_its_file_as_it_was_in_spite_of_presets() -> None:
    for agent, env in presets():
        config = TrainConfig(env=env, agent=agent)  # with the agent's defaults
        assert config_from(msgspec.json.decode(msgspec.json.encode(config))) == config


def test_values_win_over_the_preset_and_the_preset_over_defaults() -> None:
    base = preset("dqn", "CartPole-v1")
    config = config_from({**CARTPOLE, "gamma": 0.5, "seed": 7, "num_envs": 3})
    assert config.agent_settings == msgspec.structs.replace(base, gamma=0.5)
    assert (config.seed, config.num_envs, config.total_timesteps) == (
        7,
        3,
        TrainConfig(env="x").total_timesteps,
    )


@pytest.mark.parametrize("name", ["opt_interval", "opt-interval"])
def test_a_training_setting_wins_over_that_of_the_preset_even_with_its_default(name: str) -> None:
    pole = {**CARTPOLE, "agent": "ppo"}
    assert config_from({**pole, name: TrainConfig(env="x").opt_interval}).opt_interval == 1
    assert config_from({**pole, name: 5}).opt_interval == 5
    assert config_from({**pole, "gamma": 0.5}).opt_interval == 32


def test_every_preset_is_whole_and_can_be_used() -> None:
    for (agent, env), found in presets().items():
        config = config_from({"env": env, "agent": agent})
        assert config.agent_settings == found.agent_settings
        plain = msgspec.json.decode(msgspec.json.encode(config))
        assert {name: plain[name] for name in found.training} == found.training
        same = TrainConfig(env=env, agent=agent, agent_settings=found.agent_settings)
        assert config == msgspec.structs.replace(same, **found.training), "the rest are the defaults"
        assert not {"env", "agent", "agent_settings", "seed"} & set(found.training)


def test_dashes_stand_for_underscores_everywhere() -> None:
    dashed = {
        "env": "CartPole-v1", "num-envs": 2, "batch-size": 8,
        "agent-settings": {"hidden-sizes": [16], "learning_starts": 8},
    }  # fmt: skip
    config = config_from(dashed)
    assert config.num_envs == 2
    assert config.agent_settings.batch_size == config.agent_settings.learning_starts == 8
    assert config.agent_settings.hidden_sizes == (16,)


def test_settings_of_the_agent_are_taken_flat_or_nested() -> None:
    flat = config_from({**CARTPOLE, "gamma": 0.5, "double": True})
    nested = config_from({**CARTPOLE, "agent_settings": {"gamma": 0.5, "double": True}})
    mixed = config_from({**CARTPOLE, "double": True, "agent_settings": {"gamma": 0.5}})
    assert flat == nested == mixed
    both = config_from({**CARTPOLE, "gamma": 0.25, "agent_settings": {"gamma": 0.5}})
    assert both.agent_settings.gamma == 0.25, "flat is nearer to the one who asks"


@pytest.mark.parametrize(
    "values",
    [
        CARTPOLE,
        {"env": "Acrobot-v1", "stop_at_reward": -80.5, "keep_checkpoints": None, "eval_freq": 0},
        {**CARTPOLE, "tau": 0.005, "hidden_sizes": [], "stepping": "thread", "max_grad_norm": None},
    ],
)
def test_it_survives_json(values: dict[str, Any]) -> None:
    config = config_from(values)
    plain = msgspec.json.decode(msgspec.json.encode(config))
    assert config_from(plain) == config
    assert set(plain) == set(TrainConfig.__struct_fields__), "config.json holds all of it"
    assert set(plain["agent_settings"]) == set(DQNConfig.__struct_fields__)


def test_wrappers_are_names_or_tables_and_survive_json() -> None:
    table = {"name": "gymnasium.wrappers:TimeLimit", "kwargs": {"max_episode_steps": 9}}
    config = config_from({**CARTPOLE, "wrapper": ["gymnasium.wrappers:FlattenObservation", table]})
    assert config.wrappers == (
        EnvWrapper("gymnasium.wrappers:FlattenObservation"),
        EnvWrapper("gymnasium.wrappers:TimeLimit", {"max_episode_steps": 9}),
    )
    assert config_from(msgspec.json.decode(msgspec.json.encode(config))) == config
    assert config_from({**CARTPOLE, "wrappers": "own:One"}).wrappers == (EnvWrapper("own:One"),)
    assert config_from({"env": "ALE/Pong-v5", "wrappers": []}).wrappers == (), "not those of the preset"


BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "name the environment"),
    ({"env": 5}, "name the environment"),
    ({**CARTPOLE, "agent": "dnq"}, "unknown agent 'dnq'.*did you mean 'dqn'"),
    ({**CARTPOLE, "agent": 3}, "agent=3 is not a name"),
    ({**CARTPOLE, "wrapper": 3}, "wrappers=3: give a list"),
    ({**CARTPOLE, "wrapper": [3]}, "wrapper=3: give module:Class, or a table"),
    ({**CARTPOLE, "wrapper": ["Frames"]}, "wrapper='Frames' does not name a module and something in it"),
    ({**CARTPOLE, "wrapper": [{"kwargs": {}}]}, "has no name: give one, as module:Class"),
    ({**CARTPOLE, "wrapper": [{"name": "a:B", "n": 1}]}, "wrapper: unknown key 'n'; known are name, kwargs"),
    ({**CARTPOLE, "wrapper": [{"name": "a:B", "kwargs": {"x": math.nan}}]}, "cannot be kept in config.json"),
    (
        {**CARTPOLE, "wrapper": "a:B", "vectorize": "native"},
        "'native' does not work with wrappers, such as a:B, which wrap single environments: use vectorize=",
    ),
    ({**CARTPOLE, "num_env": 3}, "unknown key 'num_env'; did you mean 'num_envs'"),
    ({**CARTPOLE, "gama": 0.9}, "unknown key 'gama'; did you mean 'gamma'"),
    ({**CARTPOLE, "zzz": 1}, "unknown key 'zzz'; not a setting of a training or of the agent 'dqn'$"),
    ({**CARTPOLE, "agent_settings": {"num_envs": 3}}, "unknown key 'num_envs'"),
    (
        {**CARTPOLE, "agent_settings": {"lerning_rate": 1}},
        "unknown key 'lerning_rate'; did you mean 'learning_rate'",
    ),
    ({**CARTPOLE, "agent_settings": 5}, "agent_settings=5 is not a table"),
    ({**CARTPOLE, "agent_settings": [1]}, r"agent_settings=\[1\] is not a table"),
    ({**CARTPOLE, "num_envs": 0}, "num_envs=0: give an int of at least 1$"),
    ({**CARTPOLE, "num_envs": "many"}, "num_envs='many'"),
    ({**CARTPOLE, "num_envs": 2.5}, "num_envs=2.5"),
    ({**CARTPOLE, "num_envs": True}, "num_envs=True"),
    ({**CARTPOLE, "total_timesteps": -1}, "total_timesteps=-1"),
    ({**CARTPOLE, "checkpoint_freq": -1}, "checkpoint_freq=-1"),
    ({**CARTPOLE, "eval_freq": None}, "eval_freq=None"),
    ({**CARTPOLE, "stepping": "fast"}, "stepping='fast'"),
    ({**CARTPOLE, "stop_at_reward": "high"}, "stop_at_reward='high'"),
    ({**CARTPOLE, "gamma": 1.5}, "gamma=1.5: give"),
    ({**CARTPOLE, "gamma": math.nan}, "gamma=nan: give"),
    ({**CARTPOLE, "gamma": "high"}, "gamma='high'"),
    ({**CARTPOLE, "hidden_sizes": [64, 0]}, r"hidden_sizes=\[64, 0\]: give"),
    ({**CARTPOLE, "hidden_sizes": 64}, "hidden_sizes=64"),
    ({**CARTPOLE, "batch_size": 100, "buffer_size": 10}, "batch_size=100: give at most buffer_size"),
]


def test_rollouts_grow_with_the_environments_as_far_as_there_are_32_updates() -> None:
    for total, num_envs, expected in [
        (20_000, 8, 2_048), (100_000, 8, 3_072), (300_000, 8, 9_344), (2_000_000, 8, 16_384),
        (2_000_000, 1, 2_048),
    ]:  # fmt: skip
        given = {"env": "Taxi-v3", "agent": "ppo", "total_timesteps": total, "num_envs": num_envs}
        assert config_from(given).agent_settings.rollout_steps == expected
        assert config_from({**given, "rollout_steps": 700}).agent_settings.rollout_steps == 700
    preset = config_from({"env": "CartPole-v1", "agent": "ppo", "total_timesteps": 2_000_000})
    assert preset.agent_settings.rollout_steps == 256


def test_what_cannot_be_used_is_named() -> None:
    for values, message in BAD:
        with pytest.raises(ConfigError, match=rf"(?s)^(my\.toml: )?.*{message}"):
            config_from(values, "my.toml")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_toml_file(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text('env = "CartPole-v1"\nnum-envs = 2\n[agent_settings]\ngamma = 0.5\n', encoding)
    config = config_from(read_toml(path), str(path))
    assert (config.num_envs, config.agent_settings.gamma) == (2, 0.5)


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "No such file"), (b"env = ", "not TOML"), (b"\xff", "not TOML"), (b"a = 1\na = 2\n", "not TOML")],
)
def test_a_toml_file_that_cannot_be_read_is_a_typed_error(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    path = tmp_path / "x.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"--config .*x\.toml: {problem}"):
        read_toml(path, "--config ")


def test_a_presets_schedule_ends_with_the_training() -> None:
    assert config_from({"env": "CartPole-v1", "agent": "ppo"}).agent_settings.schedule_steps == 100_000
    short = config_from({"env": "CartPole-v1", "agent": "ppo", "total_timesteps": 20_000})
    assert short.agent_settings.schedule_steps == 20_000
    own = config_from(
        {"env": "CartPole-v1", "agent": "ppo", "total_timesteps": 20_000, "schedule_steps": 5_000}
    )
    assert own.agent_settings.schedule_steps == 5_000


def test_an_own_agent_has_its_settings_apart_and_as_json_gives_them_back() -> None:
    config = config_from({"env": "shop:Queue", "agent": "shop:Agent", "agent-settings": {"sizes": (1, 2)}})
    assert config.agent_settings == {"sizes": [1, 2]}
    assert config_from(msgspec.json.decode(msgspec.json.encode(config))) == config
    assert config_from({"env": "x", "import": "shop"}).imports == ("shop",)
    with pytest.raises(
        ConfigError, match="unknown key 'size'; settings of shop:Agent go into agent_settings"
    ):
        config_from({"env": "x", "agent": "shop:Agent", "size": 1})
    for value in (object(), math.inf, [math.nan]):  # JSON has no such numbers: msgspec writes null
        with pytest.raises(ConfigError, match=r"env_kwargs=.* cannot be kept in config\.json"):
            TrainConfig(env="x", env_kwargs={"world": value})


PERIODS = ("opt_interval", "warmup_period", "eval_interval", "record_interval", "save_interval")


def test_none_and_zero_mean_never() -> None:
    for name in PERIODS:
        assert TrainerConfig(**{name: None}) == TrainerConfig(**{name: 0})
        assert getattr(TrainerConfig(**{name: None}), name) == 0


def test_none_and_zero_mean_no_limit() -> None:
    for name in ["max_opts", "max_steps"]:
        assert getattr(TrainerConfig(**{name: 0}), name) is None


def test_what_is_no_period_is_refused_by_name() -> None:
    for name in [*PERIODS, "max_opts", "max_steps"]:
        for value in (-1, 1.5, "10", True):
            with pytest.raises(ConfigError, match=f"{name}={value!r}"):
                TrainerConfig(**{name: value})  # pyright: ignore[reportArgumentType] - refused


def test_a_limit_that_would_never_be_reached_is_refused() -> None:
    with pytest.raises(ConfigError, match="opt_interval=0"):
        TrainerConfig(max_opts=10, opt_interval=None)


configs = st.builds(
    TrainerConfig,
    max_opts=st.none() | st.integers(1, 10**9),
    max_steps=st.none() | st.integers(1, 10**9),
    opt_interval=st.integers(1, 100),
    warmup_period=st.none() | st.integers(0, 10**6),
    save_interval=st.none() | st.integers(0, 10**6),
    seed=st.none() | st.integers(0, 2**31),
    actors=st.sampled_from(["tasks", "threads", "processes"]),
    sync_interval=st.none() | st.integers(1, 1000),
    max_staleness=st.none() | st.integers(0, 100),
    evaluation=st.builds(
        EvaluationSettings,
        n_episodes=st.integers(1, 100),
        confirm=st.booleans(),
        best_by=st.sampled_from(["mean", "lower_bound"]),
        stop_at_reward=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        patience=st.none() | st.integers(1, 50),
    ),
)


@given(config=configs)
def test_a_config_survives_toml(config: TrainerConfig, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "trainer.toml"
    path.write_text(config.to_toml())
    assert settings_from(read_toml(path), TrainerConfig, "it") == config


def test_a_file_is_written_and_read(tmp_path: Path) -> None:
    config = TrainerConfig(max_opts=5_000, evaluation=EvaluationSettings(stop_at_reward=475.0))
    config.save(tmp_path / "trainer.toml")
    text = (tmp_path / "trainer.toml").read_text()
    assert "max_opts = 5000" in text
    assert "[evaluation]" in text
    assert TrainerConfig.load(tmp_path / "trainer.toml") == config


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_opt = 3", r"unknown key 'max_opt'; did you mean 'max_opts'"),
        (
            "[evaluation]\nn_episode = 3",
            r"evaluation: unknown key 'n_episode'; did you mean 'n_episodes'",
        ),
        ("completely_other = 3", r"unknown key 'completely_other'; known are max_opts"),
        ('max_opts = "many"', r"max_opts"),
        ("save_interval = -5", r"save_interval=-5"),
        ("max_opts = ", r"not TOML"),
    ],
)
def test_a_file_with_something_wrong_is_refused_with_its_name(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        TrainerConfig.load(path)


def test_a_missing_file_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none.toml"):
        TrainerConfig.load(tmp_path / "none.toml")


def test_dashes_are_taken_for_underscores() -> None:
    assert settings_from(
        {"max-opts": 3, "evaluation": {"n-episodes": 2}}, TrainerConfig, "it"
    ) == TrainerConfig(max_opts=3, evaluation=EvaluationSettings(n_episodes=2))
