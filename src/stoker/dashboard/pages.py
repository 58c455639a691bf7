"""The files of the page, as they are in this package: each known by its name and by its content's digest."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final, NamedTuple

from stoker.dashboard.queries import no_such

PAGE: Final = Path(__file__).parent / "page"
"""The directory of the page's files."""

INDEX: Final = "index.html"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
}


class PageFile(NamedTuple):
    """A file of the page.

    Attributes:
        content: its bytes.
        media_type: its type.
        etag: of its content.
    """

    content: bytes
    media_type: str
    etag: str


class PageFiles:
    """The files of the page. What a browser asks for is looked up among their names. Blocks."""

    def __init__(self) -> None:
        self._paths: dict[str, Path] = {}
        self._read: dict[str, tuple[tuple[int, int], PageFile]] = {}

    def get(self, name: str) -> PageFile:
        """The file of that name; an empty name is that of the page itself.

        Raises:
            ProtocolError: 404: there is none.
        """
        name = name or INDEX
        if name not in self._paths:
            self._paths = self._found()
        if name not in self._paths:
            raise no_such("file", name, [])
        path = self._paths[name]
        known = path.stat()
        stamp = known.st_mtime_ns, known.st_size
        if name not in self._read or self._read[name][0] != stamp:
            content = path.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
            self._read[name] = stamp, PageFile(content, _TYPES[path.suffix], etag)
        return self._read[name][1]

    def _found(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for place, _, names in os.walk(PAGE):
            for path in (Path(place) / name for name in names):
                if path.suffix in _TYPES:
                    found[path.relative_to(PAGE).as_posix()] = path
        return found
