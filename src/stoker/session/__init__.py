"""One training in progress: what takes experiences in, learns from them, acts, and keeps the run.

Names are imported at their first use, so that a run can be looked at without torch.
"""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.session.config import SessionConfig as SessionConfig
    from stoker.session.opening import ResumePoint as ResumePoint, RunningEpisode as RunningEpisode
    from stoker.session.publishing import PolicySnapshot as PolicySnapshot
    from stoker.session.readings import SessionReadings as SessionReadings
    from stoker.session.registry import StreamPoint as StreamPoint
    from stoker.session.signals import stop_on_signals as stop_on_signals
    from stoker.session.sync import SyncTrainingSession as SyncTrainingSession
    from stoker.session.training import TrainingSession as TrainingSession
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
