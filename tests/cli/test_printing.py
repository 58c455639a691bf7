"""Ages and command lines as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from stoker.cli.printing import ago, columns, command, say


def test_ages_and_commands() -> None:
    now = datetime(2026, 1, 31, tzinfo=UTC)
    ages = {0.2: "now", 12: "12s ago", 300: "5m ago", 7300: "2h ago", 700_000: "8d ago"}
    assert {seconds: ago(now - timedelta(seconds=seconds), now) for seconds in ages} == ages
    assert command(["stoker", "resume", "my runs/x"]) == "stoker resume 'my runs/x'"


def test_names_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    table = columns(["name", "n"], numbers=[1])
    table.add_row("a[red]b:smile:", "1")
    say(table)
    assert capsys.readouterr().out == "name            n\na[red]b:smile:  1\n"
