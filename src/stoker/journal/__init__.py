"""The journal: every event that training is a function of, in the order of its consumption."""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.journal.checking import JournalReport as JournalReport
    from stoker.journal.events import (
        EpisodeEnded as EpisodeEnded,
        EpisodeStarted as EpisodeStarted,
        JournalEvent as JournalEvent,
    )
    from stoker.journal.history import Segment as Segment
    from stoker.journal.reading import JOURNAL as JOURNAL, Journal as Journal
    from stoker.journal.scanning import (
        read_header as read_header,
        read_segment as read_segment,
        set_torn_aside as set_torn_aside,
    )
    from stoker.journal.segments import (
        SegmentEncoder as SegmentEncoder,
        SegmentHeader as SegmentHeader,
        parse_segment_name as parse_segment_name,
        segment_name as segment_name,
    )
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
