"""Episode records, and what many of them come to."""

from stoker.stats.aggregators import Aggregator, Last, Max, Mean, Min, RollingMean, StatefulAggregator, Std
from stoker.stats.records import EpisodeRecord, check_record
from stoker.stats.report import EvalReport
from stoker.stats.sources import Source, extra, length, total_reward
from stoker.stats.tracker import StatsTracker
from stoker.stats.window import EpisodeWindow, WindowStats

__all__ = [
    "Aggregator",
    "EpisodeRecord",
    "EpisodeWindow",
    "EvalReport",
    "Last",
    "Max",
    "Mean",
    "Min",
    "RollingMean",
    "Source",
    "StatefulAggregator",
    "StatsTracker",
    "Std",
    "WindowStats",
    "check_record",
    "extra",
    "length",
    "total_reward",
]
