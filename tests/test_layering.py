"""Dependencies point down: a package imports only what lies below it, wherever in a module the import is."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "stoker"

LAYERS: list[set[str]] = [
    {"_lazy", "raising", "types"},
    {"errors"},
    {
        "exits",
        "importing",
        "listening",
        "lru",
        "notices",
        "plain",
        "queues",
        "replies",
        "settings",
        "space_kinds",
        "stalls",
        "threads",
    },
    {"latch", "nested", "signals", "telemetry"},
    {"stats"},
    {"replay", "envs", "processing", "recorders"},
    {"agents", "protocol"},
    {"writer"},
    {"journal"},
    {"runs"},
    {"data"},
    {"session"},
    {"actors"},
    {"distributed", "multi"},
    {"trainer"},
    {"policies"},
    {"client", "service"},
    {"dashboard"},
    {"cli"},
    {"__init__", "__main__"},
]
"""From the lowest to the highest. Packages of one layer do not know each other."""

RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
FOR_TESTS = "testing"
"""Stands beside the layers: it may import what lies below the session, and nothing imports it."""


def package_of(module: str) -> str:
    """``stoker.agents.dqn.agent`` -> ``agents``; ``stoker`` itself -> ``__init__``."""
    return [*module.split("."), "__init__"][1]


def imports_of(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of each import of stoker: at the top, inside functions, under ``TYPE_CHECKING``."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found = [alias.name for alias in names]
            case ast.ImportFrom(module="stoker", names=[ast.alias(name="__version__")]):
                continue  # a plain text, kept where the build reads it
            case ast.ImportFrom(level=0, module=str(module), names=names):
                # `from stoker import runs` imports a package; `from stoker import DQN` the root.
                below = [f"stoker.{alias.name}" for alias in names if alias.name in {*RANK, FOR_TESTS}]
                found = below if module == "stoker" and below else [module]
            case ast.ImportFrom(level=level) if level:
                found = ["stoker.?"]
            case _:
                continue
        yield from ((node.lineno, name) for name in found if name.split(".")[0] == "stoker")


def violations(module: str, source: str) -> list[str]:
    """What a module imports against the order of the layers."""
    importer = package_of(module)
    problems: list[str] = []
    for line, name in imports_of(source):
        imported = package_of(name)
        if imported == importer:
            continue
        if importer not in RANK and importer != FOR_TESTS:
            problems.append(f"{module}:{line}: {importer} is in no layer")
        elif imported not in RANK:
            problems.append(f"{module}:{line}: imports {name}, which is in no layer")
        elif (importer == FOR_TESTS and RANK[imported] >= RANK["session"]) or (
            importer != FOR_TESTS and RANK[imported] >= RANK[importer]
        ):
            problems.append(f"{module}:{line}: {importer} imports {name}, which does not lie below it")
    return problems


def modules() -> list[tuple[str, Path]]:
    found: list[tuple[str, Path]] = []
    for path in sorted(SRC.rglob("*.py")):
        parts = path.relative_to(SRC.parent).with_suffix("").parts
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def test_each_module_imports_only_what_lies_below_it() -> None:
    assert [found for module, path in modules() for found in violations(module, path.read_text())] == []


def circle_of(sources: dict[str, str]) -> list[str]:
    """Modules that import each other in a circle, for types only as well; empty: there are none."""
    graph = {
        module: {name for _, name in imports_of(source) if name in sources and name != "stoker"}
        for module, source in sources.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_import_each_other() -> None:
    assert circle_of({module: path.read_text() for module, path in modules()}) == []


def test_a_circle_is_found() -> None:
    one, two = "if TYPE_CHECKING:\n    from stoker.a.two import B", "from stoker.a.one import A"
    assert set(circle_of({"stoker.a.one": one, "stoker.a.two": two})) == {"stoker.a.one", "stoker.a.two"}


def test_every_package_is_in_a_layer() -> None:
    there = {path.stem for path in SRC.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there == {*RANK, FOR_TESTS}


def test_packages_only_hand_names_on() -> None:
    found = {path: what_is_no_handing_on(path.read_text()) for path in SRC.rglob("__init__.py")}
    assert {path: problems for path, problems in found.items() if problems} == {}


def what_is_no_handing_on(source: str) -> list[str]:
    """Statements of an ``__init__.py`` that are neither imports, ``__all__``, nor lazy exports."""
    problems: list[str] = []
    for node in ast.parse(source).body:
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant(value=str())):
                pass
            case (
                ast.Assign(targets=[ast.Name(id="__all__" | "__version__")])
                | ast.AnnAssign(target=ast.Name(id="__all__"))
            ):
                pass
            case ast.If(
                test=ast.Name(id="TYPE_CHECKING"),
                body=body,
                orelse=[ast.Assign(value=ast.Call(func=ast.Name(id="lazy_exports")))],
            ) if all(isinstance(inner, ast.ImportFrom) for inner in body):
                pass
            case _:
                problems.append(f"line {node.lineno}: {type(node).__name__}")
    return problems


# The tests above can fail:


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("stoker.stats.tracker", "from stoker.session import TrainingSession"),
        ("stoker.stats.tracker", "import stoker.session.training"),
        ("stoker.stats.tracker", "def f():\n    from stoker.runs.run import TrainingRun"),
        ("stoker.agents.dqn.agent", "if TYPE_CHECKING:\n    from stoker.session.learner import Learner"),
        ("stoker.runs.run", "from stoker import TrainingSession"),
        ("stoker.runs.run", "import stoker"),
        ("stoker.runs.run", "from stoker import session"),
        ("stoker.envs.gym", "from stoker.replay import UniformReplay"),
        ("stoker.types", "from stoker.errors import ConfigError"),
        ("stoker.session.training", "from stoker.testing import FakeAgent"),
        ("stoker.cli.main", "from stoker.testing.fakes import ChainEnv"),
        ("stoker.cli.main", "from stoker import DQN, __version__"),
        ("stoker.testing.fakes", "from stoker.session import TrainingSession"),
        ("stoker.testing.fakes", "class A:\n    import stoker.cli.main"),
        ("stoker.writer.task", "from . import files"),
        ("stoker.helpers", "from stoker.types import Experience"),
        ("stoker.writer.task", "from stoker.helpers import helper"),
    ],
)
def test_an_import_against_the_order_is_found(module: str, source: str) -> None:
    assert len(violations(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("stoker.session.training", "from stoker.runs import TrainingRun\nimport anyio, stoker.writer.files"),
        ("stoker.session.training", "from stoker.session.engine import Engine"),
        ("stoker.agents.dqn.agent", "from stoker.replay.ring import UniformReplay"),
        ("stoker.errors", "from stoker.types import ActorId"),
        (
            "stoker.testing.fakes",
            "from stoker.agents.protocol import Policy\nfrom stoker.runs import TrainingRun",
        ),
        ("stoker", "from stoker.cli.main import main"),
        ("stoker.cli.main", "from stoker import __version__"),
        ("stoker.__main__", "from stoker.cli.main import main"),
        ("stoker.stats.tracker", "import stokerlike\nfrom torch import stoker"),
    ],
)
def test_an_import_along_the_order_is_let_through(module: str, source: str) -> None:
    assert violations(module, source) == []


@pytest.mark.parametrize(
    "source",
    [
        "def f(): pass",
        "class A: pass",
        "x = 1",
        "if sys.platform == 'win32':\n    import a",
        "for x in y: pass",
        "print('hello')",
        "if TYPE_CHECKING:\n    def f(): pass\nelse:\n    __getattr__, __dir__ = lazy_exports(__name__, {})",
        "try:\n    import a\nexcept ImportError:\n    a = None",
    ],
)
def test_logic_in_a_package_is_found(source: str) -> None:
    assert len(what_is_no_handing_on(source)) == 1


def test_only_a_session_touches_its_engine() -> None:
    outside = [pair for pair in modules() if package_of(pair[0]) not in ("session", FOR_TESTS)]
    assert {module: lines for module, path in outside if (lines := uses_of_an_engine(path.read_text()))} == {}


def uses_of_an_engine(source: str) -> list[int]:
    """The lines that reach for the ``engine`` of something."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and node.attr == "engine"
    ]


def test_the_use_of_an_engine_is_found() -> None:
    assert uses_of_an_engine("async def f(s):\n    await s.session.engine.request(g)") == [2]
