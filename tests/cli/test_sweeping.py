"""``stoker train --seeds``: a process per seed; none takes others down, and none outlives its parent."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from rich.console import Console

import launching
from stoker.cli.main import main
from stoker.cli.seeds import seeds_from, text_of
from stoker.cli.sweep_messages import Order, Report
from stoker.cli.sweep_results import aggregate
from stoker.cli.sweep_views import SeedRun, drawn
from stoker.cli.sweeping import Sweeper
from stoker.cli.train import Train
from stoker.errors import ConfigError
from stoker.trainer import TrainConfig

SMALL = ("--learning-starts", "64", "--hidden-sizes", "16", "--num-envs", "4", "--eval-episodes", "2")
DEADLINE_S = 40.0

# Does by its seed what the process of a seed may do: it speaks as stoker.cli.one_seed does.
PROGRAM = """
import json, os, signal, sys
order = json.loads(sys.stdin.buffer.readline())
seed = order["fields"]["training"]["seed"]
def tell(**report):
    sys.stdout.write(json.dumps(report) + "\\n")
    sys.stdout.flush()
tell(run=f"v1/{seed}", total_steps=10, limit=100)
os.makedirs(f"v1/{seed}")
open(f"v1/{seed}/events.jsonl", "w").close()
print("a warning", file=sys.stderr)
if seed == 1:
    sys.exit("stoker: error: the simulator is gone")
if seed == 2:
    os.kill(os.getpid(), signal.SIGKILL)
if seed >= 10:
    sys.stdin.buffer.read()
    tell(run=f"v1/{seed}", total_steps=20, limit=100, ended="Interrupted")
else:
    tell(run=f"v1/{seed}", total_steps=100, limit=100, best=3.5, ended="Done")
