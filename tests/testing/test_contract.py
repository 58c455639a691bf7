"""Where two values differ is said to the bit, with its place."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from stoker.testing.contract import difference

NAN = float("nan")
SAME: list[tuple[Any, Any]] = [
    (1, 1),
    (NAN, NAN),
    ("a", "a"),
    (None, None),
    ({"a": [1, (2.0, None)]}, {"a": [1, (2.0, None)]}),
    (np.array([1.0, NAN]), np.array([1.0, NAN])),
    (torch.tensor([1.0, NAN]), torch.tensor([1.0, NAN])),
    (torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.bfloat16)),
    (np.array(["a", "b"]), np.array(["a", "b"])),
    ([], ()),
]
OTHER: list[tuple[Any, Any, str]] = [
    (1, 2, "the whole: 1 (int) and 2 (int)"),
    ({"a": 1}, {"b": 1}, "the whole['a'] is only in the first"),
    ({"a": [1, 2]}, {"a": [1, 3]}, "['a'][1]: 2 (int) and 3 (int)"),
    ([1], [1, 2], "the whole[1] is only in the second"),
    (np.zeros(2), np.zeros(3), "and float64[3] array([0., 0., 0.])"),
    (np.zeros(2), np.zeros(2, np.float32), "float64[2] array([0., 0.]) (ndarray) and float32[2] array"),
    (torch.zeros(2), torch.ones(2), "the whole: float32[2] array"),
    (torch.zeros(1), None, "float32[1] array([0.], dtype=float32) (ndarray) and None (NoneType)"),
    (1.0, float("inf"), "1.0 (float) and inf (float)"),
    (NAN, 1.0, "nan (float) and 1.0 (float)"),
    ({"a": {}}, {"a": {"b": 1}}, "the whole['a'] is only in the first"),
    ({"a": []}, {}, "the whole['a'] is only in the first"),
]


@pytest.mark.parametrize(("one", "other"), SAME, ids=[repr(pair[0])[:40] for pair in SAME])
def test_what_is_the_same(one: Any, other: Any) -> None:
    assert difference(one, other) is None


@pytest.mark.parametrize(("one", "other", "message"), OTHER, ids=[each[2][:40] for each in OTHER])
def test_what_is_not(one: Any, other: Any, message: str) -> None:
    problem = difference(one, other)
    assert problem is not None
    assert message in problem


def test_fakes_of_environments_do_not_load_torch() -> None:
    code = "import sys; from stoker.testing import ChainEnv; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
