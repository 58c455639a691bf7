"""``stoker resume`` where there is nothing to do, nothing to go on from, or nothing it understands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from stoker.cli.main import main


@pytest.fixture
def run(trained: Any, tmp_path: Path) -> Path:
    """A copy of the trained run."""
    return Path(shutil.copytree(trained.run, tmp_path / "runs/CartPole-v1/v1" / trained.run.name))


def change_config(run: Path, **changes: Any) -> None:
    path = run / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))


def test_a_run_at_its_total_says_so_and_how_to_go_on(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", str(run)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{run} has all its 1,200 steps; to continue: stoker resume {run} -n 2400\n"
    assert said.err == ""


def test_a_total_that_is_reached_is_a_usage_error(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", str(run), "-n", "700"]) == 2
    assert capsys.readouterr().err == ("stoker: error: -n 700: the run has 1200 steps; give more than that\n")


def test_a_larger_total_goes_on(run: Path, stoker: Any) -> None:
    done = stoker("resume", "runs", "-n", "1300", "--json")
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert line["total_steps"] == 1300
    rows = (run / "train_episodes.jsonl").read_bytes().splitlines()
    assert line["total_episodes"] == len(rows)
    assert "resuming from step 1,200 of 1,300" in done.stderr


@pytest.mark.parametrize(
    "settings",
    [("--frame-stack", "4"), ("--agent", "ppo", "--normalize-observations")],
    ids=["dqn-with-stacked-frames", "ppo-within-a-rollout"],
)
def test_what_was_waiting_for_its_batch_is_waiting_again(settings: tuple[str, ...], stoker: Any) -> None:
    """DQN's preset takes the moments of 100 observations at once, PPO's an update of 256 transitions."""
    first = stoker("train", "CartPole-v1", *settings, "-n", "150", "--eval-freq", "0", "--json")
    assert first.returncode == 0, first.stderr
    resumed = stoker("resume", "runs", "-n", "600", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["total_steps"] == 600


def test_without_a_checkpoint_and_a_journal_it_starts_from_the_beginning(run: Path, stoker: Any) -> None:
    for directory in ("checkpoints", "journal"):
        shutil.rmtree(run / directory)
    (run / "checkpoints").mkdir()
    change_config(run, total_timesteps=150, eval_freq=0)
    done = stoker("resume", str(run), "--json")
    assert done.returncode == 0, done.stderr
    assert "no checkpoint yet: the training starts from the beginning" in done.stderr
    assert json.loads(done.stdout)["total_steps"] == 150


def test_a_checkpoint_of_another_agent_is_refused(run: Path, stoker: Any) -> None:
    change_config(run, agent_settings={"hidden_sizes": [7]})
    done = stoker("resume", str(run), "-n", "1300")
    assert done.returncode == 2
    [line] = [line for line in done.stderr.splitlines() if line.startswith("stoker: error: ")]
    assert "hidden_sizes" in line
    assert "Traceback" not in done.stderr


def begin_and_die(run: Path, name: str) -> Path:
    """What a process leaves that is killed right after it has made the run's directory."""
    empty = run.parent / name
    shutil.copytree(
        run, empty, ignore=shutil.ignore_patterns("config.json", "*.pt", ".published", "*.jsonl", "*.journal")
    )
    return empty


