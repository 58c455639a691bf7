"""What all data sets in files have in common: errors that name the file, checks, closing."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Generator, Iterator
from weakref import WeakSet

from stoker.data.checking import EpisodeChecker
from stoker.data.dataset import DatasetInfo
from stoker.data.episodes import Episode
from stoker.errors import InvalidDataset, StokerError
from stoker.exits import Closing
from stoker.types import AnyPath


class FileDataset(Closing):
    """A ``Dataset`` in files, which each ``episodes`` opens anew and closes at its end.

    Args:
        info: what the files say about it.
        check: whether ``episodes`` checks that values are finite and inside of the spaces.
    """

    def __init__(self, info: DatasetInfo, *, check: bool) -> None:
        self.info = info
        self.n_dropped: int = 0
        with blamed(info.source):
            self._checker = EpisodeChecker(info, values=check)
        self._running: WeakSet[Generator[Episode]] = WeakSet()

    def episodes(self) -> Iterator[Episode]:
        """The episodes in order, from the first.

        Raises:
            InvalidDataset: The file is damaged, or a value in it is invalid.
        """
        self.n_dropped = 0
        running = self._checked()
        self._running.add(running)
        return running

    def _checked(self) -> Generator[Episode]:
        with blamed(self.info.source):
            for at, episode in enumerate(self._read()):
                self._checker.check(episode, at)
                yield episode

    @abstractmethod
    def _read(self) -> Iterator[Episode]:
        """The episodes; any error means that the files are damaged."""

    def close(self) -> None:
        """Close the files of each iterator that is not at its end; may be called again."""
        for running in list(self._running):
            running.close()


@contextlib.contextmanager
def blamed(source: AnyPath, episode: int | None = None) -> Generator[None]:
    """Raise whatever a library says about damaged or hostile files as ``InvalidDataset``, of this episode."""
    try:
        yield
    except InvalidDataset as error:
        if episode is None or error.episode is not None:
            raise
        raise InvalidDataset(error.source, error.problem, episode=episode) from error.__cause__
    except StokerError:
        raise
    except FileNotFoundError as error:
        raise InvalidDataset(source, "there is no such file: give the path of a data set") from error
    except Exception as error:  # libraries raise anything on bytes that they did not write
        text = " ".join(str(error).split())[:300]
        problem = f"it cannot be read ({type(error).__name__}: {text}); it is damaged, or is something else"
        raise InvalidDataset(source, f"{problem}: get it anew", episode=episode) from error
