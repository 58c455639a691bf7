"""Agents, places and trackers through the command line: trained, resumed, scored, verified, replayed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SMALL = ("--num-envs", "4", "--learning-starts", "64", "--batch-size", "64", "--hidden-sizes", "16")
PPO = (
    "--agent", "ppo", "--rollout-steps", "128", "--batch-size", "64", "--n-epochs", "2",
    "--hidden-sizes", "16", "--opt-interval", "32",
)  # fmt: skip


def metrics_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def only_run(tmp_path: Path) -> Path:
    (run,) = (tmp_path / "runs").glob("*/*/*")
    return run


def test_ppo_from_training_to_replay(stoker: Any, command: Any, tmp_path: Path) -> None:
    flags = ["--num-envs", "3", "--eval-freq", "600", "--eval-episodes", "2", "--checkpoint-freq", "300"]
    done = stoker(
        "train", "Pendulum-v1", "-n", "700", *PPO, *flags, "--keep-journal", "all", "--record-freq", "200"
    )
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path)
    recorded = metrics_of(run)
    assert [row["total_steps"] for row in recorded if "train/n_updates" in row["metrics"]] == [200, 400, 600]
    assert {"train/policy_loss", "train/entropy", "train/approx_kl"} <= recorded[0]["metrics"].keys()
    assert any("eval/iqm_reward" in row["metrics"] for row in recorded)
    resumed = stoker("resume", str(run), "-n", "1000", "--json")
    assert json.loads(resumed.stdout)["total_steps"] == 1000
    for words in (["eval", str(run), "--episodes", "2"], ["verify", str(run)]):
        assert (answer := command(*words)).returncode == 0, answer.stdout + answer.stderr
    replayed = command("replay", str(run), "--verify")
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr


def test_continuous_actions_get_sac_where_no_agent_is_named(
    stoker: Any, command: Any, tmp_path: Path
) -> None:
    flags = ["--gradient-steps", "2", "--batch-size", "8", "--eval-freq", "0", "--checkpoint-freq", "100"]
    assert "training sac on Pendulum-v1" in stoker("train", "Pendulum-v1", "-n", "250", *SMALL, *flags).stderr
    run = only_run(tmp_path)
    assert json.loads((run / "config.json").read_text())["agent"] == "sac"
    assert stoker("resume", str(run), "-n", "400").returncode == 0
    for words in (["eval", str(run), "--episodes", "2"], ["replay", str(run), "--verify"]):
        assert (answer := command(*words)).returncode == 0, answer.stdout + answer.stderr


def test_a_replay_by_priority_is_rebuilt_from_the_journal(stoker: Any, command: Any, tmp_path: Path) -> None:
    # With a schedule that -n changes, what came before it would be replayed otherwise.
    flags = ["--prioritized", "--dueling", "--n-step", "3", "--checkpoint-freq", "200", "--eval-freq", "0"]
    flags += ["--learning-rate-schedule", "constant"]
    assert stoker("train", "CartPole-v1", "-n", "500", *SMALL, *flags).returncode == 0
    run = only_run(tmp_path)
    assert stoker("resume", str(run), "-n", "700").returncode == 0
    assert command("verify", str(run)).returncode == 0
    assert command("replay", str(run), "--verify").returncode == 0


@pytest.mark.parametrize("place", ["threads", "processes"])
def test_actors_elsewhere_bring_what_tasks_bring(
    stoker: Any, command: Any, tmp_path: Path, place: str
) -> None:
    flags = ["--actors", place, "--num-envs", "2", "--eval-freq", "0", "--record-freq", "200"]
    done = stoker("train", "CartPole-v1", "-n", "600", *SMALL[2:], *flags, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["total_steps"] == 600
    run = only_run(tmp_path)
    rows = [json.loads(line) for line in (run / "train_episodes.jsonl").read_text().splitlines()]
    assert {row["actor_id"] for row in rows} <= {0, 1}
    assert rows
    assert all("train/staleness_mean" in row["metrics"] for row in metrics_of(run))
    assert command("verify", str(run)).returncode == 0


def test_trackers_get_the_metrics_of_the_run(stoker: Any, command: Any, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    flags = ["--track", "tensorboard", "console", "--record-freq", "200", "--eval-freq", "0"]
    done = stoker("train", "CartPole-v1", "-n", "600", *SMALL, *flags)
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path)
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    for name in ("train/loss", "rollout/ep_rew_mean", "time/total_timesteps"):
        written = {event.step: event.value for event in events.Scalars(name)}
        logged = {row["total_steps"]: row["metrics"][name] for row in metrics_of(run)}
        assert written == pytest.approx(logged), name
    assert "ep_rew_mean" in done.stdout + done.stderr
    assert command("verify", str(run)).returncode == 0


def test_stacked_frames_are_scored_as_they_were_learned(stoker: Any, command: Any, tmp_path: Path) -> None:
    flags = ["--frame-stack", "3", "--eval-freq", "200", "--eval-episodes", "2"]
    done = stoker("train", "CartPole-v1", "-n", "300", *SMALL, *flags)
    assert done.returncode == 0, done.stderr
    assert command("eval", str(only_run(tmp_path)), "--episodes", "2").returncode == 0


def test_a_training_that_improves_no_more_says_so(stoker: Any) -> None:
    flags = ["--patience", "2", "--eval-freq", "50", "--eval-episodes", "1", "--learning-rate", "1e-12"]
    done = stoker("train", "CartPole-v1", "-n", "5000", *SMALL, *flags)
    assert done.returncode == 0, done.stderr
    assert "Ended early" in done.stdout
    assert "no evaluation of the last 2" in done.stdout
