"""The columns of a batch, checked at the door: one error names the column, and the row if it is one."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
from msgspec.structs import astuple
from numpy.typing import NDArray

from stoker.errors import InvalidExperience
from stoker.plain import shown
from stoker.types import ActorId, ExperienceBatch

_ARRAY: Any = np.ndarray
_dot: Any = np.vdot  # warns of nothing, other than ``dot``
_FLOAT64, _INT64, _BOOL = np.dtype(np.float64), np.dtype(np.int64), np.dtype(np.bool_)
_WANTED = {"b": "bools", "iu": "integers", "biuf": "numbers"}


def checked_batch(batch: ExperienceBatch, ids: tuple[ActorId, ...]) -> ExperienceBatch:
    """Refuse a batch whose columns do not fit together, or do not fit its actor ids, which are checked.

    Returns:
        The batch with C-contiguous arrays of the documented types. They are copies: a vector environment may
        go on to write into its own.
    """
    if (usual := _usual_batch(batch, ids)) is not None:
        return usual
    size = len(ids)
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
        rewards = _numbers("rewards", batch.rewards, "biuf", size).astype(np.float64, copy=False)
    terminated = _numbers("terminated", batch.terminated, "b", size)
    # As EpisodeStatus.of says: an episode that is both ended by itself.
    truncated = _numbers("truncated", batch.truncated, "b", size) & ~terminated
    versions, extras = batch.policy_versions, batch.policy_extras
    if versions is not None:
        versions = _numbers("policy_versions", versions, "iu", size).astype(np.int64, copy=False)
        _refuse_rows(versions < 0, "policy_version", versions, ids, "is negative: give that of the Decision")
    if extras is not None:
        extras = _numbers("policy_extras", extras, "biuf", size, n_axes=2)
    _refuse_rows(
        ~np.isfinite(rewards), "reward", rewards, ids, "is not finite: clip it, or fix the environment"
    )
    return ExperienceBatch(
        _rows("observations", batch.observations, size),
        _rows("actions", batch.actions, size),
        rewards,
        _rows("next_observations", batch.next_observations, size),
        terminated,
        truncated,
        ids,
        extras,
        versions,
    )


def _usual_batch(batch: ExperienceBatch, ids: tuple[ActorId, ...]) -> ExperienceBatch | None:
    """The same, quickly, for the arrays that vector environments have; None: look at each column."""
    columns: tuple[Any, ...] = astuple(batch)
    observations, actions, rewards, after, terminated, truncated, _, extras, versions = columns
    size = len(ids)
    if (
        type(rewards) is type(terminated) is type(truncated) is _ARRAY
        and rewards.shape == terminated.shape == truncated.shape == (size,)
        and rewards.dtype is _FLOAT64
        and terminated.dtype is truncated.dtype is _BOOL
        and type(observations) is type(actions) is type(after) is _ARRAY
        and observations.ndim and len(observations) == size
        and actions.ndim and len(actions) == size
        and after.ndim and len(after) == size
        and not (observations.dtype.hasobject or actions.dtype.hasobject or after.dtype.hasobject)
        and (extras is None or (type(extras) is _ARRAY and extras.dtype is _FLOAT64 and extras.ndim == 2
                                and len(extras) == size))
        and (versions is None or (type(versions) is _ARRAY and versions.dtype is _INT64
                                  and versions.shape == (size,) and not (versions < 0).any()))
        and math.isfinite(_dot(rewards, rewards))
    ):  # fmt: skip
        return ExperienceBatch(
            observations.copy(),
            actions.copy(),
            rewards.copy(),
            after.copy(),
            terminated.copy(),
            truncated > terminated,
            ids,
            None if extras is None else extras.copy(),
            None if versions is None else versions.copy(),
        )
    return None


def _rows(name: str, column: Any, size: int) -> Any:
    """Copies of the arrays of a column, each with a row for each actor."""
    if isinstance(column, dict):
        parts = cast("dict[Any, Any]", column)
        if not parts:
            raise InvalidExperience(f"{name} is an empty dict: give arrays [{size}, ...]; none was taken")
        return {key: _rows(f"{name}[{key!r}]", part, size) for key, part in parts.items()}
    if isinstance(column, np.ma.MaskedArray):
        _refuse_masked(name, np.ma.getmaskarray(cast("Any", column)))
    try:
        # A tensor is converted before it is copied: it cannot do both at once.
        given = cast("Any", column) if isinstance(column, np.ndarray) else np.asarray(column)
        array: NDArray[Any] = np.array(given, order="C")
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidExperience(f"{name} cannot be read as an array: {error}; none was taken") from error
    if array.dtype.hasobject:
        raise InvalidExperience(
            f"{name}={shown(column)} is an array of objects: give numbers [{size}, ...], or a dict of such "
            "arrays; none was taken"
        )
    if array.ndim == 0 or len(array) != size:
        rows = f"{len(array)} rows" if array.ndim else "no rows"
        raise InvalidExperience(
            f"{name} has {rows}, and there are {size} actor_ids: give one row for each; none was taken"
        )
    return array


def _numbers(name: str, column: Any, kinds: str, size: int, n_axes: int = 1) -> NDArray[Any]:
    """A copy of a column whose dtype is one of these kinds."""
    array = _rows(name, column, size)
    if isinstance(array, dict) or array.ndim != n_axes or (size and array.dtype.kind not in kinds):
        given = "a dict" if isinstance(array, dict) else f"{array.dtype} {list(array.shape)}"
        wanted = f"[{size}]" if n_axes == 1 else f"[{size}, size]"
        raise InvalidExperience(f"{name} is {given}: give {_WANTED[kinds]} {wanted}; none was taken")
    return array if size else array.astype(bool if kinds == "b" else array.dtype)


def _refuse_masked(name: str, mask: NDArray[np.bool_]) -> None:
    if mask.any():
        row = f"row {np.argwhere(mask)[0][0]}: " if mask.ndim else ""
        raise InvalidExperience(f"{row}{name} is masked there: fill it, or leave the row out; none was taken")


def _refuse_rows(
    is_wrong: NDArray[np.bool_], name: str, values: NDArray[Any], ids: tuple[ActorId, ...], problem: str
) -> None:
    if is_wrong.any():
        row = int(is_wrong.argmax())
        raise InvalidExperience(
            f"row {row} of {len(ids)}, actor {ids[row]!r}: {name}={values[row]} {problem}; none was taken"
        )
