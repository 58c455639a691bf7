from __future__ import annotations

import importlib
import subprocess
import sys
import types
from pathlib import Path

import pytest

TORCH_FREE = [
    "stoker.actors.group",
    "stoker.agents",
    "stoker.agents.dqn.config",
    "stoker.agents.protocol",
    "stoker.agents.registry",
    "stoker.cli.actor",
    "stoker.client.connecting",
]


SOURCE = """
from typing import TYPE_CHECKING
from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from fractions import Fraction as Fraction, Missing as Missing
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A package that exports ``Fraction``, and a name that its module lacks."""
    (tmp_path / "lazy_package.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("lazy_package")
    del sys.modules["lazy_package"]


def test_a_name_is_imported_at_its_first_use_and_kept(package: types.ModuleType) -> None:
    import fractions

    assert "Fraction" not in vars(package)
    assert package.Fraction is fractions.Fraction
    assert vars(package)["Fraction"] is fractions.Fraction


def test_dir_lists_names_before_they_are_imported(package: types.ModuleType) -> None:
    assert {"Fraction", "Missing", "__name__"} <= set(dir(package))
    assert package.__all__ == ["Fraction", "Missing"]
    assert "Fraction" not in vars(package)


@pytest.mark.parametrize("name", ["Fractoin", "__path__", "Missing"])
def test_unknown_names_are_attribute_errors(package: types.ModuleType, name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        getattr(package, name)


def test_configs_and_presets_are_read_without_torch() -> None:
    """One process imports them all, uses them, and only then, as a control, an agent."""
    program = f"""
import importlib, sys
for name in {TORCH_FREE}:
    importlib.import_module(name)
from stoker.agents import DQNConfig, LearningAgent, config_type, preset
assert config_type("dqn") is DQNConfig and preset("dqn", "CartPole-v1").gamma == 0.99
assert "torch" not in sys.modules, "torch was imported"
from stoker.agents import DQN
assert "torch" in sys.modules
from gymnasium.spaces import Box, Discrete
DQN(Box(-1, 1, (4,)), Discrete(2))
assert "sympy" not in sys.modules, "an agent was made by parts of torch that take long to import"
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["stoker.agents", "stoker.replay"])
def test_every_name_a_package_promises_is_there(name: str) -> None:
    package = __import__(name, fromlist=["__all__"])
    for exported in package.__all__:
        assert getattr(package, exported).__name__ == exported if exported != "AGENTS" else package.AGENTS
