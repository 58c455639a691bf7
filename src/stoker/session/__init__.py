"""One training in progress: what takes experiences in, learns from them, acts, and keeps the run.

Names are imported at their first use, so that a run can be looked at without torch.
"""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.session.config import SessionConfig
    from stoker.session.policies import PolicySnapshot
    from stoker.session.readings import SessionReadings
    from stoker.session.resume_point import ResumePoint, RunningEpisode
    from stoker.session.signals import stop_on_signals
    from stoker.session.sync import SyncTrainingSession
    from stoker.session.training import TrainingSession
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "PolicySnapshot": "stoker.session.policies",
            "ResumePoint": "stoker.session.resume_point",
            "RunningEpisode": "stoker.session.resume_point",
            "SessionConfig": "stoker.session.config",
            "SessionReadings": "stoker.session.readings",
            "SyncTrainingSession": "stoker.session.sync",
            "TrainingSession": "stoker.session.training",
            "stop_on_signals": "stoker.session.signals",
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
