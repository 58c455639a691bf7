"""The ends of episodes after a kill at the worst moment: each counts once, with what its last record told."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from served import Clock, ledger_of, record, send, serving, start

from stoker import EpisodeStatus, Experience, TrainingRun
from stoker.journal import EpisodeStarted
from stoker.protocol import ProtocolError
from stoker.service import Limits

pytestmark = pytest.mark.anyio

SEEN = np.zeros(2, np.float32)
EXTRAS = {"is_success": 1, "score": 0.1}


async def test_the_record_whose_end_a_kill_has_taken_is_next_again(tmp_path: Path) -> None:
    run = await TrainingRun.create("served", root=tmp_path)
    over = EpisodeStatus.TERMINATED
    async with serving(run) as (_, session):
        for actor in ("kept", "new", "gone"):  # as if the process had been killed between two events
            begun = EpisodeStarted(actor, None, 1, SEEN)
            await session.observe_events([begun, Experience(SEEN, 0, 2.0, SEEN, over, actor, seq=2)])
    clock = Clock()
    resumed = await TrainingRun.resume(tmp_path / "served")
    async with serving(resumed, clock=clock, limits=Limits(actor_timeout_s=60)) as (service, session):
        standing = (await service.actor("kept")).answer
        assert (standing.next, standing.durable) == (2, 1)
        with pytest.raises(ProtocolError, match="2 is next"):
            await send(service, start("kept", 3))
        last = record("kept", 2, reward=2.0, terminated=True, extras=EXTRAS)
        assert (await send(service, last, start("kept", 3), ack="durable")).durable == 3
        assert (await send(service, start("new", 2))).next == 3
        clock.now += 61
        await service.abandon_silent()
        assert (await service.actor("gone")).answer.next == 3
        await session.barrier()
        assert session.total_episodes == 3
    found = await resumed.read_train_episodes()
    assert [*found["actor_id"]] == ["kept", "new", "gone"]
    assert [*found["total_reward"]] == [2.0] * 3
    np.testing.assert_array_equal(found["extras.score"], [0.1, np.nan, np.nan])
    assert resumed.metadata.total_steps == 3
    ledger = ledger_of(resumed)
    assert ledger["kept"] == [1, 2, "ended", 3, "abandoned"]
    assert ledger["gone"] == [1, 2, "ended"]


async def test_a_score_that_a_kill_took_from_the_rows_is_written_once(tmp_path: Path) -> None:
    """The journal has the record, so no client sends it again: the row comes from the journal."""
    run = await TrainingRun.create("served", root=tmp_path / "run")
    rows = run.directory / "eval_episodes.jsonl"
    async with serving(run) as (service, session):
        for seq in (1, 3):
            began = start("npc", seq, learn=False, mode="exploit")
            last = record("npc", seq + 1, reward=2.0, mode="exploit", truncated=True, extras=EXTRAS)
            written = rows.read_bytes() if rows.exists() else b""
            await send(service, began, last, ack="durable")
        assert session.eval_report(10).n_episodes == 2
        image = shutil.copytree(run.directory, tmp_path / "image" / "served" / "now")
    (image / rows.name).write_bytes(written)
    for _ in range(2):
        resumed = await TrainingRun.resume(image)
        async with serving(resumed) as (service, session):
            assert (await service.actor("npc")).answer.next == 5
            assert session.eval_report(10).n_episodes == 0, "those of this process"
        found = await resumed.read_eval_episodes()
        assert [*found["total_reward"]] == [2.0, 2.0]
        assert [*found["extras.score"]] == [0.1, 0.1]
