"""How many workers and environments a training on a cluster has, from its settings; no cluster is needed."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.errors import ConfigError
from stoker.trainer import TrainConfig, TrainerConfig
from stoker.trainer.cluster_config import moved, worker_range
from stoker.trainer.config import config_from
from stoker.trainer.vectorizing import eval_factory_for, vector_factory_for

RAY: dict[str, Any] = {"env": "CartPole-v1", "actors": "ray"}


def counts(config: Any) -> tuple[int, Any, int]:
    return config.num_envs, config.workers, config.envs_per_worker


def test_the_number_of_environments_is_that_of_the_most_workers() -> None:
    assert counts(TrainConfig(**RAY)) == (8, 1, 8)
    assert counts(TrainConfig(**RAY, workers=4)) == (32, 4, 8)
    assert counts(TrainConfig(**RAY, workers="4..64", envs_per_worker=2)) == (128, "4..64", 2)
    assert counts(TrainConfig(**RAY, num_envs=64)) == (64, 8, 8)
    assert counts(TrainConfig(**RAY, num_envs=4)) == (4, 1, 4)
    assert counts(TrainerConfig(actors="ray", workers="2..3")) == (24, "2..3", 8)
    assert counts(config_from({**RAY, "workers": "2", "agent": "ppo"})) == (16, 2, 8)
    assert (worker_range(4), worker_range("4..64")) == ((1, 4), (4, 64))


def test_a_config_is_read_back_as_it_was_written() -> None:
    for given in ({"workers": "2..4"}, {"num_envs": 4}, {"workers": 3, "vectorize": "sync"}, {}):
        config = config_from({**RAY, **given})
        assert config_from(moved(config, {})) == config


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"workers": "64..4"}, r"workers='64..4': give a number, such as 4, or a range .*such as 4\.\.64"),
        ({"workers": "few"}, "workers='few': give a number"),
        ({"workers": 0}, "workers=0: give a number"),
        ({"workers": 4, "num_envs": 64}, "num_envs=64 disagrees with workers=4 .* which play 32"),
        ({"workers": 4, "num_envs": 8}, "num_envs=8 disagrees with workers=4"),
        ({"num_envs": 20}, "num_envs=20 is no multiple of envs_per_worker=8"),
        ({"actors": "tasks", "worker_cpus": 2}, "worker_cpus=2.* is about actors on a cluster"),
        ({"actors": "processes", "workers": "4..5"}, "workers='4..5' is a range, for actors='ray'"),
        ({"lockstep": True}, "lockstep=True: on a cluster"),
        ({"vectorize": "async"}, "vectorize='async' does not work with actors='ray'"),
        ({"worker_cpus": -1}, "worker_cpus=-1"),
    ],
)
def test_what_cannot_be_is_refused_with_its_values(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        config_from({**RAY, **given})


def test_a_resume_moves_a_run_on_to_and_off_a_cluster_with_any_number_of_workers() -> None:
    config = config_from({**RAY, "workers": "2..4", "cluster": "10.0.0.5:6379", "worker_cpus": 2.0})

    def resumed(**changes: Any) -> Any:
        return config_from(moved(config, changes))

    assert counts(resumed(workers=3)) == (24, 3, 8)
    assert counts(resumed(num_envs=8)) == (8, 1, 8)
    assert counts(resumed(envs_per_worker=1)) == (4, "2..4", 1)
    assert resumed(cluster="local").cluster == "local"
    here = resumed(actors="tasks")
    assert (here.num_envs, here.workers, here.cluster, here.worker_cpus) == (32, None, "auto", 1.0)
    assert counts(config_from(moved(here, {"actors": "ray", "workers": 2}))) == (16, 2, 8)
    together = config_from({"env": "CartPole-v1", "vectorize": "async"})
    assert config_from(moved(together, {"actors": "ray"})).vectorize == "none"
    exact = config_from({"env": "CartPole-v1", "lockstep": True})
    with pytest.raises(ConfigError, match="num_envs=2: in lockstep each of the run's 8 actors"):
        moved(exact, {"num_envs": 2})


def test_each_worker_has_a_vector_environment_of_its_share() -> None:
    config = config_from({**RAY, "workers": 3, "envs_per_worker": 2, "vectorize": "sync", "eval_episodes": 5})
    for factory, width in ((vector_factory_for(config), 2), (eval_factory_for(config), 5)):
        assert factory is not None
        env = factory()
        assert env.num_envs == width
        env.close()
