"""Data sets: episodes from journals and files, and into files of Minari, Parquet and NumPy."""

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
    from stoker.data.describing import (
        DatasetReport as DatasetReport,
        Spread as Spread,
        describe as describe,
    )
    from stoker.data.episodes import Episode as Episode
    from stoker.data.journaled import JournalDataset as JournalDataset
    from stoker.data.opening import open_dataset as open_dataset
    from stoker.data.tallies import (
        ActionUse as ActionUse,
        ColumnReport as ColumnReport,
    )
    from stoker.data.writing import write_dataset as write_dataset
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
