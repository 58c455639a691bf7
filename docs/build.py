"""Gather the pages of the site in build/docs: docs/, the files that they link to, and a reference of the API.

The pages in docs/ are read in the repository, too, so that their links are relative to their place there,
such as ``../examples/service.py``. In the site each linked file outside docs/ becomes a page, and a link to
the ``__init__.py`` of a package leads to its page of the reference.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCS, SRC, BUILT, SITE = ROOT / "docs", ROOT / "src", ROOT / "build/docs", ROOT / "site"
LINK = re.compile(r"(?<=\]\()([^)#\s]+)(#[^)\s]*)?(?=\))")
FENCE = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)
FOREIGN = re.compile(
    r"""<(?:script|img|iframe|source|link(?=[^>]*stylesheet))\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*"""
)
LANGUAGES = {".cs": "csharp", ".gd": "gdscript", ".js": "javascript", ".json": "json", ".py": "python"}
LANGUAGES |= {".rs": "rust", ".sh": "sh", ".toml": "toml", ".yaml": "yaml"}


def place(source: Path) -> Path:
    """Where the page of a file of the repository is, below the root of the site."""
    if source.is_relative_to(DOCS):
        return source.relative_to(DOCS)
    if source.name == "__init__.py":
        return Path("reference", f"{package_in(source.parent)}.md")
    inside = source.relative_to(ROOT)
    if inside == Path("README.md"):
        return Path("readme.md")  # the site's own first page is docs/index.md
    return inside if inside.suffix == ".md" else inside.with_name(f"{inside.name}.md")


def package_in(folder: Path) -> str:
    """The dotted name of a package."""
    return ".".join(folder.relative_to(SRC).parts)


class Site:
    """The pages below one directory; a file is added once, with the files that it links to."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.added: set[Path] = set()

    def write(self, page: Path, text: str) -> None:
        """Write one page."""
        path = self.directory / page
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def add(self, source: Path) -> None:
        """Add a file of the repository as a page, or as it is if it is a picture below docs/."""
        if source in self.added:
            return
        self.added.add(source)
        page = place(source)
        match source.suffix:
            case ".md":
                self.write(page, self.linked(source))
            case _ if source.name == "__init__.py":
                pass  # the reference has it
            case ".ipynb":
                self.write(page, notebook(source))
            case _ if source.is_relative_to(DOCS):
                (self.directory / page).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, self.directory / page)
            case suffix:
                code = source.read_text(encoding="utf-8").rstrip()
                title = source.relative_to(ROOT)
                self.write(page, f"# {title}\n\n````{LANGUAGES.get(suffix, 'text')}\n{code}\n````\n")

    def linked(self, source: Path) -> str:
        """The text of a page, with its links to other files as the site has them."""

        def to_page(match: re.Match[str]) -> str:
            target, anchor = match[1], match[2] or ""
            path = Path(os.path.normpath(source.parent / target))
            if "://" in target or not path.exists():
                return match[0]  # the build reports a link that leads nowhere
            self.add(path)
            return os.path.relpath(place(path), place(source).parent) + anchor

        parts = FENCE.split(source.read_text(encoding="utf-8"))
        return "".join(part if part.startswith("```") else LINK.sub(to_page, part) for part in parts)


def notebook(source: Path) -> str:
    """A notebook as a page: its texts, and its code without outputs."""
    cells = json.loads(source.read_text(encoding="utf-8"))["cells"]
    texts = (("".join(cell["source"]), cell["cell_type"]) for cell in cells)
    return "\n\n".join(text if kind == "markdown" else f"```python\n{text}\n```" for text, kind in texts)


def exports(init: Path) -> dict[str, str]:
    """The names that an ``__init__.py`` exports, and where each is defined, as it imports them."""
    tree = ast.parse(init.read_text(encoding="utf-8"))
    return {
        alias.name: f"{node.module}.{alias.name}"
        for branch in tree.body
        for node in (branch.body if isinstance(branch, ast.If) else [branch])
        if isinstance(node, ast.ImportFrom) and node.module not in ("typing", "stoker._lazy")
        for alias in node.names
    }


def packages() -> dict[str, dict[str, str]]:
    """Each package that exports names, with these."""
    inits = sorted((SRC / "stoker").rglob("__init__.py"))
    return {package_in(init.parent): names for init in inits if (names := exports(init))}


def reference() -> dict[str, str]:
    """The page of each package: its exports in a table, and the docstrings that no package below it has."""
    import griffe  # comes with mkdocstrings; reads the source, so that nothing of it is imported

    root = griffe.load("stoker", search_paths=[str(SRC)])
    pages: dict[str, str] = {}
    described: set[str] = set()
    for package, names in sorted(packages().items(), reverse=True):  # the root comes last
        module = root[package.removeprefix("stoker.")] if package != "stoker" else root
        parts = [f"# {package}", module.docstring.value]
        things = {name: root[home.removeprefix("stoker.")] for name, home in names.items()}
        rows = [
            f"| [`{name}`][{thing.canonical_path}] | {first_sentence(thing)} |"
            for name, thing in things.items()
        ]
        parts.append("\n".join(["| Name | What it is |", "|---|---|", *rows]))
        here = [thing.canonical_path for thing in things.values() if thing.canonical_path not in described]
        described.update(here)
        pages[package] = "\n\n".join([*parts, *(f"::: {path}" for path in here)])
    return pages


def first_sentence(thing: Any) -> str:
    """The first sentence of a docstring, for a cell of a table."""
    text = thing.docstring.value if thing.docstring else f"`{thing.value}`"  # of an alias or a constant
    paragraph = " ".join(text.split("\n\n", maxsplit=1)[0].split())
    return paragraph.split(". ")[0].rstrip(".").replace("``", "`").replace("|", "\\|")


def gather() -> None:
    """Write the pages anew."""
    shutil.rmtree(BUILT, ignore_errors=True)
    site = Site(BUILT)
    for path in sorted(DOCS.rglob("*")):
        if path.is_file() and path.suffix not in (".pyc", ".py"):
            site.add(path)
    for package, text in reference().items():
        site.write(Path("reference", f"{package}.md"), text)


def check() -> None:
    """Exit with the places where a built page loads something from another origin."""
    pages = ((page, page.read_text(encoding="utf-8")) for page in SITE.rglob("*.html"))
    if found := [f"{page}: {tag}" for page, text in pages for tag in FOREIGN.findall(text)]:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    {"gather": gather, "check": check}[sys.argv[1]]()
