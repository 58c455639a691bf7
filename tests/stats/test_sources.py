from __future__ import annotations

from stoker.stats import EpisodeRecord, extra, length, total_reward
from stoker.types import EpisodeStatus


def test_sources_read_one_field() -> None:
    record = EpisodeRecord(7.5, 3, EpisodeStatus.TERMINATED, {"loss": 0.25})
    assert total_reward(record) == 7.5
    assert length(record) == 3
    assert extra("loss")(record) == 0.25
    assert extra("absent")(record) is None
