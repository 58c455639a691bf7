"""``stoker plot``: files that open, and errors that say what is missing."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from matplotlib.image import imread

import launching
from stoker.cli.main import main


def test_a_png_shows_a_curve(trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "curve.png"
    assert main(["plot", str(trained.run), "-o", str(target)]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    image = imread(target)
    assert image.shape[0] > 600
    assert image.shape[1] > 900
    blue = np.abs(image[:, :, :3] - np.array([0x00, 0x72, 0xB2]) / 255).max(axis=2) < 0.02
    assert blue.sum() > 500


def test_several_runs_go_into_one_svg_with_their_names(trained: Any, tmp_path: Path) -> None:
    second = tmp_path / "runs/Second/v2/20200101_000000"
    shutil.copytree(trained.run, second)
    metadata = (second / "metadata.json").read_text()
    (second / "metadata.json").write_text(metadata.replace('"CartPole-v1"', '"Second"'))
    target = tmp_path / "curve.svg"
    assert main(["plot", "-o", str(target), str(trained.run), str(second), "--title", "Both"]) == 0
    root = ET.parse(target).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    text = target.read_text()
    for part in ("CartPole-v1/v1/", "Second/v1/", "Both", "#0072b2", "#d55e00"):
        assert part in text


def test_the_mean_of_all_runs_of_a_version(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(3):
        shutil.copytree(trained.run, tmp_path / f"runs/CartPole-v1/v1/20200101_00000{seed}")
    target = tmp_path / "curve.svg"
    runs = tmp_path / "runs/CartPole-v1/v1"
    words = ["plot", "--mean", str(runs), str(runs / "20200101_000001"), "-o", str(target)]
    assert main(words) == 0
    assert capsys.readouterr().out == f"{target}\n"
    assert "CartPole-v1/v1 (3 runs)" in target.read_text()
    (runs / "20200101_000002/metadata.json").write_text("{")
    assert main(words) == 1
    assert "20200101_000002/metadata.json" in capsys.readouterr().err


def test_a_pdf(trained: Any, tmp_path: Path) -> None:
    target = tmp_path / "curve.PDF"
    assert main(["plot", str(trained.run), "-o", str(target)]) == 0
    assert target.read_bytes().startswith(b"%PDF-")


def test_a_run_without_episodes_is_one_line(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(trained.run, tmp_path / "run"))
    (run / "train_episodes.jsonl").unlink()
    (run / "eval_episodes.jsonl").unlink()
    assert main(["plot", str(run), "-o", str(tmp_path / "curve.png")]) == 1
    assert capsys.readouterr().err == (
        f"stoker: error: {run}: no episode has ended yet: there is nothing to plot\n"
    )
    assert not (tmp_path / "curve.png").exists()


def test_a_place_that_cannot_be_written_is_one_line(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "missing/curve.png"
    assert main(["plot", str(trained.run), "-o", str(target)]) == 1
    assert capsys.readouterr().err == f"stoker: error: cannot write {target}: No such file or directory\n"


def test_without_matplotlib_it_says_what_to_install(trained: Any, tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from stoker.cli.main import main\n"
        f"sys.exit(main(['plot', {str(trained.run)!r}, '-o', 'curve.png']))"
    )
    done = launching.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == ("stoker: error: matplotlib is not installed: run `pip install 'stoker[plot]'`\n")
