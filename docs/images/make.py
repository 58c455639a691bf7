"""Make the pictures beside this file anew, from real trainings: minutes on two quiet cores.

make test && .venv/bin/python docs/images/make.py    # it needs chromium, and rich, which comes with stoker
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

HERE = Path(__file__).resolve().parent
STOKER = (sys.executable, "-m", "stoker")
COLUMNS, LINES = 92, 30


def live_view(cwd: str) -> None:
    """``live.svg``: what a terminal shows when a training has done 60 % of its steps."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    words = (*STOKER, "train", "CartPole-v1", "-n", "20000", "--name", "live")
    with subprocess.Popen(
        words, cwd=cwd, stdout=subprocess.DEVNULL, stderr=theirs, env=environment
    ) as training:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:  # Linux ends a terminal by an error
            pass
    assert training.returncode == 0
    panels = re.findall("╭.*?╯", shown.decode(), re.DOTALL)
    panel = next(panel for panel in panels if re.search("[6-9][0-9]% of 20,000", panel))
    console = Console(
        file=io.StringIO(), record=True, width=COLUMNS, color_system="truecolor", force_terminal=True
    )
    console.print(Text.from_ansi(re.sub("\x1b\\[[0-9]*[AK]|\r", "", panel)))
    # Without rich's fonts, which a picture would ask a server for.
    no_fonts = re.sub("@font-face {{.*?}}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    svg = console.export_svg(title="stoker train CartPole-v1", code_format=no_fonts)
    (HERE / "live.svg").write_text(re.sub("[ \t]+\n", "\n", svg))


def trainings(cwd: str) -> None:
    """DQN and PPO, five seeds each."""
    for agent in ("dqn", "ppo"):
        words = ("train", "CartPole-v1", "--agent", agent, "-n", "30000", "--seeds", "0-4", "--jobs", "2")
        subprocess.run((*STOKER, *words, "--name", "cartpole", "--run-version", agent), cwd=cwd, check=True)


def curve(cwd: str) -> None:
    """``curve.png``: the seeds of each agent as an interquartile mean with its 95 % interval."""
    words = ("plot", "runs/cartpole", "--statistic", "iqm", "-o", str(HERE / "curve.png"))
    subprocess.run((*STOKER, *words), cwd=cwd, check=True)
    smaller(HERE / "curve.png")


def dashboard(cwd: str) -> None:
    """``dashboard.png``: the page of a run."""
    words = (*STOKER, "dash", "runs/cartpole", "--port", "0")
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(words, cwd=cwd, **output) as server, sync_playwright() as playwright:
        try:
            assert server.stdout is not None
            address = next(
                match[0] for line in server.stdout if (match := re.search(r"http://[\d.:]+", line))
            )
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1200, "height": 730})
            page.goto(address)
            page.locator(".row.run", has_text="dqn").filter(has_text="seed 2").locator(".name").click()
            page.locator("[aria-label*='evaluation at last']").first.wait_for()
            page.screenshot(path=HERE / "dashboard.png")
            browser.close()
        finally:
            server.terminate()
    smaller(HERE / "dashboard.png")


def smaller(picture: Path) -> None:
    """Keep 128 colors."""
    with Image.open(picture) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(picture, optimize=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        live_view(directory)
        trainings(directory)
        curve(directory)
        dashboard(directory)
