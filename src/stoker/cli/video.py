"""Films of episodes, as ``stoker record`` makes them: Gymnasium's recorder films, ffmpeg joins the parts.

Guarantee: the file has its name only when it is whole.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self, SupportsFloat, cast

import gymnasium
import numpy as np
from anyio import to_thread
from gymnasium.wrappers import RecordVideo
from numpy.typing import NDArray

from stoker.errors import ConfigError, MissingDependency, StokerError
from stoker.writer import files

__all__ = ["PART_FRAMES", "SUFFIXES", "Film", "check_packages", "checked_target"]

SUFFIXES = (".mp4", ".gif")
PART_FRAMES = 400
_LEAST_SIDE = 160
"""Smaller pictures, such as MinAtar's of 10 by 10, are enlarged to at least this many pixels."""


def checked_target(path: Path, *, replaces: bool) -> Path:
    """The path, if a film may be written there.

    Args:
        path: of the film.
        replaces: whether a file that is there may be replaced.

    Raises:
        ConfigError: It has another suffix, its directory does not exist, or a file has that name.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path}: the name of a film must end with {' or '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: there is no directory {path.parent}")
    if path.exists() and not replaces:
        raise ConfigError(f"{path} exists: give another name, or --force to replace it")
    return path


def check_packages() -> None:
    """Refuse to film without what Gymnasium's recorder and this need.

    Raises:
        MissingDependency: A package is not installed; the message names the extra.
    """
    for package in ("moviepy", "imageio_ffmpeg"):
        if find_spec(package) is None:
            raise MissingDependency(package, "video")


class Film:
    """The episodes of environments that it has wrapped, in the order in which they ended.

    A context manager: it keeps the parts in a temporary directory.

    Args:
        part_frames: a part has at most this many frames, which are in memory until it is written.
    """

    def __init__(self, part_frames: int = PART_FRAMES) -> None:
        self._part_frames = part_frames
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._n_envs = 0
        self._parts: list[Path] = []

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory(prefix="stoker-film-")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._directory is not None:
            self._directory.cleanup()

    def around(self, env: Any, name: str) -> gymnasium.Env[Any, Any]:
        """An environment that is filmed.

        Args:
            env: made with the render mode ``"rgb_array"``.
            name: of the environment, for messages.

        Raises:
            ConfigError: It does not render pictures.
        """
        if not isinstance(env, gymnasium.Env):
            raise ConfigError(f"env={name!r} is a {type(env).__name__}: only a gymnasium.Env can be recorded")
        single = cast("gymnasium.Env[Any, Any]", env)
        if single.render_mode != "rgb_array":
            raise ConfigError(
                f"env={name!r} cannot be recorded: made with render_mode='rgb_array', its render_mode is "
                f"{single.render_mode!r}"
            )
        self._n_envs += 1
        directory = self._path / str(self._n_envs)
        return _Filmed(_Pictures(single), directory, self._parts, self._part_frames)

    async def publish(self, path: Path) -> None:
        """Join the episodes to one file.

        Raises:
            StokerError: ffmpeg failed.
            WriteFailed: The disk refused.
        """
        if not self._parts:
            raise StokerError(f"{path}: no episode has ended: there is nothing to write")
        await to_thread.run_sync(self._publish, path)

    @property
    def _path(self) -> Path:
        if self._directory is None:
            raise RuntimeError("a Film is a context manager: use it in a with block")
        return Path(self._directory.name)

    def _publish(self, path: Path) -> None:
        joined = self._path / f"film{path.suffix.lower()}"
        names = self._path / "parts.txt"
        names.write_text("".join(f"file '{part}'\n" for part in self._parts))
        if joined.suffix == ".gif":  # colors of its own for each frame, which needs no memory for all
            how = ["-vf", "split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1"]
        else:
            how = ["-c", "copy", "-movflags", "+faststart"]
        _ffmpeg(["-f", "concat", "-safe", "0", "-i", str(names), *how, str(joined)])
        with joined.open("rb") as film:
            files.write_atomically(path, lambda file: shutil.copyfileobj(film, file))


def _ffmpeg(words: Sequence[str]) -> None:
    from imageio_ffmpeg import get_ffmpeg_exe

    command = [get_ffmpeg_exe(), "-v", "error", "-nostdin", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - of own words
    if done.returncode:
        raise StokerError(f"ffmpeg failed: {' '.join(done.stderr.split()) or done.returncode}")


class _Filmed(RecordVideo[Any, Any]):
    """Gymnasium's recorder, for whole episodes: one that is closed before its end is not kept.

    A long episode is written in parts, so that its frames need not be in memory all at once. moviepy, which
    writes them, may repeat the last frame of a part.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], directory: Path, parts: list[Path], most: int) -> None:
        folder = str(directory)
        super().__init__(env, folder, episode_trigger=lambda _: True, name_prefix="film", gc_trigger=None)
        self._kept, self._most = parts, most
        self._of_episode: list[Path] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """See ``gymnasium.Env``."""
        self._forget()
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """See ``gymnasium.Env``."""
        found = super().step(action)
        is_over = found[2] or found[3]
        if self.recording and (is_over or len(self.recorded_frames) >= self._most):
            name = self._video_name
            self.stop_recording()
            self._of_episode.append(Path(self.video_folder) / f"{name}.mp4")
            if is_over:
                self._kept += self._of_episode
            else:
                self.start_recording(f"film-{self.episode_id}-{self.step_id}")
        return found

    def close(self) -> None:
        """See ``gymnasium.Env``."""
        self._forget()
        super().close()

    def _forget(self) -> None:
        self.recording = False
        self.recorded_frames = []
        self._of_episode = []


class _Pictures(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Renders what a video can hold: bytes, with an even number of rows and columns, and not tiny."""

    def render(self) -> Any:
        """See ``gymnasium.Env``."""
        frame = super().render()
        return _picture(frame) if isinstance(frame, np.ndarray) else frame


def _picture(frame: NDArray[Any]) -> NDArray[np.uint8]:
    if frame.dtype.kind == "f":  # of 0 to 1, as matplotlib has it
        frame = np.rint(255 * np.clip(frame, 0.0, 1.0))
    found = frame.astype(np.uint8)
    times = -(-_LEAST_SIDE // min(found.shape[:2]))
    found = found.repeat(times, axis=0).repeat(times, axis=1)
    rows, columns = found.shape[:2]
    return np.pad(found, ((0, rows % 2), (0, columns % 2), (0, 0)), mode="edge")
