"""``stoker data export``, ``import`` and ``describe``: data sets of runs, and those of others.

Blocking work is done in a thread; Ctrl-C ends it at the next episode, and a half-written data set goes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from anyio import from_thread, to_thread
from rich.filesize import decimal as size

from stoker.cli.bars import StepBar
from stoker.cli.options import Flag
from stoker.cli.parsing import ReportCommand, RunCommand
from stoker.cli.printing import from_here, say_json
from stoker.errors import ConfigError
from stoker.settings import Natural
from stoker.trainer.views.text import number

if TYPE_CHECKING:
    from stoker.data import Dataset, DatasetFormat, Episode, WrittenDataset

T = TypeVar("T")

_UNWINDING_S = 10.0
"""How long an interrupted command waits for its thread to remove what is half written."""

Format: TypeAlias = Literal["minari", "parquet", "npz"]


class ExportData(RunCommand, frozen=True, kw_only=True):
    """Write what a run learned from as a data set: the episodes in its journal, bit for bit.

    Terminated and truncated episodes are told apart, final observations are the real ones, and seeds and the
    version of the policy of each step are kept. Abandoned futures are left out. The run is only read: it may
    be training.
    """

    out: Annotated[str, Flag(short="-o", metavar="PATH", missing="where to write, as in -o data/cartpole")]
    """A new directory for minari, a new file for parquet and npz."""

    format: Format = "minari"
    """What to write: minari for Minari and d3rlpy, parquet for data frames, npz for numpy alone."""

    from_step: Annotated[Natural | None, Flag(metavar="STEP", default="default: the journal's first")] = None
    """The first environment step that is wanted."""

    to_step: Annotated[Natural | None, Flag(metavar="STEP", default="default: the journal's end")] = None
    """The environment step to stop before."""

    actors: Annotated[tuple[str, ...], Flag(metavar="ID [ID ...]", default="default: all")] = ()
    """Whose episodes to take."""

    min_reward: Annotated[float | None, Flag(metavar="FLOAT", default="default: all episodes")] = None
    """Leave out episodes with a smaller sum of rewards."""

    progress: bool = True
    """Show progress: a bar on a terminal, else a line now and then."""

    async def __call__(self) -> int:
        from stoker.cli.stored import open_run

        run = await open_run(self.run)

        def open_journal() -> Any:
            from stoker.data import JournalDataset

            actors = {each for word in self.actors for each in _ids_of(word)} or None
            return JournalDataset(
                run, from_step=self.from_step, to_step=self.to_step, actors=actors, min_reward=self.min_reward
            )

        if self.min_reward is not None and self.min_reward != self.min_reward:
            raise ConfigError("--min-reward nan: give a number")
        dataset = await to_thread.run_sync(open_journal)
        written = await write_watched(dataset, self.out, self.format, "exported", progress=self.progress)
        _say_written(written, str(run.directory), as_json=self.json)
        if not self.json and self.from_step is None and dataset.first_step:
            print(f"the journal begins at step {number(dataset.first_step)}: what was before is pruned")
        return 0


class _DataCommand(ReportCommand, frozen=True, kw_only=True):
    """A command about a data set."""

    source: Annotated[
        str,
        Flag(
            metavar="SOURCE",
            missing="a data set, such as `stoker {command} d4rl.hdf5`, or a run",
            is_positional=True,
        ),
    ]
    """A directory in Minari's layout, an .hdf5, .parquet or .npz file, or the directory of a run."""

    ends: Annotated[
        Literal["terminal", "timeout"] | None,
        Flag(metavar="{terminal,timeout}", default="default: as the data say"),
    ] = None
    """What the ends of episodes mean, where a data set has only one kind of them."""

    progress: bool = True
    """Show progress: a bar on a terminal, else a line now and then."""


class ImportData(_DataCommand, frozen=True, kw_only=True):
    """Read a data set of Minari, D4RL, Parquet or npz, check every value, and write it in Minari's layout.

    Nothing in it is unpickled. A value that is not finite, or is outside of its space, is refused with its
    episode and step.
    """

    out: Annotated[str, Flag(short="-o", metavar="PATH", missing="where to write, as in -o data/hopper")]
    """A new directory for minari, a new file for parquet and npz."""

    format: Format = "minari"
    """What to write."""

    async def __call__(self) -> int:
        from stoker.data import open_dataset

        dataset = await to_thread.run_sync(lambda: open_dataset(self.source, ends=self.ends))
        with dataset:
            written = await write_watched(dataset, self.out, self.format, "imported", progress=self.progress)
            _say_written(written, self.source, as_json=self.json)
            if not self.json and dataset.n_dropped:
                print(f"left out {number(dataset.n_dropped)} steps without a next observation")
        return 0


class DescribeData(_DataCommand, frozen=True, kw_only=True):
    """Say what is in a data set or in the journal of a run: counts, returns, ends, bad values, variety."""

    async def __call__(self) -> int:
        from stoker.data import describe, open_dataset

        dataset = await to_thread.run_sync(lambda: open_dataset(self.source, ends=self.ends, check=False))
        with dataset, StepBar("read", dataset.info.n_steps, shown=self.progress) as bar:
            report = await to_thread.run_sync(lambda: describe(dataset, watch=bar.show))
        if self.json:
            say_json(msgspec.structs.asdict(report))
        else:
            from stoker.cli.data_views import say_report

            say_report(report)
        return 0


def _ids_of(word: str) -> tuple[int | str, ...]:
    """The actor ids that a word may mean: ``3`` is a number or a text."""
    return (int(word), word) if word.isdecimal() else (word,)


class _Interrupted(BaseException):
    """Ends the work in a thread."""


async def _with_check(work: Callable[[Callable[[], None]], T]) -> T:
    """Do work in a thread; its argument raises there when the command is interrupted, and is waited for."""
    is_interrupted, has_ended = threading.Event(), threading.Event()
    has_ended.set()

    def check() -> None:
        from_thread.check_cancelled()
        if is_interrupted.is_set():
            raise _Interrupted

    def run() -> T:
        has_ended.clear()
        try:
            return work(check)
        finally:
            has_ended.set()

    try:
        return await to_thread.run_sync(run)
    except BaseException:
        # Not awaited: what asyncio cancels at Ctrl-C does not wait for threads.
        is_interrupted.set()
        has_ended.wait(_UNWINDING_S)
        raise


def _interruptible(episodes: Iterable[Episode], check: Callable[[], None]) -> Iterator[Episode]:
    for episode in episodes:
        check()
        yield episode


async def write_watched(
    dataset: Dataset, out: str, kind: DatasetFormat, verb: str, *, progress: bool
) -> WrittenDataset:
    """Write a data set in a thread with a progress bar; cancelled, it ends soon, and leaves nothing."""
    from stoker.data import write_dataset

    with StepBar(verb, dataset.info.n_steps, shown=progress) as bar:

        def write(check: Callable[[], None]) -> WrittenDataset:
            episodes = _interruptible(dataset.episodes(), check)
            return write_dataset(episodes, dataset.info, Path(out), kind, watch=bar.show)

        return await _with_check(write)


def _say_written(written: WrittenDataset, source: str, *, as_json: bool) -> None:
    if as_json:
        say_json({"source": source, **msgspec.structs.asdict(written), "path": str(written.path)})
        return
    counts = f"{number(written.n_episodes)} episodes, {number(written.n_steps)} steps"
    print(f"{from_here(written.path)}: {counts}, {size(written.bytes)}, {written.format}")
