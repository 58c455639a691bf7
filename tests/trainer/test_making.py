"""The environment that is made before a training begins, to see what it is like."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import gymnasium
import pytest

from stoker import ConfigError
from stoker.testing import ChainEnv
from stoker.trainer import config_from
from stoker.trainer.making import spaces_for

NAME = "StokerProbed-v0"


class Unclosed(ChainEnv):
    def close(self) -> None:
        raise RuntimeError("no display to close")


def offline() -> Any:
    raise OSError("no simulator at port 5000")


@pytest.fixture(autouse=True)
def _unregistered() -> Iterator[None]:
    yield
    gymnasium.registry.pop(NAME, None)


def test_an_environment_that_cannot_be_made_is_one_error_that_says_where() -> None:
    gymnasium.register(NAME, offline)
    line = offline.__code__.co_firstlineno + 1
    wanted = (
        rf"^env='{NAME}' cannot be made: OSError: no simulator at port 5000 \(.*test_making\.py:{line}\)$"
    )
    with pytest.raises(ConfigError, match=wanted):
        spaces_for(config_from({"env": NAME}))


def test_an_environment_that_exits_does_not_end_the_process() -> None:
    gymnasium.register(NAME, lambda: sys.exit("no display"))
    with pytest.raises(ConfigError, match=r"cannot be made: SystemExit: no display \("):
        spaces_for(config_from({"env": NAME}))


def test_an_error_of_close_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    gymnasium.register(NAME, lambda: Unclosed(3))
    env = ChainEnv(3)
    assert spaces_for(config_from({"env": NAME})) == (env.observation_space, env.action_space)
    assert "closing a " in caplog.text
    assert "no display to close" in caplog.text
