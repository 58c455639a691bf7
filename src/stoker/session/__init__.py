"""One training in progress: what takes experiences in, learns from them, acts, and keeps the run."""

from stoker.session.config import SessionConfig
from stoker.session.snapshot import PolicySnapshot
from stoker.session.sync import SyncTrainingSession
from stoker.session.training import TrainingSession

__all__ = ["PolicySnapshot", "SessionConfig", "SyncTrainingSession", "TrainingSession"]
