"""``stoker train`` of several policies, of self-play, and ``stoker resume`` of both."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from films import frames_of
from stoker import load_policy
from stoker.cli.main import main
from stoker.runs import TrainingGroup, TrainingRun

GAME = "pettingzoo:counting_game:CountingGame"
SMALL = [
    "--num-envs",
    "2",
    "--eval-freq",
    "40",
    "--eval-episodes",
    "2",
    "--hidden-sizes",
    "8",
    "--no-progress",
]


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(words) == code
    out, err = capsys.readouterr()
    return out if code == 0 else err


def test_several_policies_are_trained_and_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    policies = ["--policy", "one=first", "--policy", "other=sec*:dqn"]
    said(capsys, "train", GAME, "--name", "game", *policies, "-n", "60", *SMALL, "--export-best", "numpy")
    group = TrainingGroup.find("runs/game")
    assert group.committed.joint_steps == 60
    assert set(group.runs) == {"one", "other"}
    for name, policy in group.runs.items():
        assert f"/{name}/" in load_policy(policy.directory / "policy").description["run"]
    again = said(capsys, "resume", "runs/game", "-n", "100", "--json", "--no-progress")
    result = json.loads(again.splitlines()[-1])
    assert result["joint_steps"] == 100
    steps = {name: policy["total_steps"] for name, policy in result["policies"].items()}
    assert {
        name: position.steps for name, position in TrainingGroup.find("runs").committed.policies.items()
    } == steps
    assert "has all its 100 joint steps" in said(capsys, "resume", "runs/game")
    assert said(capsys, "verify", "runs/game").count(": whole") == 2
    assert len(said(capsys, "show", "runs/game", "--json").splitlines()) == 2
    assert "resume all of them with" in said(capsys, "resume", str(group.runs["one"].directory), code=2)
    for name, policy in group.runs.items():
        words = ("eval", str(policy.directory), "--checkpoint", "latest", "--episodes", "2", "--json")
        scored = json.loads(said(capsys, *words))
        shown = json.loads(said(capsys, "show", str(policy.directory), "--json"))
        assert scored["mean_reward"] == shown["evaluations"][-1]["mean_reward"], name
        assert "equal, bit by bit" in said(capsys, "replay", str(policy.directory), "--verify")


@pytest.mark.parametrize(
    ("policies", "problem"),
    [
        (["one"], "write NAME=PATTERN"),
        (["one=first", "one=second"], "(twice)"),
        (["one=first"], "agent 'second' has no policy"),
        (["one=*", "other=second"], "it has none of the agents first, second"),
        (["a/b=*"], "cannot name a directory"),
    ],
)
def test_policies_that_do_not_fit_are_refused(
    policies: list[str], problem: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [word for policy in policies for word in ("--policy", policy)]
    assert problem in said(capsys, "train", GAME, *words, "-n", "60", *SMALL, code=2)
    assert not list(tmp_path.iterdir())


def test_groups_of_several_seeds_are_averaged_by_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("train", GAME, "--name", "game", "--policy", "one=first", "--policy", "other=second", "-n", "60")
    assert "stoker plot runs/NAME --group-by version" in said(capsys, *words, "--seeds", "0-1", code=2)
    for seed in ("0", "1"):
        said(capsys, *words, *SMALL, "--seed", seed)
    said(capsys, "plot", "runs/game", "--group-by", "version", "-o", "game.svg")
    picture = (tmp_path / "game.svg").read_text()
    assert re.search(r"game/v1/one \(.*2 runs\)", picture)
    assert re.search(r"game/v1/other \(.*2 runs\)", picture)
    listed = said(capsys, "ls", "runs", "--group", "--json").splitlines()
    assert {(each["version"], len(each["seeds"])) for each in map(json.loads, listed)} == {
        ("v1/one", 2),
        ("v1/other", 2),
    }


@pytest.mark.parametrize(
    ("how", "run"),
    [
        (("--policy", "one=first", "--policy", "other=second"), "other/"),
        ((), ""),
        (("--self-play", "--pool-freq", "25"), ""),
    ],
    ids=["a group", "a shared policy", "self-play"],
)
def test_a_film_shows_each_joint_step_of_the_episodes_that_eval_plays(
    how: tuple[str, ...], run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    said(capsys, "train", GAME.replace("Counting", "Drawn"), "--name", "game", *how, "-n", "60", *SMALL)
    [config] = Path("runs/game/v1").glob(f"*/{run}config.json")
    path = str(config.parent)
    words = (path, "--episodes", "2", "--seed", "7", "--json")
    filmed = json.loads(said(capsys, "record", *words, "-o", "film.mp4"))
    scored = json.loads(said(capsys, "eval", *words))
    shown = json.loads(said(capsys, "eval", *words, "--render"))
    assert filmed["episodes"] == scored["episodes"] == shown["episodes"]
    grays = [round(frame.mean() / 40) for frame in frames_of(Path("film.mp4"), 160, 160)]
    assert grays == [*range(7), *range(7)]


def test_self_play_is_trained_and_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pool = ["--self-play", "--pool-freq", "25", "--pool-keep", "3", "--choose", "pfsp"]
    said(capsys, "train", GAME, "--name", "game", *pool, "-n", "80", *SMALL)
    said(capsys, "resume", "runs/game", "-n", "120", "--no-progress")
    shown = json.loads(said(capsys, "show", "runs/game", "--json"))
    assert shown["total_steps"] == 120
    assert 2 <= len(shown["self_play"]["opponents"]) <= 3
    assert shown["self_play"]["games"] > 20
    assert "score lately" in said(capsys, "show", "runs/game")
    assert all(-1 <= one["mean_reward"] <= 1 for one in shown["evaluations"])
    assert "success_rate" in said(capsys, "eval", "runs/game", "--episodes", "4")
    verified = said(capsys, "verify", "runs/game")
    assert verified.count("the frozen policy of step") == len(shown["self_play"]["opponents"])
    frozen = next(iter((TrainingRun.find("runs/game").directory / "opponents").glob("*.pt")))
    frozen.write_bytes(frozen.read_bytes()[:-1])
    assert main(("verify", "runs/game")) == 1
    assert f"opponents/{frozen.name}" in capsys.readouterr().out
    refused = said(capsys, "train", "CartPole-v1", "--self-play", "-n", "80", code=2)
    assert "is no game of several agents" in refused
