"""The loop, for those who want one given: a trainer, its config, and evaluation beside it.

Names are imported at their first use, so that a config can be read and checked without torch.
"""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.trainer.config import TrainConfig as TrainConfig, config_from as config_from
    from stoker.trainer.evaluating import evaluate as evaluate
    from stoker.trainer.evaluation import BestBy as BestBy, Evaluation as Evaluation
    from stoker.trainer.evaluation_settings import (
        EvaluationSettings as EvaluationSettings,
        NoImprovement as NoImprovement,
        StopAtReward as StopAtReward,
        StopRule as StopRule,
    )
    from stoker.trainer.evaluator import Evaluator as Evaluator
    from stoker.trainer.making import agent_for as agent_for
    from stoker.trainer.result import Progress as Progress, TrainResult as TrainResult
    from stoker.trainer.trainer import Trainer as Trainer
    from stoker.trainer.trainer_config import TrainerConfig as TrainerConfig
    from stoker.trainer.training import train as train
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
