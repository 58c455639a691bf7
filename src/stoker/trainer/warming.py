"""Prior data for an agent: read from a data set, before its session opens.

Neither checkpoints nor the journal hold them: each process that trains, resumes or replays a run reads them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, cast

from anyio import from_thread, to_thread

from stoker.agents.prior import rows_of_share
from stoker.agents.protocol import LearningAgent, UsesPriorData, config_of
from stoker.data import Dataset, open_dataset
from stoker.errors import ConfigError, InvalidDataset, InvalidExperience
from stoker.session.tail import say_progress
from stoker.trainer.parts import GivenDataset, NamedDataset, Part, parts_of
from stoker.trainer.preparing import count_steps, has_form_of

_SHOWN_EVERY_S = 2.0


def check_warm(agent: LearningAgent, mix: float) -> UsesPriorData:
    """The agent, if it can use prior data with this share.

    Raises:
        ConfigError: It cannot.
    """
    if not isinstance(agent, UsesPriorData):
        raise ConfigError(
            f"warm_data: {type(agent).__name__} learns from what it plays alone: leave it out, or use an "
            "agent that has a replay"
        )
    rows_of_share(mix, getattr(config_of(agent), "batch_size", 1 << 62))
    return agent


def check_prior_spaces(agent: LearningAgent, data: NamedDataset, mix: float) -> None:
    """Look at prior data without reading them. Blocks.

    Raises:
        ConfigError: The agent cannot use prior data with this share, or not these: they are missing, damaged,
            or of other spaces.
    """
    able = check_warm(agent, mix)
    with _opened(data) as dataset:
        _check_spaces(able, dataset)


class WarmUp:
    """Gives an agent its prior data, once.

    Args:
        agent: without any yet.
        data: the data.
        mix: their share of each batch.

    Raises:
        ConfigError: The agent cannot use prior data with this share.
    """

    def __init__(self, agent: LearningAgent, data: GivenDataset, mix: float) -> None:
        check_warm(agent, mix)
        self._read = partial(warmed_up, agent, data, mix, check=from_thread.check_cancelled)
        self._is_done = False

    async def run(self) -> None:
        """Read the data in a thread; a cancelled call stops at the next part of them.

        Raises:
            ConfigError: As ``warmed_up``.
        """
        if not self._is_done:
            await to_thread.run_sync(self._read)
            self._is_done = True


def warmed_up(
    agent: LearningAgent, data: GivenDataset, mix: float, *, check: Callable[[], object] = lambda: None
) -> None:
    """Give an agent its prior data. Blocks; progress is logged as that of resumes is.

    Args:
        agent: without any yet.
        data: the data.
        mix: their share of each batch.
        check: called now and then; what it raises ends the reading.

    Raises:
        ConfigError: The agent cannot use prior data, or not these: they are missing, damaged, empty, or of
            other spaces.
    """
    able = check_warm(agent, mix)
    with ExitStack() as ending:
        if isinstance(data, str | Path):
            data = NamedDataset(data)
        if isinstance(data, NamedDataset):
            data = ending.enter_context(_opened(data))
        if isinstance(data, Dataset):
            _check_spaces(able, data)
            n_steps = count_steps(data) if data.info.n_steps is None else data.info.n_steps
        elif isinstance(data, Mapping):
            data = cast("Mapping[str, Any]", data)
            n_steps = len(data.get("rewards", ()))
        else:
            data = list(data)
            n_steps = len(data)
        try:
            able.use_prior(_shown(parts_of(data), n_steps, check), n_steps, mix)
        except InvalidExperience as error:
            seen, acted = able.env_spaces
            raise ConfigError(
                f"the prior data do not fit the agent, which observes {seen} and acts in {acted}: {error}"
            ) from error
    if (prior := able.prior) is not None:
        say_progress(f"prior data: {prior.size:,} transitions, {mix:g} of each batch")


def _opened(data: NamedDataset) -> Dataset:
    try:
        return open_dataset(data.source, ends=data.ends)
    except InvalidDataset as error:
        way_out = "if the prior data have moved, say where they are with warm_data (--warm-data DATA)"
        raise ConfigError(f"{error}; {way_out}") from error


def _shown(parts: Iterable[Part], n_steps: int, check: Callable[[], object]) -> Iterator[Part]:
    """The parts; now and then a line says how many transitions came."""
    shown_at, count = time.monotonic(), 0
    for part in parts:
        check()
        count += len(part)
        if (now := time.monotonic()) - shown_at >= _SHOWN_EVERY_S:
            shown_at = now
            say_progress(f"  read {count:,} of {n_steps:,} prior transitions")
        yield part


def _check_spaces(agent: UsesPriorData, data: Dataset) -> None:
    """Refuse data of spaces of another form; bounds may differ, as each transition is checked."""
    given = data.info.observation_space, data.info.action_space
    for what, there, here in zip(("observations", "actions"), given, agent.env_spaces, strict=True):
        if not has_form_of(there, here):
            raise ConfigError(
                f"the prior data {data.info.source} have {what} of {there}, and the agent those of {here}: "
                "give data of the same environment, with the same wrappers"
            )
