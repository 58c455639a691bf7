"""``metadata.json`` of a Minari data set, and Minari's JSON for spaces."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from stoker.data.dataset import DatasetInfo
from stoker.data.leaves import leaves_of
from stoker.errors import ConfigError, InvalidDataset
from stoker.types import ActorId

_MOST_METADATA_BYTES = 64 << 20
_OLDEST, _FIRST_WITHOUT_JPEG = "0.5.0", "0.5.4"
"""The versions of Minari that read what is written: with images, and without."""
_OURS = "stoker"
_SCORES = ("ref_min_score", "ref_max_score")


def describe_space(space: gymnasium.Space[Any]) -> dict[str, Any]:
    """A space as Minari writes it.

    Raises:
        ConfigError: Minari's files cannot hold it.
    """
    match space:
        case spaces.Box():
            low: Any = space.low.tolist()
            high: Any = space.high.tolist()
            given: dict[str, Any] = {
                "dtype": str(cast("Any", space).dtype),
                "shape": list(space.shape),
                "low": low,
                "high": high,
            }
            return {"type": "Box", **given}
        case spaces.Discrete():
            return {"type": "Discrete", "dtype": "int64", "start": int(space.start), "n": int(space.n)}
        case spaces.MultiDiscrete():
            nvec, start = space.nvec.tolist(), space.start.tolist()
            return {"type": "MultiDiscrete", "dtype": str(space.dtype), "nvec": nvec, "start": start}
        case spaces.MultiBinary():
            return {"type": "MultiBinary", "n": cast("Any", space).n}
        case spaces.Dict():
            inner: dict[str, Any] = cast("Any", space).spaces
            if wrong := [key for key in inner if not key or key == "." or "/" in key or "\0" in key]:
                raise ConfigError(f"Minari's files cannot hold the key {wrong[0]!r} of {space}: rename it")
            return {"type": "Dict", "subspaces": {key: describe_space(each) for key, each in inner.items()}}
        case spaces.Tuple():
            members: tuple[Any, ...] = cast("Any", space).spaces
            return {"type": "Tuple", "subspaces": [describe_space(each) for each in members]}
        case _:
            raise ConfigError(f"Minari's files cannot hold values of {space} here: use a Box or Discrete")


def space_from(description: Any) -> gymnasium.Space[Any]:
    """The space that Minari wrote.

    Raises:
        ValueError, KeyError, TypeError: It is something else, or of a kind that data sets cannot hold.
    """
    match description["type"]:
        case "Box":
            shape = tuple(map(int, description["shape"]))
            dtype = np.dtype(description["dtype"])
            low = np.array(description["low"], dtype)
            high = np.array(description["high"], dtype)
            if low.shape != shape or high.shape != shape or dtype.kind not in "biuf":
                raise ValueError(
                    f"a Box of the shape {shape} and {dtype} has bounds of {low.shape}, {high.shape}"
                )
            return spaces.Box(low, high, shape, cast("Any", dtype.type))
        case "Discrete":
            return spaces.Discrete(int(description["n"]), start=int(description.get("start", 0)))
        case "MultiDiscrete":
            nvec = np.array(description["nvec"], np.int64)
            dtype = np.dtype(description.get("dtype", "int64"))
            start = np.array(description.get("start", np.zeros_like(nvec)), np.int64)
            return spaces.MultiDiscrete(nvec, dtype=cast("Any", dtype.type), start=start)
        case "MultiBinary":
            return spaces.MultiBinary(description["n"])
        case "Dict":
            inner: dict[str, Any] = description["subspaces"]
            return spaces.Dict({key: space_from(each) for key, each in inner.items()})
        case "Tuple":
            return spaces.Tuple([space_from(each) for each in description["subspaces"]])
        case kind:
            raise ValueError(f"spaces of the type {kind!r} are not read")


def is_image(space: gymnasium.Space[Any]) -> bool:
    """Whether Minari takes a space for images, which its versions before 0.5.4 always keep as JPEG."""
    box: Any = space
    return (
        isinstance(space, spaces.Box)
        and len(box.shape) in (2, 3)
        and min(box.shape[:2]) >= 32
        and box.dtype == np.uint8
        and bool((box.low == 0).all() and (box.high == 255).all())
    )


def read_metadata(directory: Path, source: str) -> dict[str, Any]:
    """The content of a data set's ``metadata.json``.

    Raises:
        InvalidDataset: The data set is not in the form that is read.
    """
    path = directory / "data" / "metadata.json"
    if not path.is_file():
        raise InvalidDataset(
            source, "data/metadata.json is missing, as before Minari 0.5: copy it with `minari combine`"
        )
    if (n_bytes := path.stat().st_size) > _MOST_METADATA_BYTES:
        raise InvalidDataset(source, f"metadata.json has {n_bytes:,} bytes: it is something else")
    metadata: dict[str, Any] = json.loads(path.read_bytes())
    if (kept_as := metadata.get("data_format", "hdf5")) != "hdf5":
        raise InvalidDataset(source, f"its data_format is {kept_as!r}: write it with data_format='hdf5'")
    if "observation_space" not in metadata or "action_space" not in metadata:
        raise InvalidDataset(source, "metadata.json names no spaces: write it anew with Minari 0.5 or later")
    return metadata


def info_of(metadata: dict[str, Any], source: str) -> tuple[DatasetInfo, list[ActorId]]:
    """What a data set's metadata say, and the actors that its episodes name by their places in this list."""
    ours: dict[str, Any] = metadata.get(_OURS, {})
    env_spec: dict[str, Any] = json.loads(metadata["env_spec"]) if metadata.get("env_spec") else {}
    scores = [None if (score := metadata.get(name)) is None else float(score) for name in _SCORES]
    actors = [each if isinstance(each, int) else str(each) for each in ours.get("actors", [0])]
    env_id = env_spec.get("id", ours.get("env_id"))
    info = DatasetInfo(
        source=source,
        format="minari",
        observation_space=space_from(json.loads(metadata["observation_space"])),
        action_space=space_from(json.loads(metadata["action_space"])),
        env_id=None if env_id is None else str(env_id),
        n_episodes=int(metadata["total_episodes"]),
        n_steps=int(metadata["total_steps"]),
        ref_min_score=scores[0],
        ref_max_score=scores[1],
    )
    return info, actors


