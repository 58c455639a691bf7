"""The codec: the same types and the same bits on the way back, and a clear refusal of all else."""

from __future__ import annotations

import enum
import subprocess
import sys
from collections import OrderedDict
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as npst

from stoker.errors import ConfigError
from stoker.journal import codec


def assert_same(a: Any, b: Any) -> None:
    """Of the same type and the same bits, all the way down."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))
    elif isinstance(a, (np.ndarray, np.generic)):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, dict):
        assert_same(list(a.items()), list(b.items()))
    elif isinstance(a, float):
        assert np.float64(a).tobytes() == np.float64(b).tobytes()
    else:
        assert a == b


dtypes = st.one_of(
    npst.boolean_dtypes(),
    npst.integer_dtypes(endianness="?"),
    npst.floating_dtypes(endianness="?"),
    npst.complex_number_dtypes(),
    npst.datetime64_dtypes(),
    npst.unicode_string_dtypes(),
    npst.byte_string_dtypes(),
)
arrays = npst.arrays(dtypes, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
keys = st.one_of(st.text(), st.integers(), st.binary(), st.none(), st.tuples(st.integers(), st.text()))
plain = st.one_of(
    st.none(), st.booleans(), st.integers(-(1 << 200), 1 << 200), st.floats(), st.text(), st.binary()
)
values = st.recursive(
    st.one_of(plain, arrays),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys, inner, max_size=3),
    ),
    max_leaves=8,
)


@given(values)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    assert_same(codec.decode(codec.encode(value)), value)


@pytest.mark.parametrize(
    "value",
    [
        np.float32("nan"),
        np.float64(1.5),
        np.bool_(1),
        np.int8(-1),
        np.uint64(2**64 - 1),
        np.datetime64("2026-01-02"),
        np.str_(""),
        np.array(3, np.int16),
        np.zeros((0, 3), np.uint8),
        np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1)[::2],
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(4, dtype=">i4"),
        -0.0,
        2**64 - 1,
        2**64,
        -(2**63) - 1,
        {1: 1, 1.5: 2, (1, "a"): 3, None: 4, b"k": 5, np.int64(7): 6},
        {"bit_generator": "PCG64", "state": {"state": 2**127 + 3, "inc": 2**126 + 1}},
        [True, 1, 1.0, np.int64(1)],
    ],
    ids=repr,
)
def test_types_that_are_easily_mixed_up_stay_apart(value: Any) -> None:
    assert_same(codec.decode(codec.encode(value)), value)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6, dtype=torch.float32).reshape(2, 3).T,
        torch.tensor([1.5, -2.25], dtype=torch.bfloat16),
        torch.tensor([1.5], dtype=torch.float16),
        torch.tensor([True, False]),
        torch.tensor(3, dtype=torch.int64),
        torch.zeros(0, 4),
        torch.tensor([1 + 2j]).conj(),
        torch.zeros(3, dtype=torch.uint8)[1:],
        torch.ones(2, dtype=torch.float8_e4m3fn),
        torch.ones(2, requires_grad=True),
    ],
    ids=lambda tensor: f"{tensor.dtype}-{list(tensor.shape)}",
)
def test_a_tensor_comes_back_on_the_cpu(tensor: torch.Tensor) -> None:
    again = codec.decode(codec.encode({"weights": [tensor]}))["weights"][0]
    assert_same(again, tensor.detach().resolve_conj().contiguous())
    assert again.device.type == "cpu"
    assert not again.requires_grad


def test_what_comes_back_has_memory_of_its_own() -> None:
    data = codec.encode((np.zeros(3), torch.zeros(3)))
    array, tensor = codec.decode(data)
    array += 1
    tensor += 1
    assert_same(codec.decode(data), (np.zeros(3), torch.zeros(3)))


class Color(enum.IntEnum):
    RED = 1


class Pixels(np.ndarray):
    pass


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (object(), r"obs is a builtins\.object"),
        ({"a": [0, {1, 2}]}, r"obs\['a'\]\[1\] is a builtins\.set"),
        ((1, Color.RED), r"obs\[1\] is a .*Color"),
        (OrderedDict(), r"obs is a collections\.OrderedDict"),
        (np.array([object()]), "obs is an array of dtype object"),
        ([np.zeros(2, dtype=[("x", "f4")])], r"obs\[0\] is an array of dtype \[\('x'"),
        (np.zeros(1, dtype=[("x", "f4")])[0], "obs is a numpy.void of dtype"),
        (np.zeros(3).view(Pixels), "obs is a .*Pixels"),
        (np.ma.masked_array([1, 2], [True, False]), "obs is a numpy.*MaskedArray"),
        (torch.zeros(3).to_sparse(), "obs is a tensor of torch.sparse_coo"),
        (torch.zeros(3, device="meta"), "obs is a tensor of .* on meta"),
        ({frozenset({1}): 2}, r"obs \(key\) is a builtins\.frozenset"),
        (bytearray(b"x"), r"obs is a builtins\.bytearray"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_it_cannot_hold_is_named_with_the_way_out(value: Any, where: str) -> None:
    with pytest.raises(ConfigError, match=f"^{where}.*journal=False"):
        codec.encode(value, "obs")


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(ConfigError, match="journal=False"):
        codec.encode(["\ud800"])


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_nesting_is_bounded_both_ways() -> None:
    assert codec.decode(codec.encode(nested(codec.DEEPEST))) == nested(codec.DEEPEST)
    with pytest.raises(ConfigError, match="depth 33"):
        codec.encode(nested(codec.DEEPEST + 1))
    deeper: codec.Form = codec.form(nested(codec.DEEPEST), "value")
    for _ in range(5):
        deeper = msgspec.msgpack.Ext(2, codec.pack([deeper]))
    with pytest.raises(msgspec.DecodeError, match="depth 32"):
        codec.restore(deeper)
    with pytest.raises(msgspec.DecodeError):
        codec.decode(b"\x91" * 1_000_000)


def test_a_dtype_that_is_no_name_is_refused() -> None:
    data = codec.encode(np.zeros(3, np.float64))
    for name in (b",0f", b"<f3", b"\xff\xff\xff"):
        with pytest.raises(msgspec.DecodeError):
            codec.decode(data.replace(b"<f8", name))


@given(st.binary(max_size=60))
def test_foreign_bytes_are_refused_and_do_nothing_else(data: bytes) -> None:
    try:
        value = codec.decode(data)
    except msgspec.DecodeError:
        return
    codec.encode(value)


@given(st.integers(-2, 12), st.binary(max_size=40))
def test_foreign_extensions_are_refused_and_do_nothing_else(code: int, data: bytes) -> None:
    try:
        value = codec.restore(msgspec.msgpack.Ext(code, data))
    except msgspec.DecodeError:
        return
    codec.encode(value)


def test_the_journal_needs_no_torch_until_a_tensor_turns_up() -> None:
    code = (
        "import sys, numpy as np; from stoker.journal import codec; "
        "codec.decode(codec.encode([np.zeros(3), {'a': (1, 2.0)}])); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
