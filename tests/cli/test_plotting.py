"""``stoker plot``: files that open, and errors that say what is missing."""

from __future__ import annotations

import json
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


def copies(run: Path, runs: Path, **settings: list[Any]) -> list[Path]:
    """Copies of a run below ``runs``, with other values in their configs."""
    made: list[Path] = []
    for values in zip(*settings.values(), strict=True):
        made.append(runs / f"CartPole-v1/v1/20200101_00000{len(made)}")
        shutil.copytree(run, made[-1], ignore=shutil.ignore_patterns("checkpoints", "journal"))
        config = json.loads((made[-1] / "config.json").read_text())
        for name, value in zip(settings, values, strict=True):
            (config if name in config else config["agent_settings"])[name] = value
        (made[-1] / "config.json").write_text(json.dumps(config))
    return made


def test_groups_of_runs_by_version_or_by_a_setting(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = copies(trained.run, tmp_path / "runs", seed=[1, 2, 3, 4], learning_rate=[0.1, 1e-3, 1e-3, 1e-3])
    target, place = tmp_path / "curve.svg", str(tmp_path / "runs")
    assert main(["plot", place, str(made[1]), "--group-by", "version", "-o", str(target)]) == 0
    assert capsys.readouterr() == (f"{target}\n", "")
    assert "CartPole-v1/v1 (4 runs)" in target.read_text(), "a run that is named twice counts once"
    by = ["--group-by", "agent_settings.learning_rate", "--statistic", "iqm", "--smooth", "ema:0.9"]
    assert main(["plot", place, *by, "-o", str(target)]) == 0
    for label in ("learning_rate=0.001 (3 runs)", "learning_rate=0.1 (1 run)", "interquartile mean"):
        assert label in target.read_text()
    assert target.read_text().index("learning_rate=0.001 (") < target.read_text().index("learning_rate=0.1 (")
    capsys.readouterr()
    assert main(["plot", place, "--group-by", "learning_rate", "-o", str(target)]) == 2
    assert "did you mean agent_settings.learning_rate?" in capsys.readouterr().err


def test_what_a_group_cannot_contain_is_named(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = copies(trained.run, tmp_path / "runs", seed=[1, 2, 3, 4])
    (made[0] / "metadata.json").write_text("{")
    (made[1] / "config.json").unlink()
    for name in ("train_episodes.jsonl", "eval_episodes.jsonl"):
        (made[2] / name).unlink()
    words = ["plot", str(tmp_path / "runs"), "--statistic", "mean", "-o", str(tmp_path / "curve.svg")]
    assert main(words) == 0
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert f"left out: {made[0]}/metadata.json: cannot be read" in errors[0]
    assert f"{made[2]}: no episode has ended yet" in errors[1]
    assert "CartPole-v1/v1 (2 runs)" in (tmp_path / "curve.svg").read_text()
    assert main([*words, "--group-by", "seed"]) == 0
    assert f"{made[1]} is left out: its config has no seed" in capsys.readouterr().err
    (made[3] / "train_episodes.jsonl").write_text("{}\n{}\n")
    assert main(words) == 1
    assert "train_episodes.jsonl" in capsys.readouterr().err, (
        "a damaged file is an error, not a smaller group"
    )


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
