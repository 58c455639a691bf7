"""Actions of a fixed policy, and of the newest best one of a run."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from stoker import (
    DQN,
    ConfigError,
    DQNConfig,
    EpisodeStatus,
    Experience,
    TrainingRun,
    TrainingSession,
    export_policy,
    load_policy,
)
from stoker.policies.exported import policy_from_bytes
from stoker.protocol import Record, SpaceCodec, StepMessage
from stoker.service.fixed_policy import FixedPolicy
from stoker.service.holders import Holder
from stoker.service.limits import Limits
from stoker.service.policy_files import PolicyFiles
from stoker.service.steps import StepService
from stoker.writer import publish_checkpoint

pytestmark = pytest.mark.anyio
OBSERVATIONS = np.random.default_rng(0).normal(0, 1, (50, 4)).astype(np.float32)
QUICK = DQNConfig(learning_starts=4, batch_size=4, hidden_sizes=(8,), learning_rate=0.1)


@asynccontextmanager
async def training(tmp_path: Path, name: str = "live", n_actions: int = 3) -> AsyncGenerator[TrainingSession]:
    run = await TrainingRun.create(name, root=tmp_path)
    agent = DQN(Box(-1.0, 1.0, (4,)), Discrete(n_actions), QUICK, seed=0)
    async with TrainingSession(agent, run) as session:
        await improve(session, 1.0)
        yield session


async def improve(session: TrainingSession, value: float) -> None:
    """Learn something, and keep it as the best policy."""
    for k in range(20):
        seen = OBSERVATIONS[k], OBSERVATIONS[k + 1]
        step = Experience(seen[0], k % 2, float(k % 2) * value, seen[1], EpisodeStatus.CONTINUING)
        await session.observe(step)
    await session.barrier()
    assert await session.maybe_save_best(value)


async def actions_of(policy: FixedPolicy) -> list[Any]:
    decisions = await policy.decide_many([*OBSERVATIONS], ["a"] * len(OBSERVATIONS))
    assert {decision.policy_version for decision in decisions} == {policy.policy_version}
    return [decision.action for decision in decisions]


async def test_it_answers_what_the_policy_does(tmp_path: Path) -> None:
    async with training(tmp_path) as session:
        run = session.run
        assert run is not None
    await anyio.to_thread.run_sync(export_policy, run.directory, tmp_path / "policy", ("numpy",))
    wanted = load_policy(run.directory).act(OBSERVATIONS).tolist()
    for path in (run.directory, tmp_path / "policy", tmp_path / "policy" / "policy.npz"):
        async with FixedPolicy(path) as policy:
            assert await actions_of(policy) == wanted
            assert policy.spaces.gymnasium() == (Box(-1.0, 1.0, (4,)), Discrete(3))
            assert policy.policy_version == 17
            files = PolicyFiles(policy)
            file = await files.newest("numpy")
            assert policy_from_bytes(file.content, "numpy").act(OBSERVATIONS).tolist() == wanted
            files.close()


async def test_each_new_best_policy_of_a_run_is_taken_up(tmp_path: Path) -> None:
    async with training(tmp_path) as session, FixedPolicy(tmp_path / "live") as policy:
        assert session.run is not None
        first = policy.policy_version
        assert not await policy.refresh()
        await improve(session, 2.0)
        assert await policy.refresh()
        assert policy.policy_version > first
        assert await policy.next_policy(after=first) == policy.policy_version
        assert await actions_of(policy) == load_policy(session.run.directory).act(OBSERVATIONS).tolist()


async def test_the_watch_finds_a_new_policy_by_itself(tmp_path: Path) -> None:
    async with training(tmp_path) as session, FixedPolicy(tmp_path / "live", look_every_s=0.01) as policy:
        first = policy.policy_version
        await improve(session, 2.0)
        with anyio.fail_after(30):
            assert await policy.next_policy(after=first) > first


async def test_a_file_that_is_torn_missing_or_of_another_run_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rarely = 600.0  # so that it looks when it is told to
    async with training(tmp_path) as session, FixedPolicy(tmp_path / "live", look_every_s=rarely) as policy:
        assert session.run is not None
        before, version = await actions_of(policy), policy.policy_version
        best = session.run.best_checkpoint_path
        whole = best.read_bytes()

        best.write_bytes(whole[: len(whole) // 2])
        assert not await policy.refresh()
        assert not await policy.refresh()
        assert caplog.text.count("it does not end with a checksum") == 1, "told once"
        publish_checkpoint({"agent": {"agent": "dqn"}, "agent_type": "DQN"}, best)
        assert not await policy.refresh()
        assert "KeyError: 'spaces'" in caplog.text
        best.unlink()
        session.run.latest_checkpoint_path.unlink(missing_ok=True)
        assert not await policy.refresh()
        async with training(tmp_path, "other", n_actions=2) as other:
            assert other.run is not None
            best.write_bytes(other.run.best_checkpoint_path.read_bytes())
        assert not await policy.refresh()
        assert "other spaces: action.n is 3" in caplog.text
        assert (await actions_of(policy), policy.policy_version) == (before, version)

        await improve(session, 3.0)
        assert await policy.refresh()
        assert policy.swaps == {"refused": 3, "taken": 1}


async def test_observations_of_several_parts(tmp_path: Path) -> None:
    run = await TrainingRun.create("parts", root=tmp_path)
    space = Dict({"b": Box(-1.0, 1.0, (2,)), "a": Discrete(3)})
    async with TrainingSession(DQN(space, Discrete(2, start=5)), run):
        pass
    async with FixedPolicy(run.directory) as policy:
        [one] = await policy.decide_many([{"a": 1, "b": np.array([0.5, 0.5], np.float32)}], ["x"])
        assert one.action == load_policy(run.directory).act({"a": 1, "b": [0.5, 0.5]})


async def test_an_exported_policy_has_the_files_that_were_exported(tmp_path: Path) -> None:
    async with training(tmp_path):
        pass
    await anyio.to_thread.run_sync(export_policy, tmp_path / "live", tmp_path / "policy", ("numpy",))
    pinned = await FixedPolicy(tmp_path / "policy").pinned()
    with pytest.raises(ConfigError, match=r"has no policy.onnx: export the policy in this format"):
        pinned.export("onnx")


async def test_records_are_answered_and_counted_whatever_their_number(tmp_path: Path) -> None:
    """After a restart of the service an actor just goes on: a policy needs no past."""
    async with training(tmp_path):
        pass
    async with FixedPolicy(tmp_path / "live") as policy:
        codec = SpaceCodec(*policy.spaces.gymnasium())
        service = StepService(policy, codec, Limits(), has_disk=False, learns=policy.learns)
        wanted = load_policy(tmp_path / "live").act(OBSERVATIONS[:2]).tolist()
        steps = [
            Record("a", 41, OBSERVATIONS[0].tolist(), reward=1.0),
            Record("b", 1, OBSERVATIONS[1].tolist(), start=True),
        ]
        answer = await service.step(StepMessage(steps), Holder("test"))
        assert [answer.actors[name].action for name in "ab"] == wanted
        assert [answer.actors[name].next for name in "ab"] == [42, 2]
        assert [answer.actors[name].durable for name in "ab"] == [41, 1]
        assert answer.training == "off"
        last = Record("b", 2, OBSERVATIONS[2].tolist(), reward=1.0, terminated=True)
        ended = await service.step(StepMessage([last]), Holder("test"))
        assert ended.actors["b"].action is None
        assert policy.total_episodes == 1
