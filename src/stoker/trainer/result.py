"""The result of a training, and its progress while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from stoker.actors import ActorGroup
    from stoker.session import TrainingSession
    from stoker.trainer.evaluator import Evaluator

__all__ = ["Progress", "TrainResult"]


class TrainResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a training.

    Attributes:
        run: the run's directory; empty: there was none.
        total_steps, total_episodes: over all attempts.
        steps_per_sec: environment steps per second of this process.
        best_eval_reward: the best evaluation, over all attempts: a mean reward, or its lower bound if
            evaluations are compared by that; None: there was none.
        last_eval_reward: the mean reward of this process's last evaluation.
        restarts: the number of environments that failed and were made again.
        opt_steps: optimization steps, over all attempts.
        stopped_because: why an evaluation ended the training; None: none did.
    """

    run: str
    total_steps: int
    total_episodes: int
    steps_per_sec: float = 0.0
    best_eval_reward: float | None = None
    last_eval_reward: float | None = None
    restarts: int = 0
    opt_steps: int = 0
    stopped_because: str | None = None


class Progress(msgspec.Struct, frozen=True):
    """The parts of a training in progress; ``session.stop()`` ends it in good order.

    ``config`` is the ``TrainConfig`` of ``train``, or the ``TrainerConfig`` of a ``Trainer``.
    """

    config: Any
    session: TrainingSession
    group: ActorGroup
    evaluator: Evaluator

    def result(self) -> TrainResult:
        """The result so far."""
        session, evaluator = self.session, self.evaluator
        return TrainResult(
            run="" if session.run is None else str(session.run.directory),
            total_steps=session.total_steps,
            total_episodes=session.total_episodes,
            opt_steps=session.opt_steps,
            steps_per_sec=session.steps_per_sec,
            best_eval_reward=session.best_value,
            last_eval_reward=evaluator.last and evaluator.last.mean_reward,
            restarts=self.group.restarts,
            stopped_because=evaluator.stopped_because,
        )
