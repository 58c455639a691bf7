"""Ages, sizes and command lines as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from stoker.cli.printing import ago, command, size


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.2, "now"), (12, "12s ago"), (300, "5m ago"), (7300, "2h ago"), (700_000, "8d ago")],
)
def test_ages(seconds: float, shown: str) -> None:
    now = datetime(2026, 1, 31, tzinfo=UTC)
    assert ago(now - timedelta(seconds=seconds), now) == shown


@pytest.mark.parametrize(
    ("n_bytes", "shown"), [(512, "512 B"), (1500, "1.5 kB"), (999_600, "1.0 MB"), (23_000_000, "23 MB")]
)
def test_sizes(n_bytes: int, shown: str) -> None:
    assert size(n_bytes) == shown


def test_a_command_can_be_pasted() -> None:
    assert command(["stoker", "resume", "my runs/x"]) == "stoker resume 'my runs/x'"
