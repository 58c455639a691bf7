"""Numbers with as many digits as a picture needs: fewer bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_EXACT = 22
"""Powers of ten up to that one are exact floats."""


def short(values: NDArray[np.float64], n_digits: int) -> list[float]:
    """The values with that many significant digits."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        digits = n_digits - 1 - np.floor(np.log10(np.abs(values)))
        scale = 10.0 ** np.abs(digits)
        rounded = np.where(digits >= 0, np.round(values * scale) / scale, np.round(values / scale) * scale)
    return np.where(np.isfinite(rounded) & (np.abs(digits) <= _EXACT), rounded, values).tolist()
