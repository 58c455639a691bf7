"""The journal of a run as a data set: its transitions, put together as the episodes of each actor."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import msgspec

from stoker.data.assembling import Assembler
from stoker.data.dataset import DatasetInfo
from stoker.data.episodes import Episode
from stoker.data.inferring import inferred_spaces
from stoker.errors import CheckpointCorrupt, CheckpointNotFound, ConfigError, JournalBroken
from stoker.exits import Closing
from stoker.journal.columns import count_steps, read_blocks
from stoker.protocol import Spaces
from stoker.runs import TrainingRun
from stoker.runs.layout import CONFIG
from stoker.runs.metadata import read_json_if_there
from stoker.runs.wanted import load_wanted
from stoker.types import ActorId, AnyPath

_NO_SPACE = gymnasium.spaces.Box(-math.inf, math.inf, (0,))
"""Where no episode is wanted."""


class JournalDataset(Closing):
    """What a run learned from, as episodes in the order in which they ended. Blocks; the run is only read.

    Abandoned futures are left out, and so are the evaluations of remote actors. An episode that was still
    running, or of which only a part is wanted, has the status ``CONTINUING``; it has a seed only if it is
    there from its reset. Of a run in training, each ``episodes`` gives what was written when the data set was
    made.

    Args:
        run: the run, or its directory.
        from_step: the first transition that is wanted, counted from 0; None: the first that the journal has.
        to_step: the transition before which to stop; None: the end.
        actors: whose episodes are wanted; None: those of all.
        min_reward: episodes, or parts of such, with a smaller sum of rewards are left out.

    Attributes:
        info: what the run's config and checkpoints say of the environment.
        first_step: the first transition that the journal has: others may have been pruned.
        last_step: one past the last one that is read; None: the journal's end is damaged, which ``episodes``
            raises when it has given all before.

    Raises:
        RunNotFound, RunBroken: There is no run.
        ConfigError: The range holds no transition of the journal.
        JournalBroken: The run has no journal, or the transitions from ``from_step`` on are gone.
    """

    def __init__(
        self,
        run: TrainingRun | AnyPath,
        *,
        from_step: int | None = None,
        to_step: int | None = None,
        actors: Collection[ActorId] | None = None,
        min_reward: float | None = None,
    ) -> None:
        source = str(run.directory) if isinstance(run, TrainingRun) else str(run)
        self.run: TrainingRun = (
            run if isinstance(run, TrainingRun) else TrainingRun.find(Path(source.removeprefix("run:")))
        )
        self._journal = self.run.journal
        headers = self._journal.headers()
        if not headers:
            raise JournalBroken(
                self._journal.directory,
                "there are no transitions here: the run was trained without a journal, or has no step yet",
            )
        self.first_step: int = headers[0].total_steps
        there = count_steps(self._journal)
        self.last_step: int | None = there if to_step is None else to_step
        self._from_step = self.first_step if from_step is None else from_step
        self._check_range(there)
        before = [header for header in headers if header.total_steps < self._from_step]
        self._first_event = (before or headers)[-1 if before else 0].first_event
        self._actors = None if actors is None else frozenset(actors)
        self._min_reward = -math.inf if min_reward is None else min_reward
        self.n_dropped = 0
        self.info: DatasetInfo = self._info(source)

    def _check_range(self, there: int | None) -> None:
        start, stop = self._from_step, self.last_step
        if start < self.first_step:
            raise JournalBroken(
                self._journal.directory,
                f"from_step={start}: the journal begins at step {self.first_step}, the rest is pruned; "
                "begin there, or train with keep_journal='all'",
            )
        if there is not None and (start >= there or (stop is not None and stop > there)):
            name, value = ("from_step", start) if start >= there else ("to_step", stop)
            raise ConfigError(f"{name}={value}: the journal has the steps from {self.first_step} to {there}")
        if stop is not None and stop <= start:
            raise ConfigError(f"to_step={stop} is not beyond from_step={start}: nothing lies between them")

    def _info(self, source: str) -> DatasetInfo:
        config: Mapping[str, Any] = read_json_if_there(self.run.directory / CONFIG, dict[str, Any]) or {}
        spaces = _known_spaces(self.run, config)
        n_steps = None
        if self._actors is None and self._min_reward == -math.inf and self.last_step is not None:
            n_steps = self.last_step - self._from_step
        found = spaces or inferred_spaces(self._whole()) or (_NO_SPACE, _NO_SPACE)
        return DatasetInfo(
            source=source,
            format="journal",
            observation_space=found[0],
            action_space=found[1],
            spaces_are_inferred=spaces is None,
            env_id=str(config.get("env") or "") or None,
            n_steps=n_steps,
        )

    def episodes(self) -> Iterator[Episode]:
        """The episodes, each when its last transition was read, and those that are still running at the end.

        Raises:
            JournalBroken: An event is damaged or missing; raised when all before it has been given.
            RunBroken: The system refuses to read it.
        """
        return (episode for episode in self._unchecked() if episode.total_reward >= self._min_reward)

    def _whole(self) -> Iterator[Episode]:
        """The episodes before damage."""
        with contextlib.suppress(JournalBroken):
            yield from self._unchecked()

    def _unchecked(self) -> Iterator[Episode]:
        assembler = Assembler(self._actors)
        n_steps, damage = self._from_step, None
        try:
            for block in read_blocks(self._journal, self._first_event):
                stop = len(block.actors)
                if self.last_step is not None and block.first_step + stop >= self.last_step:
                    stop = self.last_step - block.first_step
                n_steps = block.first_step + stop
                wanted = block if stop == len(block.actors) else block.rows(stop)
                yield from assembler.episodes(wanted, max(0, self._from_step - block.first_step))
                if n_steps == self.last_step:
                    break
        except JournalBroken as error:
            damage = error
        yield from assembler.rest()
        if damage is not None:
            damage.add_note(f"the steps before {n_steps} are whole: to_step={n_steps} ends there")
            raise damage

    def close(self) -> None:
        """Nothing is held open between two calls."""


def _known_spaces(
    run: TrainingRun, config: Mapping[str, Any]
) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]] | None:
    """The spaces in the run's config or, of stoker's own agents, in its newest checkpoint."""
    if (given := config.get("spaces")) is not None:
        return msgspec.convert(given, Spaces).gymnasium()
    try:
        _, state = load_wanted(run, "latest")
        saved = state["agent"]["spaces"]
    except (CheckpointNotFound, CheckpointCorrupt, KeyError, TypeError):
        return None

    from stoker.agents.plain_spaces import space_from  # late, as it imports torch

    return space_from(saved["observation"], gymnasium.spaces), space_from(saved["action"], gymnasium.spaces)
