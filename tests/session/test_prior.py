"""Runs that learn with prior data: exact when interrupted, replayed and forked, and never with other data."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import anyio
import pytest
from training_parts import bits, dqn, feed, transition, unequal

from stoker import DQN, ConfigError, SessionFailed, TrainingRun, TrainingSession
from stoker.runs import fork
from stoker.session.replaying import replay_run

pytestmark = pytest.mark.anyio
ASYNCIO = pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio")
KEPT: dict[str, Any] = {"keep_journal": "all", "checkpoint_freq": 30, "keep_checkpoints": None}
PRIOR = [transition(k) for k in range(1000, 1040)]


@pytest.fixture(params=[ASYNCIO])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Prior data are used in the learner's thread: one event loop is enough."""
    return request.param


def warm(seed: int = 3, n: int = 40, share: float = 0.5, **settings: Any) -> DQN:
    agent = dqn(seed, **settings)
    agent.use_prior([PRIOR[:n]], n, share)
    return agent


async def train(run: TrainingRun, agent: DQN, first: int, last: int, **settings: Any) -> DQN:
    async with TrainingSession(agent, run, **{**KEPT, **settings}) as session:
        await feed(session, first, last)
    return agent


@pytest.mark.parametrize(
    "settings", [{}, {"prioritized": True, "clip_rewards": 0.5, "normalize_observations": True}]
)
async def test_a_training_in_pieces_equals_one_in_one_go_and_its_replay(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    whole = await train(await TrainingRun.create("whole", root=tmp_path), warm(**settings), 0, 130)
    run = await TrainingRun.create("pieces", root=tmp_path)
    await train(run, warm(**settings), 0, 77)
    run = await TrainingRun.resume(run.directory)
    pieces = await train(run, warm(seed=8, **settings), 77, 130)
    assert list(unequal(bits(pieces), bits(whole))) == []
    again = warm(**settings)
    replayed = replay_run(await TrainingRun.open(run.directory), again)
    assert [one.differences for one in replayed.comparisons] == [()] * len(replayed.comparisons) != []
    assert list(unequal(bits(again), bits(whole))) == []


async def test_a_tail_of_other_settings_is_learned_with_the_prior_data(tmp_path: Path) -> None:
    """Of a run that was killed before its first checkpoint."""
    ended: list[DQN] = []
    for is_killed in (True, False):
        run = await TrainingRun.create("r", f"v{is_killed}", root=tmp_path)
        with pytest.raises(SessionFailed) if is_killed else contextlib.nullcontext():
            async with TrainingSession(warm(learning_rate=1e-2), run, **KEPT, save_interval=0) as session:
                await feed(session, 0, 25)
                await session.flush()
                if is_killed:
                    session.fail("the test", OSError("as a kill would end it"))
                    await anyio.sleep_forever()
        run = await TrainingRun.resume(run.directory)
        ended.append(await train(run, warm(learning_rate=1e-4, batch_size=6), 25, 60))
    assert list(unequal(bits(ended[0]), bits(ended[1]))) == []


OTHERS: dict[str, Any] = {
    "none": (dqn, "the run learns with prior data, which are not given .*--warm-data DATA"),
    "fewer": (lambda: warm(n=39), "other prior data than the run's: here 39 transitions .*, there 40"),
    "mix": (lambda: warm(share=0.25), r"at mix=0\.25, there .* at mix=0\.5; give the run's own"),
}


@pytest.mark.parametrize(
    ("other", "has_checkpoint"),
    [("none", True), ("fewer", True), ("mix", True), ("none", False), ("fewer", False)],
)
async def test_a_run_has_the_same_prior_data_in_all_attempts(
    tmp_path: Path, other: str, has_checkpoint: bool
) -> None:
    make, message = OTHERS[other]
    run = await TrainingRun.create("r", root=tmp_path)
    await train(run, warm(), 0, 40, **({} if has_checkpoint else {"checkpoint_freq": 0}))
    if not has_checkpoint:
        for path in run.checkpoints_directory.iterdir():
            path.unlink()
    with pytest.raises(ConfigError, match=message):
        await train(await TrainingRun.resume(run.directory), make(), 40, 50)
    with pytest.raises(ConfigError, match=message):
        replay_run(await TrainingRun.open(run.directory), make())
    resumed = await train(await TrainingRun.resume(run.directory), warm(), 40, 50)  # nothing was changed
    assert resumed.total_steps == 50


async def test_a_run_that_began_without_prior_data_gets_none(tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    await train(run, dqn(), 0, 40)
    with pytest.raises(ConfigError, match="the run was begun without prior data: leave them out, or"):
        await train(await TrainingRun.resume(run.directory), warm(), 40, 50)


async def test_a_fork_goes_on_with_the_prior_data(tmp_path: Path) -> None:
    run = await TrainingRun.create("r", root=tmp_path)
    whole = await train(run, warm(), 0, 90)
    forked = await fork(await TrainingRun.open(run.directory), 60, "f", root=tmp_path)
    with pytest.raises(ConfigError, match="are not given"):
        await train(await TrainingRun.resume(forked.directory), dqn(), 60, 90)
    found = await train(await TrainingRun.resume(forked.directory), warm(seed=8), 60, 90)
    assert list(unequal(bits(found), bits(whole))) == []
