"""Agents and environments of one's own on the command line, named as ``module:factory``."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

import launching
from stoker.cli.main import main

OWN = Path(__file__).with_name("own_parts.py")
SHORT = ("-n", "200", "--num-envs", "2", "--eval-freq", "100", "--eval-episodes", "2", "--no-progress")


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """The working directory of the command, with the module in it."""
    shutil.copy(OWN, tmp_path)
    return tmp_path


def only_run(root: Path) -> Path:
    [metadata] = (root / "runs").rglob("metadata.json")
    return metadata.parent


def test_an_own_agent_on_an_own_environment_from_training_to_replay(stoker: Any, beside: Path) -> None:
    done = stoker(
        "train", "--agent", "own_parts:RandomAgent", "--agent-settings", "loss=0.5",
        "--env-kwargs", "limit=4", "sound=False", "own_parts:ShortPole", *SHORT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = only_run(beside)
    config = json.loads((run / "config.json").read_bytes())
    assert (config["env"], config["agent"]) == ("own_parts:ShortPole", "own_parts:RandomAgent")
    assert (config["env_kwargs"], config["agent_settings"]) == ({"limit": 4, "sound": False}, {"loss": 0.5})
    for line in (
        ("resume", str(run), "-n", "300", "--no-progress"),
        ("eval", str(run), "--episodes", "2"),
        ("replay", str(run), "--verify"),
        ("fork", str(run), "--at-step", "200", "--name", "forked"),
        ("resume", "runs/forked", "-n", "300", "--no-progress"),
    ):
        assert (done := stoker(*line)).returncode == 0, (line, done.stderr)
    rows = [json.loads(line) for line in (run / "train_episodes.jsonl").read_text().splitlines()]
    assert max(row["length"] for row in rows) == 4


def test_an_own_agent_sees_the_observations_as_they_are_and_toml_names_it(stoker: Any, beside: Path) -> None:
    (beside / "own.toml").write_text(
        'env = "own_parts:Rooms"\nagent = "own_parts:RandomAgent"\nimport = "own_parts"\n'
        "[agent_settings]\nloss = 0.25\n"
    )
    assert (done := stoker("train", "--config", "own.toml", *SHORT)).returncode == 0, done.stderr
    config = json.loads((only_run(beside) / "config.json").read_bytes())
    assert (config["imports"], config["agent_settings"]) == (["own_parts"], {"loss": 0.25})


WAYS = {
    "none": (),
    "sync": ("--vectorize", "sync"),
    "async": ("--vectorize", "async"),
    "processes": ("--actors", "processes"),
}


@pytest.mark.parametrize("way", WAYS)
def test_wrappers_are_around_each_environment_wherever_it_is_played(
    stoker: Any, beside: Path, way: str
) -> None:
    (beside / "own.toml").write_text(
        'env = "CartPole-v1"\nagent = "own_parts:RandomAgent"\n'
        '[[wrapper]]\nname = "gymnasium.wrappers:FlattenObservation"\n'
        '[[wrapper]]\nname = "own_parts:Hurried"\nkwargs = { limit = 3 }\n'
    )
    done = stoker("train", "--config", "own.toml", *SHORT, *WAYS[way])
    assert done.returncode == 0, done.stderr
    run = only_run(beside)
    rows = (run / "train_episodes.jsonl").read_text() + (run / "eval_episodes.jsonl").read_text()
    found = {(row["length"], row["total_reward"]) for row in map(json.loads, rows.splitlines())}
    assert found == {(3, 6.0)}
    if way != "none":
        return
    for line in (("resume", str(run), "-n", "300", "--no-progress"), ("replay", str(run), "--verify")):
        assert (done := stoker(*line)).returncode == 0, (line, done.stderr)
    done = stoker("eval", str(run), "--episodes", "2", "--json")
    assert json.loads(done.stdout)["mean_reward"] == 6.0, done.stderr


def test_wrappers_on_the_command_line_come_instead_of_the_presets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words, said in (
        (("--wrapper", "a:One", "--wrapper=b.c:Two"), "(default: a:One b.c:Two)"),
        ((), "(default: gymnasium.wrappers:AtariPreprocessing(frame_skip=4))"),
    ):
        with pytest.raises(SystemExit):
            main(["train", "ALE/Pong-v5", *words, "--help"])
        shown = " ".join(capsys.readouterr().out.partition("--wrapper MODULE:CLASS")[2].split())
        assert said in shown.partition("--num-envs")[0]


@pytest.mark.parametrize("place", ["threads", "processes"])
def test_what_a_module_registers_is_known_where_actors_play(stoker: Any, beside: Path, place: str) -> None:
    done = stoker(
        "train", "OwnPole-v0", "--import", "own_parts", "--import", "json", "--actors", place, *SHORT,
        "--agent", "own_parts:RandomAgent",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((only_run(beside) / "config.json").read_bytes())["imports"] == ["own_parts", "json"]


def test_a_run_says_which_module_it_needs(
    stoker: Any, beside: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (beside / "own_parts.py").rename(beside / "gone_parts.py")
    done = stoker("train", "gone_parts:ShortPole", "--agent", "gone_parts:RandomAgent", *SHORT)
    assert done.returncode == 0, done.stderr
    run = only_run(beside)
    monkeypatch.chdir(beside)
    for command in ("resume", "eval", "replay"):
        assert main([command, str(run)]) == 2
        [line] = capsys.readouterr().err.splitlines()
        for part in (
            run.name,
            "needs env='gone_parts:ShortPole'",
            "No module named 'gone_parts'",
            "PYTHONPATH",
        ):
            assert part in line


WRONG_NAMES = [
    ("own_parts:ShortPol", "has no 'ShortPol'; did you mean 'ShortPole'?"),
    ("own_parts:nothing", "made a dict, which is not an environment: it has no reset, step"),
    ("own_parts:number", "is a int: name a class or a function"),
    ("own_parts:ShortPole --env-kwargs lmit=3", "unexpected keyword argument 'lmit'"),
    ("own_parts:", "write 'module:name'"),
    ("own_parts:Nope-v3", "importing the module registers no 'Nope-v3'"),
    ("CartPole-v1 --agent own_parts:nothing", "not a LearningAgent: it lacks total_steps"),
    ("CartPole-v1 --agent own_parts:RandomAgent --agent-settings x=1", "unexpected keyword argument 'x'"),
    ("CartPole-v1 --agent own_parts:RandomAgent --gamma 1", "unknown flag --gamma"),
    ("CartPole-v1 --import no_such_parts", "No module named 'no_such_parts'"),
    ("CartPole-v1 --import", "--import: give MODULE"),
    ("CartPole-v1 --env-kwargs x", "give NAME=VALUE behind it, not 'x'"),
    ("CartPole-v1 --env-kwargs sprung=1", "does not take 'sprung': it takes 'sutton_barto_reward'"),
    ("CartPole", "did you mean 'CartPole-v1'? There is a preset for dqn, "),
    ("PongNoFrameskip", "did you mean 'PongNoFrameskip-v4'?"),
    ("MiniGrid-Empty-5x5-v0", "it comes with minigrid: `pip install minigrid`"),
    ("CartPole-v1 --import own_parts:nothing_there", "has no 'nothing_there'; did you mean 'nothing'?"),
    ("CartPole-v1 --import own_parts:fails", "imports='own_parts:fails' fails when it is called without"),
    ("Taxi-v1", "there is 'Taxi-v"),
]  # fmt: skip


def test_a_wrong_name_is_one_line_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(OWN.parent))
    for line, said in WRONG_NAMES:
        assert main(["train", *line.split()]) == 2, line
        [message] = capsys.readouterr().err.splitlines()
        assert message.startswith("stoker: error: ")
        assert said in message
    assert not list(tmp_path.iterdir())


def test_a_module_that_fails_to_import_is_one_line(stoker: Any, tmp_path: Path) -> None:
    (tmp_path / "broken_parts.py").write_text("1 / 0")
    done = stoker("train", "broken_parts:Env")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "'broken_parts' cannot be imported (ZeroDivisionError: division by zero)" in line


def test_the_working_directory_is_importable_from_the_installed_command(beside: Path) -> None:
    script = beside / "bin" / "stoker"
    script.parent.mkdir()
    script.write_text("import sys\nfrom stoker.cli.main import main\nsys.exit(main())\n")
    done = launching.run(
        [sys.executable, str(script), "train", "own_parts:ShortPole", *SHORT],
        cwd=beside, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_run_that_is_removed_while_it_trains_is_not_to_be_resumed(stoker: Any, tmp_path: Path) -> None:
    (tmp_path / "vanishing.py").write_text(
        "import shutil\nfrom stoker.testing import ChainEnv\n\n\n"
        "class Vanishing(ChainEnv):\n    n = 0\n\n    def step(self, action):\n"
        "        Vanishing.n += 1\n        if Vanishing.n == 50:\n            shutil.rmtree('runs')\n"
        "        return super().step(action)\n"
    )
    done = stoker("train", "vanishing:Vanishing", "-n", "200", "--num-envs", "1", "--no-progress")
    assert done.returncode == 1
    assert "its directory is gone" in done.stderr
    assert "stoker resume" not in done.stderr
