from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from stoker.errors import ConfigError
from stoker.replay.layout import ArraySpec, RowLayout

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int16,
    torch.float16,
    torch.int32,
    torch.float32,
    torch.int64,
    torch.float64,
    torch.complex64,
    torch.complex128,
]

layouts = st.lists(
    st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3).map(tuple)),
    min_size=1,
    max_size=6,
).filter(lambda fields: any(math.prod(shape) for _, shape in fields))


def fields_of(given_fields: list[tuple[torch.dtype, tuple[int, ...]]]) -> dict[str, ArraySpec]:
    return {f"field {i}": ArraySpec(dtype, shape) for i, (dtype, shape) in enumerate(given_fields)}


def noise(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 100, shape, generator=generator).to(dtype)


@given(given_fields=layouts, n_rows=st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_what_is_written_to_a_field_is_read_back_and_nothing_else_changes(
    given_fields: list[tuple[torch.dtype, tuple[int, ...]]], n_rows: int
) -> None:
    layout = RowLayout(fields_of(given_fields))
    rows = layout.allocate(n_rows)
    arrays = dict(zip(layout.fields, layout.arrays(rows), strict=True))
    tensors = dict(zip(layout.fields, layout.tensors(rows), strict=True))
    written = {
        name: noise((n_rows, *field.shape), field.dtype, seed)
        for seed, (name, field) in enumerate(layout.fields.items())
    }
    for name in layout.fields:
        arrays[name][...] = written[name].numpy()
    for name, field in layout.fields.items():
        assert tensors[name].dtype == field.dtype
        assert torch.equal(tensors[name], written[name])
    for name in layout.fields:
        tensors[name].copy_(written[name].flip(0))
    copied = dict(zip(layout.fields, layout.arrays(rows.clone()), strict=True))
    for name in layout.fields:
        assert arrays[name].dtype == layout.getters[name][0].base
        np.testing.assert_array_equal(arrays[name], written[name].flip(0).numpy())
        np.testing.assert_array_equal(copied[name], arrays[name])


@given(given_fields=layouts)
@settings(max_examples=150, deadline=None)
def test_fields_are_aligned_and_rows_are_whole_words(
    given_fields: list[tuple[torch.dtype, tuple[int, ...]]],
) -> None:
    layout = RowLayout(fields_of(given_fields))
    end = 0
    for name, field in layout.fields.items():
        assert layout.getters[name][1] >= end
        assert layout.getters[name][1] % field.dtype.itemsize == 0
        assert layout.row_bytes % field.dtype.itemsize == 0
        end = layout.getters[name][1] + field.dtype.itemsize * math.prod(field.shape)
    widest = max(8, *(field.dtype.itemsize for field in layout.fields.values()))
    assert end <= layout.row_bytes < end + widest
    assert layout.row_bytes == 8 * layout.row_words
    rows = layout.allocate(3)
    assert rows.shape == (3, layout.row_words)
    assert rows.dtype == torch.int64
    assert layout.raw(rows).shape == (3,)


def test_views_begin_where_the_rows_begin() -> None:
    """Also in rows that are themselves a part of a larger tensor."""
    layout = RowLayout({"a": ArraySpec(torch.float32, (3,)), "b": ArraySpec(torch.uint8)})
    rows = layout.allocate(5)
    layout.tensors(rows)[1].copy_(torch.arange(5))
    assert layout.tensors(rows[2:])[1].tolist() == [2, 3, 4]
    assert layout.arrays(rows[2:])[1].tolist() == [2, 3, 4]


def test_fields_may_lie_in_another_order_than_they_are_given_in() -> None:
    layout = RowLayout({"a": ArraySpec(torch.uint8), "b": ArraySpec(torch.int64)}, ["b", "a"])
    assert {name: offset for name, (_, offset) in layout.getters.items()} == {"a": 8, "b": 0}
    assert [array.dtype.name for array in layout.arrays(layout.allocate(2))] == ["uint8", "int64"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "at least one byte"),
        ({"a": ArraySpec(torch.float32, (0, 3))}, "at least one byte"),
        ({"a": ArraySpec(torch.bfloat16)}, "a cannot be stored as torch.bfloat16, which numpy lacks"),
    ],
)
def test_unfit_fields_are_refused(fields: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        RowLayout(fields)
