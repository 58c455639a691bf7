"""The disk and the task that owns it: logs, replaced files, checkpoints."""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.writer.checkpoints import (
        load_checkpoint as load_checkpoint,
        publish_checkpoint as publish_checkpoint,
        verify_checkpoint as verify_checkpoint,
    )
    from stoker.writer.logs import AppendLog as AppendLog
    from stoker.writer.reading import (
        RowReader as RowReader,
        cut_rows as cut_rows,
        decode_rows as decode_rows,
    )
    from stoker.writer.rows import RowLog as RowLog, encode_rows as encode_rows
    from stoker.writer.staging import StagingArea as StagingArea, stage as stage
    from stoker.writer.task import Writer as Writer
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
