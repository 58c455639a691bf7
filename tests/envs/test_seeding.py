"""Seeds depend on what they are for and on nothing else."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, strategies as st

from stoker.envs import episode_seed
from stoker.errors import ConfigError
from stoker.testing import ChainEnv

PINNED = [
    ((0, 0, 0), "actors", 2585524986),
    ((0, 0, 1), "actors", 1398016871),
    ((7, "left", 3), "actors", 2290813224),
    ((7, "left", 3), "evaluation", 1947360163),
]


@pytest.mark.parametrize(("triple", "stream", "expected"), PINNED)
def test_the_seeds_never_change(triple, stream, expected):
    assert episode_seed(*triple, stream=stream) == expected


def test_another_process_with_another_hash_seed_agrees():
    code = "from stoker.envs import episode_seed; print(episode_seed(7, 'left', 3))"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": "123"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(answer.stdout) == 2290813224


def test_all_differ_on_a_grid():
    actors = [0, 1, 2, "0", "1", "left", ""]
    grid = itertools.product([0, 1, 2, 2**40], actors, [0, 1, 2, 2**32], ["actors", "evaluation"])
    seeds = [episode_seed(seed, actor, episode, stream=stream) for seed, actor, episode, stream in grid]
    assert len(set(seeds)) == len(seeds) == 4 * 7 * 4 * 2


@given(
    st.integers(0, 2**64),
    st.one_of(st.integers(-(2**70), 2**70), st.text()),
    st.integers(0, 2**40),
)
def test_fits_every_generator(seed, actor_id, episode):
    result = episode_seed(seed, actor_id, episode)
    assert type(result) is int
    assert 0 <= result < 2**32
    assert result == episode_seed(seed, actor_id, episode)


def test_numpy_numbers_are_numbers():
    assert episode_seed(np.int64(7), np.int64(2), np.int64(1)) == episode_seed(7, 2, 1)


def test_gymnasium_takes_it():
    ChainEnv().reset(seed=episode_seed(0, "a", 0))


@pytest.mark.parametrize(("seed", "episode", "named"), [(-1, 0, "seed=-1"), (0, -2, "episode=-2")])
def test_negative_numbers_are_refused(seed, episode, named):
    with pytest.raises(ConfigError, match=named):
        episode_seed(seed, 0, episode)
