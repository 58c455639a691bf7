"""Registers environments with Gymnasium: by what a config imports, and by packages known for their ids.

A module registers its environments when it is imported, or a function in it does. Each is called once in a
process: Gymnasium warns about environments that are registered again.
"""

from __future__ import annotations

import functools
import re
from importlib.util import find_spec
from typing import NamedTuple

from stoker.errors import ConfigError
from stoker.importing import import_named, imported_callable


class Package(NamedTuple):
    """A package that registers environments.

    Attributes:
        ids: a pattern of their ids.
        package: what to install.
        registrar: what registers them, as ``module`` or ``module:function``.
    """

    ids: str
    package: str
    registrar: str

    @property
    def is_installed(self) -> bool:
        """Whether it can be imported."""
        return find_spec(re.split(r"[.:]", self.registrar)[0]) is not None


_PACKAGES = (
    Package(r"ALE/|\w+(NoFrameskip|Deterministic)\b|(Pong|Breakout|SpaceInvaders)\b", "ale-py", "ale_py"),
    Package(r"MinAtar/", "minatar", "minatar.gym:register_envs"),
    Package(r"(MiniGrid|BabyAI)-", "minigrid", "minigrid"),
    Package(
        r"(Fetch|HandManipulate|HandReach|AntMaze|PointMaze)", "gymnasium-robotics", "gymnasium_robotics"
    ),
)


def package_of(env_id: str) -> Package | None:
    """The package that registers an environment, by the look of its id; None: it is not known."""
    return next((package for package in _PACKAGES if re.match(package.ids, env_id)), None)


def register_known(env_id: str) -> None:
    """If a known package has the environment and is installed, let it register its environments.

    Raises:
        ConfigError: The package fails.
    """
    package = package_of(env_id)
    if package is not None and package.is_installed:
        register_by(package.registrar)


@functools.cache
def register_by(name: str) -> None:
    """Import a module, or import one and call a function in it without arguments. Once in a process.

    Args:
        name: ``"module"``, or ``"module:function"``.

    Raises:
        ConfigError: There is no such module or function, or importing or calling it fails.
    """
    if ":" not in name:
        import_named(name, f"imports={name!r}")
        return
    register = imported_callable(name, "imports")
    try:
        register()
    except Exception as error:  # it may raise anything
        text = " ".join(str(error).split())
        raise ConfigError(
            f"imports={name!r} fails when it is called without arguments ({type(error).__name__}: {text}): "
            "name a function that registers environments"
        ) from error
