"""stoker: an async, event-driven coordinator for reinforcement-learning training.

Names are imported at their first use, so that `stoker --help` does not wait for torch.
"""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.actors.episodes import FailureLimit
    from stoker.actors.group import ActorGroup, run_actors
    from stoker.actors.report import ActorReport, StepMetrics
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
    from stoker.stats.records import EpisodeRecord, EvalReport
    from stoker.stats.tracker import StatsTracker
    from stoker.trainer.config import TrainConfig
    from stoker.trainer.evaluating import evaluate
    from stoker.trainer.evaluation import Evaluation
    from stoker.trainer.evaluation_settings import EvaluationSettings, NoImprovement, StopAtReward
    from stoker.trainer.evaluator import Evaluator
    from stoker.trainer.result import TrainResult
    from stoker.trainer.trainer import Trainer
    from stoker.trainer.trainer_config import TrainerConfig
    from stoker.trainer.training import train
    from stoker.types import ActMode, ActorId, EpisodeStatus, Experience
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "stoker.actors.episodes": "FailureLimit",
            "stoker.actors.group": "ActorGroup run_actors",
            "stoker.actors.report": "ActorReport StepMetrics",
            "stoker.actors.vector": "run_vector_actors",
            "stoker.agents.dqn.agent": "DQN",
            "stoker.agents.dqn.config": "DQNConfig",
            "stoker.agents.ppo.agent": "PPO",
            "stoker.agents.ppo.config": "PPOConfig",
            "stoker.agents.presets": "preset training_preset",
            "stoker.agents.protocol": (
                "ChecksInput HasReplay LearningAgent Policy PortablePolicy RebuildsReplay"
            ),
            "stoker.envs.gym": "make_gym",
            "stoker.envs.stacking": "stack_frames",
            "stoker.errors": (
                "ActorConflict ActorFailed CheckpointCorrupt CheckpointNotFound ConfigError "
                "InvalidAgentState InvalidExperience JournalBroken MissingDependency RecorderFailed "
                "RunBroken RunDirectoryError RunLocked RunNotFound SessionClosed SessionError "
                "SessionFailed Stalled StokerError TrainingDiverged UnexpectedExit WriteFailed"
            ),
            "stoker.processing.steps": "StepProcessor",
            "stoker.recorders.driving": "Recording",
            "stoker.recorders.protocol": "Recorder",
            "stoker.replay.prioritized": "PrioritizedReplay",
            "stoker.replay.uniform": "UniformReplay",
            "stoker.runs.forking": "fork",
            "stoker.runs.listing": "list_runs",
            "stoker.runs.metadata": "RunMetadata",
            "stoker.runs.run": "TrainingRun",
            "stoker.session.config": "SessionConfig",
            "stoker.session.decisions": "Decision",
            "stoker.session.metrics": "StalenessReport",
            "stoker.session.policies": "PolicySnapshot",
            "stoker.session.replaying": "Replayed replay_run",
            "stoker.session.signals": "stop_on_signals",
            "stoker.session.sync": "SyncTrainingSession",
            "stoker.session.training": "TrainingSession",
            "stoker.session.watching": "Health",
            "stoker.stats.records": "EpisodeRecord EvalReport",
            "stoker.stats.tracker": "StatsTracker",
            "stoker.trainer.config": "TrainConfig",
            "stoker.trainer.evaluating": "evaluate",
            "stoker.trainer.evaluation": "Evaluation",
            "stoker.trainer.evaluation_settings": "EvaluationSettings NoImprovement StopAtReward",
            "stoker.trainer.evaluator": "Evaluator",
            "stoker.trainer.result": "TrainResult",
            "stoker.trainer.trainer": "Trainer",
            "stoker.trainer.trainer_config": "TrainerConfig",
            "stoker.trainer.training": "train",
            "stoker.types": "ActMode ActorId EpisodeStatus Experience",
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
