"""Every bad input is one line that names it; nothing is started, nothing is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.cli.main import main
from stoker.runs.layout import safe_name

CASES: list[tuple[str, int, list[str]]] = [
    ("trian CartPole-v1", 2, ["unknown command 'trian'", "did you mean 'train'?"]),
    ("--verbose", 2, ["unknown flag '--verbose'"]),
    ("data exprot x", 2, ["unknown command 'data exprot'", "did you mean 'data export'?"]),
    ("data qqq", 2, ["there is data export, data import, data describe"]),
    ("data export x", 2, ["--out: name where to write", "stoker data export --help"]),
    ("data export nowhere -o x", 1, ["no run there"]),
    ("data export x -o y --format csv", 2, ["--format csv"]),
    ("data import nowhere -o x", 2, ["nowhere", "no such file"]),
    ("data describe", 2, ["name a data set, such as `stoker data describe d4rl.hdf5`"]),
    ("train", 2, ["name an environment", "stoker train CartPole-v1"]),
    ("train Cartpole-v1", 2, ["'Cartpole-v1'", "did you mean 'CartPole-v1'?"]),
    ("train nowhere_to_be_found:Env-v0", 2, ["'nowhere_to_be_found'"]),
    (
        "train Pendulum-v1 --agent dqn",
        2,
        [
            "DQN cannot act in Box",
            "use PPO or SAC or TD3 or IQL or AWAC (--agent ppo or sac or td3 or iql or awac)",
        ],
    ),
    ("train CartPole-v1 extra", 2, ["unexpected 'extra'", "stoker train --help"]),
    ("train CartPole-v1 --agent dqnn", 2, ["unknown agent 'dqnn'", "did you mean 'dqn'?"]),
    ("train CartPole-v1 --agent", 2, ["--agent"]),
    (
        "train CartPole-v1 --learnin-rate 1",
        2,
        ["unknown flag --learnin-rate", "did you mean --learning-rate?"],
    ),
    ("train CartPole-v1 --lr 1", 2, ["unknown flag --lr", "did you mean --learning-rate?"]),
    ("train CartPole-v1 --total 1", 2, ["unknown flag --total", "did you mean --total-timesteps?"]),
    ("train CartPole-v1 -x", 2, ["unknown flag -x"]),
    ("train --env CartPole-v1", 2, ["unknown flag --env; give ENV without it"]),
    ("eval --run=runs/x", 2, ["unknown flag --run; give RUN without it"]),
    ("train CartPole-v1 -n many", 2, ["-n many: give an int of at least 1"]),
    ("train CartPole-v1 -n 0", 2, ["-n 0: give an int", "at least 1"]),
    ("train CartPole-v1 --num-envs -3", 2, ["error: --num-envs -3: give an int of at least 1 (see"]),
    ("train CartPole-v1 --seed", 2, ["--seed"]),
    ("train CartPole-v1 --seed -1", 2, ["seed", "-1"]),
    ("train CartPole-v1 --seeds 4-0", 2, ["--seeds 4-0: 4-0 goes down"]),
    ("train CartPole-v1 --seeds 0-4 --seed 3", 2, ["--seed 3 --seeds 0-4: give one of them"]),
    ("train CartPole-v1 --seeds 0-4 --jobs 0", 2, ["--jobs 0: give an int of at least 1"]),
    ("train CartPole-v1 --jobs 2", 2, ["--jobs 2: give --seeds, too"]),
    ("train CartPole-v1 --seeds 0-4 --metrics-port 0", 2, ["--metrics-port 0", "cannot share a port"]),
    ("train CartPole-v1 --stepping sideways", 2, ["--stepping sideways", "'auto' or 'inline' or 'thread'"]),
    ("train CartPole-v1 --tau soft", 2, ["--tau soft", "a number above 0", "or None"]),
    ("train CartPole-v1 --learning-rate -1", 2, ["--learning-rate -1: give a finite number above 0"]),
    ("train CartPole-v1 --initial-epsilon 0.001", 2, ["final_epsilon", "initial_epsilon (0.001)"]),
    ("train CartPole-v1 --device warp:9", 2, ["'warp:9'", "available: cpu"]),
    ("train CartPole-v1 --lockstep --no-journal", 2, ["lockstep=True needs journal=True"]),
    ("train CartPole-v1 --agent ppo --clip-range -1", 2, ["--clip-range"]),
    ("train CartPole-v1 --agent a2c", 2, ["known are awac, bc, cql, dqn, iql, iqn, ppo, sac, td3"]),
    (
        "train CartPole-v1 --agent sac",
        2,
        ["SAC cannot act in Discrete(2)", "use DQN or IQN or PPO or CQL (--agent dqn or iqn or ppo or cql)"],
    ),
    ("train CartPole-v1 --mix 0.25", 2, ["mix=0.25 is the share of prior data", "warm_data"]),
    ("train CartPole-v1 --mix 0.5", 2, ["mix=0.5 is the share of prior data"]),
    ("train CartPole-v1 --agent bc", 2, ["'bc' learns from a data set alone", "--offline DATA --agent bc"]),
    ("train Pendulum-v1 --final-epsilon 0.1", 2, ["unknown flag --final-epsilon"]),
    ("train CartPole-v1 --track tensorbord", 2, ["track"]),
    ("train CartPole-v1 --actors rockets", 2, ["actors"]),
    ("train CartPole-v1 --max-staleness -1", 2, ["max"]),
    ("train CartPole-v1 --warmup-period -1", 2, ["--warmup-period -1"]),
    ("train CartPole-v1 --patience 0", 2, ["patience"]),
    ("prune", 2, ["name a run"]),
    ("prune x --keep -1", 2, ["--keep -1"]),
    ("prune x --every -1", 2, ["--every -1"]),
    ("prune x --kep 1", 2, ["--keep"]),
    ("verify", 2, ["name a run"]),
    ("verify --all", 2, ["unknown flag --all"]),
    ("verify runs more", 2, ["unexpected 'more'"]),
    ("verify nowhere", 1, ["no run there"]),
    ("train CartPole-v1 --name ../up", 2, ["run name '../up'"]),
    ("train CartPole-v1 --run-version .", 2, ["run version '.'"]),
    ("train CartPole-v1 --config missing.toml", 2, ["--config missing.toml: No such file"]),
    ("train CartPole-v1 --config broken.toml", 2, ["--config broken.toml: not TOML"]),
    ("train CartPole-v1 --config unknown.toml", 2, ["unknown key 'gama'", "did you mean 'gamma'?"]),
    ("train CartPole-v1 --config nested.toml", 2, ["unknown key 'env_name'"]),
    ("train CartPole-v1 --config typed.toml", 2, ["num_envs='eight'", "give an int"]),
    ("train CartPole-v1 --config place.toml", 2, ["run_version", "give a text"]),
    ("train --config agent.toml", 2, ["unknown agent 'sarsa'"]),
    ("resume", 2, ["name a run", "stoker resume runs/CartPole-v1"]),
    ("resume nowhere", 1, ["nowhere: no run there", "stoker ls"]),
    ("eval nowhere", 1, ["nowhere: no run there", "`stoker ls` lists"]),
    ("show empty/pole/v7", 1, ["empty/pole/v7: no run there", "`stoker ls empty` lists"]),
    ("prune empty/pole", 1, ["empty/pole: no run there", "`stoker ls empty` lists"]),
    ("verify empty", 1, ["empty: no run there", "`stoker ls` lists"]),
    ("eval nowhere --episodes 0", 2, ["--episodes 0"]),
    ("show", 2, ["name a run"]),
    ("show nowhere", 1, ["nowhere: no run there"]),
    ("ls nowhere", 1, ["nowhere: no such runs directory"]),
    ("ls --jsn", 2, ["unknown flag --jsn", "did you mean --json?"]),
    ("plot", 2, ["name the runs to plot"]),
    ("plot nowhere", 2, ["name the file to draw to"]),
    ("plot nowhere -o curve.gif", 2, ["curve.gif", ".png, .svg, .pdf"]),
    ("plot nowhere -o curve.png", 1, ["nowhere: no run there"]),
]

FILES = {
    "broken.toml": "seed = = 1",
    "unknown.toml": "gama = 0.9",
    "nested.toml": "[agent_settings]\nenv_name = 'CartPole-v1'",
    "typed.toml": "num_envs = 'eight'",
    "place.toml": "run_version = 1",
    "agent.toml": "env = 'CartPole-v1'\nagent = 'sarsa'",
}


def test_a_mistake_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        Path(name).write_text(content)
    Path("empty").mkdir()
    for line, code, said in CASES:
        assert main(line.split()) == code, line
        printed = capsys.readouterr()
        [message] = printed.err.splitlines()
        assert message.startswith("stoker: error: ")
        for part in said:
            assert part in message, line
        assert printed.out == ""
        assert {path.name for path in tmp_path.rglob("*")} == {*FILES, "empty"}, line


def test_without_a_command_the_help_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "usage: stoker COMMAND" in printed.err


def test_a_run_is_named_after_its_environment() -> None:
    for env, name in (
        ("CartPole-v1", "CartPole-v1"),
        ("ALE/Pong-v5", "ALE-Pong-v5"),
        ("my_envs:own/Pole-v0", "my_envs-own-Pole-v0"),
        ("../../etc", "etc"),
        ("_.", "run"),
        ("x" * 200, "x" * 100),
    ):
        assert safe_name(env) == name
