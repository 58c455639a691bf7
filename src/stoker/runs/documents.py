"""JSON documents of a run: read with their type checked, written whole."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import msgspec

from stoker.errors import ConfigError, RunBroken
from stoker.writer import files

__all__ = ["read_json", "write_json"]


def read_json(path: Path, expected: Any, way_out: str = "") -> Any:
    """The document, decoded as the expected type. Blocks.

    Args:
        path: where it lies.
        expected: its type.
        way_out: what to do where it cannot be read.

    Raises:
        RunBroken: It is missing, unreadable or of another type.
    """
    try:
        return msgspec.json.decode(files.read_bytes(path), type=expected)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, FileNotFoundError) else str(error)
        raise RunBroken(path, f"cannot be read ({reason}){way_out and '; '}{way_out}") from error


def write_json(path: Path, value: Any) -> None:
    """Publish any value that msgspec can encode as indented JSON. Blocks.

    Raises:
        ConfigError: The value has no JSON form.
        WriteFailed: The disk refused.
    """
    try:
        _check_finite(msgspec.to_builtins(value), path.stem)
        encoded = msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path.name}: cannot be written as JSON: {error}") from error
    pretty = msgspec.json.format(encoded, indent=2) + b"\n"
    files.write_atomically(path, lambda file: file.write(pretty))


def _check_finite(value: Any, where: str) -> None:
    """JSON has no number for NaN or infinity, and msgspec writes null for them without a word."""
    match value:
        case float() if not math.isfinite(value):
            raise ValueError(f"{where}={value} is not finite")
        case dict():
            for key, part in cast("dict[Any, Any]", value).items():
                _check_finite(part, f"{where}[{key!r}]")
        case list() | tuple():
            for i, part in enumerate(cast("list[Any]", value)):
                _check_finite(part, f"{where}[{i}]")
        case _:
            pass
