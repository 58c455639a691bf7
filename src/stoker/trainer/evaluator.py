"""Greedy evaluation of pinned policies, in separate environments, beside the training.

Neither the actors' episodes nor the agent's state are touched: the policy is a copy that never changes, and
only the generators that the environments seed are used. Training never waits for an evaluation: while one
runs, the session keeps only the newest policy that is due. What is saved as the best are the weights that
were evaluated.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import anyio
import msgspec
from anyio import to_thread

from stoker.actors import EnvFactory, FailureLimit
from stoker.data.scores import normalized_score
from stoker.envs import Stepping
from stoker.errors import SessionClosed
from stoker.exits import Contained
from stoker.runs.events import EvaluationFinished
from stoker.session import PolicySnapshot, TrainingSession
from stoker.stats import EpisodeRecord
from stoker.telemetry import StateClock
from stoker.trainer.evaluation import (
    LONGEST_EPISODE,
    NORMALIZED,
    Evaluation,
    EvaluationSettings,
    StopAtReward,
    StopRule,
)
from stoker.trainer.greedy import GreedyEpisodes

_logger = logging.getLogger("stoker.trainer")

EVALUATOR_STATES = ("idle", "playing", "scoring", "saving")
IDLE, PLAYING, SCORING, SAVING = range(len(EVALUATOR_STATES))


class Evaluator:
    """Evaluates a session's policy whenever that is due, logs the episodes and keeps the best.

    The best of many noisy means is most likely a lucky one. With ``confirm`` an evaluation that would become
    the best is therefore repeated, on other seeds, and becomes the best only if the value of both
    together is still above the best so far; it is then the value saved. The repetition was not selected for
    being high, so half of the luck is removed, at twice the cost for the candidates alone.

    Args:
        session: the training; its ``eval_freq`` and ``eval_interval`` say when to evaluate.
        factory: makes the evaluation's environments: one per episode, or a vector environment, which is then
            kept from one evaluation to the next until ``run`` or ``finish`` ends.
        settings: how to evaluate, and when to stop the session. A run should keep one ``best_by``: its best
            value is on that scale.
        stepping: where plain environments are stepped.
        stop_rules: further reasons to stop the session.
        on_evaluation: called on the event loop with each evaluation; its exceptions end the evaluator.
    """

    def __init__(
        self,
        session: TrainingSession,
        factory: EnvFactory,
        settings: EvaluationSettings | None = None,
        *,
        stepping: Stepping = "auto",
        stop_rules: Sequence[StopRule] = (),
        on_evaluation: Callable[[Evaluation], None] | None = None,
    ) -> None:
        self._session = session
        self._settings = EvaluationSettings() if settings is None else settings
        self._episodes = GreedyEpisodes(factory, self._settings, stepping)
        self._stop_rules = (*self._settings.stop_rules(), *stop_rules)
        self._on_evaluation = on_evaluation
        self._lock = anyio.Lock()
        self._last_at: tuple[int, int] | None = None  # of the policy that was evaluated last
        self.last: Evaluation | None = None
        """The last evaluation of this process."""
        self.last_s: float = 0.0
        """Seconds that the last evaluation took."""
        self.clock: StateClock = StateClock(EVALUATOR_STATES)
        """What it is doing; the session reads it while ``run`` runs."""
        self.stopped_because: str | None = None
        """Why this stopped the session, in a few words; None: it did not."""

    async def run(self) -> None:
        """Evaluate each snapshot that is due, at the end the final policy, and return.

        After ``session.stop()`` no evaluation begins; a session without a limit ends by that alone. If the
        session is closed first, this abandons its evaluation and returns.

        Raises:
            ActorFailed, ConfigError: As for ``evaluate``.
            SessionClosed: The session was not open when this was called.
            SessionFailed: It failed.
        """
        session = self._session
        session.require_open("Evaluator.run")
        self.clock.enter(IDLE)
        session.clocks.add("evaluator", self.clock)
        try:
            while (snapshot := await session.next_evaluation()) is not None:
                async with self._lock:
                    if not session.is_stopped:
                        await self._evaluate(snapshot)
            await self.finish()
        except SessionClosed:
            _logger.warning(
                "the session was closed before the last evaluation: to have it, let the evaluator's task "
                "group end before the session"
            )
        finally:
            session.clocks.retire("evaluator", self.clock)
            if not self._lock.locked():  # else ``finish``, which another task has called, closes it
                await self._episodes.close()

    async def finish(self) -> None:
        """Wait for the evaluation in progress, and evaluate the final policy unless that is done.

        The policy of a stopped session is not evaluated: its caller wants it to end soon.
        """
        async with self._lock:
            try:
                if self._session.is_stopped:
                    return
                snapshot = await self._session.snapshot()
                if self._last_at != (snapshot.total_steps, snapshot.opt_steps):
                    await self._evaluate(snapshot)
            finally:
                await self._episodes.close()

    async def _evaluate(self, snapshot: PolicySnapshot) -> None:
        try:
            await self._evaluate_timed(snapshot)
        finally:
            self.clock.enter(IDLE)

    async def _evaluate_timed(self, snapshot: PolicySnapshot) -> None:
        settings, session, began_s = self._settings, self._session, time.monotonic()
        self._last_at = (snapshot.total_steps, snapshot.opt_steps)
        found = Evaluation(snapshot.total_steps, await self._played(snapshot), best_by=settings.best_by)
        self.clock.enter(SCORING)
        await to_thread.run_sync(found.compute_intervals)  # thousands of resamples would block the event loop
        best = session.best_value
        if settings.confirm and (best is None or found.value > best):
            played = await self._played(snapshot, confirms=True)
            records = found.records + played
            found = msgspec.structs.replace(found, records=records, n_confirming=len(played))
            self.clock.enter(SCORING)
            await to_thread.run_sync(found.compute_intervals)
        session.log_event(
            EvaluationFinished(
                step=found.total_steps,
                n_episodes=len(found.records),
                mean=found.mean_reward,
                std=found.std_reward,
                took_s=time.monotonic() - began_s,
            )
        )
        self.clock.enter(SAVING)
        self.last = found.with_verdict(is_best=await session.maybe_save_best(found.value, snapshot))
        self.last_s = time.monotonic() - began_s
        if session.config.records:
            await session.record(self.last.metrics(), snapshot.total_steps)
        if self._on_evaluation is not None:
            with Contained("on_evaluation"):
                self._on_evaluation(self.last)
        for rule in self._stop_rules:
            reason = rule.judge(self.last, best)  # each rule must see each evaluation
            # A training that ended at its limit may have reached its goal, but did not end for another rule.
            if reason is not None and (isinstance(rule, StopAtReward) or not session.is_done):
                self.stopped_because = self.stopped_because or reason
                session.stop()

    async def _played(self, snapshot: PolicySnapshot, *, confirms: bool = False) -> tuple[EpisodeRecord, ...]:
        """Play an evaluation's episodes, and log them."""
        self.clock.enter(PLAYING)
        records = await self._episodes.play(snapshot, confirms=confirms)
        if (references := self._settings.reference_scores) is not None:
            records = tuple(
                record.with_extras({NORMALIZED: normalized_score(record.total_reward, references)})
                for record in records
            )
        for record in records:
            await self._session.on_eval_episode(record, snapshot)
        return records


