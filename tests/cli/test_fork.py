"""``stoker fork``: from a command line to a run that ``stoker resume`` goes on with."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stoker.cli.main import main


def test_a_fork_is_resumed_as_it_says(
    trained: Any, stoker: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    words = ("fork", str(trained.run), "--at-step", "800", "--name", "variant", "--run-version", "v2")
    done = stoker(*words)
    assert done.returncode == 0, done.stderr
    place = re.search(r"^run +(\S+)$", done.stdout, re.MULTILINE)
    assert place is not None
    assert Path(place[1]).parent == Path("runs/variant/v2")
    assert f"{trained.run}, step 800" in done.stdout
    resume = re.search(r"^resume +stoker (.*)$", done.stdout, re.MULTILINE)
    assert resume is not None
    resumed = stoker(*shlex.split(resume[1]), "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["total_steps"] == 1200
    rows = (tmp_path / place[1] / "train_episodes.jsonl").read_text().splitlines()
    assert [json.loads(row)["episode"] for row in rows] == list(range(1, len(rows) + 1))
    assert {json.loads(row)["attempt"] for row in rows} == {1, 2}


def test_json(trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--runs-dir", str(tmp_path / "elsewhere"), "--without-replay", "--json"]
    assert main(["fork", str(trained.run), "--at-step", "1200", "--name", "variant", *flags]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert Path(fields["run"]).parent == tmp_path / "elsewhere" / "variant" / "v1"
    assert (fields["total_steps"], fields["forked_from"], fields["forked_at_step"]) == (
        1200,
        str(trained.run),
        1200,
    )
    assert not (Path(fields["run"]) / "journal").exists()


def test_a_mistake_is_one_line_and_makes_nothing(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for line, code, said in (
        ("", 2, "name a run"),
        ("RUN", 2, "--at-step: name the step"),
        ("RUN --at-step -5 --name y", 2, "--at-step -5"),
        ("RUN --at-step many --name y", 2, "--at-step many"),
        ("RUN --at-step 800", 2, "--name: name the new run"),
        ("RUN --at-step 800 --name ../y", 2, "run name '../y'"),
        ("RUN --at-step 800 --name y --run-version .", 2, "run version '.'"),
        ("RUN --at-step 7 --name y", 1, "no checkpoint of step 7: it has 800, 1200"),
        ("nowhere --at-step 7 --name y", 1, "nowhere: no run there"),
    ):
        assert main(["fork", *line.replace("RUN", str(trained.run)).split()]) == code, line
        (error,) = capsys.readouterr().err.splitlines()
        assert said in error
        assert list(tmp_path.iterdir()) == []
