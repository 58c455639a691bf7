"""``stoker ls``, ``show`` and ``eval`` on runs that were trained, are training, or are broken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from stoker.cli.main import main
from stoker.runs import RunLock

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def runs(trained: Any, tmp_path: Path) -> Path:
    """A runs directory: one run that is done, an older one that was stopped, and a broken one."""
    root = tmp_path / "runs"
    shutil.copytree(trained.root, root)
    first = root / "CartPole-v1/v1" / trained.run.name
    stopped = Path(shutil.copytree(first, root / "CartPole-v1/v1/20200101_000000"))
    metadata = json.loads((stopped / "metadata.json").read_bytes())
    metadata |= {"run_id": stopped.name, "total_steps": 800, "started_at": "2020-01-01T00:00:00Z"}
    (stopped / "metadata.json").write_text(json.dumps(metadata))
    broken = root / "Other/v1/20210101_000000"
    broken.mkdir(parents=True)
    (broken / "metadata.json").write_text("{")
    return root


def test_ls_has_the_newest_first_and_says_what_is_broken(runs: Path, trained: Any, capsys: Capture) -> None:
    assert main(["ls", str(runs)]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "version", "run", "seed", "steps", "best", "updated", "status"]
    assert [row.split()[2] for row in rows[:3]] == [trained.run.name, "20200101_000000", "20210101_000000"]
    assert [row.split()[-1] for row in rows[:3]] == ["done", "stopped", "broken"]
    assert rows[0].split()[3:5] == ["42", "1,200"]
    assert rows[3].startswith("broken: ")
    assert "Other/v1/20210101_000000" in rows[3]


def test_a_run_that_somebody_writes_is_live(runs: Path, capsys: Capture) -> None:
    lock = RunLock.acquire(runs / "CartPole-v1/v1/20200101_000000")
    try:
        assert main(["ls", str(runs), "--json"]) == 0
    finally:
        lock.release()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["status"] for line in lines] == ["done", "live", "broken"]
    assert lines[0]["total_steps"] == 1200
    assert Path(lines[0]["run"]).is_dir()
    assert "metadata.json" in lines[2]["reason"]


def test_ls_of_an_empty_directory_is_one_line(tmp_path: Path, capsys: Capture) -> None:
    assert main(["ls", str(tmp_path)]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert str(tmp_path) in line


def test_show_tells_counters_files_evaluations_and_the_curve(trained: Any, capsys: Capture) -> None:
    assert main(["show", str(trained.root)]) == 0
    text = capsys.readouterr().out
    for part in (
        str(trained.run),
        "1,200",
        "learning_starts=64",
        "step_800.pt",
        "best.pt",
        "attempt 1",
        "evaluated at",
        "episode reward over steps",
        "└",
    ):
        assert part in text
    assert f"{trained.line['best_eval_reward']:,.1f} @ step" in text


def test_show_as_json(trained: Any, capsys: Capture) -> None:
    assert main(["show", str(trained.run), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["total_episodes"] == trained.line["total_episodes"]
    assert facts["status"] == "done"
    assert facts["config"]["agent_settings"]["hidden_sizes"] == [16]
    assert {"step_800.pt", "step_1200.pt", "latest.pt", "best.pt"} == set(facts["checkpoints"])
    assert facts["evaluations"][-1]["total_steps"] == 1200
    assert max(each["mean_reward"] for each in facts["evaluations"]) == facts["best_value"]
    rewards = [
        json.loads(line)["total_reward"]
        for line in (trained.run / "train_episodes.jsonl").read_bytes().splitlines()
    ]
    last = rewards[-100:]
    assert facts["last_100_mean_reward"] == pytest.approx(sum(last) / len(last))


def contents(run: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(run)): (path.stat().st_mtime_ns, path.stat().st_size) for path in run.rglob("*")
    }


def test_eval_of_best_scores_what_training_scored_and_writes_nothing(trained: Any, capsys: Capture) -> None:
    before = contents(trained.run)
    assert main(["eval", str(trained.root), "--episodes", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mean_reward"] == pytest.approx(trained.line["best_eval_reward"])
    assert found["min_reward"] <= found["mean_reward"] <= found["max_reward"]
    assert (found["checkpoint"], found["n_episodes"]) == ("best.pt", 3)
    assert contents(trained.run) == before


def test_eval_prints_a_report(trained: Any, capsys: Capture) -> None:
    assert main(["eval", str(trained.run), "--episodes", "2", "--checkpoint", "800", "--seed", "5"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == "=== Eval @ step 800 (2 episodes) ==="
    assert [line.partition(":")[0] for line in lines] == [
        "iqm_high", "iqm_low", "iqm_reward", "max_reward", "mean_length", "mean_reward", "median_reward",
        "min_reward", "std_reward",
    ]  # fmt: skip


def test_eval_without_best_takes_the_latest_and_says_so(runs: Path, capsys: Capture) -> None:
    run = runs / "CartPole-v1/v1/20200101_000000"
    (run / "checkpoints/best.pt").unlink()
    assert main(["eval", str(run), "--episodes", "1"]) == 0
    printed = capsys.readouterr()
    assert "=== Eval @ step 1200 (1 episodes) ===" in printed.out
    assert "there is no best checkpoint: this is the latest" in printed.err


@pytest.mark.parametrize(
    ("checkpoint", "code", "said"),
    [("17", 1, "it has best, latest, 800, 1200"), ("worst", 2, "give best, latest or a step")],
)
def test_eval_of_a_checkpoint_that_is_not_there(
    trained: Any, checkpoint: str, code: int, said: str, capsys: Capture
) -> None:
    assert main(["eval", str(trained.run), "--checkpoint", checkpoint]) == code
    [line] = capsys.readouterr().err.splitlines()
    assert checkpoint in line
    assert said in line
