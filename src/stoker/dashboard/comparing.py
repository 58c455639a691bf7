"""Groups of runs as one curve each, and the settings in which runs differ.

The numbers are those of ``stoker plot``: ``stoker.runs.averaging`` says which grid, statistic, interval and
random draws they come from.
"""

from __future__ import annotations

from stoker.runs.averaging import Comparison, LabeledCurve, Statistic, compared
from stoker.runs.configs import (
    Difference,
    Facts,
    Group,
    LeftOut,
    Scalar,
    differences,
    flat_settings,
    grouped,
)

__all__ = [
    "Comparison",
    "Difference",
    "Facts",
    "Group",
    "LabeledCurve",
    "LeftOut",
    "Scalar",
    "Statistic",
    "compared",
    "differences",
    "flat_settings",
    "grouped",
]
