from __future__ import annotations

from typing import Any

import pytest
import torch

from stoker.errors import ConfigError, InvalidExperience
from stoker.replay.layout import ArraySpec
from stoker.replay.transition import flatten, leaves, unflatten

NUMBER = ArraySpec(torch.float32)
IMAGE = ArraySpec(torch.uint8, (2, 2))
NEST: Any = {"camera": IMAGE, "arms": ({"angle": NUMBER}, {"angle": NUMBER, "force": NUMBER}), "none": ()}
VALUE: Any = {"arms": ({"angle": 1}, {"force": 3, "angle": 2}), "none": (), "camera": 0}
NAMES = ["x['camera']", "x['arms'][0]['angle']", "x['arms'][1]['angle']", "x['arms'][1]['force']"]


def test_leaves_come_in_the_nests_order_under_names_that_say_where_they_lie() -> None:
    assert leaves(NEST, "x") == list(zip(NAMES, [IMAGE, NUMBER, NUMBER, NUMBER], strict=True))
    assert leaves(NUMBER, "x") == [("x", NUMBER)]


def test_values_are_flattened_in_that_order_and_nested_again() -> None:
    """Whatever the order of a dict's keys, and lists for tuples."""
    assert flatten(NEST, VALUE, "x", ConfigError) == [0, 1, 2, 3]
    assert flatten(NEST, {**VALUE, "arms": list(VALUE["arms"])}, "x", ConfigError) == [0, 1, 2, 3]
    assert flatten(NUMBER, VALUE, "x", ConfigError) == [VALUE]
    assert unflatten(NEST, iter([0, 1, 2, 3])) == VALUE
    assert unflatten(NUMBER, iter([7])) == 7


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"arms": VALUE["arms"], "none": ()}, r"x lacks 'camera': .*keys 'camera', 'arms', 'none'"),
        ({}, "x lacks 'camera', 'arms', 'none'"),
        ({**VALUE, "lidar": 1}, "x has 'lidar', but only the keys 'camera', 'arms', 'none'"),
        ([0, 1], r"x is a list of 2: give a dict with the keys 'camera'"),
        (5.0, "x is a float: give a dict"),
        (None, "x is a NoneType: give a dict"),
        ({**VALUE, "arms": ()}, r"x\['arms'\] is a tuple of 0: give a tuple of 2"),
        ({**VALUE, "arms": {}}, r"x\['arms'\] is a dict: give a tuple of 2"),
        ({**VALUE, "arms": "ab"}, r"x\['arms'\] is a str: give a tuple of 2"),
        ({**VALUE, "arms": [{"angle": 1}, {"angle": 2}]}, r"x\['arms'\]\[1\] lacks 'force'"),
        ({**VALUE, "none": (1,)}, r"x\['none'\] is a tuple of 1: give a tuple of 0"),
    ],
)
def test_a_value_that_is_nested_otherwise_is_refused_by_its_place(value: Any, named: str) -> None:
    for error in (ConfigError, InvalidExperience):
        with pytest.raises(error, match=named):
            flatten(NEST, value, "x", error)
