"""The disk and the task that owns it: rows, replaced files, checkpoints."""

from stoker.writer.checkpoints import load_checkpoint, publish_checkpoint, stage
from stoker.writer.rows import RowLog, decode_rows
from stoker.writer.task import Writer

__all__ = ["RowLog", "Writer", "decode_rows", "load_checkpoint", "publish_checkpoint", "stage"]