def metadata_of(
    info: DatasetInfo, name: str, n_episodes: int, n_steps: int, n_bytes: int, actors: list[ActorId]
) -> bytes:
    """The ``metadata.json`` of a data set.

    Args:
        info: its spaces, environment and reference scores.
        name: of its directory: makes the id that Minari knows it by.
        n_episodes: how many it has.
        n_steps: likewise.
        n_bytes: the size of its HDF5 file.
        actors: that its episodes name.
    """
    plain = re.sub(r"[^-\w]+", "-", name).strip("-") or "data"
    leaves = leaves_of(info.observation_space, "") + leaves_of(info.action_space, "")
    has_images = any(is_image(leaf.space) for leaf in leaves)
    metadata: dict[str, Any] = {
        "total_episodes": n_episodes,
        "total_steps": n_steps,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": json.dumps(describe_space(info.observation_space)),
        "action_space": json.dumps(describe_space(info.action_space)),
        "dataset_id": plain if re.search(r"-v\d+$", plain) else f"{plain}-v0",
        "minari_version": _FIRST_WITHOUT_JPEG if has_images else _OLDEST,
        "dataset_size": round(n_bytes / 1e6, 1),
        _OURS: {"actors": actors, "env_id": info.env_id},
    }
    if (env_spec := _env_spec(info.env_id)) is not None:
        metadata["env_spec"] = env_spec
    scores = (info.ref_min_score, info.ref_max_score)
    metadata |= {key: score for key, score in zip(_SCORES, scores, strict=True) if score is not None}
    return json.dumps(metadata).encode()


def _env_spec(env_id: str | None) -> str | None:
    """Gymnasium's JSON for an environment that it knows; imports no module, as another file may name it."""
    spec: EnvSpec | None = gymnasium.registry.get(env_id or "")
    try:
        return None if spec is None else spec.to_json()
    except (TypeError, ValueError):  # it is made by a function, or with arguments that JSON cannot hold
        return None
