"""The disk and the task that owns it: logs, replaced files, checkpoints."""

from stoker.writer.activities import Activity
from stoker.writer.checkpoints import load_checkpoint, publish_checkpoint, verify_checkpoint
from stoker.writer.logs import AppendLog, Log
from stoker.writer.rows import (
    RowLog,
    RowReader,
    RowsReport,
    check_rows,
    cut_rows,
    decode_rows,
    encode_row_lines,
)
from stoker.writer.staging import StagingArea, stage
from stoker.writer.task import Writer

__all__ = [
    "Activity",
    "AppendLog",
    "Log",
    "RowLog",
    "RowReader",
    "RowsReport",
    "StagingArea",
    "Writer",
    "check_rows",
    "cut_rows",
    "decode_rows",
    "encode_row_lines",
    "load_checkpoint",
    "publish_checkpoint",
    "stage",
    "verify_checkpoint",
]
