"""Names on disk, which of them are allowed, how they are ordered, and which directories are runs. Reads only.

runs/<name>/<version>/<YYYYMMDD_HHMMSS>/
    metadata.json  config.json  train_episodes.jsonl  eval_episodes.jsonl  metrics.jsonl
    checkpoints/step_<N>.pt  latest.pt  best.pt
    journal/<attempt>-<first event>.journal

runs/<name>/<version>/<YYYYMMDD_HHMMSS>/    of several policies that learn together
    group.json
    <policy>/    a run, for each of them
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from stoker.errors import ConfigError, RunDirectoryError
from stoker.types import AnyPath
from stoker.writer import files

METADATA = "metadata.json"
CONFIG = "config.json"

GROUP = "group.json"
"""The file of a directory whose runs are the policies of one training."""

OPPONENTS = "opponents"
"""The directory of the frozen policies that a run has learned against."""

STANDINGS = "standings.json"
"""The file of results and ratings in it."""

FORKING = ".forking"
"""A file with this name marks a directory that is becoming a run."""

CHECKPOINTS = "checkpoints"
"""The directory of a run's checkpoints."""

LATEST = "latest.pt"
"""A second name of the newest step checkpoint."""

BEST = "best.pt"
"""The policy with the highest evaluated mean reward."""

PUBLISHED = ".published"
"""An empty file beside the checkpoints of a run that has written one: losing them does not make it new."""

SET_ASIDE = re.compile(r"(step_\d+|latest)\.pt\.(broken|abandoned)\d*")
"""The names of step checkpoints that a resume has set aside."""

_MINARI = "main_data.hdf5"
"""The file that makes a directory a data set of Minari, and no run."""
_LONGEST_NAME_BYTES = 255
_NAME = re.compile(r"[^\W_][\w.+=@ -]{0,99}")
_DIGITS = re.compile(r"(\d+)")


def absolute(path: AnyPath) -> Path:
    """The absolute path, by the present working directory; symbolic links in it are kept.

    Raises:
        ConfigError: No file system can hold such a name.
        RunDirectoryError: The path is relative, and the working directory is gone.
    """
    try:
        if b"\0" not in os.fsencode(path):
            return Path(path).absolute()
    except UnicodeEncodeError:
        pass
    except FileNotFoundError as error:
        raise RunDirectoryError(
            path, "the working directory is gone; change to one that exists, or give an absolute path"
        ) from error
    raise ConfigError(f"path {os.fspath(path)!r}: a path holds no NUL and no lone surrogates")


def safe_name(env: str) -> str:
    """A directory name for runs on an environment: ``"ALE/Pong-v5"`` -> ``"ALE-Pong-v5"``."""
    name = re.sub(r"[^\w.+=@-]+", "-", env)
    return re.sub(r"^[\W_]+", "", name)[:100].rstrip(". ") or "run"


def checked_name(what: str, name: str) -> str:
    """The name, if it names a directory inside the runs directory on any file system.

    Raises:
        ConfigError: It is empty, too long, or could leave the directory, or would make the directory above
            it look like a run.
    """
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] - may come from a caller
        raise ConfigError(f"{what} {name!r} is a {type(name).__name__}: give a str")
    if name == CHECKPOINTS:
        raise ConfigError(f"{what} {name!r} is the name of a directory inside runs: choose another")
    if not _NAME.fullmatch(name) or name.endswith((".", " ")):
        raise ConfigError(
            f"{what} {name!r} cannot name a directory: begin with a letter or digit, continue with letters, "
            "digits, '.', '_', '-', '+', '=', '@' or spaces, at most 100, and no '/'"
        )
    if (n_bytes := len(name.encode())) > _LONGEST_NAME_BYTES:
        raise ConfigError(
            f"{what} {name!r} takes {n_bytes} bytes in UTF-8, and a file name at most {_LONGEST_NAME_BYTES}: "
            "choose a shorter one"
        )
    return name


def place_of(name: str, version: str, root: AnyPath) -> Path:
    """The directory of the runs of that name and version.

    Raises:
        ConfigError: The name or version would leave ``root``.
    """
    return absolute(root) / checked_name("run name", name) / checked_name("run version", version)


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key that compares digits as numbers, so that v10 comes after v9."""
    parts = filter(None, _DIGITS.split(name))
    return tuple((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts)


def checkpoint_name(step: int, kind: Literal["step", "best"] = "step") -> str:
    """The file name of the checkpoint at that step, or of a best policy as it was at that step."""
    return f"{kind}_{step}.pt"


def steps_of(file_names: Iterable[str], kind: Literal["step", "best"] = "step") -> list[int]:
    """The steps of the checkpoints or of the best policies among these names, ascending."""
    pattern = re.compile(rf"{kind}_(\d+)\.pt")
    return sorted(int(match[1]) for name in file_names if (match := pattern.fullmatch(name)))


def is_run(directory: Path) -> bool:
    """Whether the directory is a run, whole or broken, by the files that it holds."""
    if (found := files.stat_of(directory / METADATA)) is not None and stat.S_ISREG(found.st_mode):
        # Minari has a file of that name, too, always in a directory of this one.
        return directory.name != "data" or files.stat_of(directory / _MINARI) is None
    return CHECKPOINTS in files.directories_in(directory) and FORKING not in files.files_in(directory)


def is_group(directory: Path) -> bool:
    """Whether the runs in the directory are the policies of one training."""
    return (found := files.stat_of(directory / GROUP)) is not None and stat.S_ISREG(found.st_mode)


def runs_below(path: Path, levels: int = 3) -> list[Path]:
    """The runs of a version, of a name or of a whole runs directory, ordered naturally at each level.

    Those of a group are one level deeper.
    """
    found: list[Path] = []
    for name in sorted(files.directories_in(path), key=natural_key):
        try:
            is_found = is_run(path / name)
        except RunDirectoryError:
            is_found = True  # reading its metadata says what is wrong
        if is_found:
            found.append(path / name)
        elif levels > 1 or is_group(path / name):
            found += runs_below(path / name, levels - 1)
    return found
