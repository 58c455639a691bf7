"""Data sets in the HDF5 layout of Minari (Younis et al. 2024), versions 0.5, without its package."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from stoker.data.episodes import Episode
from stoker.data.hdf5 import Hdf5File
from stoker.data.minari_metadata import info_of, is_image, read_metadata
from stoker.data.reading import FileDataset, blamed
from stoker.errors import InvalidDataset
from stoker.importing import required
from stoker.types import EpisodeStatus


class MinariDataset(FileDataset):
    """A directory with ``data/main_data.hdf5`` and ``data/metadata.json``.

    The infos of steps are left out, but for ``policy_version``.

    Args:
        path: the directory.
        source: its name, as the caller gave it.
        check: as for ``FileDataset``.

    Raises:
        InvalidDataset: It is damaged, or in a form that is not read.
    """

    def __init__(self, path: Path, source: str, *, check: bool) -> None:
        self._path = path / "data" / "main_data.hdf5"
        with blamed(source):
            metadata = read_metadata(path, source)
            info, self._actors = info_of(metadata, source)
            self._has_jpeg = bool(metadata.get("jpeg_encoding", True))
            with Hdf5File.opened(self._path, source) as file:
                n_groups = file.root.get_num_objs()
            if info.n_episodes != n_groups:
                problem = f"metadata.json counts {info.n_episodes} episodes, main_data.hdf5 has {n_groups}"
                raise InvalidDataset(source, f"{problem}: it is damaged, get it anew")
        super().__init__(info, check=check)

    def _read(self) -> Iterator[Episode]:
        with Hdf5File.opened(self._path, self.info.source) as file:
            for at in range(self.info.n_episodes or 0):
                with blamed(self.info.source, at):
                    episode = self._episode(file, file.group(file.root, f"episode_{at}"), at)
                yield episode

    def _episode(self, file: Hdf5File, group: Any, at: int) -> Episode:
        rewards, terminations, truncations = (
            file.read(file.array(group, name)) for name in ("rewards", "terminations", "truncations")
        )
        seed, actor = (file.attribute(group, name) for name in ("seed", "actor"))
        return Episode(
            observations=self._values(file, group, "observations", self.info.observation_space),
            actions=self._values(file, group, "actions", self.info.action_space),
            rewards=rewards.astype(np.float64, copy=False),
            status=self._status(terminations, truncations, len(rewards), at),
            seed=None if seed is None or seed < 0 else seed,
            actor_id=self._actors[actor or 0],
            policy_versions=self._versions(file, group, len(rewards)),
        )

    def _values(self, file: Hdf5File, group: Any, name: str, space: gymnasium.Space[Any]) -> Any:
        match space:
            case spaces.Dict():
                inner = file.group(group, name)
                return {key: self._values(file, inner, key, part) for key, part in space.spaces.items()}
            case spaces.Tuple():
                inner = file.group(group, name)
                members = enumerate(cast("tuple[Any, ...]", cast("Any", space).spaces))
                return tuple(self._values(file, inner, f"_index_{place}", part) for place, part in members)
            case _:
                if self._has_jpeg and is_image(space) and len(file.dataset(group, name).shape) <= 2:
                    return _decoded(file, group, name, space.shape or ())
                return file.read(file.array(group, name))

    def _status(
        self, terminations: NDArray[Any], truncations: NDArray[Any], n: int, at: int
    ) -> EpisodeStatus:
        if terminations.shape != (n,) or truncations.shape != (n,):
            problem = f"{terminations.shape} terminations and {truncations.shape} truncations for {n} rewards"
            raise InvalidDataset(self.info.source, f"it has {problem}: correct the data", episode=at)
        ends = np.flatnonzero((terminations != 0) | (truncations != 0))
        if len(ends) and ends[0] != n - 1:
            problem = f"it ends in the middle of its {n} steps: split it there"
            raise InvalidDataset(self.info.source, problem, episode=at, step=int(ends[0]))
        return EpisodeStatus.of(bool(terminations[-1:].any()), bool(truncations[-1:].any()))

    def _versions(self, file: Hdf5File, group: Any, n: int) -> NDArray[np.int64] | None:
        if not file.has(group, "infos"):
            return None
        infos = file.group(group, "infos")
        if not file.has(infos, "policy_version"):
            return None
        stored = file.array(infos, "policy_version")
        if stored.shape != (n,) or stored.dtype.kind not in "iu":
            return None
        return file.read(stored).astype(np.int64, copy=False)


def _decoded(file: Hdf5File, group: Any, name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The images of a data set of JPEG bytes: uint8 ``[N, *shape]``.

    Raises:
        MissingDependency: pillow is not installed.
        ValueError: An image is of another shape, or is damaged.
    """
    pillow = required("PIL.Image", "data", "pillow")
    texts = file.read_bytes(group, name)
    images = np.empty((len(texts), *shape), np.uint8)
    for at, text in enumerate(texts):
        with pillow.open(io.BytesIO(text), formats=["JPEG"]) as image:
            if (image.height, image.width) != shape[:2]:  # before it is decoded: it may claim any size
                raise ValueError(f"image {at} of {name} is {image.height} x {image.width}, not {shape}")
            pixels = np.asarray(image)
        if pixels.shape != shape:
            raise ValueError(f"image {at} of {name} is {pixels.shape}, not {shape}")
        images[at] = pixels
    return images
