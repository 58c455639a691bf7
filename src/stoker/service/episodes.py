"""Whole episodes that were played elsewhere: each is a stream of its own, whose records come at once.

So an episode is idempotent by its id, also over a restart, and one that a kill has cut is completed when it
is sent again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from stoker.protocol import EpisodeMessage, ProtocolError, Record


def episode_records(message: EpisodeMessage, actor: str) -> list[Record]:
    """The records of an episode, as an actor of this name sends them.

    Raises:
        ProtocolError: 422, its columns do not fit together, or it has no end.
    """
    n_steps = len(message.actions)
    _check_length("rewards", message.rewards, n_steps, "one of each action")
    _check_length("observations", message.observations, n_steps + 1, "one more than there are actions")
    masks, memos = message.action_masks, message.memos
    if masks is not None:
        _check_length("action_masks", masks, n_steps + 1, "one of each observation")
    if memos is not None:
        _check_length("memos", memos, n_steps, "one of each action")
    if not (message.terminated or message.truncated):
        detail = "an episode has an end: say `terminated`, or `truncated` if it was cut off"
        raise ProtocolError("invalid", detail, path="terminated")
    return [
        Record(
            actor,
            at + 1,
            observation,
            start=at == 0,
            action=message.actions[at - 1] if at else None,
            memo=memos[at - 1] if at and memos is not None else None,
            reward=message.rewards[at - 1] if at else None,
            action_mask=None if masks is None else masks[at],
            act=False,
            seed=None if at else message.seed,
            terminated=message.terminated and at == n_steps,
            truncated=message.truncated and at == n_steps,
            extras=message.extras if at == n_steps else {},
        )
        for at, observation in enumerate(message.observations)
    ]


def episode_error(error: ProtocolError) -> ProtocolError:
    """The error about one of these records, with the path that the field has in the episode."""
    found = None if error.path is None else re.fullmatch(r"steps\[(\d+)\]\.(\w+)(.*)", error.path)
    if found is None:
        return error
    at, field, rest = int(found[1]), found[2], found[3]
    columns = {"observation": ("observations", at), "action_mask": ("action_masks", at)} | {
        field: (f"{field}s", at - 1) for field in ("action", "reward", "memo")
    }
    column, row = columns.get(field, (field, None))
    path = f"{column}{rest}" if row is None else f"{column}[{row}]{rest}"
    return ProtocolError(error.kind, error.detail, path=path, retry_after=error.retry_after)


def _check_length(name: str, column: Sequence[Any], n_rows: int, rule: str) -> None:
    if len(column) != n_rows:
        raise ProtocolError("invalid", f"it has {len(column)} values and needs {n_rows}: {rule}", path=name)
