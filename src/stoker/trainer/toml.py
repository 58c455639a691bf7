"""Settings in TOML files: read as plain values. Free of torch."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from stoker.errors import ConfigError

__all__ = ["read_toml"]


def read_toml(path: Path, where: str = "") -> dict[str, Any]:
    """A TOML file as plain values.

    Args:
        path: the file.
        where: what errors call it, before its path.

    Raises:
        ConfigError: It is missing or not TOML.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{where}{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}{path}: not TOML: {error}") from error
