"""The loop, for those who want one given: training from a config, and evaluation beside it.

Names are imported at their first use, so that a config can be read and checked without torch.
"""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.trainer.config import TrainConfig, config_from
    from stoker.trainer.evaluator import Evaluation, Evaluator, evaluate
    from stoker.trainer.making import agent_for
    from stoker.trainer.training import Progress, TrainResult, train
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "Evaluation": "stoker.trainer.evaluator",
            "Evaluator": "stoker.trainer.evaluator",
            "Progress": "stoker.trainer.training",
            "TrainConfig": "stoker.trainer.config",
            "TrainResult": "stoker.trainer.training",
            "agent_for": "stoker.trainer.making",
            "config_from": "stoker.trainer.config",
            "evaluate": "stoker.trainer.evaluator",
            "train": "stoker.trainer.training",
        },
    )

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
