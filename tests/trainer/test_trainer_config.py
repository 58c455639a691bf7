"""The trainer's config: what never means, TOML there and back, and what is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from stoker import ConfigError
from stoker.settings import read_toml, settings_from
from stoker.trainer import EvaluationSettings, TrainerConfig

PERIODS = ("opt_interval", "warmup_period", "eval_interval", "record_interval", "save_interval")


@pytest.mark.parametrize("name", PERIODS)
def test_none_and_zero_mean_never(name: str) -> None:
    assert TrainerConfig(**{name: None}) == TrainerConfig(**{name: 0})
    assert getattr(TrainerConfig(**{name: None}), name) == 0


@pytest.mark.parametrize("name", ["max_opts", "max_steps"])
def test_none_and_zero_mean_no_limit(name: str) -> None:
    assert getattr(TrainerConfig(**{name: 0}), name) is None


@pytest.mark.parametrize("name", [*PERIODS, "max_opts", "max_steps"])
@pytest.mark.parametrize("value", [-1, 1.5, "10", True])
def test_what_is_no_period_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name}={value!r}"):
        TrainerConfig(**{name: value})


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
def test_toml_gives_back_what_it_was_given(
    config: TrainerConfig, tmp_path_factory: pytest.TempPathFactory
) -> None:
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


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none.toml"):
        TrainerConfig.load(tmp_path / "none.toml")


def test_dashes_are_taken_for_underscores() -> None:
    assert settings_from(
        {"max-opts": 3, "evaluation": {"n-episodes": 2}}, TrainerConfig, "it"
    ) == TrainerConfig(max_opts=3, evaluation=EvaluationSettings(n_episodes=2))
