"""The journal: every event that training is a function of, in the order of its consumption."""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.journal.events import (
        ActorEvent as ActorEvent,
        DatasetGiven as DatasetGiven,
        EpisodeEnded as EpisodeEnded,
        EpisodeStarted as EpisodeStarted,
        JournalEvent as JournalEvent,
        Optimized as Optimized,
        StreamEnded as StreamEnded,
        StreamEvent as StreamEvent,
        StreamMoved as StreamMoved,
    )
    from stoker.journal.header import SegmentHeader as SegmentHeader
    from stoker.journal.reading import (
        JOURNAL as JOURNAL,
        Journal as Journal,
        JournalReport as JournalReport,
        Segment as Segment,
    )
    from stoker.journal.segments import (
        SegmentEncoder as SegmentEncoder,
        SegmentReader as SegmentReader,
        segment_name as segment_name,
    )
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
