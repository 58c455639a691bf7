"""Help, lists and mistakes do not pay for torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import sys
from stoker.cli.main import main
for line in {lines!r}:
    try:
        code = main(line)
    except SystemExit as leaving:
        code = leaving.code or 0
    assert code == {code}, (line, code)
    assert "torch" not in sys.modules, f"{{line}} imported torch"
"""


def run_lines(lines: list[list[str]], code: int, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(lines=lines, code=code)
    return subprocess.run(
        [sys.executable, "-c", program], cwd=cwd, capture_output=True, text=True, check=False, timeout=60
    )


def test_help_and_looking_at_runs(trained: Any, tmp_path: Path) -> None:
    run, commands = str(trained.run), ("train", "resume", "eval", "ls", "show", "plot")
    lines = [["--help"], ["--version"], *([name, "--help"] for name in commands)]
    lines += [["ls", str(trained.root)], ["show", run], ["plot", run, "-o", "curve.svg"], ["resume", run]]
    done = run_lines(lines, 0, tmp_path)
    assert done.returncode == 0, done.stderr


def test_help_of_train_imports_little(tmp_path: Path) -> None:
    program = """
import sys
from stoker.cli.main import main
try:
    main(["train", "CartPole-v1", "--help"])
except SystemExit:
    heavy = {"torch", "numpy", "gymnasium", "rich", "asyncio"} & set(sys.modules)
    assert not heavy, heavy
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "--learning-rate" in done.stdout


def test_mistakes(tmp_path: Path) -> None:
    lines = [["tarin"], ["train"], ["train", "Cartpole-v1"], ["train", "CartPole-v1", "--agent", "x"]]
    lines += [["train", "CartPole-v1", "--bogus"], ["train", "CartPole-v1", "-n", "x"], ["plot", "x"]]
    done = run_lines(lines, 2, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == len(lines)


@pytest.mark.parametrize(
    ("env", "shown"), [("CartPole-v1", "(default: none)"), ("Acrobot-v1", "(default: 10.0)")]
)
def test_help_shows_what_would_be_used(
    env: str, shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from stoker.cli.main import main

    (tmp_path / "own.toml").write_text("gamma = 0.875")
    with pytest.raises(SystemExit) as leaving:
        main(["train", env, "--config", str(tmp_path / "own.toml"), "--help"])
    assert not leaving.value.code
    text = " ".join(line.strip("│ ") for line in capsys.readouterr().out.splitlines())
    assert "(default: 0.875)" in text
    of_norm = text.partition("--max-grad-norm")[2].partition("--")[0]
    assert shown in of_norm.lower()