def test_a_newer_run_that_was_killed_before_it_began_is_passed_over(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = [begin_and_die(run, "29990101_000000"), begin_and_die(run, "29990102_000000")]
    for command in ("resume", "eval"):
        assert main([command, str(tmp_path / "runs/CartPole-v1")]) == 0
        said = capsys.readouterr()
        assert [line.partition(", which")[0] for line in said.err.splitlines()] == [
            f"stoker: warning: passed over {directory}" for directory in reversed(empty)
        ]
        if command == "resume":
            assert f"{run} has all its 1,200 steps" in said.out
    # Named exactly, or without an older one that has begun, it is the one that is meant.
    for directory in (empty[0], tmp_path / "runs/Other"):
        if not directory.exists():
            shutil.copytree(empty[1], directory / "v1/29990103_000000")
        assert main(["resume", str(directory)]) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert "there is no config.json" in line


@pytest.mark.parametrize("part", ["checkpoints/best.pt", "checkpoints", "config.json"])
def test_a_part_of_a_run_names_the_run(run: Path, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("resume", "eval", "show"):
        assert main([command, str(run / part)]) == 1
        assert f"{run / part}: no run there; name the one that it is in, {run}\n" in capsys.readouterr().err


def test_a_newer_run_of_a_program_of_its_own_is_not_passed_over(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newer = Path(shutil.copytree(run, run.parent / "29990101_000000"))
    (newer / "config.json").unlink()
    assert main(["resume", str(tmp_path / "runs")]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert f"{newer}: there is no config.json" in line
    assert "TrainingRun.resume" in line


def test_settings_that_exclude_each_other_change_nothing(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_config(run, lockstep=True, journal=False)
    before = (run / "config.json").read_bytes()
    assert main(["resume", str(run), "-n", "1300"]) == 2
    assert "lockstep=True needs journal=True" in capsys.readouterr().err
    assert (run / "config.json").read_bytes() == before


def test_a_config_that_cannot_be_trained_is_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content, said in (
        ('{"env": "CartPole-v1", "agent": "sarsa"}', "unknown agent 'sarsa'"),
        ('{"env": "CartPole-v1", "warp": 9}', "unknown key 'warp'"),
        ("[]", "config.json: cannot be read (Expected `object`, got `array`)"),
        ("{", "config.json: cannot be read"),
        (None, "there is no config.json, which names the agent and the environment"),
    ):
        (run / "config.json").unlink()
        if content is not None:
            (run / "config.json").write_text(content)
        for command in ("resume", "eval"):
            assert main([command, str(run)]) == 1
            [line] = capsys.readouterr().err.splitlines()
            assert line.startswith("stoker: error: ")
            assert said in line
            assert str(run) in line


def test_how_the_environments_are_stepped_is_said_and_kept(command: Any, tmp_path: Path) -> None:
    flags = ("--agent", "ppo", "--num-envs", "16", "--eval-freq", "0", "--checkpoint-freq", "0", "--json")
    done = command("train", "CartPole-v1", "-n", "100", *flags, "--runs-dir", "many")
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stderr.splitlines() if line.startswith("vectorize="))
    assert ": microseconds per step: none " in line
    (path,) = tmp_path.glob("many/*/*/*/config.json")
    stored = json.loads(path.read_bytes())
    assert line.startswith(f"vectorize={stored['vectorize']}:")
    path.write_text(json.dumps({**stored, "vectorize": "native"}))
    again = command("resume", "many", "-n", "200", "--json")
    assert (again.returncode, json.loads(again.stdout)["total_steps"]) == (0, 200)
    assert json.loads(path.read_bytes())["vectorize"] == "native"
    assert "vectorize=" not in again.stderr
    del stored["vectorize"]  # as in a run from before there was a choice
    path.write_text(json.dumps(stored))
    again = command("resume", "many", "-n", "300", "--json")
    assert (again.returncode, json.loads(again.stdout)["total_steps"]) == (0, 300)
    assert json.loads(path.read_bytes())["vectorize"] == "none"


def test_a_run_is_scored_alike_however_its_environments_are_stepped(command: Any, tmp_path: Path) -> None:
    flags = ("--agent", "ppo", "--num-envs", "4", "--eval-freq", "100", "--vectorize", "sync", "--json")
    done = command("train", "CartPole-v1", "-n", "200", *flags)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("runs/*/*/*/config.json")
    stored = json.loads(path.read_bytes())
    scores: dict[str, dict[str, Any]] = {}
    for way in ("sync", "none", "native"):
        path.write_text(json.dumps({**stored, "vectorize": way}))
        scored = command("eval", str(path.parent), "--episodes", "25", "--json")
        assert scored.returncode == 0, scored.stderr
        scores[way] = json.loads(scored.stdout)
    assert scores["sync"]["mean_reward"] == pytest.approx(scores["none"]["mean_reward"])
    assert scores["native"]["n_episodes"] == 25
