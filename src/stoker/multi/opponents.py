"""OpponentPool: policies as they were, frozen every so often, kept in the run and restored by a resume.

    <run>/opponents/step_<N>.pt       the weights of a frozen policy, written whole or not at all
                    standings.json    results and ratings

What a resume does not go forward to is renamed to ``<name>.abandoned``, as checkpoints are.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from anyio import to_thread

import stoker.runs.layout as layout
from stoker.agents.protocol import ActsForActors, Policy, PortablePolicy
from stoker.errors import CheckpointCorrupt, CheckpointNotFound, ConfigError, RunBroken
from stoker.multi.standings import Choice, Opponent, Standings, standings_in, thinned
from stoker.runs.metadata import write_json
from stoker.session import TrainingSession
from stoker.types import ActMode, ActorId
from stoker.writer import files, load_checkpoint, publish_checkpoint, stage

_logger = logging.getLogger("stoker.multi")


class FrozenPolicy:
    """A policy that learns no more.

    Args:
        policy: an independent copy.
        standing: how the learner does against it.
        mode: how it acts.
    """

    def __init__(self, policy: Policy, standing: Opponent, mode: ActMode) -> None:
        self.standing = standing
        self._policy = policy
        self._for_actors = policy if isinstance(policy, ActsForActors) else None
        self._mode = mode

    def act(self, observations: Sequence[Any], actor_ids: Sequence[ActorId]) -> Sequence[Any]:
        """One action per observation, in one forward pass."""
        if self._for_actors is not None:
            return self._for_actors.act_for(observations, self._mode, actor_ids)[0]
        return self._policy.act(observations, self._mode)[0]

    def end_episode(self, actor_id: ActorId) -> None:
        """An actor's episode has ended."""
        if self._for_actors is not None:
            self._for_actors.end_episode(actor_id)


