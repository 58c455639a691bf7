"""Sessions of a group begin, commit, resume and end together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from group_parts import N_RED, agents, hand_over, team_of, transition

from stoker import TrainingRun
from stoker.cli.main import main
from stoker.dashboard.finding import Finder
from stoker.errors import ConfigError, RunLocked, SessionFailed
from stoker.multi import MultiAgentSession
from stoker.runs import TrainingGroup, list_runs
from stoker.runs.verifying import verify_run
from stoker.testing import FakeAgent

pytestmark = pytest.mark.anyio


async def group_at(root: Path) -> TrainingGroup:
    if not list(root.glob("*/*/*/group.json")):  # noqa: ASYNC240 - nothing else runs
        return await TrainingGroup.create("tag", policies=["red", "blue"], root=root)
    return await TrainingGroup.resume(root / "tag")


async def play(root: Path, until: int, **settings: Any) -> MultiAgentSession:
    """Resume, and hand over joint steps up to one."""
    group = MultiAgentSession(agents(), team_of, await group_at(root), **settings)
    async with group:
        for k in range(group.joint_steps, until):
            await hand_over(group, k)
    return group


def stands_at(root: Path, joint_steps: int) -> None:
    (path,) = root.glob("*/*/*/group.json")
    committed = json.loads(path.read_text())
    assert committed["joint_steps"] == joint_steps
    steps = {name: position["steps"] for name, position in committed["policies"].items()}
    assert steps == {"red": N_RED * joint_steps, "blue": joint_steps}


def problems_of(root: Path) -> list[str]:
    runs = [TrainingRun.find(path.parent) for path in root.glob("*/*/*/*/metadata.json")]
    assert len(runs) == 2
    return [found.text for run in runs for found in verify_run(run) if found.kind == "damaged"]


async def test_the_policies_have_a_run_each_and_end_at_one_joint_step(tmp_path: Path) -> None:
    group = await play(tmp_path, 50, max_joint_steps=33, checkpoint_freq=10)
    assert group.joint_steps == 33
    stands_at(tmp_path, 33)
    runs = await list_runs(tmp_path)
    assert [run.metadata.version for run in runs if isinstance(run, TrainingRun)] == ["v1/blue", "v1/red"]
    blue, red = (run for run in runs if isinstance(run, TrainingRun))
    assert blue.checkpoint_steps() == [20, 30, 33]
    assert red.checkpoint_steps() == [40, 60, 66]
    assert problems_of(tmp_path) == []


async def test_a_resume_goes_on_from_the_last_commit_in_every_run(tmp_path: Path) -> None:
    await play(tmp_path, 25)
    (path,) = tmp_path.glob("*/*/*/group.json")  # noqa: ASYNC240 - nothing else runs
    before = path.read_bytes()
    await play(tmp_path, 60)
    path.write_bytes(before)  # as if a kill had come before the later commits, which took all checkpoints
    for run in path.parent.glob("*/checkpoints/*.pt"):
        if int("".join(filter(str.isdigit, run.name)) or 0) not in (25, 50):
            run.unlink()
    group = MultiAgentSession(agents(), team_of, await group_at(tmp_path))
    async with group:
        assert group.joint_steps == 25
        assert {name: session.total_steps for name, session in group.sessions.items()} == {
            "red": 50,
            "blue": 25,
        }
        for k in range(25, 40):
            await hand_over(group, k)
    stands_at(tmp_path, 40)
    assert problems_of(tmp_path) == []
    assert group.group is not None
    rows = await group.group.runs["red"].read_train_episodes()
    assert rows["episode"].tolist() == list(range(1, len(rows["episode"]) + 1))
    assert rows["total_steps"].max() <= 80


async def test_what_is_behind_the_commit_is_abandoned_without_any_checkpoint(tmp_path: Path) -> None:
    group = MultiAgentSession(agents(), team_of, await group_at(tmp_path), flush_interval_s=1000.0)
    with pytest.raises(ZeroDivisionError):
        async with group:
            for k in range(5):
                await hand_over(group, k)
            await group.commit()
            for k in range(5, 9):
                await hand_over(group, k)
            await group.sessions["red"].observe(transition("red_0", 9))  # half of a joint step
            raise ZeroDivisionError
    stands_at(tmp_path, 5)
    await play(tmp_path, 12)
    stands_at(tmp_path, 12)
    assert problems_of(tmp_path) == []


async def test_one_that_fails_takes_the_others_down(tmp_path: Path) -> None:
    both = {"red": FakeAgent(), "blue": FakeAgent(fail_at=4)}
    group = MultiAgentSession(both, team_of, await group_at(tmp_path))
    with pytest.raises(SessionFailed, match="the agent failed: RuntimeError: failed at 4 steps"):
        async with group:
            for k in range(1000):
                await hand_over(group, k)
    assert group.group is not None
    events = await group.group.runs["red"].read_events()
    assert events[-1].kind == "attempt_ended"
    assert events[-1].details["part"] == "policy 'blue' of its group"
    await play(tmp_path, 3)  # other agents, from the last commit on


async def test_a_cancelled_task_leaves_a_whole_joint_step(tmp_path: Path) -> None:
    group = MultiAgentSession(agents(), team_of, await group_at(tmp_path))
    with anyio.CancelScope() as scope:
        async with group:
            for k in range(1000):
                if k == 11:
                    scope.cancel()
                await hand_over(group, k)
    stands_at(tmp_path, group.joint_steps)
    assert problems_of(tmp_path) == []


def test_commands_and_the_dashboard_find_the_run_of_each_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    anyio.run(play, tmp_path, 8)
    group = TrainingGroup.find(tmp_path).directory

    def said(*words: str) -> str:
        assert main(words) == 0
        return capsys.readouterr().out

    listed = [json.loads(line) for line in said("ls", str(tmp_path), "--json").splitlines()]
    assert {(run["version"], run["total_steps"]) for run in listed} == {("v1/red", 16), ("v1/blue", 8)}
    for path in (str(group), str(tmp_path / "tag")):
        shown = [json.loads(line)["run"] for line in said("show", path, "--json").splitlines()]
        assert shown == [str(group / "blue"), str(group / "red")]
    assert [line.endswith(": whole") for line in said("verify", str(group)).splitlines()].count(True) == 2
    assert main(["eval", str(group)]) == 2
    assert "several policies (blue, red): name one, such as" in capsys.readouterr().err
    finder = Finder(tmp_path)
    finder.find_all()
    assert sorted(finder.runs.values()) == [group / "blue", group / "red"]


async def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    group = await group_at(tmp_path)
    with pytest.raises(ConfigError, match="max_joint_steps"):
        MultiAgentSession(agents(), team_of, group, max_steps=5)
    with pytest.raises(ConfigError, match=r"is of \['blue', 'red'\]"):
        MultiAgentSession({"red": FakeAgent()}, team_of, group)
    with pytest.raises(ConfigError, match="cannot name a directory"):
        await TrainingGroup.create("tag", policies=["a/b"], root=tmp_path)
    async with MultiAgentSession(agents(), team_of, group):
        with pytest.raises(RunLocked):
            async with MultiAgentSession(agents(), team_of, await group_at(tmp_path)):
                pass
