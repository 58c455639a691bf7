"""House rules that no linter knows: nothing is unpickled, nothing swallowed, modules stay small."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "stoker"
SOURCES = sorted(SRC.rglob("*.py"))
MOST_LINES = 450
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def dotted(node: ast.expr) -> str:
    """``torch.load`` for the expression of that name; empty for what has none."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr):
            return f"{dotted(value)}.{attr}"
        case _:
            return ""


def offences(source: str) -> list[str]:
    """What the house does not do, with its line."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names) if UNPICKLERS & {alias.name.split(".")[0] for alias in names}:
                found.append(f"{node.lineno}: imports an unpickler")
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in UNPICKLERS:
                found.append(f"{node.lineno}: imports an unpickler")
            case ast.ImportFrom(module="torch", names=names) if "load" in {alias.name for alias in names}:
                found.append(f"{node.lineno}: imports torch.load under a name that hides it")
            case ast.Call(func=func, keywords=keywords) if dotted(func) in (
                "torch.load",
                "numpy.load",
                "np.load",
            ):
                flags = {keyword.arg: getattr(keyword.value, "value", None) for keyword in keywords}
                if dotted(func) == "torch.load" and flags.get("weights_only") is not True:
                    found.append(f"{node.lineno}: torch.load without weights_only=True")
                if dotted(func) != "torch.load" and flags.get("allow_pickle", False) is not False:
                    found.append(f"{node.lineno}: {dotted(func)} with allow_pickle")
            case ast.Call(func=ast.Name(id="eval" | "exec" as name)):
                found.append(f"{node.lineno}: {name}")
            case ast.ExceptHandler(type=kind, body=body):
                names = (
                    [dotted(e) for e in kind.elts]
                    if isinstance(kind, ast.Tuple)
                    else [dotted(kind)]
                    if kind
                    else [""]
                )
                is_broad = bool({"", "Exception", "BaseException"} & set(names))
                is_empty = all(isinstance(s, ast.Pass) or is_bare(s) for s in body)
                if is_broad and is_empty:
                    found.append(f"{node.lineno}: swallows any error")
                if "" in names:
                    found.append(f"{node.lineno}: bare except")
            case _:
                pass
    for number, line in enumerate(source.splitlines(), 1):
        if any(word in line for word in ("TODO", "FIXME", "XXX")):
            found.append(f"{number}: something is left to do")
    return found


def is_bare(statement: ast.stmt) -> bool:
    """``...`` or a string: a statement that does nothing."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def test_the_house_rules_hold() -> None:
    sources = {path: path.read_text(encoding="utf-8") for path in SOURCES}
    assert {path: found for path, source in sources.items() if (found := offences(source))} == {}
    assert [path for path, source in sources.items() if len(source.splitlines()) > MOST_LINES] == []


def test_only_the_writer_opens_files_to_write() -> None:
    """``writer/files.py`` is the only module that changes the disk (the faces write what users name)."""
    writing = {
        "write_text",
        "write_bytes",
        "mkdir",
        "unlink",
        "rename",
        "replace_file",
        "hardlink_to",
        "rmdir",
    }
    for path in SOURCES:
        where = path.relative_to(SRC)
        if str(where) == "writer/files.py" or where.parts[0] == "cli":
            continue
        used = {
            node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)
        }
        assert not used & writing, where


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, pickle as p",
        "from pickle import loads",
        "from joblib import load",
        "from torch import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path, allow_pickle=True)",
        "eval('1')",
        "try:\n    f()\nexcept Exception:\n    pass",
        "try:\n    f()\nexcept (ValueError, BaseException):\n    ...",
        "x = 1  # TODO: two",
    ],
)
def test_an_offence_is_found(source: str) -> None:
    assert len(offences(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path, map_location='cpu', weights_only=True)",
        "np.load(path)",
        "try:\n    f()\nexcept ValueError:\n    pass",
        "try:\n    f()\nexcept Exception:\n    log.exception('told')",
        "model.eval()",
    ],
)
def test_what_is_allowed_is_let_through(source: str) -> None:
    assert offences(source) == []
