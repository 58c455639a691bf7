"""The best evaluated policies of a run. Blocks.

    checkpoints/best.pt           the very best
                best_<step>.pt    with more than one kept: each of them; best.pt is a second name of the first

The value of a policy is read from its file, which a crash cannot leave out of step with its weights.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import stoker.runs.layout as layout
from stoker.errors import CheckpointCorrupt, CheckpointNotFound
from stoker.writer import files, load_checkpoint, publish_checkpoint

_logger = logging.getLogger("stoker.runs")
Score = tuple[float, int]


class Bests:
    """The files of the best policies in one directory.

    Args:
        directory: their directory; it need not exist.
        may_write: whether this process has the run locked; a reader sets nothing aside.
    """

    def __init__(self, directory: Path, may_write: Callable[[], bool]) -> None:
        self.directory = directory
        self.path: Path = directory / layout.BEST
        """``best.pt``."""
        self._may_write = may_write
        self._values: dict[int, float] | None = None  # by step, once they have been read

    def scores(self) -> list[Score]:
        """Value and step of each, the best first; equal values by step."""
        return _ranked(self._read())

    def publish(self, staged: Mapping[str, Any], keep: int) -> None:
        """Write the staged weights of an evaluated policy, if it is one of the best ``keep``.

        Raises:
            WriteFailed: The disk refused; if it refused the weights, nothing was removed.
        """
        value, step = best_of(self.path, staged)
        values = self._read()
        kept = {step: value for value, step in _ranked({**values, step: value})[:keep]}
        if step not in kept or values.get(step, -math.inf) >= value:
            return
        if keep == 1:
            publish_checkpoint(staged, self.path)
        else:
            top = next((step for _, step in _ranked(values)), None)
            if top in kept and self._named(top).name not in files.files_in(self.directory):
                files.link_atomically(self.path, self._named(top))  # before another file takes its name
            publish_checkpoint(staged, self._named(step))
            files.link_atomically(self._named(next(iter(kept))), self.path)
        self._values = kept
        there = layout.steps_of(files.files_in(self.directory), "best")
        files.remove_all(self._named(other) for other in there if keep == 1 or other not in kept)

    def relink(self) -> None:
        """Make ``best.pt`` the best again, if a kill has left it one behind. Reads the files again."""
        self._values = None
        for _, step in self.scores()[:1]:
            if self._named(step).name in files.files_in(self.directory):
                files.link_atomically(self._named(step), self.path)

    def _named(self, step: int) -> Path:
        return self.directory / layout.checkpoint_name(step, "best")

    def _read(self) -> dict[int, float]:
        """The values by step; a file that does not load is logged and, under the run's lock, set aside."""
        if self._values is None:
            found = best_files(self.directory, self._set_aside)
            self._values = {step: value for _, (value, step), _ in found}
        return self._values

    def _set_aside(self, error: CheckpointCorrupt) -> None:
        if not self._may_write():
            _logger.warning("%s; passed over", error)
            return
        aside = files.move_aside(Path(error.path), ".broken")
        _logger.warning("%s; set aside as %s", error, aside.name)


def best_files(
    directory: Path, on_damage: Callable[[CheckpointCorrupt], object]
) -> Iterator[tuple[Path, Score, dict[str, Any]]]:
    """The best policies in a directory, with score and content; ``on_damage`` gets the errors."""
    for name in best_names(files.files_in(directory)):
        path = directory / name
        try:
            state = load_checkpoint(path)
            score = best_of(path, state)
        except CheckpointNotFound:  # replaced since
            continue
        except CheckpointCorrupt as error:
            on_damage(error)
            continue
        yield path, score, state


def best_names(names: Collection[str]) -> list[str]:
    """Those of the names that are of best policies; ``best.pt`` comes last."""
    numbered = [layout.checkpoint_name(step, "best") for step in layout.steps_of(names, "best")]
    return [*numbered, *(name for name in names if name == layout.BEST)]


def best_of(path: Path, state: Mapping[str, Any]) -> Score:
    """The value of a best checkpoint's policy, and its step.

    Raises:
        CheckpointCorrupt: It is another kind of checkpoint.
    """
    try:
        best = state["best"]
        return float(best["value"]), int(best["total_steps"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointCorrupt(path, "it does not hold an evaluated policy") from error


def _ranked(values: Mapping[int, float]) -> list[Score]:
    return sorted(((value, step) for step, value in values.items()), key=lambda score: (-score[0], score[1]))