"""


def sweep_of(seeds: list[int], jobs: int, during: Callable[[Sweeper], Any] | None = None) -> list[SeedRun]:
    """Train the seeds with the program above, in the working directory."""
    Path("program.py").write_text(PROGRAM)
    runs = [SeedRun(seed, Order("train", {"training": {"seed": seed}})) for seed in seeds]

    async def run() -> None:
        flags = Train(training=TrainConfig(env="CartPole-v1"))
        with Sweeper(flags, [sys.executable, "-S", "program.py"]) as sweeper:
            sweeper.begin()
            with anyio.fail_after(DEADLINE_S):
                async with anyio.create_task_group() as tasks:
                    if during is not None:
                        tasks.start_soon(during, sweeper)
                    await sweeper.train(Path("v1"), runs, jobs)

    anyio.run(run)
    return runs


def test_a_seed_that_fails_leaves_the_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = sweep_of([0, 1, 2, 3], jobs=2)
    assert [(run.state, run.exit_code) for run in runs] == [
        ("done", 0),
        ("failed", 1),
        ("failed", -signal.SIGKILL),
        ("done", 0),
    ]
    assert [run.failure for run in runs[1:3]] == ["exit code 1: the simulator is gone", "killed by SIGKILL"]
    assert [run.report.total_steps for run in runs] == [100, 10, 10, 100]
    said = capsys.readouterr().err.splitlines()
    assert "seed 1: failed, exit code 1: the simulator is gone" in said
    assert "seed 2: failed, killed by SIGKILL" in said
    assert "seed 3: done, 100 steps, best evaluation 3.5" in said
    assert sum(line.endswith(": a warning") for line in said) == 4


def test_a_signal_finishes_those_that_run_and_begins_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    async def signal_when_both_run(sweeper: Sweeper) -> None:
        while sum(run.state == "running" for run in sweeper.seeds) < 2:
            await anyio.lowlevel.checkpoint()
        signal.raise_signal(signal.SIGTERM)

    runs = sweep_of([10, 11, 12], jobs=2, during=signal_when_both_run)
    assert [(run.state, run.exit_code) for run in runs] == [
        ("interrupted", 0),
        ("interrupted", 0),
        ("waiting", None),
    ]


def test_the_process_of_a_seed_finishes_when_its_input_ends(tmp_path: Path) -> None:
    """Its parent closes the pipe to stop it, and the system does when the parent is killed."""
    training = {"env": "CartPole-v1", "total_timesteps": 10**8, "eval_freq": 0, "seed": 7, "num_envs": 2}
    settings = {"learning_starts": 64, "hidden_sizes": [16]}
    order = {"command": "train", "fields": {"name": "pole", "training": {**training, **settings}}}
    process = launching.Popen(
        [sys.executable, "-c", "import sys; from stoker.cli.one_seed import main; sys.exit(main())"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()
    for line in process.stdout:
        if json.loads(line).get("total_steps", 0) > 100:
            break
    stdout, stderr = process.communicate(timeout=DEADLINE_S)  # which closes its input
    assert (process.returncode, stderr) == (0, "")
    last = json.loads(stdout.splitlines()[-1])
    assert last["ended"] == "Interrupted"
    run = Path(last["run"])
    assert (run / f"checkpoints/step_{last['total_steps']}.pt").exists()
    assert json.loads((run / "config.json").read_bytes())["seed"] == 7


def test_a_sweep_makes_one_version_with_a_run_per_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/CartPole-v1/v1").mkdir(parents=True)
    flags = ("-n", "200", "--eval-freq", "100", *SMALL, "--json", "--no-progress")
    assert main(["train", "CartPole-v1", "--seeds", "0,3", "--jobs", "2", *flags]) == 0
    captured = capsys.readouterr()
    facts = json.loads(captured.out)
    version = tmp_path / "runs/CartPole-v1/v2"
    assert facts["version"] == str(version)
    assert [(run["seed"], run["state"], run["total_steps"]) for run in facts["runs"]] == [
        (0, "done", 200),
        (3, "done", 200),
    ]
    best = [run["best_eval_reward"] for run in facts["runs"]]
    assert facts["best_eval_reward"]["mean"] == pytest.approx(sum(best) / 2)
    configs = [json.loads((Path(run["run"]) / "config.json").read_bytes()) for run in facts["runs"]]
    assert [config.pop("seed") for config in configs] == [0, 3]
    assert configs[0] == configs[1]
    assert "Done: 2 seeds in 0:" in captured.err
    assert main(["resume", str(version)]) == 0
    assert capsys.readouterr().out == (
        "runs/CartPole-v1/v2: all 2 seeds are done; to continue: stoker resume runs/CartPole-v1/v2 -n 400\n"
    )
    for words, said in (
        (["--seeds", "3-4", "--run-version", "v2"], "version CartPole-v1/v2 has seed 3 already"),
        (["--seeds", "4", "--run-version", "v2", "--gamma", "0.5"], "other settings, there and here"),
    ):
        assert main(["train", "CartPole-v1", *flags, *words]) == 2
        assert said in capsys.readouterr().err
    assert len(list(version.iterdir())) == 5  # two runs, the sweep, its lock and lease


@pytest.mark.faults
def test_settings_that_no_seed_can_use_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "CartPole-v1", "--seeds", "0-4", "--device", "warp:9", "--no-progress"]) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("stoker: error: device 'warp:9' is not available here")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.faults
def test_a_killed_sweep_leaves_no_process_and_is_resumed(started: Any, stoker: Any, tmp_path: Path) -> None:
    process = started(
        *("train", "CartPole-v1", "--name", "pole", "--seeds", "0-2", "--jobs", "2", "-n", "100000000"),
        *(*SMALL, "--eval-freq", "0", "--checkpoint-freq", "200", "--no-progress"),
    )
    version, deadline = tmp_path / "runs/pole/v1", time.monotonic() + DEADLINE_S
    while len({path.parents[1] for path in version.glob("*/checkpoints/step_*.pt")}) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    began = [json.loads(path.read_bytes().splitlines()[0]) for path in version.glob("*/events.jsonl")]
    process.kill()
    process.communicate()
    for row in began:
        while Path(f"/proc/{row['details']['pid']}").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
    for path in version.glob("*/events.jsonl"):
        last = json.loads(path.read_bytes().splitlines()[-1])
        assert (last["kind"], last["details"]["how"]) == ("attempt_ended", "stopped")
    steps = max(json.loads(path.read_bytes())["total_steps"] for path in version.glob("*/metadata.json"))
    again = stoker("resume", "runs/pole", "-n", str(steps + 100), "--json")
    assert again.returncode == 0, again.stderr
    runs = json.loads(again.stdout)["runs"]
    assert [(run["seed"], run["total_steps"]) for run in runs] == [(s, steps + 100) for s in (0, 1, 2)]
    assert len(list(version.glob("*/metadata.json"))) == 3


@pytest.mark.faults
def test_a_second_signal_kills_all_at_once(started: Any, tmp_path: Path) -> None:
    process = started(
        *("train", "CartPole-v1", "--name", "pole", "--seeds", "0-1", "--jobs", "2", "-n", "100000000"),
        *(*SMALL, "--eval-freq", "0", "--no-progress"),
    )
    version, deadline = tmp_path / "runs/pole/v1", time.monotonic() + DEADLINE_S
    while len(found := [path for path in version.glob("*/events.jsonl") if path.stat().st_size]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    pids = [json.loads(path.read_bytes().splitlines()[0])["details"]["pid"] for path in found]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)  # neither saves nor ends
    process.send_signal(signal.SIGINT)
    for line in process.stderr:
        if "finishing: saving 2 trainings" in line:
            break
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "stoker: interrupted; resume: stoker resume runs/pole/v1"
    for pid in pids:
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0-4", (0, 1, 2, 3, 4)),
        ("0,3,7", (0, 3, 7)),
        ("7,0-1", (7, 0, 1)),
        ("42", (42,)),
        ("0-999", range(1000)),
    ],
)
def test_seeds_are_read_and_written(text: str, seeds: Any) -> None:
    assert seeds_from(text) == tuple(seeds)
    assert text_of(seeds) == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("4-0", "4-0 goes down: write 0-4"),
        ("0,3,3", "seed 3 is there twice"),
        ("0-3,2", "seed 2 is there twice"),
        ("0-9999", "10,000 seeds: give at most 1,000"),
        ("", "'' is neither a seed nor a range"),
        ("0,,1", "'' is neither"),
        ("-1", "'-1' is neither"),
        ("1.5", "'1.5' is neither"),
        ("٣", "'٣' is neither"),
    ],
)
def test_seeds_that_are_none_are_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)):
        seeds_from(text)


def test_the_live_table_shows_those_at_work_where_it_has_no_room_for_all() -> None:
    seeds = [SeedRun(seed, Order("train", {})) for seed in range(50)]
    seeds[30].state = "running"
    seeds[30].report = Report(total_steps=1500, limit=3000, steps_per_s=123.4, mean_reward=7.5)
    seeds[40].state = "failed"
    console = Console(width=110, height=10, record=True, force_terminal=True)
    with console.capture() as capture:
        console.print(drawn(seeds, console))
    head, *rows, summary = [line.split() for line in _plain(capture.get()).splitlines()]
    assert head == ["seed", "done", "steps", "steps/s", "ETA", "reward", "eval", "best", "state"]
    assert [row[0] for row in rows] == ["40", "30", "0", "1", "2", "3"]
    assert rows[1][-7:] == ["1,500/3,000", "123", "-", "7.5", "-", "-", "running"]
    assert " ".join(summary) == "50 seeds: 48 waiting, 1 running, 1 failed"


@pytest.mark.parametrize(
    ("width", "names"),
    [
        (40, "seed done reward state"),
        (60, "seed done ETA reward eval best state"),
        (92, "seed done steps steps/s ETA reward eval best state"),
    ],
)
def test_a_narrow_terminal_shows_whole_values_of_fewer_kinds(width: int, names: str) -> None:
    seed = SeedRun(7, Order("train", {}))
    seed.state = "running"
    values = {"mean_reward": -1234.5, "last_eval": -1200.0, "best": -1100.5}
    seed.report = Report(total_steps=1_234_567, limit=9_876_543, steps_per_s=1e3, eta_s=12345.0, **values)
    console = Console(width=width, height=10, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(drawn([seed], console))
    head, row, _ = capture.get().splitlines()
    shown = dict(zip(head.split(), row.split(), strict=True))
    assert " ".join(shown) == names
    assert {"7", "12%", "-1,234.5", "running"} <= {*shown.values()}
    assert "…" not in row


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_mean_over_seeds_has_the_interval_of_student() -> None:
    found = aggregate([1.0, None, 2.0, 3.0])
    assert found is not None
    assert (found.n, found.mean) == (3, 2.0)
    half = 4.302653 / 3**0.5  # the table's t of two degrees of freedom, for 97.5 %; the deviation is 1
    assert (found.low, found.high) == pytest.approx((2.0 - half, 2.0 + half), rel=1e-4)
    assert aggregate([None]) is None
