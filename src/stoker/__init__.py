"""stoker: an async, event-driven coordinator for reinforcement-learning training.

Names are imported at their first use, so that `stoker --help` does not wait for torch.
"""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.actors.crew import Crew, run_actors
    from stoker.actors.failures import FailureLimit
    from stoker.actors.report import ActorReport
    from stoker.agents.dqn.agent import DQN
    from stoker.agents.dqn.config import DQNConfig
    from stoker.agents.presets import preset, training_preset
    from stoker.agents.protocol import ChecksInput, HasReplay, LearningAgent, Policy, RebuildsReplay
    from stoker.envs.gym import make_gym
    from stoker.errors import (
        ActorConflict,
        ActorFailed,
        CheckpointCorrupt,
        CheckpointNotFound,
        ConfigError,
        InvalidAgentState,
        InvalidExperience,
        JournalBroken,
        MissingDependency,
        RunBroken,
        RunDirectoryError,
        RunLocked,
        RunNotFound,
        SessionClosed,
        SessionError,
        SessionFailed,
        Stalled,
        StokerError,
        TrainingDiverged,
        WriteFailed,
    )
    from stoker.runs.forking import fork
    from stoker.runs.listing import list_runs
    from stoker.runs.metadata import RunMetadata
    from stoker.runs.run import TrainingRun
    from stoker.session.config import SessionConfig
    from stoker.session.health import Health
    from stoker.session.replaying import Replayed, replay_run
    from stoker.session.snapshot import PolicySnapshot
    from stoker.session.sync import SyncTrainingSession
    from stoker.session.training import TrainingSession
    from stoker.stats.records import EpisodeRecord
    from stoker.stats.report import EvalReport
    from stoker.stats.tracker import StatsTracker
    from stoker.trainer.config import TrainConfig
    from stoker.trainer.evaluator import Evaluation, Evaluator, evaluate
    from stoker.trainer.training import TrainResult, train
    from stoker.types import ActMode, ActorId, EpisodeStatus, Experience
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "ActMode": "stoker.types",
            "ActorConflict": "stoker.errors",
            "ActorFailed": "stoker.errors",
            "ActorId": "stoker.types",
            "ActorReport": "stoker.actors.report",
            "CheckpointCorrupt": "stoker.errors",
            "CheckpointNotFound": "stoker.errors",
            "ChecksInput": "stoker.agents.protocol",
            "ConfigError": "stoker.errors",
            "Crew": "stoker.actors.crew",
            "DQN": "stoker.agents.dqn.agent",
            "DQNConfig": "stoker.agents.dqn.config",
            "EpisodeRecord": "stoker.stats.records",
            "EpisodeStatus": "stoker.types",
            "EvalReport": "stoker.stats.report",
            "Evaluation": "stoker.trainer.evaluator",
            "Evaluator": "stoker.trainer.evaluator",
            "Experience": "stoker.types",
            "FailureLimit": "stoker.actors.failures",
            "HasReplay": "stoker.agents.protocol",
            "Health": "stoker.session.health",
            "InvalidAgentState": "stoker.errors",
            "InvalidExperience": "stoker.errors",
            "JournalBroken": "stoker.errors",
            "LearningAgent": "stoker.agents.protocol",
            "MissingDependency": "stoker.errors",
            "Policy": "stoker.agents.protocol",
            "PolicySnapshot": "stoker.session.snapshot",
            "RebuildsReplay": "stoker.agents.protocol",
            "Replayed": "stoker.session.replaying",
            "RunBroken": "stoker.errors",
            "RunDirectoryError": "stoker.errors",
            "RunLocked": "stoker.errors",
            "RunMetadata": "stoker.runs.metadata",
            "RunNotFound": "stoker.errors",
            "SessionClosed": "stoker.errors",
            "SessionConfig": "stoker.session.config",
            "SessionError": "stoker.errors",
            "SessionFailed": "stoker.errors",
            "Stalled": "stoker.errors",
            "StatsTracker": "stoker.stats.tracker",
            "StokerError": "stoker.errors",
            "SyncTrainingSession": "stoker.session.sync",
            "TrainConfig": "stoker.trainer.config",
            "TrainResult": "stoker.trainer.training",
            "TrainingDiverged": "stoker.errors",
            "TrainingRun": "stoker.runs.run",
            "TrainingSession": "stoker.session.training",
            "WriteFailed": "stoker.errors",
            "evaluate": "stoker.trainer.evaluator",
            "fork": "stoker.runs.forking",
            "list_runs": "stoker.runs.listing",
            "make_gym": "stoker.envs.gym",
            "preset": "stoker.agents.presets",
            "training_preset": "stoker.agents.presets",
            "replay_run": "stoker.session.replaying",
            "run_actors": "stoker.actors.crew",
            "train": "stoker.trainer.training",
        },
    )

__version__ = "0.1.0"

__all__ = [
    "DQN",
    "ActMode",
    "ActorConflict",
    "ActorFailed",
    "ActorId",
    "ActorReport",
    "CheckpointCorrupt",
    "CheckpointNotFound",
    "ChecksInput",
    "ConfigError",
    "Crew",
    "DQNConfig",
    "EpisodeRecord",
    "EpisodeStatus",
    "EvalReport",
    "Evaluation",
    "Evaluator",
    "Experience",
    "FailureLimit",
    "HasReplay",
    "Health",
    "InvalidAgentState",
    "InvalidExperience",
    "JournalBroken",
    "LearningAgent",
    "MissingDependency",
    "Policy",
    "PolicySnapshot",
    "RebuildsReplay",
    "Replayed",
    "RunBroken",
    "RunDirectoryError",
    "RunLocked",
    "RunMetadata",
    "RunNotFound",
    "SessionClosed",
    "SessionConfig",
    "SessionError",
    "SessionFailed",
    "Stalled",
    "StatsTracker",
    "StokerError",
    "SyncTrainingSession",
    "TrainConfig",
    "TrainResult",
    "TrainingDiverged",
    "TrainingRun",
    "TrainingSession",
    "WriteFailed",
    "__version__",
    "evaluate",
    "fork",
    "list_runs",
    "make_gym",
    "preset",
    "replay_run",
    "run_actors",
    "train",
    "training_preset",
]
