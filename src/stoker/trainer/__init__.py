"""A ready-made training loop: the trainer, its settings, and evaluation beside it.

Names are imported at their first use, so that a config can be read and checked without torch.
"""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.trainer.config import TrainConfig as TrainConfig, config_from as config_from
    from stoker.trainer.evaluation import (
        BestBy as BestBy,
        Evaluation as Evaluation,
        EvaluationSettings as EvaluationSettings,
        NoImprovement as NoImprovement,
        StopAtReward as StopAtReward,
        StopRule as StopRule,
    )
    from stoker.trainer.evaluator import Evaluator as Evaluator, evaluate as evaluate
    from stoker.trainer.making import agent_for as agent_for
    from stoker.trainer.trainer import Progress as Progress, Trainer as Trainer, TrainResult as TrainResult
    from stoker.trainer.trainer_config import TrainerConfig as TrainerConfig
    from stoker.trainer.training import train as train
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
