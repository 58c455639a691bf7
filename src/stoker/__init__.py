"""stoker: an async, event-driven coordinator for reinforcement-learning training.

Names are imported at their first use, so that `stoker --help` does not wait for torch.
"""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.actors.episodes import FailureLimit as FailureLimit
    from stoker.actors.group import ActorGroup as ActorGroup, run_actors as run_actors
    from stoker.actors.joint import run_joint_actors as run_joint_actors
    from stoker.actors.streams import ActorReport as ActorReport, StepMetrics as StepMetrics
    from stoker.actors.vector import run_vector_actors as run_vector_actors
    from stoker.agents.awac.agent import AWAC as AWAC
    from stoker.agents.awac.config import AWACConfig as AWACConfig
    from stoker.agents.bc.agent import BC as BC
    from stoker.agents.bc.config import BCConfig as BCConfig
    from stoker.agents.cql.agent import DiscreteCQL as DiscreteCQL
    from stoker.agents.cql.config import DiscreteCQLConfig as DiscreteCQLConfig
    from stoker.agents.dqn.agent import DQN as DQN
    from stoker.agents.dqn.config import DQNConfig as DQNConfig
    from stoker.agents.iql.agent import IQL as IQL
    from stoker.agents.iql.config import IQLConfig as IQLConfig
    from stoker.agents.iqn.agent import IQN as IQN
    from stoker.agents.iqn.config import IQNConfig as IQNConfig
    from stoker.agents.ppo.agent import PPO as PPO
    from stoker.agents.ppo.config import PPOConfig as PPOConfig
    from stoker.agents.protocol import (
        ActsForActors as ActsForActors,
        ChangesSettings as ChangesSettings,
        ChecksBatches as ChecksBatches,
        ChecksInput as ChecksInput,
        HasPolicyModule as HasPolicyModule,
        HasReplay as HasReplay,
        HasSpaces as HasSpaces,
        LearningAgent as LearningAgent,
        LearnsSeldom as LearnsSeldom,
        ObservesBatches as ObservesBatches,
        Policy as Policy,
        PortablePolicy as PortablePolicy,
        PriorData as PriorData,
        RebuildsReplay as RebuildsReplay,
        UsesPriorData as UsesPriorData,
    )
    from stoker.agents.registry import preset as preset, training_preset as training_preset
    from stoker.agents.sac.agent import SAC as SAC
    from stoker.agents.sac.config import SACConfig as SACConfig
    from stoker.agents.td3.agent import TD3 as TD3
    from stoker.agents.td3.config import TD3Config as TD3Config
    from stoker.data.dataset import (
        Dataset as Dataset,
        DatasetInfo as DatasetInfo,
        WrittenDataset as WrittenDataset,
    )
    from stoker.data.episodes import Episode as Episode
    from stoker.data.opening import open_dataset as open_dataset
    from stoker.data.writing import write_dataset as write_dataset
    from stoker.envs.gym import make_gym as make_gym
    from stoker.envs.masks import ActionMaskObservation as ActionMaskObservation
    from stoker.envs.pettingzoo import make_pettingzoo as make_pettingzoo
    from stoker.envs.stacking import stack_frames as stack_frames
    from stoker.envs.wrapping import EnvWrapper as EnvWrapper
    from stoker.errors import (
        ActorConflict as ActorConflict,
        ActorFailed as ActorFailed,
        CheckpointCorrupt as CheckpointCorrupt,
        CheckpointNotFound as CheckpointNotFound,
        ConfigError as ConfigError,
        ExportFailed as ExportFailed,
        InvalidAgentState as InvalidAgentState,
        InvalidDataset as InvalidDataset,
        InvalidExperience as InvalidExperience,
        InvalidJointStep as InvalidJointStep,
        JournalBroken as JournalBroken,
        MissingDependency as MissingDependency,
        RecorderFailed as RecorderFailed,
        RelearningFailed as RelearningFailed,
        RunBroken as RunBroken,
        RunDirectoryError as RunDirectoryError,
        RunFenced as RunFenced,
        RunLocked as RunLocked,
        RunNotFound as RunNotFound,
        SessionClosed as SessionClosed,
        SessionError as SessionError,
        SessionFailed as SessionFailed,
        Stalled as Stalled,
        StokerError as StokerError,
        TrainingDiverged as TrainingDiverged,
        UnexpectedExit as UnexpectedExit,
        WriteFailed as WriteFailed,
    )
    from stoker.policies.description import PolicyDescription as PolicyDescription
    from stoker.policies.exported import LoadedPolicy as LoadedPolicy
    from stoker.policies.exporting import export_policy as export_policy
    from stoker.policies.fqe import PolicyValue as PolicyValue, fitted_q_evaluation as fitted_q_evaluation
    from stoker.policies.loading import load_policy as load_policy
    from stoker.processing import StepProcessor as StepProcessor
    from stoker.recorders.protocol import Recorder as Recorder
    from stoker.recorders.recording import Recording as Recording
    from stoker.replay.prioritized import PrioritizedReplay as PrioritizedReplay
    from stoker.replay.ring import UniformReplay as UniformReplay
    from stoker.runs.forking import fork as fork
    from stoker.runs.metadata import RunMetadata as RunMetadata
    from stoker.runs.run import TrainingRun as TrainingRun, list_runs as list_runs
    from stoker.session.config import SessionConfig as SessionConfig
    from stoker.session.decisions import Decision as Decision
    from stoker.session.metrics import StalenessReport as StalenessReport
    from stoker.session.publishing import PolicySnapshot as PolicySnapshot
    from stoker.session.replaying import Replayed as Replayed, replay_run as replay_run
    from stoker.session.signals import stop_on_signals as stop_on_signals
    from stoker.session.sync import SyncTrainingSession as SyncTrainingSession
    from stoker.session.training import TrainingSession as TrainingSession
    from stoker.session.watching import Health as Health
    from stoker.stats.records import EpisodeRecord as EpisodeRecord, EvalReport as EvalReport
    from stoker.stats.tracker import StatsTracker as StatsTracker
    from stoker.trainer.config import TrainConfig as TrainConfig
    from stoker.trainer.evaluation import (
        Evaluation as Evaluation,
        EvaluationSettings as EvaluationSettings,
        NoImprovement as NoImprovement,
        StopAtReward as StopAtReward,
    )
    from stoker.trainer.evaluator import Evaluator as Evaluator, evaluate as evaluate
    from stoker.trainer.trainer import Trainer as Trainer, TrainResult as TrainResult
    from stoker.trainer.trainer_config import TrainerConfig as TrainerConfig
    from stoker.trainer.training import train as train
    from stoker.types import (
        ActMode as ActMode,
        ActorId as ActorId,
        EpisodeStatus as EpisodeStatus,
        Experience as Experience,
        ExperienceBatch as ExperienceBatch,
    )
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)

__version__ = "0.1.0"
