"""The live view on a real terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import launching


def test_on_a_terminal_a_table_is_redrawn_in_place(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 80, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR", "CI")}
    process = launching.Popen(
        [
            *(sys.executable, "-m", "stoker", "train", "CartPole-v1", "-n", "900", "--learning-starts", "64"),
            *("--hidden-sizes", "16", "--eval-freq", "300", "--eval-episodes", "1", "--json"),
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**env, "TERM": "xterm-256color"},
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other side has closed: Linux says so by an error, macOS by an empty read
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(stdout)["total_steps"] == 900
    text = shown.decode()
    assert text.count("ep_rew_mean") >= 3  # drawn again and again
    assert "\x1b[1A" in text  # in place
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    last = plain[plain.rindex("rollout") :]
    assert re.search(r"ep_rew_mean +\d+\.\d", last)
    assert re.search(r"total_timesteps +900 .* 100% of 900", last)
    assert re.search(r"mean_reward +\d+\.\d +@ 900 steps", last)
