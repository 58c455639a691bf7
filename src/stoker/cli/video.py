"""Films of episodes, as ``stoker record`` makes them: ffmpeg encodes each episode, then joins them.

Guarantee: the file has its name only when it is whole. Frames are encoded as they come, not kept in memory.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Self, SupportsFloat, cast

import gymnasium
import numpy as np
from anyio import to_thread
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray

from stoker.envs import CheckedJointEnv, JointEnv, JointStep
from stoker.envs.results import close_of, then
from stoker.errors import ConfigError, MissingDependency, StokerError
from stoker.writer import files

SUFFIXES = (".mp4", ".gif")
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
    """Refuse to film without ffmpeg.

    Raises:
        MissingDependency: Its package is not installed; the message names the extra.
    """
    if find_spec("imageio_ffmpeg") is None:
        raise MissingDependency("imageio_ffmpeg", "video")


class Film:
    """The episodes of environments that it has wrapped, in the order in which they ended.

    A context manager: it keeps the episodes in a temporary directory.
    """

    def __init__(self) -> None:
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._n_envs = 0
        self._episodes: list[Path] = []

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory(prefix="stoker-film-")
        return self

    def __exit__(self, *_: object) -> None:
        if self._directory is not None:
            self._directory.cleanup()

    def around(self, env: Any, name: str, longest: int | None = None) -> Any:
        """An environment that is filmed, with a picture of the reset and of each step or joint step.

        Args:
            env: made with the render mode ``"rgb_array"``: a ``gymnasium.Env`` or a ``CheckedJointEnv``.
            name: of the environment, for messages.
            longest: an episode is truncated after this many steps; None: its environment ends it. Who plays
                a joint environment ends it there.

        Raises:
            ConfigError: It does not render pictures.
        """
        if not isinstance(env, gymnasium.Env | CheckedJointEnv):
            raise ConfigError(
                f"env={name!r} is a {type(env).__name__}: only a gymnasium.Env can be recorded, and "
                "environments of several agents"
            )
        single = cast("gymnasium.Env[Any, Any]", env)
        drawn: Any = env.unwrapped if isinstance(env, CheckedJointEnv) else single
        if (mode := getattr(drawn, "render_mode", None)) != "rgb_array":
            raise ConfigError(
                f"env={name!r} cannot be recorded: made with render_mode='rgb_array', its render_mode is "
                f"{mode!r}"
            )
        self._n_envs += 1
        reel = _Reel(drawn, name, self._path / str(self._n_envs), self._episodes)
        if isinstance(env, CheckedJointEnv):
            return CheckedJointEnv(_FilmedJoint(env.env, env.unwrapped, reel, longest))
        return _Filmed(single if longest is None else TimeLimit(single, longest), reel)

    async def publish(self, path: Path) -> None:
        """Join the episodes to one file.

        Raises:
            StokerError: ffmpeg failed.
            WriteFailed: The disk refused.
        """
        if not self._episodes:
            raise StokerError(f"{path}: no episode has ended: there is nothing to write")
        await to_thread.run_sync(self._publish, path)

    @property
    def _path(self) -> Path:
        if self._directory is None:
            raise RuntimeError("a Film is a context manager: use it in a with block")
        return Path(self._directory.name)

    def _publish(self, path: Path) -> None:
        joined = self._path / f"film{path.suffix.lower()}"
        names = self._path / "episodes.txt"
        names.write_text("".join(f"file '{episode}'\n" for episode in self._episodes))
        if joined.suffix == ".gif":  # colors of its own for each frame, which needs no memory for all
            how = ["-vf", "split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1"]
        else:
            how = ["-c", "copy", "-movflags", "+faststart"]
        _ffmpeg(["-f", "concat", "-safe", "0", "-i", str(names), *how, str(joined)])
        with joined.open("rb") as film:
            files.write_atomically(path, lambda file: shutil.copyfileobj(film, file))


def _ffmpeg(words: Sequence[str]) -> None:
    done = subprocess.run(_command(words), capture_output=True, check=False)  # noqa: S603 - of own words
    if done.returncode:
        raise _failed(done.stderr, done.returncode)


def _command(words: Sequence[str]) -> list[str]:
    from imageio_ffmpeg import get_ffmpeg_exe

    return [get_ffmpeg_exe(), "-v", "error", "-nostdin", *words]


def _failed(said: bytes, code: int) -> StokerError:
    return StokerError(f"ffmpeg failed: {' '.join(said.decode(errors='replace').split()) or code}")


class _Reel:
    """Films whole episodes of one environment: one that does not end is not kept.

    Args:
        drawn: renders the pictures.
        name: of the environment, for messages.
        prefix: of the files.
        episodes: where finished ones are added.
    """

    def __init__(self, drawn: Any, name: str, prefix: Path, episodes: list[Path]) -> None:
        self._drawn, self._name, self._prefix, self._episodes = drawn, name, prefix, episodes
        self._n_begun = 0
        self._encoder: _Encoder | None = None

    def begin(self) -> None:
        """Begin an episode with a first picture."""
        self.discard()
        self._n_begun += 1
        first = self._rendered()
        path = Path(f"{self._prefix}-{self._n_begun}.mp4")
        self._encoder = _Encoder(path, first, getattr(self._drawn, "metadata", {}).get("render_fps", 30))

    def add(self, *, is_last: bool) -> None:
        """Add a picture; keep the episode if it is the last one."""
        if self._encoder is not None:
            self._encoder.add(self._rendered())
            if is_last:
                self._episodes.append(self._encoder.finish())
                self._encoder = None

    def discard(self) -> None:
        """Drop an episode that has not ended."""
        if self._encoder is not None:
            self._encoder.discard()
            self._encoder = None

    def _rendered(self) -> NDArray[np.uint8]:
        frame: Any = self._drawn.render()
        if not isinstance(frame, np.ndarray):
            raise ConfigError(f"env={self._name!r} cannot be recorded: it rendered a {type(frame).__name__}")
        return _picture(cast("NDArray[Any]", frame))


class _Filmed(gymnasium.Wrapper[Any, Any, Any, Any]):
    def __init__(self, env: gymnasium.Env[Any, Any], reel: _Reel) -> None:
        super().__init__(env)
        self._reel = reel

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """See ``gymnasium.Env``."""
        found = super().reset(seed=seed, options=options)
        self._reel.begin()
        return found

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """See ``gymnasium.Env``."""
        found = super().step(action)
        self._reel.add(is_last=found[2] or found[3])
        return found

    def close(self) -> None:
        """See ``gymnasium.Env``."""
        self._reel.discard()
        super().close()


class _FilmedJoint:
    """A ``JointEnv`` that is filmed."""

    def __init__(self, env: JointEnv, unwrapped: Any, reel: _Reel, longest: int | None) -> None:
        self.unwrapped = unwrapped
        self._env, self._reel, self._longest = env, reel, longest
        self._n_steps = 0

    @property
    def agents(self) -> tuple[str, ...]:
        return self._env.agents

    def spaces(self, agent: str) -> Any:
        return self._env.spaces(agent)

    def reset(self, *, seed: int | None = None) -> Any:
        return then(self._env.reset(seed=seed), self._begun)

    def step(self, actions: Mapping[str, Any]) -> Any:
        return then(self._env.step(actions), self._stepped)

    def close(self) -> Any:
        self._reel.discard()
        return close_of(self._env)

    def _begun(self, now: JointStep) -> JointStep:
        self._n_steps = 0
        self._reel.begin()
        return now

    def _stepped(self, now: JointStep) -> JointStep:
        self._n_steps += 1
        self._reel.add(is_last=now.is_over or self._n_steps == self._longest)
        return now


class _Encoder:
    """An ffmpeg that writes the frames that it is given to one file."""

    def __init__(self, path: Path, first: NDArray[np.uint8], frames_per_s: float) -> None:
        rows, columns, _ = self._shape = first.shape
        given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{columns}x{rows}", "-r", str(frames_per_s)]
        command = _command([*given, "-i", "-", "-pix_fmt", "yuv420p", str(path)])
        self._path = path
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process, not full as a pipe may be
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=self._said)  # noqa: S603
        self._frames = cast("IO[bytes]", self._process.stdin)
        self.add(first)

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Encode a frame.

        Raises:
            StokerError: It has another size than the first, or ffmpeg failed.
        """
        if frame.shape != self._shape:
            sizes = " and then ".join(f"{shape[1]} x {shape[0]}" for shape in (self._shape, frame.shape))
            raise StokerError(f"an episode's pictures have one size to be filmed: these have {sizes} pixels")
        try:
            self._frames.write(frame.tobytes())
        except BrokenPipeError:
            raise _failed(*self._ended()) from None

    def finish(self) -> Path:
        """The file, when it is whole.

        Raises:
            StokerError: ffmpeg failed.
        """
        said, code = self._ended()
        if code:
            raise _failed(said, code)
        return self._path

    def discard(self) -> None:
        """End before the episode's end."""
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def _ended(self) -> tuple[bytes, int]:
        """What ffmpeg said, and its exit code."""
        self._process.communicate()
        with self._said:
            self._said.seek(0)
            return self._said.read(), self._process.returncode


def _picture(frame: NDArray[Any]) -> NDArray[np.uint8]:
    """What a video can hold: bytes, with an even number of rows and columns, and not tiny."""
    if frame.dtype.kind == "f":  # of 0 to 1, as matplotlib has it
        frame = np.rint(255 * np.clip(frame, 0.0, 1.0))
    found = frame.astype(np.uint8)
    times = -(-_LEAST_SIDE // min(found.shape[:2]))
    found = found.repeat(times, axis=0).repeat(times, axis=1)
    rows, columns = found.shape[:2]
    return np.pad(found, ((0, rows % 2), (0, columns % 2), (0, 0)), mode="edge")
