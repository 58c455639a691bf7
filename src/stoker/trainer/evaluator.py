"""Evaluation beside the actors: the same seeds each time, greedy, on a pinned policy.

The evaluator has its own environments; neither the actors' episodes nor the agent's state are touched, and
training never waits for it: while it is busy, the session keeps only the newest policy that is due.
What it finds best is what is saved: the weights that were evaluated, not what the learner has since become.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Self

import anyio
import msgspec
from anyio import to_thread

from stoker.actors import EnvFactory
from stoker.envs import Stepping, episode_seed
from stoker.errors import SessionClosed
from stoker.exits import Contained
from stoker.session import PolicySnapshot, TrainingSession
from stoker.trainer.evaluating import evaluate, play_greedily
from stoker.trainer.evaluation import CONFIRMATION, BestBy, Evaluation
from stoker.trainer.evaluation_settings import EvaluationSettings, StopRule

__all__ = ["Evaluation", "Evaluator", "evaluate"]

logger = logging.getLogger("stoker.trainer")


class Evaluator:
    """Evaluates a session's policy whenever that is due, logs the episodes and keeps the best.

    The best of many noisy means is most likely one that was lucky: the more evaluations, the more its value
    promises above what the policy holds. With ``confirm`` an evaluation that would become the best is
    therefore made again, on seeds of its own, and becomes the best only if the mean (or the lower bound) of
    both together still is above the best so far. That is also the value saved. The second half was not
    selected for being high, so half of the luck is taken off, at twice the cost for the candidates alone.

    Args:
        session: whose policy; its ``eval_freq`` and ``eval_interval`` say when.
        factory: makes the evaluation's own environments.
        n_episodes, seed, stepping, max_episode_steps, concurrency: as for ``evaluate``.
        stop_at_reward: stop the session when an evaluation reaches this mean.
        best_by: what the best is best by, see ``BestBy``. The run's best value is on this scale, so a run
            should keep to one.
        confirm: whether to evaluate a candidate again before it becomes the best. Its further episodes are
            logged with the extra ``confirmation``, and the evaluation is of all of them.
        stop_rules: further reasons to stop the session, such as ``NoImprovement``.
        on_evaluation: is given each evaluation when it is complete, on the event loop; what it raises ends
            the evaluator.

    Raises:
        ConfigError: A value is out of range.
    """

    def __init__(
        self,
        session: TrainingSession,
        factory: EnvFactory,
        n_episodes: int = 20,
        *,
        seed: int = 0,
        stepping: Stepping = "auto",
        stop_at_reward: float | None = None,
        max_episode_steps: int | None = None,
        concurrency: int | None = None,
        best_by: BestBy = "mean",
        confirm: bool = False,
        stop_rules: Sequence[StopRule] = (),
        on_evaluation: Callable[[Evaluation], None] | None = None,
    ) -> None:
        self._settings = EvaluationSettings(
            n_episodes=n_episodes,
            seed=seed,
            max_episode_steps=max_episode_steps,
            concurrency=concurrency,
            best_by=best_by,
            confirm=confirm,
            stop_at_reward=stop_at_reward,
        )
        self._session = session
        self._factory = factory
        self._stepping: Stepping = stepping
        self._goal = self._settings.goal()
        self._stop_rules = tuple(stop_rules)
        self._on_evaluation = on_evaluation
        self._lock = anyio.Lock()
        self._last_at: tuple[int, int] | None = None  # of the policy that was evaluated last
        self.last: Evaluation | None = None
        """The last evaluation of this process."""
        self.reached_goal = False
        """Whether ``stop_at_reward`` was reached."""
        self.stopped_because: str | None = None
        """Why this stopped the session, in a few words; None: it did not."""

    @classmethod
    def from_settings(
        cls,
        session: TrainingSession,
        factory: EnvFactory,
        settings: EvaluationSettings,
        *,
        stepping: Stepping = "auto",
        on_evaluation: Callable[[Evaluation], None] | None = None,
    ) -> Self:
        """An evaluator with these settings; the other arguments are as for the class."""
        return cls(
            session,
            factory,
            settings.n_episodes,
            seed=settings.seed,
            stepping=stepping,
            stop_at_reward=settings.stop_at_reward,
            max_episode_steps=settings.max_episode_steps,
            concurrency=settings.concurrency,
            best_by=settings.best_by,
            confirm=settings.confirm,
            stop_rules=settings.stop_rules(),
            on_evaluation=on_evaluation,
        )

    async def run(self) -> None:
        """Evaluate each snapshot that is due, and at last what the training ended with; then return.

        The training has ended when the session is done: ``max_steps`` or ``max_opts`` is reached, or it was
        stopped. After ``stop`` no evaluation begins. A session without a limit ends by ``stop`` alone.
        Where the session is closed first, this returns without the evaluation that it is in.

        Raises:
            ActorFailed, ConfigError: As for ``evaluate``.
            SessionClosed: The session was not open when this was called.
            SessionFailed: It failed.
        """
        session = self._session
        session.require_open("Evaluator.run")
        try:
            while (snapshot := await session.next_evaluation()) is not None:
                async with self._lock:
                    if not session.is_stopped:
                        await self._evaluate(snapshot)
            await self.finish()
        except SessionClosed:
            logger.warning(
                "the session was closed before the last evaluation: to have it, let the evaluator's task "
                "group end before the session"
            )

    async def finish(self) -> None:
        """Wait for the evaluation under way, and evaluate what the training ended with, if that is new.

        A session that was stopped is not evaluated: its caller wants it to end soon.
        """
        async with self._lock:
            if self._session.is_stopped:
                return
            snapshot = await self._session.snapshot()
            if self._last_at != (snapshot.total_steps, snapshot.opt_steps):
                await self._evaluate(snapshot)

    async def _evaluate(self, snapshot: PolicySnapshot) -> None:
        settings = self._settings
        self._last_at = (snapshot.total_steps, snapshot.opt_steps)
        found = await evaluate(
            snapshot,
            self._factory,
            settings.n_episodes,
            seed=settings.seed,
            stepping=self._stepping,
            max_episode_steps=settings.max_episode_steps,
            concurrency=settings.concurrency,
        )
        for record in found.records:
            await self._session.on_eval_episode(record, snapshot)
        found = msgspec.structs.replace(found, best_by=settings.best_by)
        await to_thread.run_sync(found.settle)  # thousands of resamples are no work for the event loop
        best = self._session.best_value
        if settings.confirm and (best is None or found.value > best):
            found = await self._confirmed(found, snapshot)
            await to_thread.run_sync(found.settle)
        self.last = found.judged(is_best=await self._session.maybe_save_best(found.value, snapshot))
        if self._session.config.records:
            await self._session.record(self.last.metrics(), snapshot.total_steps)
        if self._on_evaluation is not None:
            with Contained("on_evaluation"):
                self._on_evaluation(self.last)
        self._stop_if_due(self.last, best)

    async def _confirmed(self, found: Evaluation, snapshot: PolicySnapshot) -> Evaluation:
        """The evaluation with as many further episodes, whose seeds are those of this step alone."""
        settings, step = self._settings, snapshot.total_steps
        played = await play_greedily(
            snapshot,
            self._factory,
            [
                episode_seed(settings.seed, index, step, stream="confirmation")
                for index in range(settings.n_episodes)
            ],
            stepping=self._stepping,
            max_episode_steps=settings.max_episode_steps,
            concurrency=settings.concurrency,
        )
        more = tuple(record.with_extra(CONFIRMATION, 1.0) for record in played)
        for record in more:
            await self._session.on_eval_episode(record, snapshot)
        return msgspec.structs.replace(found, records=found.records + more, n_confirming=len(more))

    def _stop_if_due(self, found: Evaluation, best: float | None) -> None:
        """Stop the session if a rule says so; the first reason is the one that is kept."""
        reached = None if self._goal is None else self._goal.judge(found, best)
        reasons = [rule.judge(found, best) for rule in self._stop_rules]  # each is to see each evaluation
        self.reached_goal |= reached is not None
        if reached is None and self._session.is_done:  # it has ended by itself
            return
        for reason in (reached, *reasons):
            if reason is not None:
                self.stopped_because = self.stopped_because or reason
                self._session.stop()
                return
