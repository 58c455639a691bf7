"""The loop, for those who want one given: training from a config, and evaluation beside it."""

from stoker.trainer.config import TrainConfig, config_from
from stoker.trainer.evaluator import Evaluation, Evaluator, evaluate
from stoker.trainer.training import Progress, TrainResult, agent_for, train

__all__ = [
    "Evaluation",
    "Evaluator",
    "Progress",
    "TrainConfig",
    "TrainResult",
    "agent_for",
    "config_from",
    "evaluate",
    "train",
]