async def evaluate(
    snapshot: PolicySnapshot,
    factory: EnvFactory,
    n_episodes: int = 20,
    *,
    seed: int = 0,
    stepping: Stepping = "auto",
    limit: FailureLimit | None = None,
    max_episode_steps: int | None = LONGEST_EPISODE,
    concurrency: int | None = None,
) -> Evaluation:
    """Play whole episodes greedily, all at the same time; the i-th with the i-th seed.

    The result depends on the policy and the seed, not on timing, as long as the policy's action for an
    observation does not depend on the other observations of a forward pass. A matrix product with another
    number of rows may differ in the last bit: with ``concurrency=1`` each pass has one observation.

    A vector environment of N plays N episodes at a time, one in each sub-environment, with one pass per
    round; which ones count is decided before. A ``SyncVectorEnv`` or an ``AsyncVectorEnv``, in each of the
    ``AutoresetMode``, plays the same episodes as single environments; one that takes a single seed gets that
    of the first of each N episodes. The ``is_success`` of its ``info`` is read, ``episode_extras`` are not.

    Args:
        snapshot: the policy.
        factory: makes one environment per episode, or a vector environment that plays them all; may be
            async. Called again after a failure.
        n_episodes: as in ``EvaluationSettings``.
        seed: as there.
        max_episode_steps: as there.
        concurrency: as there; a vector environment has its own.
        stepping: where plain environments are stepped.
        limit: how many failures of one environment are tolerated.

    Raises:
        ActorFailed: An environment failed too often.
        ConfigError: An argument is out of range, or the factory's environments cannot be played.
    """
    settings = EvaluationSettings(
        n_episodes=n_episodes, seed=seed, max_episode_steps=max_episode_steps, concurrency=concurrency
    )
    episodes = GreedyEpisodes(factory, settings, stepping, limit)
    try:
        return Evaluation(snapshot.total_steps, await episodes.play(snapshot))
    finally:
        await episodes.close()
