"""Checks for the fields of agent configs: each refusal names the field, the value and what is allowed."""

from __future__ import annotations

import math

from stoker.errors import ConfigError

__all__ = ["require", "require_real", "require_whole"]


def require(allowed: bool, field: str, value: object, allowed_text: str) -> None:
    """Refuse a field's value unless it is allowed.

    Raises:
        ConfigError: It is not.
    """
    if not allowed:
        raise ConfigError(f"{field} must be {allowed_text}, got {value!r}")


def require_whole(field: str, value: object, *, at_least: int) -> None:
    """Refuse what is not a whole number (a bool is not one) or is too small.

    Raises:
        ConfigError: The value is refused.
    """
    allowed = isinstance(value, int) and not isinstance(value, bool) and value >= at_least
    require(allowed, field, value, f"a whole number of at least {at_least}")


def require_real(
    field: str, value: object, *, above: float | None = None, low: float = -math.inf, high: float = math.inf
) -> None:
    """Refuse what is not a finite number, or lies outside of ``[low, high]`` or not above ``above``.

    Raises:
        ConfigError: The value is refused.
    """
    allowed = False
    if isinstance(value, int | float) and not isinstance(value, bool) and -math.inf < value < math.inf:
        allowed = low <= value <= high and (above is None or value > above)
    limits = [f"above {above:g}"] if above is not None else []
    if low > -math.inf:
        limits.append(f"at least {low:g}")
    if high < math.inf:
        limits.append(f"at most {high:g}")
    require(allowed, field, value, " ".join(["a finite number", " and ".join(limits)]).rstrip())
