"""The journal as columns: the same transitions, numbers and order as event by event."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stoker.journal import EpisodeEnded, EpisodeStarted, Journal, SegmentEncoder, SegmentHeader, segment_name
from stoker.journal.blocks import TransitionBlock
from stoker.journal.columns import read_blocks
from stoker.stats import EpisodeRecord
from stoker.types import EpisodeStatus, Experience

ON, TERMINATED = EpisodeStatus.CONTINUING, EpisodeStatus.TERMINATED
HEADER = SegmentHeader(attempt=1, first_event=0, total_steps=0, agent_type="DQN", opt_interval=1)


def step(action: Any = 0, actor_id: Any = 0, seen: float = 0.0, after: float = 0.0) -> Experience:
    return Experience(np.full(2, seen), action, float(seen), np.full(2, after), ON, actor_id)


def block_of(directory: Path, events: list[Any]) -> TransitionBlock:
    encoder = SegmentEncoder()
    (directory / segment_name(1, 0)).write_bytes(encoder.begin(HEADER) + encoder.encode_all(events))
    (block,) = read_blocks(Journal(directory, [(1, 0)]))
    return block


@pytest.mark.parametrize(
    "actions",
    [[0, 1, -1, 2, -2], [127, 128, 255, 256, 65_536, -129, 2**40], [2**63, 2**64 - 1], [-(2**63), 2**62]],
    ids=str,
)
def test_whole_numbers_of_any_size_are_what_they_were(tmp_path: Path, actions: list[int]) -> None:
    assert block_of(tmp_path, [step(action) for action in actions]).columns.actions.tolist() == actions


def test_transitions_that_are_stored_in_several_forms_keep_their_order(tmp_path: Path) -> None:
    """An observation is stored where an actor begins or jumps, and not where it goes on."""
    events = [
        step(0, "a", 0, 1), step(1, "a", 1, 2), step(2, 7, 2, 3), step(3, "a", 2, 4), step(4, 7, 9, 5),
        step(5, 7, 5, 6), step(6, "a", 4, 7),
    ]  # fmt: skip
    block = block_of(tmp_path, events)
    assert block.columns.actions.tolist() == list(range(7))
    assert block.columns.rewards.tolist() == [event.reward for event in events]
    assert [block.actor_ids[code] for code in block.actors] == [event.actor_id for event in events]
    assert block.is_new.tolist() == [True, False, True, False, True, False, False]
    assert block.observations.tolist() == [[0, 0], [2, 2], [9, 9]]


def test_a_block_is_cut_at_any_event(tmp_path: Path) -> None:
    end = EpisodeEnded(EpisodeRecord(1.0, 1, TERMINATED, {}), 0)
    events = [EpisodeStarted(0, 1), step(0), step(1), end, EpisodeStarted(0, 2), step(2), end]
    block = block_of(tmp_path, events)
    for n in range(len(events) + 1):
        cut = block.events(n)
        assert cut.n_events == n
        assert cut.columns.actions.tolist() == [e.action for e in events[:n] if isinstance(e, Experience)]
        assert [e for _, e in cut.others] == [e for e in events[:n] if not isinstance(e, Experience)]
