"""Names that packages hand on: there, documented, and written down the same in every place."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import re
import types
from pathlib import Path
from typing import Any

import pytest

import stoker
from stoker.settings import Settings

SRC = Path(stoker.__file__).parent


def package_name(path: Path) -> str:
    return ".".join(path.parent.relative_to(SRC.parent).parts)


PACKAGES = sorted(package_name(path) for path in SRC.rglob("__init__.py"))
LAZY = sorted(
    package_name(path)
    for path in SRC.rglob("__init__.py")
    if "lazy_exports(" in path.read_text(encoding="utf-8")
)
MODULES = sorted(
    ".".join(path.relative_to(SRC.parent).with_suffix("").parts)
    for path in SRC.rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)


def imports_of(package: str) -> dict[str, str]:
    """Name -> module, as type checkers see them."""
    source = (SRC.parent / package.replace(".", "/") / "__init__.py").read_text()
    return {
        alias.name: str(node.module)
        for branch in ast.parse(source).body
        if isinstance(branch, ast.If)
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }


def exported(module: types.ModuleType) -> list[str]:
    """The names that a package hands on; one that only holds modules hands on none."""
    return getattr(module, "__all__", [])


def test_every_name_in_all_is_there_once_and_dir_knows_it() -> None:
    for module in map(importlib.import_module, PACKAGES):
        assert len(set(exported(module))) == len(exported(module)), module
        for name in exported(module):
            assert hasattr(module, name), (module, name)
            assert name in dir(module)


@pytest.mark.parametrize("package", LAZY)
def test_what_type_checkers_see_is_what_is_loaded_and_what_all_says(package: str) -> None:
    module = importlib.import_module(package)
    homes = imports_of(package)
    assert sorted(homes) == module.__all__
    for name, home in homes.items():
        assert getattr(module, name) is getattr(importlib.import_module(home), name)


def test_the_root_is_lazy() -> None:
    assert "stoker" in LAZY
    assert len(LAZY) >= 3


def test_every_module_says_what_it_is_in_a_few_lines() -> None:
    for there in map(importlib.import_module, MODULES):
        assert there.__doc__, there
        is_tree = there.__name__ == "stoker.errors"
        assert len(there.__doc__.splitlines()) <= 15 or is_tree, there


def undocumented(value: Any, name: str) -> list[str]:
    """The value, and its public methods and properties of its own, that have no docstring."""
    if not isinstance(value, type | types.FunctionType):
        return []  # an alias, documented where it is defined
    missing = [] if inspect.getdoc(value) else [name]
    if isinstance(value, type):
        for attribute, member in vars(value).items():
            if attribute.startswith("_"):
                continue
            function = getattr(member, "__func__", getattr(member, "fget", member))
            if isinstance(function, types.FunctionType) and not inspect.getdoc(function):
                missing.append(f"{name}.{attribute}")
    return missing


def test_every_name_handed_on_is_documented() -> None:
    named = [(module, name) for module in map(importlib.import_module, PACKAGES) for name in exported(module)]
    assert [gap for module, name in named for gap in undocumented(getattr(module, name), name)] == []


def described_fields(kind: type) -> set[str]:
    """The fields that a class or a base of it describes: in its docstring, or in one below the field."""
    found: set[str] = set()
    for base in (base for base in kind.__mro__ if base.__module__.startswith("stoker.")):
        found |= set(re.findall(r"^ +(\w+):", base.__doc__ or "", re.MULTILINE))
        (tree,) = ast.parse(inspect.getsource(base)).body
        assert isinstance(tree, ast.ClassDef)
        for field, below in itertools.pairwise(tree.body):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                found.add(ast.unparse(field.target))
    return found


def test_every_public_setting_is_described() -> None:
    named = [
        getattr(module, name)
        for module in map(importlib.import_module, PACKAGES)
        for name in exported(module)
    ]
    kinds = {kind for kind in named if isinstance(kind, type) and issubclass(kind, Settings)}
    assert len(kinds) > 10
    assert {kind: set(kind.__struct_fields__) - described_fields(kind) for kind in kinds} == {
        kind: set() for kind in kinds
    }


def test_a_gap_is_found() -> None:
    class Documented:
        """It is."""

        def method(self) -> None:
            pass

        @property
        def value(self) -> int:
            return 1

        @classmethod
        def make(cls) -> None:
            """Make."""

    assert undocumented(Documented, "D") == ["D.method", "D.value"]
    assert undocumented(lambda: None, "f") == ["f"]
