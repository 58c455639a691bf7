"""What a policy is, in plain values: the content of policy.json, read and written without torch.

The parts of an observation have the order of their space; see ``HasPolicyModule``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import msgspec
import numpy as np

from stoker.errors import ConfigError

FORMAT = 1
"""The version of policy.json, policy.npz and vectors.npz."""


class ObservationPart(msgspec.Struct, frozen=True, kw_only=True):
    """A part of an observation, which has no parts itself.

    Attributes:
        name: of the input of an exported policy: ``"observation"``, or its path, such as ``"inventory/0"``.
        path: the keys and indices that lead to it from the observation; none: it is the observation.
        shape: of one.
        dtype: what a policy takes; float32 for every float.
        space: the space, as Gymnasium shows it.
    """

    name: str
    path: tuple[str | int, ...]
    shape: tuple[int, ...]
    dtype: str
    space: str


class ActionDescription(msgspec.Struct, frozen=True, kw_only=True):
    """An action as the environment takes it.

    Attributes:
        kind: ``"discrete"``: a whole number; ``"multi_discrete"``: several; ``"box"``: an array of floats.
        shape: of one.
        dtype: by numpy's name.
        counts: how many values each number can have, of discrete kinds.
        low: the least value, of each number; None: unbounded.
        high: the greatest.
    """

    kind: Literal["discrete", "multi_discrete", "box"]
    shape: tuple[int, ...]
    dtype: str
    counts: tuple[int, ...] = ()
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()


class PolicyDescription(msgspec.Struct, frozen=True, kw_only=True):
    """Whose policy it is, and what it takes and gives.

    Attributes:
        format: of the files.
        env: the environment of the training.
        agent: the kind of agent.
        run: its name, version and id.
        checkpoint: the file that it comes from; none: a session that runs.
        total_steps: the environment steps that it was trained for.
        opt_steps: the optimization steps behind it.
        mean_reward: in the evaluation that made it the best; None: it is of another checkpoint.
        spaces: of observations and actions, in plain values: see ``stoker.protocol.Spaces``.
        observation: the parts of an observation.
        action: what comes out.
        frame_stack: the last observations that are one observation, ``[n, ...]``, the newest last. At the
            beginning of an episode all are its first one.
        preprocessing: what the policy does with observations itself, for people.
        outputs: the names of what an exported policy computes; the first is the action.
        vectors: where the observations of vectors.npz are from.
        files: the SHA-256 of each other file.
        stoker: the version that wrote it.
    """

    format: int
    env: str
    agent: str
    run: str
    checkpoint: str
    total_steps: int
    opt_steps: int
    mean_reward: float | None
    spaces: dict[str, Any]
    observation: tuple[ObservationPart, ...]
    action: ActionDescription
    frame_stack: int
    preprocessing: tuple[str, ...]
    outputs: tuple[str, ...] = ("action",)
    vectors: Literal["journal", "sampled"] = "journal"
    files: dict[str, str] = {}
    stoker: str = ""


def parts_of(space: Any) -> tuple[ObservationPart, ...]:
    """The parts of the observations of a Gymnasium space.

    Raises:
        ConfigError: A part has no shape of its own, for example a text.
    """
    return tuple(_parts(space, ()))


def _parts(space: Any, path: tuple[str | int, ...]) -> list[ObservationPart]:
    inner: Any = getattr(space, "spaces", None)
    if inner is not None:
        is_dict = isinstance(inner, Mapping)
        items: list[tuple[str | int, Any]] = [*(cast("Any", inner).items() if is_dict else enumerate(inner))]
        return [part for key, each in items for part in _parts(each, (*path, key))]
    if space.shape is None or space.dtype is None or np.dtype(space.dtype).kind not in "biuf":
        raise ConfigError(f"observations of {space} cannot be exported: they are no arrays of one shape")
    dtype = np.dtype(space.dtype)
    taken = "float32" if dtype.kind == "f" else dtype.name
    name = "/".join(map(str, path)) or "observation"
    return [ObservationPart(name=name, path=path, shape=tuple(space.shape), dtype=taken, space=str(space))]


def parts_in(observation: Any, parts: Sequence[ObservationPart]) -> list[Any]:
    """The parts of an observation, or of columns of them."""
    found: list[Any] = []
    for part in parts:
        value = observation
        for step in part.path:
            value = value[step]
        found.append(value)
    return found


def action_of(space: Any) -> ActionDescription:
    """An action of a Gymnasium space.

    Raises:
        ConfigError: It is none of the kinds that a policy gives.
    """
    kind, shape = type(space).__name__, tuple(space.shape or ())
    dtype = np.dtype(space.dtype or object)
    if kind == "Discrete":
        first = int(space.start)
        bounds: Any = {"low": (first,), "high": (first + int(space.n) - 1,)}
        return ActionDescription(kind="discrete", shape=(), dtype="int64", counts=(int(space.n),), **bounds)
    if kind in ("MultiDiscrete", "MultiBinary"):
        counts = np.full(shape, 2) if kind == "MultiBinary" else np.asarray(space.nvec)
        low = np.zeros(shape, np.int64) if kind == "MultiBinary" else np.asarray(space.start)
        return ActionDescription(
            kind="multi_discrete",
            shape=shape,
            dtype=dtype.name,
            counts=tuple(counts.reshape(-1).tolist()),
            low=_finite(low),
            high=_finite(low + counts - 1),
        )
    if kind == "Box" and dtype.kind == "f":
        low, high = _finite(space.low), _finite(space.high)
        return ActionDescription(kind="box", shape=shape, dtype=dtype.name, low=low, high=high)
    raise ConfigError(f"actions of {space} cannot be exported: give Discrete ones, or a Box of floats")


def _finite(bounds: Any) -> tuple[float | None, ...]:
    numbers = np.asarray(bounds, np.float64).reshape(-1).tolist()
    return tuple(number if np.isfinite(number) else None for number in numbers)
