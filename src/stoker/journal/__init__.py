"""The journal: every event that training is a function of, in the order of its consumption."""

from stoker.journal.checking import JournalReport
from stoker.journal.events import EpisodeEnded, EpisodeStarted, JournalEvent
from stoker.journal.history import Segment
from stoker.journal.reading import JOURNAL, Journal
from stoker.journal.scanning import read_header, read_segment, set_torn_aside
from stoker.journal.segments import SegmentEncoder, SegmentHeader, parse_segment_name, segment_name

__all__ = [
    "JOURNAL",
    "EpisodeEnded",
    "EpisodeStarted",
    "Journal",
    "JournalEvent",
    "JournalReport",
    "Segment",
    "SegmentEncoder",
    "SegmentHeader",
    "parse_segment_name",
    "read_header",
    "read_segment",
    "segment_name",
    "set_torn_aside",
]
