"""make_gym: the environment as it is, and one clear error for whatever cannot be made."""

from __future__ import annotations

import functools

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import register, registry

from stoker.envs import make_gym
from stoker.errors import ConfigError
from stoker.testing import ChainEnv


class AnyArguments(ChainEnv):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)


class NeedsSize(ChainEnv):
    def __init__(self, size):
        super().__init__(size)


class Missing(ChainEnv):
    def __init__(self):
        raise gymnasium.error.DependencyNotInstalled("warp is not installed,\n run `pip install warp`")


class Broken(ChainEnv):
    def __init__(self):
        raise TypeError("a bug of its own")


ENVS = {
    "StokerTest/Chain-v2": ChainEnv,
    "StokerTest/AnyArguments-v0": AnyArguments,
    "StokerTest/NeedsSize-v0": NeedsSize,
    "StokerTest/Misspelled-v0": functools.partial(NeedsSize, sise=3),  # which has no signature
    "StokerTest/Missing-v0": Missing,
    "StokerTest/Broken-v0": Broken,
    "StokerTest/Unimportable-v0": "stoker_has_no_such_module:Env",
}


@pytest.fixture(autouse=True)
def _registered():
    for name, entry_point in ENVS.items():
        register(name, entry_point=entry_point)
    yield
    for name in ENVS:
        del registry[name]


def one_line_error(env_name, **kwargs):
    with pytest.raises(ConfigError) as caught:
        make_gym(env_name, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


BAD_NAMES = [
    ("CartPol-v1", {}, ["'CartPol-v1'", "did you mean 'CartPole-v1'?"]),
    ("cartpole-v1", {}, ["did you mean 'CartPole-v1'?"]),
    ("CartPole-v9", {}, ["'CartPole-v9'", "'CartPole-v1'"]),
    ("StokerTest/Chain-v1", {}, ["'StokerTest/Chain-v2'"]),
    ("StokrTest/Chain-v2", {}, ["did you mean 'StokerTest/Chain-v2'?"]),
    ("Nowhere/Zzyzx-v5", {}, ["'Nowhere/Zzyzx-v5'", "install", "'module:Nowhere/Zzyzx-v5'"]),
    ("not a name", {}, ["'not a name'"]),
    ("", {}, ["env_name=''"]),
    ("stoker_has_no_such_module:Env-v0", {}, ["'stoker_has_no_such_module'", "cannot be imported"]),
    ("math:Zzyzx-v0", {}, ["'math:Zzyzx-v0'", "registers no 'Zzyzx-v0'"]),
    (":CartPole-v1", {}, ["':CartPole-v1'", "module:"]),
    (".sub:CartPole-v1", {}, ["'.sub:CartPole-v1'"]),
    ("StokerTest/Missing-v0", {}, ["'StokerTest/Missing-v0'", "`pip install warp`"]),
    (
        "StokerTest/Unimportable-v0",
        {},
        ["'StokerTest/Unimportable-v0'", "'stoker_has_no_such_module'", "install"],
    ),
    (
        "CartPole-v1",
        {"gravty": 1, "max_episode_steps": 5, "wind": 2},
        [
            "env_name='CartPole-v1' does not take 'gravty', 'wind': it takes 'sutton_barto_reward', ",
            ", 'max_episode_steps'",
        ],
    ),
    ("StokerTest/AnyArguments-v0", {"lenth": 4}, ["lenth"]),
    ("StokerTest/NeedsSize-v0", {}, ["size"]),
    ("StokerTest/Misspelled-v0", {"size": 4}, ["env_name='StokerTest/Misspelled-v0'", "argument 'sise'"]),
    ("CartPole-v1", {"render_mode": "asci"}, ["render_mode='asci'", "'rgb_array'"]),
    ("CartPole-v1", {"render_mode": 5}, ["render_mode=5", "'rgb_array'"]),
]


@pytest.mark.parametrize(("env_name", "kwargs", "parts"), BAD_NAMES)
def test_what_cannot_be_made_is_one_error_with_a_way_out(env_name, kwargs, parts):
    message = one_line_error(env_name, **kwargs)
    for part in parts:
        assert part in message


def test_a_bug_of_the_environment_stays_what_it_is():
    with pytest.raises(TypeError, match="a bug of its own"):
        make_gym("StokerTest/Broken-v0")


def test_spaces_are_the_environments_own():
    for env in ("CartPole-v1", "FrozenLake-v1", "Blackjack-v1"):
        made, plain = make_gym(env), gymnasium.make(env)
        assert (made.observation_space, made.action_space) == (plain.observation_space, plain.action_space)


def test_arguments_reach_the_environment_and_its_time_limit():
    env = make_gym("StokerTest/Chain-v2", length=3, max_episode_steps=2)
    env.reset(seed=0)
    assert env.unwrapped.length == 3
    assert env.step(0)[3] is False
    assert env.step(0)[3] is True


def test_render_modes_that_gymnasium_adds_are_possible():
    assert make_gym("CartPole-v1", render_mode="rgb_array_list").render_mode == "rgb_array_list"


def test_a_module_is_imported_for_its_names(tmp_path, monkeypatch):
    (tmp_path / "stoker_registers_one.py").write_text(
        "from gymnasium import register\n"
        "register('StokerTest/Imported-v0', entry_point='stoker.testing.fakes:ChainEnv')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    env = make_gym("stoker_registers_one:StokerTest/Imported-v0", length=2)
    del registry["StokerTest/Imported-v0"]
    assert np.array_equal(env.reset(seed=0)[0], [0.0])


def test_warnings_of_gymnasium_are_left_as_they_are(capsys):
    with pytest.warns(DeprecationWarning, match="out of date"):
        make_gym("CartPole-v0")
    with pytest.warns(UserWarning, match="latest versioned"):
        make_gym("CartPole")
    assert capsys.readouterr() == ("", "")
