"""One training in progress: what takes experiences in, learns from them, acts, and keeps the run.

Names are imported at their first use, so that a run can be looked at without torch.
"""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.session.config import SessionConfig
    from stoker.session.lifecycle import SessionReadings
    from stoker.session.opening import ResumePoint, RunningEpisode
    from stoker.session.policies import PolicySnapshot
    from stoker.session.signals import stop_on_signals
    from stoker.session.sync import SyncTrainingSession
    from stoker.session.training import TrainingSession
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "stoker.session.config": "SessionConfig",
            "stoker.session.lifecycle": "SessionReadings",
            "stoker.session.opening": "ResumePoint RunningEpisode",
            "stoker.session.policies": "PolicySnapshot",
            "stoker.session.signals": "stop_on_signals",
            "stoker.session.sync": "SyncTrainingSession",
            "stoker.session.training": "TrainingSession",
        },
    )

__all__ = [
    "PolicySnapshot",
    "ResumePoint",
    "RunningEpisode",
    "SessionConfig",
    "SessionReadings",
    "SyncTrainingSession",
    "TrainingSession",
    "stop_on_signals",
]
