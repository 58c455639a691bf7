"""Data sets: episodes from files and into files, in the formats of Minari, D4RL, Parquet and NumPy."""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.data.dataset import (
        Dataset as Dataset,
        DatasetFormat as DatasetFormat,
        DatasetInfo as DatasetInfo,
        Ends as Ends,
        WrittenDataset as WrittenDataset,
    )
    from stoker.data.episodes import Episode as Episode
    from stoker.data.opening import open_dataset as open_dataset
    from stoker.data.writing import write_dataset as write_dataset
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
