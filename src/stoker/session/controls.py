"""What evaluators, recorders and those who steer a training use of a session."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from stoker.errors import ConfigError
from stoker.journal import DatasetGiven
from stoker.plain import finite_float
from stoker.recorders import Value, checked_record
from stoker.session.events import MetricsGiven, OptimizationRequested
from stoker.session.lifecycle import Lifecycle
from stoker.session.publishing import PolicySnapshot
from stoker.session.state import RunCounts
from stoker.stats import EpisodeRecord, check_record

_OPTS_AT_ONCE = 256


class Controls(Lifecycle):
    """A session that is evaluated, recorded and controlled. The arguments are those of ``Lifecycle``."""

    # Evaluation -----------------------------------------------------------------------------------

    async def snapshot(self) -> PolicySnapshot:
        """Pin the policy as it is when everything accepted so far is consumed."""
        return await self._open_parts("snapshot").request("snapshot")

    async def next_policy(self, after: int) -> int:
        """Wait until a policy acts whose version is above ``after``, and return its version.

        After the last step no new ones come: give the wait a time limit.

        Raises:
            SessionClosed, SessionFailed: The session ended meanwhile.
        """
        parts = self._open_parts("next_policy")
        while (version := parts.learner.policies.version) <= after:
            await parts.pacing.next_move()
            self.require_open("next_policy")
        return version

    async def next_evaluation(self) -> PolicySnapshot | None:
        """Wait for the policy of the next multiple of ``eval_freq`` or ``eval_interval``.

        The newest replaces one that was not fetched: evaluating never slows training down. None: the session
        is done (``is_done``) and has consumed everything it accepted.
        """
        self.require_open("next_evaluation")
        return await self.engine.evaluations.next_due()

    async def on_eval_episode(self, record: EpisodeRecord, snapshot: PolicySnapshot | None = None) -> None:
        """Log one evaluation episode: of the snapshot's policy, or else of the present one.

        Raises:
            InvalidExperience: A number in the record is not finite.
        """
        self.require_open("on_eval_episode")
        with self.intake.refusals:
            record = check_record(record)
        await self.engine.evaluations.add(record, snapshot)

    async def maybe_save_best(self, mean_reward: float, snapshot: PolicySnapshot | None = None) -> bool:
        """Keep the evaluated policy as ``best`` if its mean reward is strictly above the best so far, ever.

        With ``keep_best`` above 1, lower ones are kept, too, as ``best_<step>.pt``. Without a snapshot the
        present policy is kept. Returns whether it is the best; then the file is durable.

        Raises:
            InvalidExperience: The mean is not finite.
        """
        self.require_open("maybe_save_best")
        with self.intake.refusals:
            mean = finite_float("mean_reward", mean_reward)
        return await self.engine.evaluations.save_best(mean, snapshot)

    # Metrics --------------------------------------------------------------------------------------

    def store(self, values: Mapping[str, Value]) -> None:
        """Keep values for the next record of the metrics, from any thread; a name's scalars are averaged.

        Nothing is kept where neither ``record_interval`` nor ``record_freq`` is set.

        Raises:
            ConfigError: A name or a value cannot be recorded.
        """
        self.core.learner.metrics.store(values)

    async def record(self, values: Mapping[str, Value], total_steps: int | None = None) -> None:
        """Record values by themselves, of the given step or of this place among the events.

        Raises:
            ConfigError: A name or a value cannot be recorded, or the step has not come.
        """
        self.require_open("record")
        if total_steps is not None and not (
            type(total_steps) is int
            and 0 <= total_steps <= max(self.intake.accepted_steps, self.core.learner.total_steps)
        ):
            raise ConfigError(
                f"record: total_steps={total_steps!r}: give an int from 0 to the steps accepted so far, "
                f"{self.intake.accepted_steps}"
            )
        await self._queue.put(MetricsGiven(checked_record(values), total_steps))

    # Control --------------------------------------------------------------------------------------

    async def optimize(self, n: int) -> int:
        """Do optimization steps on what the agent has observed, without any new experience.

        Returns:
            How many were done: fewer where the session's end was reached or the agent skipped one.

        Raises:
            ConfigError: ``n`` is negative.
        """
        self.require_open("optimize")
        if type(n) is not int or n < 0:
            raise ConfigError(f"optimize: n={n!r}: give an int of at least 0")
        done, is_over = 0, False
        while done < n and not (is_over or self.is_done):
            # In small requests: other events are handled in between, and it can be cancelled.
            request = partial(OptimizationRequested, min(_OPTS_AT_ONCE, n - done))
            some, is_over = await self.engine.parts.ask(request)
            done += some
        return done

    async def on_dataset(self, n: int, digest: str) -> None:
        """Note that the next transitions are those of a data set, up to its ``n``-th.

        The journal and ``dataset`` keep this, so that a resume can refuse another data set.

        Args:
            n: at least 1.
            digest: of the data set's first ``n`` transitions, as ``stoker.trainer.digests`` computes it.
        """
        self.require_open("on_dataset")
        await self._queue.put(DatasetGiven(n, digest))

    async def flush(self) -> RunCounts:
        """Return when everything accepted so far is consumed, and its rows and journal are on disk.

        That survives a kill and a power cut: a resume learns from the journal what its checkpoint lacks. A
        run with ``journal=False`` keeps its rows only, and resumes from its newest checkpoint.

        Returns:
            The counters of what is on disk: of everything accepted before the call, at least.
        """
        parts = self._open_parts("flush")
        await parts.request("flush")
        return parts.writer.durable

    async def checkpoint(self) -> None:
        """Write a checkpoint of this point, whatever the period, and return when it is on disk.

        A resume has nothing to learn again up to here. Rows and journal up to this point are on disk, too.
        """
        self.require_open("checkpoint")
        if self.run is None:
            raise ConfigError("checkpoint: this session has no run to write to; give TrainingSession a run")
        await self.engine.parts.request("checkpoint")

    def stop(self) -> None:
        """Accept no more experiences, as if ``max_steps`` were reached: ``is_done`` becomes true."""
        self.require_open("stop")
        self.intake.stop()

    async def barrier(self) -> None:
        """Return when everything accepted so far is consumed, and what was learned of it is published."""
        await self._open_parts("barrier").request("barrier")
