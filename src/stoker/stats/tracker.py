"""Named stats over episodes: over all actors, and per actor.

A session feeds its tracker one checked ``EpisodeRecord`` per ended episode and saves it with each
checkpoint. Fed from one thread at a time; another thread may read meanwhile, never gets an error from
that, and may see a value that is one episode old.
"""

from __future__ import annotations

import copy
import math
import operator
from typing import Any, NamedTuple

from stoker.errors import ConfigError
from stoker.lru import MAX_ACTORS, LRUDict
from stoker.stats.aggregators import Aggregator, Mean, StatefulAggregator
from stoker.stats.records import EpisodeRecord
from stoker.stats.sources import Source, length, total_reward
from stoker.stats.window import EpisodeWindow, WindowStats
from stoker.types import ActorId

__all__ = ["StatsTracker"]


class _Stat(NamedTuple):
    source: Source
    pristine: Aggregator
    is_stateful: bool  # asked once: it takes long for a protocol


class _View:
    """The aggregators, by stat, and the window of one actor or of all."""

    __slots__ = ("_saved", "aggregators", "window")

    def __init__(self, stats: dict[str, _Stat], window: int) -> None:
        self._saved = [name for name, stat in stats.items() if stat.is_stateful]
        self.aggregators = {name: copy.deepcopy(stat.pristine) for name, stat in stats.items()}
        self.window = EpisodeWindow(window)

    def state_dict(self) -> dict[str, Any]:
        stats: dict[str, Any] = {}
        for name in self._saved:
            aggregator: Any = self.aggregators[name]
            stats[name] = {"kind": type(aggregator).__qualname__, "state": aggregator.state_dict()}
        return {"stats": stats, "window": self.window.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        saved = state["stats"]
        for name, aggregator in self.aggregators.items():
            kind = type(aggregator).__qualname__
            if isinstance(aggregator, StatefulAggregator) and name in saved and saved[name]["kind"] == kind:
                aggregator.load_state_dict(saved[name]["state"])
        self.window.load_state_dict(state["window"])


class StatsTracker:
    """Aggregates episode records; to begin with ``episode_reward`` and ``episode_length``, their means.

    ::

        stats = StatsTracker().with_stat("epsilon", extra("epsilon"), Last())
        stats.update(record, actor_id=3)
        stats.summary()  # {"episode_reward": ..., "episode_length": ..., "epsilon": ...}

    A value that a record does not have (None), or that is not finite, is skipped by its stat: it never
    turns a mean into NaN. A view per actor comes into being with the actor's first episode; views never
    mix. At most ``max_actors`` are kept, the least recently updated goes first: actor ids may be those of
    connections, which never end, and each view is also saved with every checkpoint. What a dropped view
    counted stays in the global one.

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
        self._stats: dict[str, _Stat] = {}
        self._overall = _View(self._stats, window)
        self._by_actor: LRUDict[ActorId, _View] = LRUDict(max_actors)
        self.with_stat("episode_reward", total_reward, Mean())
        self.with_stat("episode_length", length, Mean())

    @classmethod
    def empty(cls, window: int = 100, *, max_actors: int = MAX_ACTORS) -> StatsTracker:
        """A tracker that aggregates nothing until ``with_stat`` is called; its window counts as ever.

        Raises:
            ConfigError: The window or ``max_actors`` is not an int above 0.
        """
        return cls(window, max_actors=max_actors)._having({})  # noqa: SLF001 - one of its own

    def fresh(self) -> StatsTracker:
        """An empty tracker with the same stats, window and bound, for one evaluation."""
        tracker = copy.copy(self)
        tracker.reset()  # replaces what the copy shares with this one
        return tracker

    def with_stat(self, name: str, source: Source, aggregator: Aggregator) -> StatsTracker:
        """Aggregate one more value under this name, and return the tracker itself.

        The tracker works on empty copies of the aggregator; the one given stays the caller's.

        Raises:
            ConfigError: The name is taken, the source or the aggregator is not one, or episodes have
                been counted already, which the new stat would have missed.
        """
        if name in self._stats:
            raise ConfigError(
                f"stat {name!r} exists already: choose another name, or start from StatsTracker.empty()"
            )
        if not callable(source):
            raise ConfigError(
                f"stat {name!r}: source={source!r} is not a function of a record; for an extra use extra(key)"
            )
        given: Any = aggregator
        if isinstance(given, type) or not isinstance(given, Aggregator):
            raise ConfigError(
                f"stat {name!r}: aggregator={aggregator!r} is not an aggregator; give one such as Mean()"
            )
        if self._overall.window.n_episodes:
            raise ConfigError(
                f"stat {name!r}: episodes have been counted already; add stats before the first one"
            )
        pristine = copy.deepcopy(aggregator)
        pristine.reset()
        return self._having(
            {**self._stats, name: _Stat(source, pristine, isinstance(pristine, StatefulAggregator))}
        )

    def update(self, record: EpisodeRecord, actor_id: ActorId = 0) -> None:
        """Count one ended episode, globally and for its actor.

        Raises:
            ConfigError: A source raised, or returned what is neither a number nor None; the message names
                its stat, and nothing has been counted.
        """
        values = [(name, _finite(name, _of(name, stat, record))) for name, stat in self._stats.items()]
        reward = _finite("total_reward", record.total_reward)
        steps = _finite("length", record.length)
        for view in (self._overall, self._view_of(actor_id)):
            aggregators = view.aggregators
            for name, value in values:
                if value is not None:
                    aggregators[name].update(value)
            view.window.update(reward, steps)

    def summary(self, actor_id: ActorId | None = None) -> dict[str, float]:
        """Each stat's value by name: over all episodes, or over one actor's.

        All are NaN for an actor that has ended no episode, or whose view has been dropped.
        """
        view = self._overall if actor_id is None else self._by_actor.get(actor_id)
        if view is None:
            return dict.fromkeys(self._stats, math.nan)
        return {name: aggregator.value() for name, aggregator in view.aggregators.items()}

    def window(self, actor_id: ActorId | None = None) -> WindowStats:
        """The last ``window`` episodes: of all actors, or of one; empty for an unknown actor."""
        view = self._overall if actor_id is None else self._by_actor.get(actor_id)
        return EpisodeWindow(1).stats() if view is None else view.window.stats()

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
        """Become what ``state_dict`` described, as far as the stats here are those of then.

        A stat may be added, dropped or made anew between two runs: what matches by name and by the
        aggregator's class goes on, a stat that the state does not have starts empty, the rest of the
        state is ignored. Of more than ``max_actors`` views the most recently updated are taken. When
        loading fails, the tracker is as it was before.
        """
        overall = self._restored(state["overall"])
        by_actor: LRUDict[ActorId, _View] = LRUDict(self._max_actors)
        for actor_id, view in list(state["actors"].items())[-self._max_actors :]:
            by_actor.put(actor_id, self._restored(view))
        self._overall, self._by_actor = overall, by_actor

    def _having(self, stats: dict[str, _Stat]) -> StatsTracker:
        """Take on these stats, with all views empty. Dicts are replaced, not grown: readers keep theirs."""
        self._stats = stats
        self._overall = _View(stats, self._window)
        self._by_actor = LRUDict(self._max_actors)
        return self

    def _restored(self, state: dict[str, Any]) -> _View:
        view = _View(self._stats, self._window)
        view.load_state_dict(state)
        return view

    def _view_of(self, actor_id: ActorId) -> _View:
        """The actor's view, made if need be, and now the most recently updated."""
        # As a key, a numpy integer would not load with weights_only=True.
        key = actor_id if isinstance(actor_id, str) else operator.index(actor_id)
        view = self._by_actor.get(key)
        if view is None:
            view = _View(self._stats, self._window)
        self._by_actor.put(key, view)
        return view


def _finite(name: str, value: float | None) -> float | None:
    """The value, or None where there is none to aggregate."""
    if value is None:
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an int beyond the largest float
        return None
    except TypeError as error:
        raise ConfigError(
            f"stat {name!r}: its source returned {value!r}; return a finite number or None"
        ) from error


def _of(name: str, stat: _Stat, record: EpisodeRecord) -> float | None:
    try:
        return stat.source(record)
    except Exception as error:
        raise ConfigError(f"stat {name!r}: its source raised {type(error).__name__}: {error}") from error
