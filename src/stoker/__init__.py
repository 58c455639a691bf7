"""stoker: an async, event-driven coordinator for reinforcement-learning training.

Names are imported at their first use, so that `stoker --help` does not wait for torch.
"""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.actors.failures import FailureLimit
    from stoker.actors.group import ActorGroup, run_actors
    from stoker.actors.metrics import StepMetrics
    from stoker.actors.report import ActorReport
    from stoker.actors.vector import run_vector_actors
    from stoker.agents.dqn.agent import DQN
    from stoker.agents.dqn.config import DQNConfig
    from stoker.agents.ppo.agent import PPO
    from stoker.agents.ppo.config import PPOConfig
    from stoker.agents.presets import preset, training_preset
    from stoker.agents.protocol import (
        ChecksInput,
        HasReplay,
        LearningAgent,
        Policy,
        PortablePolicy,
        RebuildsReplay,
    )
    from stoker.envs.gym import make_gym
    from stoker.envs.stacking import stack_frames
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
        RecorderFailed,
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
        UnexpectedExit,
        WriteFailed,
    )
    from stoker.processing.steps import StepProcessor
    from stoker.recorders.driving import Recording
    from stoker.recorders.protocol import Recorder
    from stoker.replay.prioritized import PrioritizedReplay
    from stoker.replay.uniform import UniformReplay
    from stoker.runs.forking import fork
    from stoker.runs.listing import list_runs
    from stoker.runs.metadata import RunMetadata
    from stoker.runs.run import TrainingRun
    from stoker.session.config import SessionConfig
    from stoker.session.decisions import Decision
    from stoker.session.metrics import StalenessReport
    from stoker.session.policies import PolicySnapshot
    from stoker.session.replaying import Replayed, replay_run
    from stoker.session.signals import stop_on_signals
    from stoker.session.sync import SyncTrainingSession
    from stoker.session.training import TrainingSession
    from stoker.session.watching import Health
    from stoker.stats.records import EpisodeRecord
    from stoker.stats.report import EvalReport
    from stoker.stats.tracker import StatsTracker
    from stoker.trainer.config import TrainConfig
    from stoker.trainer.evaluating import evaluate
    from stoker.trainer.evaluation import Evaluation
    from stoker.trainer.evaluation_settings import EvaluationSettings
    from stoker.trainer.evaluator import Evaluator
    from stoker.trainer.result import TrainResult
    from stoker.trainer.stopping import NoImprovement, StopAtReward
    from stoker.trainer.trainer import Trainer
    from stoker.trainer.trainer_config import TrainerConfig
    from stoker.trainer.training import train
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
            "ActorGroup": "stoker.actors.group",
            "DQN": "stoker.agents.dqn.agent",
            "DQNConfig": "stoker.agents.dqn.config",
            "Decision": "stoker.session.decisions",
            "EpisodeRecord": "stoker.stats.records",
            "EpisodeStatus": "stoker.types",
            "EvalReport": "stoker.stats.report",
            "Evaluation": "stoker.trainer.evaluation",
            "EvaluationSettings": "stoker.trainer.evaluation_settings",
            "Evaluator": "stoker.trainer.evaluator",
            "Experience": "stoker.types",
            "FailureLimit": "stoker.actors.failures",
            "HasReplay": "stoker.agents.protocol",
            "Health": "stoker.session.watching",
            "InvalidAgentState": "stoker.errors",
            "InvalidExperience": "stoker.errors",
            "JournalBroken": "stoker.errors",
            "LearningAgent": "stoker.agents.protocol",
            "MissingDependency": "stoker.errors",
            "NoImprovement": "stoker.trainer.stopping",
            "PPO": "stoker.agents.ppo.agent",
            "PPOConfig": "stoker.agents.ppo.config",
            "Policy": "stoker.agents.protocol",
            "PolicySnapshot": "stoker.session.policies",
            "PortablePolicy": "stoker.agents.protocol",
            "PrioritizedReplay": "stoker.replay.prioritized",
            "RebuildsReplay": "stoker.agents.protocol",
            "Recorder": "stoker.recorders.protocol",
            "RecorderFailed": "stoker.errors",
            "Recording": "stoker.recorders.driving",
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
            "StalenessReport": "stoker.session.metrics",
            "Stalled": "stoker.errors",
            "StatsTracker": "stoker.stats.tracker",
            "StepMetrics": "stoker.actors.metrics",
            "StepProcessor": "stoker.processing.steps",
            "StokerError": "stoker.errors",
            "StopAtReward": "stoker.trainer.stopping",
            "SyncTrainingSession": "stoker.session.sync",
            "TrainConfig": "stoker.trainer.config",
            "TrainResult": "stoker.trainer.result",
            "Trainer": "stoker.trainer.trainer",
            "TrainerConfig": "stoker.trainer.trainer_config",
            "TrainingDiverged": "stoker.errors",
            "UnexpectedExit": "stoker.errors",
            "TrainingRun": "stoker.runs.run",
            "TrainingSession": "stoker.session.training",
            "UniformReplay": "stoker.replay.uniform",
            "WriteFailed": "stoker.errors",
            "evaluate": "stoker.trainer.evaluating",
            "fork": "stoker.runs.forking",
            "list_runs": "stoker.runs.listing",
            "make_gym": "stoker.envs.gym",
            "preset": "stoker.agents.presets",
            "replay_run": "stoker.session.replaying",
            "run_actors": "stoker.actors.group",
            "run_vector_actors": "stoker.actors.vector",
            "stack_frames": "stoker.envs.stacking",
            "stop_on_signals": "stoker.session.signals",
            "train": "stoker.trainer.training",
            "training_preset": "stoker.agents.presets",
        },
    )

__version__ = "0.1.0"

__all__ = [
    "DQN",
    "PPO",
    "ActMode",
    "ActorConflict",
    "ActorFailed",
    "ActorGroup",
    "ActorId",
    "ActorReport",
    "CheckpointCorrupt",
    "CheckpointNotFound",
    "ChecksInput",
    "ConfigError",
    "DQNConfig",
    "Decision",
    "EpisodeRecord",
    "EpisodeStatus",
    "EvalReport",
    "Evaluation",
    "EvaluationSettings",
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
    "NoImprovement",
    "PPOConfig",
    "Policy",
    "PolicySnapshot",
    "PortablePolicy",
    "PrioritizedReplay",
    "RebuildsReplay",
    "Recorder",
    "RecorderFailed",
    "Recording",
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
    "StalenessReport",
    "Stalled",
    "StatsTracker",
    "StepMetrics",
    "StepProcessor",
    "StokerError",
    "StopAtReward",
    "SyncTrainingSession",
    "TrainConfig",
    "TrainResult",
    "Trainer",
    "TrainerConfig",
    "TrainingDiverged",
    "TrainingRun",
    "TrainingSession",
    "UnexpectedExit",
    "UniformReplay",
    "WriteFailed",
    "__version__",
    "evaluate",
    "fork",
    "list_runs",
    "make_gym",
    "preset",
    "replay_run",
    "run_actors",
    "run_vector_actors",
    "stack_frames",
    "stop_on_signals",
    "train",
    "training_preset",
]
