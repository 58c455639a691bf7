"""What stoker logs is a line of its own on standard error, whatever the command."""

from __future__ import annotations

import io
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.live import Live

from stoker import TrainingSession
from stoker.cli.main import main
from stoker.cli.streams import notices_on_stderr
from stoker.session.watching import stuck_line
from stoker.testing import FakeAgent

Capture = pytest.CaptureFixture[str]


def test_a_warning_of_any_command_has_the_prefix(trained: Any, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / trained.run.name).symlink_to(trained.run)
    broken = tmp_path / "v1/29990101_000000"
    broken.mkdir()
    (broken / "metadata.json").write_text("{")
    for name, *flags in (
        ["show"],
        ["verify"],
        ["eval", "--episodes", "1"],
        ["prune", "--dry-run"],
        ["resume"],
    ):
        assert main([name, str(tmp_path / "v1"), *flags]) == 0
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"stoker: warning: passed over a broken run: {broken}")


def test_only_warnings_and_errors_are_printed_and_only_while_a_command_runs(capsys: Capture) -> None:
    logger = logging.getLogger("stoker.any")
    before = list(logging.getLogger("stoker").handlers)
    with notices_on_stderr():
        logger.info("small talk")
        logger.warning("mind the %s", "gap")
        logger.error("that was it")
    assert capsys.readouterr().err == "stoker: warning: mind the gap\nstoker: error: that was it\n"
    assert logging.getLogger("stoker").handlers == before


def test_what_is_logged_with_an_error_comes_with_its_trace(capsys: Capture) -> None:
    with notices_on_stderr():
        try:
            {}["gone"]
        except KeyError:
            logging.getLogger("stoker.any").exception("lost")
    head, *rest = capsys.readouterr().err.splitlines()
    assert head == "stoker: error: lost"
    assert rest[-1] == "KeyError: 'gone'"


def test_a_warning_is_a_line_above_the_live_view(capsys: Capture) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, color_system=None, _environ={})
    with notices_on_stderr(), Live("the table", console=console, auto_refresh=False):
        logging.getLogger("stoker.any").warning("mind the [gap] at :smile: 12")
    assert capsys.readouterr().err == ""
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue()).splitlines()
    assert [line.strip() for line in lines if "mind" in line] == [
        "stoker: warning: mind the [gap] at :smile: 12"
    ]


def test_asking_a_session_what_is_stuck_never_raises() -> None:
    session = TrainingSession(FakeAgent())
    assert "is unknown (SessionClosed: " in stuck_line(session.health)
    assert stuck_line(session.health, loop_turns=False).startswith("the event loop does not turn: ")
