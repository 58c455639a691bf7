"""What a training came to, and what there is to watch while it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from stoker.actors import ActorGroup
    from stoker.session import TrainingSession
    from stoker.trainer.evaluator import Evaluator

__all__ = ["Progress", "TrainResult"]


class TrainResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a training came to.

    Attributes:
        run: its directory; empty: it had none.
        total_steps, total_episodes: over all attempts.
        steps_per_sec: environment steps per second of this process.
        best_eval_reward: the best value that was evaluated, over all attempts: a mean reward, or its lower
            bound if evaluations are compared by that; None: never.
        last_eval_reward: the last one of this process.
        restarts: how many environments failed and were made again.
        opt_steps: optimization steps, over all attempts.
        stopped_because: why an evaluation ended the training; None: none did.
    """

    run: str
    total_steps: int
    total_episodes: int
    steps_per_sec: float
    best_eval_reward: float | None
    last_eval_reward: float | None
    restarts: int
    opt_steps: int = 0
    stopped_because: str | None = None


class Progress(msgspec.Struct, frozen=True):
    """What there is to watch while a training goes on; ``session.stop()`` ends it in good order."""

    config: Any
    session: TrainingSession
    group: ActorGroup
    evaluator: Evaluator
