"""Episode records, and statistics over them."""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.stats.aggregators import (
        Aggregator as Aggregator,
        Last as Last,
        Max as Max,
        Mean as Mean,
        Min as Min,
        RollingMean as RollingMean,
        StatefulAggregator as StatefulAggregator,
        Std as Std,
    )
    from stoker.stats.records import (
        EpisodeRecord as EpisodeRecord,
        EvalReport as EvalReport,
        Source as Source,
        check_record as check_record,
        extra as extra,
        length as length,
        total_reward as total_reward,
    )
    from stoker.stats.tracker import StatsTracker as StatsTracker, WindowStats as WindowStats
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
