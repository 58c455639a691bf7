"""Errors of user code in one line, with the place in that code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stoker.raising import described
from stoker.testing import ChainEnv, CrashingEnv


def raise_here() -> None:
    raise RuntimeError("no fuel")


def play_the_next_level() -> None:
    async def reset() -> None:
        raise StopIteration("level 3")

    reset().send(None)


def call_a_library() -> None:
    json.loads("fuel")


@pytest.mark.parametrize(
    ("raises", "text"),
    [
        (raise_here, f"RuntimeError: no fuel ({Path(__file__)}:{raise_here.__code__.co_firstlineno + 1})"),
        (
            call_a_library,
            "JSONDecodeError: Expecting value: line 1 column 1 (char 0) "
            f"({Path(__file__)}:{call_a_library.__code__.co_firstlineno + 1})",
        ),
        (
            play_the_next_level,
            f"StopIteration: level 3 ({Path(__file__)}:{play_the_next_level.__code__.co_firstlineno + 2})",
        ),
        (lambda: CrashingEnv(ChainEnv(3), [1]).step(0), "RuntimeError: simulator crashed"),
    ],
    ids=["the user's code", "a library that it called", "a coroutine", "stoker's code"],
)
def test_an_error_names_the_line_of_the_users_code(raises: Callable[[], Any], text: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each has its own
        raises()
    assert described(caught.value) == text


def test_an_error_that_was_never_raised_has_no_place() -> None:
    assert described(KeyError("fuel")) == "KeyError: 'fuel'"