class OpponentPool:
    """Frozen policies of a session, from which the opponents of its games are chosen.

    The first one is the policy that the session begins with.

    Args:
        freq: environment steps of the learner between two policies that are frozen.
        keep: how many are kept: the newest, the oldest, and about evenly many between them.
        choose: how opponents are chosen: ``latest``, ``uniform``, ``pfsp``, or shares of these.
        mode: how they act; ``EXPLORE``: as they did when they learned.
        seed: of the choices and of the copies' generators; None: another one each time.

    Attributes:
        standings: results and ratings, as they are now.

    Raises:
        ConfigError: A value is out of range.
    """

    def __init__(
        self,
        freq: int = 10_000,
        keep: int = 20,
        choose: str = "latest:0.5,uniform:0.5",
        *,
        mode: ActMode = ActMode.EXPLORE,
        seed: int | None = None,
    ) -> None:
        for name, value in (("freq", freq), ("keep", keep)):
            if type(value) is not int or value < 1:
                raise ConfigError(f"OpponentPool: {name}={value!r}: give an int of at least 1")
        self.freq: int = freq
        self.keep: int = keep
        self.choice: Choice = Choice.parse(choose)
        self.standings: Standings = Standings()
        self._mode = mode
        self._seed = seed
        self._frozen: dict[int, FrozenPolicy] = {}
        self._session: TrainingSession | None = None
        self._directory: Path | None = None
        self._next_at = 0
        self._freezing = anyio.Lock()

    async def open(self, session: TrainingSession) -> None:
        """Restore what the run has, up to where the session stands, or freeze the policy that it begins with.

        Args:
            session: entered.

        Raises:
            ConfigError: The agent's policy cannot be copied.
            RunBroken: The standings cannot be read.
        """
        self._session = session
        self._frozen.clear()
        if session.run is not None:
            self._directory = session.run.directory / layout.OPPONENTS
            await to_thread.run_sync(self._restore, self._directory, session.total_steps)
        steps = list(self._frozen)
        self._next_at = 0 if not steps else (steps[-1] // self.freq + 1) * self.freq
        await self.freeze_if_due()

    async def close(self) -> None:
        """Write the standings."""
        if self._directory is not None:
            await to_thread.run_sync(self._write_standings, self._directory)

    def choose(self, *key: int) -> FrozenPolicy:
        """An opponent for a game.

        Args:
            key: with the pool's seed, decides it; such as the numbers of the environment and the episode.
        """
        rng = np.random.default_rng(None if self._seed is None else (self._seed, *key))
        return self._frozen[self.choice.pick(self.standings.opponents, rng).step]

    async def freeze_if_due(self) -> bool:
        """Freeze the policy that acts now, if ``freq`` steps have come since the last; say whether it did.

        The standings so far are recorded as metrics, and are written beside the policy.
        """
        session = self._session
        if session is None or session.total_steps < self._next_at or self._freezing.locked():
            return False
        async with self._freezing:
            step = session.total_steps
            self._next_at = (step // self.freq + 1) * self.freq
            if step in self._frozen:
                return False
            policy = self._copy_of_present(session, step)
            weights = policy.weights()
            if self._directory is not None:
                await to_thread.run_sync(self._write, self._directory, step, weights)
            self._add(policy, Opponent(step=step, rating=self.standings.rating))
            gone = self._thin()
            if self._directory is not None:
                await to_thread.run_sync(self._write_standings, self._directory, gone)
            await session.record(self.standings.metrics())
        return True

    def _copy_of_present(self, session: TrainingSession, step: int) -> PortablePolicy:
        source = session.policy_source()
        published = source.acquire()
        try:
            policy = published.policy
            if not isinstance(policy, PortablePolicy):
                raise ConfigError(
                    f"self-play needs copies of the policy, and {type(policy).__name__} has no fork, weights "
                    "and load_weights (PortablePolicy)"
                )
            seed = np.random.SeedSequence(self._seed, spawn_key=(step,)).generate_state(1)[0]
            return policy.fork(int(seed))
        finally:
            source.release(published)

    def _add(self, policy: PortablePolicy, standing: Opponent) -> None:
        self._frozen[standing.step] = FrozenPolicy(policy, standing, self._mode)
        self.standings.opponents.append(standing)

    def _thin(self) -> list[int]:
        """Let those go that are too many; games in progress end with them."""
        kept = set(thinned(list(self._frozen), self.keep))
        gone = [step for step in self._frozen if step not in kept]
        for step in gone:
            del self._frozen[step]
        self.standings.opponents = [one for one in self.standings.opponents if one.step in kept]
        return gone

    # Disk -----------------------------------------------------------------------------------------

    def _write(self, directory: Path, step: int, weights: dict[str, Any]) -> None:
        files.make_directory(directory)
        state = stage({"kind": "opponent", "total_steps": step, "weights": weights})
        publish_checkpoint(state, directory / layout.checkpoint_name(step))

    def _write_standings(self, directory: Path, gone: Sequence[int] = ()) -> None:
        files.make_directory(directory)
        write_json(directory / layout.STANDINGS, self.standings)
        files.remove_all([directory / layout.checkpoint_name(step) for step in gone])

    def _restore(self, directory: Path, total_steps: int) -> None:
        files.remove_leftovers(directory)
        names = files.files_in(directory)
        self.standings = standings_in(directory.parent) or Standings()
        known = {one.step: one for one in self.standings.opponents}
        self.standings.opponents = []
        session = self._session
        if session is None:
            return
        for step in layout.steps_of(names):
            path = directory / layout.checkpoint_name(step)
            if step > total_steps:
                files.move_aside(path, ".abandoned")
                continue
            try:
                policy = self._copy_of_present(session, step)
                policy.load_weights(load_checkpoint(path)["weights"])
            except (CheckpointCorrupt, CheckpointNotFound, RunBroken, LookupError) as error:
                _logger.warning("%s; this opponent is passed over", error)
                continue
            rating = self.standings.rating
            self._add(policy, known.get(step) or Opponent(step=step, rating=rating))
