"""The lists of mutants: faults that a tired engineer could make, each with the tests that notice it.

``<area>.toml`` beside this module holds a list of ``[[mutant]]``:

- ``file``: a module below ``src/stoker``;
- ``old``: a text that occurs in it exactly once, and ``new``: the text that replaces it;
- ``why``: what goes wrong for a user, in one sentence;
- ``killers``: the ids of the tests of which at least one fails then; few and quick ones.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec

ROOT = Path(__file__).parents[2]
LISTS = Path(__file__).parent


class Mutant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One fault."""

    file: str
    old: str
    new: str
    why: str
    killers: list[str]

    def applied(self, source: str) -> str:
        """The module with the fault.

        Raises:
            ValueError: The text to replace does not occur exactly once.
        """
        if (times := source.count(self.old)) != 1:
            raise ValueError(f"{self.file}: {self.old!r} occurs {times} times instead of once")
        return source.replace(self.old, self.new)


class Named(NamedTuple):
    """A mutant and where it stands: ``queues:3`` is the third of ``queues.toml``."""

    name: str
    mutant: Mutant


class _List(msgspec.Struct, forbid_unknown_fields=True):
    mutant: list[Mutant]


def areas() -> list[str]:
    """The areas that have a list."""
    return sorted(path.stem for path in LISTS.glob("*.toml"))


def read(area: str) -> list[Named]:
    """The mutants of one area, in order."""
    listed = msgspec.toml.decode((LISTS / f"{area}.toml").read_bytes(), type=_List)
    return [Named(f"{area}:{number}", mutant) for number, mutant in enumerate(listed.mutant, 1)]


def chosen(names: Sequence[str]) -> list[Named]:
    """The mutants of these names (``queues``, ``queues:3``), or all of them."""
    found: dict[str, Mutant] = {}
    for name in names or areas():
        area, _, number = name.partition(":")
        if area not in areas():
            raise ValueError(f"no list {area!r}: there are {', '.join(areas())}")
        these = {each.name: each.mutant for each in read(area) if not number or each.name == name}
        if not these:
            raise ValueError(f"no mutant {name!r}")
        found |= these
    return [Named(*each) for each in found.items()]


def errors_of(mutant: Mutant) -> Iterator[str]:
    """What is wrong with an entry, without running a test."""
    try:
        changed = mutant.applied((ROOT / "src" / "stoker" / mutant.file).read_text(encoding="utf-8"))
        ast.parse(changed)
    except (OSError, SyntaxError, ValueError) as error:
        yield f"{error}"
    if mutant.old == mutant.new:
        yield "it changes nothing"
    if not mutant.why.endswith("."):
        yield "it does not say in a sentence why it matters"
    if not mutant.killers:
        yield "no test kills it"
    for killer in mutant.killers:
        path, _, test = killer.partition("::")
        if not (ROOT / path).is_file() or test.partition("[")[0] not in _tests_of(path):
            yield f"{killer} does not exist"


@cache
def _tests_of(path: str) -> set[str]:
    """The tests of a file as in their ids, without parameters."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return set(_defined_in(tree.body, ""))


def _defined_in(body: Sequence[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name
        elif isinstance(node, ast.ClassDef):
            yield from _defined_in(node.body, f"{prefix}{node.name}::")
