"""The site of docs/, without building it: a complete navigation, and a reference of all public names."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import stoker

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def build() -> ModuleType:
    """docs/build.py, which gathers the pages."""
    spec = importlib.util.spec_from_file_location("docs_build", DOCS / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages_in(nav: list[Any]) -> Iterator[str]:
    for entry in nav:
        for target in entry.values() if isinstance(entry, dict) else [entry]:
            if isinstance(target, str):
                yield target
            else:
                yield from pages_in(target)


def test_every_page_and_every_package_is_in_the_navigation_once(build: ModuleType) -> None:
    listed = sorted(pages_in(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]))
    pages = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")]
    reference = [f"reference/{package}.md" for package in build.packages()]
    beside = {page.name for page in ROOT.glob("*.md")} - {"README.md"}
    assert listed == sorted([*pages, *reference, *beside, "benchmarks/README.md"])


def test_the_reference_has_what_each_package_exports(build: ModuleType) -> None:
    inits = (Path(stoker.__file__).parent).rglob("__init__.py")
    modules = [importlib.import_module(build.package_in(init.parent)) for init in inits]
    named = {module.__name__: getattr(module, "__all__", []) for module in modules}
    assert {package: sorted(names) for package, names in build.packages().items()} == {
        package: sorted(names) for package, names in named.items() if names
    }


def test_every_package_is_on_the_api_page_and_leads_to_its_reference(build: ModuleType) -> None:
    links = re.findall(r"^\| \[`([\w.]+)`\]\(([^)]+)\)", (DOCS / "api.md").read_text(), re.MULTILINE)
    places = {package: str(build.place((DOCS / link).resolve())) for package, link in links}
    assert places == {package: f"reference/{package}.md" for package in build.packages()}


def test_the_links_of_the_gathered_pages_lead_to_pages(build: ModuleType, tmp_path: Path) -> None:
    site = build.Site(tmp_path)
    for path in DOCS.rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            site.add(path)
    gathered = sorted(tmp_path.rglob("*.md"))
    assert len(gathered) > 30
    for page in gathered:
        prose = build.FENCE.sub("", page.read_text())
        for target, _ in build.LINK.findall(prose):
            path = Path(os.path.normpath(page.parent / target))
            if "://" not in target and path.parent.name != "reference":
                assert path.exists(), (page, target)


@pytest.mark.parametrize(
    "tag",
    [
        '<script src="https://example.org/a.js">',
        "<img alt=x src=//example.org/a.png>",
        '<link rel="stylesheet" href="http://example.org/a.css">',
        '<link href="https://example.org/a.css" rel="stylesheet">',
    ],
)
def test_what_loads_from_another_origin_is_found(build: ModuleType, tag: str) -> None:
    assert build.FOREIGN.findall(f"<p>{tag}</p>")


@pytest.mark.parametrize(
    "tag", ['<a href="https://example.org/">', '<script src="../a.js">', '<link rel=icon href="/b">']
)
def test_a_link_or_a_file_of_the_site_is_not(build: ModuleType, tag: str) -> None:
    assert not build.FOREIGN.findall(f"<p>{tag}</p>")
