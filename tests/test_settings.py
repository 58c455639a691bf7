"""Settings are checked against their types however they are made, and errors name setting and value."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pytest

from stoker import ConfigError, TrainConfig
from stoker.settings import Count, Fraction, Natural, Positive, Settings, refuse_unknown, settings_from


class Inner(Settings, frozen=True, kw_only=True):
    size: Count = 1


class Outer(Settings, frozen=True, kw_only=True):
    count: Count = 1
    limit: Natural | None = None
    speed: Positive = 1.0
    decay: Fraction = 0.5
    mode: Literal["fast", "slow"] = "fast"
    sizes: tuple[Count, ...] = ()
    label: str = ""
    flag: bool = False
    table: dict[str, int] = {}  # noqa: RUF012 - msgspec copies it
    inner: Inner = Inner()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"count": 0}, "count=0: give an int of at least 1"),
    ({"count": None}, "count=None: give an int of at least 1"),
    ({"count": True}, "count=True: give an int of at least 1"),
    ({"limit": -1}, "limit=-1: give an int of at least 0, or None"),
    ({"limit": "many"}, "limit='many': give an int of at least 0, or None"),
    ({"speed": math.nan}, "speed=nan: give a finite number above 0"),
    ({"speed": math.inf}, "speed=inf: give a finite number above 0"),
    ({"decay": 1.5}, "decay=1.5: give a number of at least 0 and of at most 1"),
    ({"mode": "medium"}, "mode='medium': give 'fast' or 'slow'"),
    ({"sizes": (1, 0)}, "sizes=(1, 0): give a list, each item an int of at least 1"),
    ({"label": 3}, "label=3: give a text"),
    ({"flag": 1}, "flag=1: give True or False"),
    ({"table": 3}, "table=3: give a table of names and values"),
    ({"inner": 3}, "inner=3: give a table of settings"),
]


@pytest.mark.parametrize(("values", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_the_types_exclude_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Outer(**values)
    assert str(caught.value) == message
    with pytest.raises(ConfigError) as caught:
        settings_from(values, Outer, "my.toml")
    assert str(caught.value) == f"my.toml: {message}"


def test_nested_values_are_refused_with_their_place() -> None:
    with pytest.raises(ConfigError, match="^my.toml: inner: size=0: give an int of at least 1$"):
        settings_from({"inner": {"size": 0}}, Outer, "my.toml")
    with pytest.raises(ConfigError, match="^my.toml: inner: unknown key 'sise'; did you mean 'size'"):
        settings_from({"inner": {"sise": 0}}, Outer, "my.toml")


def test_what_fits_is_taken_and_has_the_type_of_its_field() -> None:
    made = Outer(speed=3, sizes=[2])  # pyright: ignore[reportArgumentType] - as a file has it
    assert (made.sizes, made.speed, type(made.speed)) == ((2,), 3.0, float)
    speed = Outer(speed=np.float64(0.5)).speed
    assert (speed, type(speed)) == (0.5, float)
    assert settings_from({"inner": {"size": 2}, "limit": None}, Outer, "x") == Outer(inner=Inner(size=2))


def test_an_unknown_key_gets_the_nearest_name_or_a_way_out() -> None:
    refuse_unknown(["size"], ("size",), "x")
    for given, known, way_out, near, message in (
        ("sise", ("size",), "", (), "did you mean 'size'?"),
        ("sise", ("other",), "", ("size",), "did you mean 'size'?"),
        ("zzz", ("size", "count"), "", (), "known are size, count"),
        ("zzz", ("size",), "ask", (), "ask"),
    ):
        with pytest.raises(ConfigError) as caught:
            refuse_unknown([given], known, "x", way_out, near)
        assert str(caught.value) == f"x: unknown key {given!r}; {message}"


def test_a_training_config_made_in_python_is_checked() -> None:
    with pytest.raises(ConfigError, match="num_envs=0: give an int of at least 1"):
        TrainConfig(env="CartPole-v1", num_envs=0)
