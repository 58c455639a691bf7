"""The loop, for those who want one given: a trainer, its config, and evaluation beside it.

Names are imported at their first use, so that a config can be read and checked without torch.
"""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.trainer.config import TrainConfig, config_from
    from stoker.trainer.evaluating import evaluate
    from stoker.trainer.evaluation import BestBy, Evaluation
    from stoker.trainer.evaluation_settings import EvaluationSettings
    from stoker.trainer.evaluator import Evaluator
    from stoker.trainer.making import agent_for
    from stoker.trainer.result import Progress, TrainResult
    from stoker.trainer.stopping import NoImprovement, StopAtReward, StopRule
    from stoker.trainer.trainer import Trainer
    from stoker.trainer.trainer_config import TrainerConfig
    from stoker.trainer.training import train
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "BestBy": "stoker.trainer.evaluation",
            "Evaluation": "stoker.trainer.evaluation",
            "EvaluationSettings": "stoker.trainer.evaluation_settings",
            "Evaluator": "stoker.trainer.evaluator",
            "NoImprovement": "stoker.trainer.stopping",
            "Progress": "stoker.trainer.result",
            "StopAtReward": "stoker.trainer.stopping",
            "StopRule": "stoker.trainer.stopping",
            "TrainConfig": "stoker.trainer.config",
            "TrainResult": "stoker.trainer.result",
            "Trainer": "stoker.trainer.trainer",
            "TrainerConfig": "stoker.trainer.trainer_config",
            "agent_for": "stoker.trainer.making",
            "config_from": "stoker.trainer.config",
            "evaluate": "stoker.trainer.evaluating",
            "train": "stoker.trainer.training",
        },
    )

__all__ = [
    "BestBy",
    "Evaluation",
    "EvaluationSettings",
    "Evaluator",
    "NoImprovement",
    "Progress",
    "StopAtReward",
    "StopRule",
    "TrainConfig",
    "TrainResult",
    "Trainer",
    "TrainerConfig",
    "agent_for",
    "config_from",
    "evaluate",
    "train",
]
