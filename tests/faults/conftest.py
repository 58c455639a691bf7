"""Lets the rigs import what they share (``breaking``, ``worker``) from beside them and elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "service"), str(HERE.parent / "distributed")]
