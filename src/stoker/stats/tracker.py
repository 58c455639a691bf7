"""Named stats over episodes: over all actors, and per actor.

A session updates its tracker with one checked ``EpisodeRecord`` per ended episode and saves it with each
checkpoint. Update it from one thread at a time; another thread may read meanwhile without errors, and may see
a value that is one episode old.
"""

from __future__ import annotations

import copy
import math
import operator
from typing import Any, NamedTuple, cast

import msgspec

from stoker.errors import ConfigError
from stoker.lru import MAX_ACTORS, LRUDict
from stoker.plain import shown
from stoker.stats.aggregators import Aggregator, Mean, RollingMean, StatefulAggregator
from stoker.stats.records import EpisodeRecord, Source, length, total_reward
from stoker.types import ActorId


class WindowStats(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Statistics of the last episodes; NaN while there are none.

    Attributes:
        n_episodes: all episodes so far, also those outside the window.
        mean_reward: mean total reward of the episodes in the window.
        max_reward: the largest total reward in the window.
        min_reward: the smallest total reward in the window.
        mean_length: mean number of transitions of the episodes in the window.
        n_steps: transitions of all episodes so far.
        steps_per_s: transitions per second, from the end of the window's first episode to that of its last,
            of those whose end was timed; 0: fewer than two were.
    """

    n_episodes: int
    mean_reward: float
    max_reward: float
    min_reward: float
    mean_length: float
    n_steps: int = 0
    steps_per_s: float = 0.0


class _Stat(NamedTuple):
    source: Source
    pristine: Aggregator
    is_stateful: bool  # checked once: isinstance of a protocol is slow


class _View:
    """The aggregators, by stat, and the last episodes of one actor or of all."""

    __slots__ = (
        "_ends", "_lengths", "_rewards", "_saved", "_updated", "aggregators", "n_episodes", "n_steps",
    )  # fmt: skip

    def __init__(self, stats: dict[str, _Stat], window: int) -> None:
        self.aggregators = {name: copy.deepcopy(stat.pristine) for name, stat in stats.items()}
        self._saved = {
            name: cast("StatefulAggregator", self.aggregators[name])
            for name, stat in stats.items()
            if stat.is_stateful
        }
        self.n_episodes = self.n_steps = 0
        self._rewards, self._lengths = RollingMean(window), RollingMean(window)
        self._ends = RollingMean(window)  # of the newest episodes, in seconds; no checkpoint holds them
        self._updated = [*self.aggregators.values(), self._rewards, self._lengths]

    def update(self, values: list[float | None], at: float | None) -> None:
        """Count one episode: the value of each stat, the total reward and the length; None is skipped."""
        for aggregator, value in zip(self._updated, values, strict=True):
            if value is not None:
                aggregator.update(value)
        self.n_episodes += 1
        self.n_steps += int(values[-1] or 0)
        if at is not None:
            self._ends.update(at)

    def forget_ends(self) -> None:
        self._ends.reset()

    def _steps_per_s(self) -> float:
        ends = self._ends.recent()
        took_s = ends[-1] - ends[0] if ends else 0.0
        n_later = len(ends) - 1
        return sum(self._lengths.recent()[-n_later:]) / took_s if took_s > 0 else 0.0

    def window(self) -> WindowStats:
        rewards = self._rewards.recent()
        return WindowStats(
            n_episodes=self.n_episodes,
            mean_reward=self._rewards.value(),
            max_reward=max(rewards, default=math.nan),
            min_reward=min(rewards, default=math.nan),
            mean_length=self._lengths.value(),
            n_steps=self.n_steps,
            steps_per_s=self._steps_per_s(),
        )

    def state_dict(self) -> dict[str, Any]:
        stats = {
            name: {"kind": type(aggregator).__qualname__, "state": aggregator.state_dict()}
            for name, aggregator in self._saved.items()
        }
        window = {
            "n_episodes": self.n_episodes,
            "n_steps": self.n_steps,
            "rewards": self._rewards.state_dict(),
            "lengths": self._lengths.state_dict(),
        }
        return {"stats": stats, "window": window}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, aggregator in self._saved.items():
            saved = state["stats"].get(name)
            if saved is not None and saved["kind"] == type(aggregator).__qualname__:
                aggregator.load_state_dict(saved["state"])
        window = state["window"]
        self.n_episodes, self.n_steps = int(window["n_episodes"]), int(window.get("n_steps", 0))
        self._rewards.load_state_dict(window["rewards"])
        self._lengths.load_state_dict(window["lengths"])


class StatsTracker:
    """Aggregates episode records: by default the means ``episode_reward`` and ``episode_length``.

    ::

        stats = StatsTracker().with_stat("epsilon", extra("epsilon"), Last())
        stats.update(record, actor_id=3)
        stats.summary()  # {"episode_reward": ..., "episode_length": ..., "epsilon": ...}

    A stat skips values that are None or not finite. Each actor has its own view, made with its first
    episode. At most ``max_actors`` views are kept, because each is saved with every checkpoint; the least
    recently updated is dropped first. The global view keeps counting what a dropped view counted.

    Args:
        window: episodes that ``window()`` looks back on, at least 1.
        max_actors: how many per-actor views are kept, at least 1.

    Raises:
        ConfigError: The window or ``max_actors`` is not an int above 0.
    """

    def __init__(self, window: int = 100, *, max_actors: int = MAX_ACTORS) -> None:
        if type(max_actors) is not int or max_actors < 1:
            raise ConfigError(f"max_actors={max_actors!r}: give the number of actors to keep, an int above 0")
        self._window = window
        self._max_actors = max_actors
        self._having({})
        self.with_stat("episode_reward", total_reward, Mean())
        self.with_stat("episode_length", length, Mean())

    @classmethod
    def empty(cls, window: int = 100, *, max_actors: int = MAX_ACTORS) -> StatsTracker:
        """A tracker without stats; its window counts as usual.

        Raises:
            ConfigError: The window or ``max_actors`` is not an int above 0.
        """
        return cls(window, max_actors=max_actors)._having({})  # noqa: SLF001 - its own

    def fresh(self) -> StatsTracker:
        """An empty tracker with the same stats, window and bound, for one evaluation."""
        tracker = copy.copy(self)
        tracker.reset()  # replaces what the copy shares with this one
        return tracker

    def with_stat(self, name: str, source: Source, aggregator: Aggregator) -> StatsTracker:
        """Add a stat under this name, and return the tracker itself.

        The tracker uses empty copies of the aggregator.

        Raises:
            ConfigError: The name is taken, the source or the aggregator is not one, or episodes have been
                counted already.
        """
        if name in self._stats:
            raise ConfigError(f"stat {name!r} exists already: rename it, or start from StatsTracker.empty()")
        if not callable(source):
            raise ConfigError(f"stat {name!r}: {source=} is not a function: for an extra use extra(key)")
        given: Any = aggregator
        if isinstance(given, type) or not isinstance(given, Aggregator):
            raise ConfigError(f"stat {name!r}: {aggregator=} is not an aggregator: give one such as Mean()")
        if self._overall.n_episodes:
            raise ConfigError(f"stat {name!r}: add stats before the first episode is counted")
        pristine = copy.deepcopy(aggregator)
        pristine.reset()
        stat = _Stat(source, pristine, isinstance(pristine, StatefulAggregator))
        return self._having({**self._stats, name: stat})

    def update(self, record: EpisodeRecord, actor_id: ActorId = 0, at: float | None = None) -> None:
        """Count one ended episode, globally and for its actor.

        Args:
            record: the episode.
            actor_id: whose it is.
            at: when it ended, in monotonic seconds, for the window's speed; None: it is not timed.

        Raises:
            ConfigError: A source raised, or returned neither a number nor None; nothing was counted.
        """
        values = [_read(name, stat.source, record) for name, stat in self._stats.items()]
        values += _read("total_reward", total_reward, record), _read("length", length, record)
        # As a key, a numpy integer would not load with weights_only=True.
        key = actor_id if isinstance(actor_id, str) else operator.index(actor_id)
        view = self._view(key)
        self._by_actor.put(key, view)
        for each in (self._overall, view):
            each.update(values, at)

    def summary(self, actor_id: ActorId | None = None) -> dict[str, float]:
        """Each stat's value by name: over all episodes, or over one actor's.

        An actor that has ended no episode, or whose view has been dropped, reads as empty: NaN.
        """
        return {name: aggregator.value() for name, aggregator in self._view(actor_id).aggregators.items()}

    def window(self, actor_id: ActorId | None = None) -> WindowStats:
        """The last ``window`` episodes: of all actors, or of one; empty for an unknown actor."""
        return self._view(actor_id).window()

    def windows(self, most: int | None = None) -> dict[ActorId, WindowStats]:
        """The windows of the actors that have a view, or of the ``most`` of them that were updated last.

        The least recently updated comes first.
        """
        views = list(self._by_actor.items())
        return {actor_id: view.window() for actor_id, view in views[-(most or len(views)) :]}

    def restart_speeds(self) -> None:
        """Time episodes anew: those so far were learned again from a journal, or ended before a pause."""
        for view in (self._overall, *self._by_actor.values()):
            view.forget_ends()

    def actors(self) -> list[ActorId]:
        """The actors that have a view, the least recently updated first."""
        return list(self._by_actor)

    def reset(self) -> None:
        """Forget all episodes, globally and per actor; the stats stay."""
        self._having(self._stats)

    def state_dict(self) -> dict[str, Any]:
        """All views in plain types, loadable with ``weights_only=True``; the stats themselves are code.

        Aggregators that are not ``StatefulAggregator`` are left out: they start empty after a resume.
        """
        return {
            "overall": self._overall.state_dict(),
            "actors": {actor_id: view.state_dict() for actor_id, view in list(self._by_actor.items())},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned, for the stats whose name and aggregator class match.

        A stat that the state lacks starts empty; the rest of the state is ignored. Of more than
        ``max_actors`` views the most recently updated are taken. A load that fails changes nothing.
        """
        overall, by_actor = _View(self._stats, self._window), LRUDict[ActorId, _View](self._max_actors)
        overall.load_state_dict(state["overall"])
        for actor_id, saved in state["actors"].items():
            view = _View(self._stats, self._window)
            view.load_state_dict(saved)
            by_actor.put(actor_id, view)
        self._overall, self._by_actor = overall, by_actor

    def _having(self, stats: dict[str, _Stat]) -> StatsTracker:
        """Use these stats, with all views empty; replace dicts, so that concurrent readers keep theirs."""
        self._stats = stats
        self._overall = _View(stats, self._window)
        self._by_actor: LRUDict[ActorId, _View] = LRUDict(self._max_actors)
        return self

    def _view(self, actor_id: ActorId | None) -> _View:
        """The view of an actor or of all; a new one of an unknown actor."""
        if actor_id is None:
            return self._overall
        return self._by_actor.get(actor_id) or _View(self._stats, self._window)


def _read(name: str, source: Source, record: EpisodeRecord) -> float | None:
    """The number that a source reads from a record; None: there is none, or it is not finite."""
    try:
        value = source(record)
    except Exception as error:
        raise ConfigError(f"stat {name!r}: its source raised {type(error).__name__}: {error}") from error
    try:
        return float(value) if value is not None and math.isfinite(value) else None
    except OverflowError:  # an int beyond the largest float
        return None
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: a tensor of several numbers
        raise ConfigError(f"stat {name!r}: its source returned {shown(value)}, not a number") from error
