"""Memos: what comes back of a decision, and what is refused of a text that no server gave."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings, strategies as st

from stoker.errors import ConfigError
from stoker.protocol import ProtocolError, SpaceCodec, decode_memo, encode_memo

FLOATS = st.floats(-1e9, 1e9)


@given(
    st.none() | st.integers(0, 2**53 - 1),
    st.integers(-9, 9) | st.lists(FLOATS, max_size=3),
    st.none() | FLOATS | st.lists(FLOATS, max_size=4),
)
@settings(max_examples=50, deadline=None)
def test_a_decision_comes_back_to_the_bit(version: int | None, action: Any, extras: Any) -> None:
    text = encode_memo(version, action, np.array(extras) if isinstance(extras, list) else extras)
    assert text.isascii()
    assert not set(text) & set("+/=")
    memo = decode_memo(text, "steps[0].memo")
    assert (memo.version, memo.action) == (version, action)
    if isinstance(extras, list):
        assert isinstance(memo.extras, np.ndarray)
        assert memo.extras.tobytes() == np.array(extras, np.float64).tobytes()
    else:
        assert memo.extras == extras


@pytest.mark.parametrize(
    ("space", "action"),
    [
        (spaces.Discrete(3), np.int64(2)),
        (spaces.Box(-1, 1, (3,)), np.array([0.1, 0.2, 0.3], np.float32)),
        (spaces.Box(-1, 1, (9, 9)), np.full((9, 9), 0.1, np.float32)),
    ],
)
def test_an_action_may_be_what_the_agent_gave(space: Any, action: Any) -> None:
    memo = decode_memo(encode_memo(3, action, np.array([0.5])), "memo")
    assert np.array_equal(SpaceCodec(space, space).action(memo.action, "memo"), action)


@given(st.text(max_size=30) | st.text("abcdefghij-_AQk8", max_size=40))
@settings(max_examples=100, deadline=None)
def test_any_text_is_a_memo_or_a_problem(text: str) -> None:
    try:
        decode_memo(text, "steps[3].memo")
    except ProtocolError as error:
        problem = error
    else:
        return
    assert (problem.kind, problem.path) == ("invalid", "steps[3].memo")


@pytest.mark.parametrize(
    "changed",
    [
        encode_memo(1, 1, [0.5])[:-2],
        encode_memo(1, 1, np.array([np.nan])),
        encode_memo(1, 1, np.inf),
        encode_memo(1, 1, [0.5, -1e300]),
        encode_memo(-1, 1, None),
        "k" * 65536,
        "",
        "é",
    ],
)
def test_a_changed_memo_is_refused(changed: str) -> None:
    with pytest.raises(ProtocolError, match="send it back unchanged"):
        decode_memo(changed, "memo")


@pytest.mark.parametrize("extras", ["text", {"a": 1}, [[1.0, 2.0]], [1.0, [2.0]]])
def test_extras_that_are_no_flat_numbers_cannot_travel(extras: Any) -> None:
    with pytest.raises(ConfigError, match="flat array"):
        encode_memo(1, 1, extras)
