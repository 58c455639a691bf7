"""Lets these tests import what they share (``writing_parts``) from beside them, and gives them a FIFO."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from writing_parts import Fifo


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    """A file whose writer hangs until it is read."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("the system has no FIFOs")
    fifo = Fifo(tmp_path / "fifo")
    yield fifo
    fifo.close()
