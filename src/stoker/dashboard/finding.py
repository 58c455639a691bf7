"""Which runs there are below a directory, kept up to date by the modification times of directories.

A run is known by the digest of its path, which is made here: no text of a request ever becomes a path. A
symbolic link that leads out of the directory is not followed, and neither is a run whose own files are such
links. Blocks; not for several threads at once.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import stoker.runs.layout as layout
from stoker.errors import ConfigError, RunDirectoryError
from stoker.runs.event_rows import EVENTS
from stoker.runs.layout import CONFIG, METADATA
from stoker.runs.locking import LOCK
from stoker.runs.rows import ROW_FILES

READ_FILES: Final = (METADATA, CONFIG, *ROW_FILES.values(), EVENTS, LOCK)
"""The files of a run that are read."""

_LEVELS = 3
"""Name, version, run; the runs of a group are one level deeper."""
_MOST_LEFT_OUT = 20


class _Place(NamedTuple):
    """A directory that is not a run.

    Attributes:
        level: 0: the root.
        changed_at: when something in it was made or removed.
        inside: the directories in it.
    """

    level: int
    changed_at: int
    inside: set[Path]


class Finder:
    """Finds the runs below a directory.

    Args:
        root: the directory; a training may make it later.

    Raises:
        ConfigError: It is no directory, or cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self.root = _directory(root)
        self.runs: dict[str, Path] = {}
        """Each run by its id, whole or broken."""
        self.left_out: dict[Path, str] = {}
        """Directories that were not followed, and why."""
        self.has_changed = False
        """Whether ``look`` has found other runs than before."""
        self._places: dict[Path, _Place] = {}  # directories that are no runs
        self._due: list[Path] = []

    def find_all(self) -> None:
        """Look at everything again."""
        self.runs.clear()
        self.left_out.clear()
        self._places.clear()
        if _is_run(self.root):
            self.runs[id_of(self.root, self.root)] = self.root
        else:
            self._enter(self.root, 0)

    def look(self, most: int) -> None:
        """Look at some of the directories for new runs, in turn.

        Args:
            most: how many directories.
        """
        if not self.runs and _is_run(self.root):  # it was made after the server began
            self.find_all()
            self.has_changed = True
            return
        for run_id, path in list(self.runs.items()) if len(self.runs) == 1 else ():
            if path == self.root and not _is_run(self.root):
                del self.runs[run_id]
                self._enter(self.root, 0)
                self.has_changed = True
                return
        for _ in range(min(most, len(self._places))):
            if not self._due:
                self._due = sorted(self._places, key=lambda place: self._places[place].level, reverse=True)
            place = self._due.pop()
            known = self._places.get(place)
            if known is not None and known.changed_at != _changed_at(place):
                self.has_changed |= self._enter(place, known.level)

    def _enter(self, path: Path, level: int) -> bool:
        """Look into a directory that is not a run, and below it where something is new."""
        before = self._places.get(path)
        there: set[Path] = set()
        self._places[path] = _Place(level, _changed_at(path), there)
        is_deep_enough = level < _LEVELS or (level == _LEVELS and _is_group(path))
        there |= set(self._directories_in(path) if is_deep_enough else ())
        has_changed = False
        for inner in sorted(there, key=lambda inner: layout.natural_key(inner.name)):
            if inner in self._places or id_of(self.root, inner) in self.runs:
                continue
            if _is_run(inner):
                self.runs[id_of(self.root, inner)] = inner
                has_changed = True
            else:
                has_changed |= self._enter(inner, level + 1)
        if level and _is_run(path):  # it has become one
            self._leave(path)
            self.runs[id_of(self.root, path)] = path
            return True
        for gone in (set[Path]() if before is None else before.inside) - there:
            has_changed |= self._leave(gone)
        return has_changed

    def _leave(self, place: Path) -> bool:
        """Forget a directory that is gone, and what was below it."""
        for path in [path for path in self._places if path == place or place in path.parents]:
            del self._places[path]
        gone = [run_id for run_id, path in self.runs.items() if path == place or place in path.parents]
        for run_id in gone:
            del self.runs[run_id]
        return bool(gone)

    def _directories_in(self, place: Path) -> Iterator[Path]:
        try:
            with os.scandir(place) as entries:
                found = list(entries)
        except FileNotFoundError:  # a root that nobody has made yet, or a directory that was removed just now
            return
        except OSError as error:
            self._note(place, f"cannot be read: {error.strerror}")
            return
        for entry in found:
            path = place / entry.name
            if not entry.is_symlink():
                if entry.is_dir(follow_symlinks=False):
                    yield path
            elif _is_directory(path):
                if _leads_into(path, self.root):
                    yield path
                else:
                    self._note(path, "is a symbolic link out of the runs directory; it is not followed")

    def _note(self, path: Path, why: str) -> None:
        if len(self.left_out) < _MOST_LEFT_OUT:
            self.left_out[path] = why


def id_of(root: Path, run: Path) -> str:
    """The id of a run: the same as long as it has its place below the root."""
    place = os.path.relpath(run, root)
    return hashlib.sha256(os.fsencode(place)).hexdigest()[:16]


def link_out_of(root: Path, run: Path) -> str | None:
    """The name of a file of the run that is a symbolic link out of the root; None: there is none."""
    place = os.fspath(run)
    for name in READ_FILES:
        is_link = os.path.islink(f"{place}/{name}")  # noqa: PTH114 - it raises nothing; a Path costs more
        if is_link and not _leads_into(run / name, root):
            return name
    return None


def _leads_into(path: Path, root: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):  # it leads nowhere, or in a circle
        return False


def _directory(root: Path) -> Path:
    try:
        found = root.resolve()
        is_directory = stat.S_ISDIR(found.stat().st_mode)
    except FileNotFoundError:
        return root.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"runs directory {os.fspath(root)!r}: {why}; give the directory that `stoker train` writes to"
        ) from None
    if not is_directory:
        raise ConfigError(f"runs directory {os.fspath(root)!r}: it is no directory")
    if not os.access(found, os.R_OK | os.X_OK):
        raise ConfigError(f"runs directory {os.fspath(root)!r}: this user may not read it (`ls -ld`)")
    return found


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _is_run(path: Path) -> bool:
    try:
        return os.path.isfile(path / METADATA) or layout.is_run(path)  # noqa: PTH113 - it raises nothing
    except RunDirectoryError:
        return True  # reading its metadata says what is wrong


def _is_group(path: Path) -> bool:
    return os.path.isfile(path / layout.GROUP)  # noqa: PTH113 - it raises nothing


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return -1
