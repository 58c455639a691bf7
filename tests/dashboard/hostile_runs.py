"""A runs directory in which every text that a file can hold is hostile: names, settings, columns, events."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.made_runs import BEGAN, MadeRun
from hostile_texts import MARKUP, STRINGS, fits_a_file_name, is_encodable

from stoker.runs.events import ActorRestarted, Logged, PartStalled
from stoker.runs.rows import ROW_FILES, EvalEpisodeRow, MetricsRow, TrainEpisodeRow
from stoker.types import EpisodeStatus
from stoker.writer import encode_rows

TEXTS = tuple(filter(is_encodable, STRINGS))
FEW = tuple(dict.fromkeys((*filter(is_encodable, MARKUP), *TEXTS[::6])))


def make_hostile_runs(root: Path, texts: Sequence[str] = TEXTS) -> list[str]:
    """Make a run of each name that a file can have, and one, ``loud``, in which all other texts are hostile.

    Returns:
        The names of all but that one.
    """
    names = [text for text in texts if fits_a_file_name(text)]
    for name in names:
        run = MadeRun(root, name, config={"env": name, "agent": name, "total_timesteps": 1000, "seed": 1})
        run.grow(3)
        run.end()
    settings = {text: text for text in texts}
    loud = MadeRun(
        root, "loud", config={"env": "E", "agent": "A", "agent_settings": settings, "text": list(texts)}
    )
    train = [
        TrainEpisodeRow(
            total_reward=float(number),
            length=1,
            status=EpisodeStatus.TERMINATED,
            extras={text: float(number)},
            total_steps=number,
            episode=number,
            actor_id=text,
            time=BEGAN,
        )
        for number, text in enumerate(texts, 1)
    ]
    evaluation = [
        EvalEpisodeRow(
            total_steps_at_eval=len(texts),
            total_reward=1.0,
            length=1,
            status=EpisodeStatus.TERMINATED,
            extras={text: 1.0},
            time=BEGAN,
        )
        for text in texts
    ]
    metrics = [
        MetricsRow(total_steps=number, metrics={text: float(number), f"train/{text}": text}, time=BEGAN)
        for number, text in enumerate(texts, 1)
    ]
    for row_type, rows in ((TrainEpisodeRow, train), (EvalEpisodeRow, evaluation), (MetricsRow, metrics)):
        (loud.directory / ROW_FILES[row_type]).write_bytes(encode_rows(rows))
    for text in texts:
        loud.add_event(ActorRestarted(actor_id=text, error=text, restarts=1))
        loud.add_event(PartStalled(part=text, doing=text, still_s=1.0))
        loud.add_event(Logged(level="warning", source=text, text=text, traceback=text))
    loud.end("failed", part=texts[0], error=texts[1], text=texts[2], traceback="\n".join(texts[:20]))
    return names


def broken_run(root: Path, text: str) -> None:
    """Make a run whose metadata is of wrong types."""
    directory = root / "broken" / "v1" / "20260101_000000"
    (directory / "checkpoints").mkdir(parents=True)
    (directory / "metadata.json").write_text(json.dumps({"name": text, "attempts": text}))
