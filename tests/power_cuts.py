"""What a power cut would leave: a model of the disk, kept by the calls that make names and contents durable.

A file's content is surely on the disk once the file was synced, a name once its directory was. Everything
else may be there or not. So a promise must hold for what is surely there and for what may be there, in all
four combinations, around each call: ``PowerCuts`` asks for that.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from stoker.writer import files

_REMOVING = ("rename", "replace", "unlink")


class Disk:
    """The files below a directory as a power cut would leave them.

    Args:
        root: the directory; its name is durable.
        names: of the entries of each directory, with their inodes.
        contents: of files by inode.
    """

    def __init__(
        self, root: Path, names: Mapping[int, Mapping[str, int]], contents: Mapping[int, bytes]
    ) -> None:
        self._root, self._names, self._contents = root, names, contents

    def read(self, path: Path) -> bytes | None:
        """The content of a file; empty if that never reached the disk; None: there is no such file."""
        inode: int | None = self._root.stat().st_ino
        for part in path.relative_to(self._root).parts:
            inode = self._names.get(inode, {}).get(part)
            if inode is None:
                return None
        return self._contents.get(inode, b"")


class PowerCuts:
    """Records what is durable below a directory, from now until the test ends.

    Args:
        root: everything that is there now is durable.
        monkeypatch: puts a note around each call, which does what it always did.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.at_each: Callable[[Disk], object] | None = None
        """Called before and after each call with what a cut may leave there, in every combination."""
        self._names: dict[int, dict[str, int]] = {}
        self._contents: dict[int, bytes] = {}
        self._lock = threading.RLock()  # nothing goes while another thread looks
        self._held: list[int] = []  # so that no new file gets the inode of one that is gone
        for directory, _, names in os.walk(root):
            self._names[Path(directory).stat().st_ino] = _entries(Path(directory))
            for name in names:
                path = Path(directory) / name
                self._contents[path.stat().st_ino] = path.read_bytes()
        for module, name in ((os, "fsync"), (files, "fdatasync")):
            monkeypatch.setattr(module, name, self._syncing(getattr(module, name)))
        for name in ("link", "mkdir", "rmdir", *_REMOVING):
            monkeypatch.setattr(os, name, self._changing(getattr(os, name), name in _REMOVING))

    def close(self) -> None:
        for descriptor in self._held:
            os.close(descriptor)
        self._held.clear()

    def sure(self) -> Disk:
        """What a cut leaves in any case, and nothing else."""
        return Disk(self.root, self._names, self._contents)

    def possible(self) -> Iterator[Disk]:
        """What a cut may leave."""
        now = {Path(one).stat().st_ino: _entries(Path(one)) for one, _, _ in os.walk(self.root)}
        written = dict(self._contents)
        for directory, _, names in os.walk(self.root):
            for path in (Path(directory) / name for name in names):
                written[path.stat().st_ino] = path.read_bytes()
        for names in (self._names, now):
            for contents in (self._contents, written):
                yield Disk(self.root, names, contents)

    def _syncing(self, call: Callable[[int], None]) -> Callable[[int], None]:
        def sync(descriptor: int) -> None:
            with self._lock:
                self._look()
                call(descriptor)
                synced = os.fstat(descriptor)
                for path in self._paths():
                    if os.path.samestat(path.stat(), synced):
                        if path.is_dir():
                            self._names[synced.st_ino] = _entries(path)
                        else:
                            self._contents[synced.st_ino] = path.read_bytes()
                        break
                self._look()

        return sync

    def _changing(self, call: Callable[..., None], is_removing: bool) -> Callable[..., None]:
        def change(*arguments: Any, **options: Any) -> None:
            with self._lock:
                self._look()
                if is_removing:
                    target = Path(os.fspath(arguments[-1]))
                    if target.is_file() and target.is_relative_to(self.root):
                        self._held.append(os.open(target, os.O_RDONLY))
                call(*arguments, **options)
                self._look()

        return change

    def _look(self) -> None:
        if self.at_each is not None:
            for disk in self.possible():
                self.at_each(disk)

    def _paths(self) -> Iterator[Path]:
        for directory, _, names in os.walk(self.root):
            yield Path(directory)
            yield from (Path(directory) / name for name in names)


def _entries(directory: Path) -> dict[str, int]:
    with os.scandir(directory) as entries:
        return {entry.name: entry.stat().st_ino for entry in entries}
