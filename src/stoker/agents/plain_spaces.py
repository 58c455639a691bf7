"""Spaces in plain values, so that a checkpoint holds those of its agent."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stoker import space_kinds as spaces
from stoker.errors import ConfigError


def plain_space(space: Any) -> dict[str, Any]:
    """The space as numbers, texts, tensors, and lists and dicts of these.

    Raises:
        ConfigError: It is of a kind that stoker's agents do not take.
    """
    match space:
        case spaces.Box():
            bounds: Any = {"low": _plain(space.low), "high": _plain(space.high)}
            return {"kind": "Box", "shape": list(space.shape), "dtype": _name(space), **bounds}
        case spaces.Discrete():
            return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
        case spaces.MultiDiscrete():
            counts: Any = {"nvec": _plain(space.nvec), "start": _plain(space.start)}
            return {"kind": "MultiDiscrete", "shape": list(space.shape), "dtype": _name(space), **counts}
        case spaces.MultiBinary():
            return {"kind": "MultiBinary", "shape": list(space.shape)}
        case spaces.Dict():
            return {
                "kind": "Dict",
                "spaces": [[key, plain_space(each)] for key, each in space.spaces.items()],
            }
        case spaces.Tuple():
            return {"kind": "Tuple", "spaces": [plain_space(each) for each in space.spaces]}
        case _:
            raise ConfigError(f"a checkpoint cannot hold the space {space}")


def space_from(plain: Mapping[str, Any], kinds: Any = spaces) -> Any:
    """The space that ``plain_space`` was given.

    Args:
        plain: its description.
        kinds: has the classes: ``stoker.space_kinds`` or ``gymnasium.spaces``.
    """
    kind = plain["kind"]
    if kind == "Discrete":
        return kinds.Discrete(plain["n"], start=plain["start"])
    if kind == "Dict":  # an OrderedDict keeps its order
        return kinds.Dict(OrderedDict((key, space_from(each, kinds)) for key, each in plain["spaces"]))
    if kind == "Tuple":
        return kinds.Tuple([space_from(each, kinds) for each in plain["spaces"]])
    shape = tuple(plain["shape"])
    if kind == "MultiBinary":
        return kinds.MultiBinary(shape[0] if len(shape) == 1 else list(shape))
    dtype = np.dtype(plain["dtype"])
    if kind == "MultiDiscrete":
        counts, start = (_array(plain[name], shape, dtype) for name in ("nvec", "start"))
        return kinds.MultiDiscrete(counts, dtype=dtype.type, start=start)
    low, high = (_array(plain[name], shape, dtype) for name in ("low", "high"))
    return kinds.Box(low, high, shape, dtype.type)


def _name(space: Any) -> str:
    return np.dtype(space.dtype).name


def _plain(numbers: Any) -> Any:
    """One number, if all are equal: bounds of images are large."""
    is_one = numbers.size > 0 and bool((numbers == numbers.flat[0]).all())
    return numbers.flat[0].item() if is_one else torch.as_tensor(np.array(numbers))


def _array(plain: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    return plain.numpy().astype(dtype) if isinstance(plain, torch.Tensor) else np.full(shape, plain, dtype)
