"""The page as one file: styles, icon and modules within the document, so that it opens without a server.

A module becomes a ``data:`` address in an import map, under a name without a relative part, as browsers
resolve no relative address against ``data:``. Nothing else in it is changed. A policy within the document
allows these scripts and styles by their digests, and no request of any kind.
"""

from __future__ import annotations

import base64
import hashlib
import html
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from stoker.dashboard.pages import PAGE
from stoker.errors import StokerError

_ENTRY = '<script type="module" src="main.js"></script>'
_PREFIX = "stoker/"
_IMPORT = re.compile(r"""(\b(?:from|import)\s*\(?\s*)(["'])(\.{1,2}/[^"'\n]+)\2""")
_STYLE = re.compile(r'[ \t]*<link rel="stylesheet" href="([^"]+)"[^>]*>\n?')
_ICON = re.compile(r'(<link rel="icon" href=")([^"]+)(")')
_ADDRESS = re.compile(r'(?:href|src)="(?!data:)[^"]*"')
_LICENSES = ("vendor/uPlot.LICENSE",)

_BOOT = """
import { openReport } from "stoker/offline.js"
globalThis.STOKER_REPORT = openReport(JSON.parse(document.querySelector("#stoker-report").textContent))
await import("stoker/main.js")
"""


def inlined(data: Any, title: str, page: Path = PAGE) -> str:
    """The page with its data, as a document.

    Args:
        data: what ``offline.js`` answers from, to be encoded as JSON.
        title: of the window, until the page sets its own.
        page: the files of the page.

    Raises:
        StokerError: A module imports one that is not there.
    """
    document = (page / "index.html").read_text(encoding="utf-8")
    styles = "\n".join((page / name).read_text(encoding="utf-8") for name in _STYLE.findall(document))
    styles = "\n" + styles.replace("</", "<\\/") + "\n"
    imports = script_json({"imports": _import_map(page)})
    allowed = " ".join(map(_digest, (imports, _BOOT)))
    policy = (
        f"default-src 'none'; script-src data: {allowed}; style-src {_digest(styles)}; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    head = f"""\
<meta http-equiv="Content-Security-Policy" content="{policy}">
<style>{styles}</style>
<script type="importmap">{imports}</script>
<script type="application/json" id="stoker-report">{script_json(data)}</script>
<script type="module">{_BOOT}</script>
"""
    document = _STYLE.sub("", document)

    def icon(found: re.Match[str]) -> str:
        return f"{found[1]}{_data('image/svg+xml', (page / found[2]).read_bytes())}{found[3]}"

    document = _ICON.sub(icon, document)
    document = re.sub("<title>[^<]*</title>", lambda _: f"<title>{html.escape(title)}</title>", document)
    before, entry, after = document.partition(_ENTRY)
    left = _ADDRESS.search(before + after)
    if not entry or left is not None:
        raise StokerError(f"{page / 'index.html'}: {left[0] if left else _ENTRY} cannot be inlined")
    return _notices(page) + before + head + after


def script_json(value: Any) -> str:
    """JSON that no element can end: a ``<`` is escaped, as are the line ends that are none in JSON."""
    text = msgspec.json.encode(value).decode()
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _import_map(page: Path) -> Mapping[str, str]:
    sources = {
        path.relative_to(page).as_posix(): path for path in [*page.rglob("*.js"), *page.rglob("*.mjs")]
    }
    found: dict[str, str] = {}
    for name, path in sorted(sources.items()):

        def renamed(match: re.Match[str], name: str = name) -> str:
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), match[3]))
            if target not in sources:
                raise StokerError(f"{name} imports {match[3]}, which the page does not have")
            return f"{match[1]}{match[2]}{_PREFIX}{target}{match[2]}"

        source = _IMPORT.sub(renamed, path.read_text(encoding="utf-8"))
        found[_PREFIX + name] = _data("text/javascript", source.encode())
    return found


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _notices(page: Path) -> str:
    """The licenses of what is within, as comments ahead of the document."""
    texts = [(page / name).read_text(encoding="utf-8").strip() for name in _LICENSES]
    return "".join(
        f"<!--\n{name}\n\n{text.replace('--', '- -')}\n-->\n"
        for name, text in zip(_LICENSES, texts, strict=True)
    )
