"""What a release says of itself agrees: its version everywhere, and the files that its image is made of."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

import stoker

ROOT = Path(__file__).resolve().parents[2]


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["version"] == stoker.__version__
    assert citation["license"] == project["license"]


def test_the_changelog_begins_with_this_version() -> None:
    found = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert found is not None
    assert found[1] == stoker.__version__


def test_the_image_is_made_of_files_that_reach_its_build() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Containerfile").read_text(), re.MULTILINE)
    files = {name for line in copied for name in line.split()}
    ignored, *let_in = (ROOT / ".dockerignore").read_text().split()
    assert ignored == "*"
    assert files == {name[1:] for name in let_in if name.startswith("!")}
    assert all((ROOT / name).exists() for name in files)
