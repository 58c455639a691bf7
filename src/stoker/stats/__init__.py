"""Episode records, and statistics over them."""

from stoker.stats.aggregators import Aggregator, Last, Max, Mean, Min, RollingMean, StatefulAggregator, Std
from stoker.stats.records import EpisodeRecord, EvalReport, Source, check_record, extra, length, total_reward
from stoker.stats.tracker import StatsTracker, WindowStats

__all__ = [
    "Aggregator",
    "EpisodeRecord",
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
