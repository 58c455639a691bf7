"""The loop, for those who want one given: a trainer, its config, and evaluation beside it.

Names are imported at their first use, so that a config can be read and checked without torch.
"""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.trainer.config import TrainConfig, config_from
    from stoker.trainer.evaluating import evaluate
    from stoker.trainer.evaluation import BestBy, Evaluation
    from stoker.trainer.evaluation_settings import EvaluationSettings, NoImprovement, StopAtReward, StopRule
    from stoker.trainer.evaluator import Evaluator
    from stoker.trainer.making import agent_for
    from stoker.trainer.result import Progress, TrainResult
    from stoker.trainer.trainer import Trainer
    from stoker.trainer.trainer_config import TrainerConfig
    from stoker.trainer.training import train
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "stoker.trainer.config": "TrainConfig config_from",
            "stoker.trainer.evaluating": "evaluate",
            "stoker.trainer.evaluation": "BestBy Evaluation",
            "stoker.trainer.evaluation_settings": "EvaluationSettings NoImprovement StopAtReward StopRule",
            "stoker.trainer.evaluator": "Evaluator",
            "stoker.trainer.making": "agent_for",
            "stoker.trainer.result": "Progress TrainResult",
            "stoker.trainer.trainer": "Trainer",
            "stoker.trainer.trainer_config": "TrainerConfig",
            "stoker.trainer.training": "train",
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
