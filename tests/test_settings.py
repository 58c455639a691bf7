"""Settings are checked against their types however they are made, and errors name setting and value."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest

from stoker import ConfigError, TrainConfig
from stoker.settings import check_settings, refuse_unknown, settings_from

Count = Annotated[int, msgspec.Meta(ge=1)]


class Inner(msgspec.Struct, frozen=True):
    size: Count = 1


class Outer(msgspec.Struct, frozen=True):
    count: Count = 1
    limit: Count | None = None
    speed: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    mode: Literal["fast", "slow"] = "fast"
    sizes: tuple[Count, ...] = ()
    inner: Inner = Inner()

    def __post_init__(self) -> None:
        check_settings(self)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "count=0: Expected `int` >= 1"),
        ({"count": None}, "count=None: Expected `int`, got `None`"),
        ({"count": True}, "count=True: Expected `int`, got `bool`"),
        ({"limit": 0}, "limit=0: Expected `int` >= 1, or None"),
        ({"limit": "many"}, "limit='many': Expected `int | None`, got `str`"),
        ({"speed": float("nan")}, "speed=nan: it is not a number"),
        ({"mode": "medium"}, "mode='medium': choose one of fast, slow"),
        ({"sizes": (1, 0)}, "sizes=(1, 0): Expected `int` >= 1"),
    ],
)
def test_a_constructor_refuses_what_the_types_exclude(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Outer(**values)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "my.toml: count=0: Expected `int` >= 1"),
        ({"inner": {"size": 0}}, "my.toml: size=0: Expected `int` >= 1"),
        ({"sizes": [1, 0]}, "my.toml: sizes=[1, 0]: Expected `int` >= 1"),
        ({"inner": 3}, "my.toml: inner=3: Expected `object`, got `int`"),
    ],
)
def test_plain_values_are_refused_with_their_place(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_from(values, Outer, "my.toml")
    assert str(caught.value) == message


def test_what_fits_is_taken_as_it_is() -> None:
    assert Outer(speed=3, sizes=(2,)).sizes == (2,)
    assert settings_from({"inner": {"size": 2}, "limit": None}, Outer, "x") == Outer(inner=Inner(2))


def test_an_unknown_key_gets_the_nearest_name_or_a_way_out() -> None:
    refuse_unknown({"size": 1}, ("size",), "x")
    with pytest.raises(ConfigError, match="^x: unknown key 'sise'; did you mean 'size'"):
        refuse_unknown({"sise": 1}, ("size",), "x")
    with pytest.raises(ConfigError, match="^x: unknown key 'zzz'; ask$"):
        refuse_unknown({"zzz": 1}, ("size",), "x", "; ask")


def test_a_training_config_made_in_python_is_checked() -> None:
    with pytest.raises(ConfigError, match="num_envs=0: Expected `int` >= 1"):
        TrainConfig(env="CartPole-v1", num_envs=0)
