"""A process that is ended from outside leaves a line; one that ends by itself does not."""

from __future__ import annotations

import sys

import pytest

import launching

PROGRAM = """
import os, signal, sys
from stoker.cli.sudden_end import SuddenEnd
line = "100% 'gone' \\\\n `x` $HOME"
match sys.argv[1]:
    case "killed":
        end = SuddenEnd(line, is_terminal=False)
        os.kill(os.getpid(), signal.SIGKILL)
    case "left":
        end = SuddenEnd(line, is_terminal=True)
        os._exit(3)
    case _:
        with SuddenEnd(line, is_terminal=False) as end:
            pass
        end.close()
        os._exit(0)
"""
LINE = r"100% 'gone' \n `x` $HOME"


@pytest.mark.parametrize(
    ("how", "said"),
    [("killed", f"{LINE}\n"), ("left", f"\r\x1b[J\x1b[?25h{LINE}\n"), ("closed", "")],
)
def test_only_a_sudden_end_is_reported(how: str, said: str) -> None:
    done = launching.run([sys.executable, "-c", PROGRAM, how], capture_output=True, timeout=60)
    assert done.stderr.decode() == said
    assert done.stdout == b""
