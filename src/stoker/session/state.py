"""The state of a training between two events, and what a checkpoint holds of it.

    step_<N>.pt, latest.pt   format, kind="step", agent_type, prior, agent, session, journal, replay
    best.pt                  format, kind="best", agent_type, agent, session, best (value, total_steps)

``journal`` is the position in the journal, from where a resume must read it, and all of the replay but its
transitions; it is None without a journal. ``replay`` holds the transitions that the journal cannot give back.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec

from stoker.agents.protocol import (
    ChangesByActing,
    CountsOptSteps,
    HasReplay,
    LearningAgent,
    PriorData,
    RebuildsReplay,
    prior_of,
    settings_of,
)
from stoker.errors import ConfigError, JournalBroken, RunBroken
from stoker.journal import (
    DatasetGiven,
    EpisodeEnded,
    EpisodeStarted,
    Journal,
    StreamEnded,
    StreamMoved,
)
from stoker.runs import TrainingRun
from stoker.runs.wanted import USABLE_BY, content_of
from stoker.session.config import SessionConfig
from stoker.session.journaling import EventJournal
from stoker.session.metrics import TrainingMetrics
from stoker.session.registry import ActorRegistry
from stoker.session.remaking import agent_with, check_prior
from stoker.session.streams import NumberedActors
from stoker.stats import StatsTracker
from stoker.types import Experience
from stoker.writer import stage

_FORMAT = 4
_CHUNK = 1024
_COUNTERS = {
    "total_steps": "total_steps",
    "total_episodes": "total_episodes",
    "opt_steps": "opt_steps",
    "events": "n_events",
    "eval_episodes": "eval_episodes",
    "records": "n_records",
}
"""The counters of a checkpoint, by their attributes here."""


class RunCounts(NamedTuple):
    """The counters of a run, as they are between two events; ``n_events`` is its place in the journal."""

    total_steps: int
    total_episodes: int
    opt_steps: int
    n_events: int = 0


class KeptSteps(msgspec.Struct):
    """Environment steps that triggered no learning, and the data set that the last of them are of."""

    steps: int = 0
    dataset: DatasetGiven | None = None

    @property
    def is_within(self) -> bool:
        """Whether more transitions of the data set are to come: running episodes are those of it."""
        return self.dataset is not None and self.steps < self.dataset.n


class TrainingState:
    """The agent, its counters, its stats and its actors. All counters are over all attempts of the run.

    Steps are counted from the agent's own count; with ``offline`` they are optimization steps. Records hold
    ``statistics`` of a metric besides its mean.
    """

    def __init__(
        self,
        agent: LearningAgent,
        config: SessionConfig,
        stats: StatsTracker,
        run: TrainingRun | None,
        statistics: Sequence[str] = (),
    ) -> None:
        self.agent: LearningAgent = agent
        self.config = config
        self.stats = stats
        self.run = run
        self.opt_steps: int = agent.opt_steps if isinstance(agent, CountsOptSteps) else 0
        self.total_steps: int = self.opt_steps if config.offline else agent.total_steps
        self.total_episodes: int = 0
        self.n_events: int = 0
        """Events consumed that training is a function of: what a journal counts."""
        self.eval_episodes: int = 0
        """Rows of evaluation episodes."""
        self.kept: KeptSteps = KeptSteps()
        """What was only stored, for example the transitions of a data set."""
        self.n_records: int = 0
        """Rows of metrics."""
        self.actors: ActorRegistry = NumberedActors() if config.numbered else ActorRegistry()
        self.journal: EventJournal | None = None
        self.metrics: TrainingMetrics = TrainingMetrics(is_kept=config.records, statistics=statistics)
        """The content of the next record."""
        self._saved_at: tuple[int, ...] | None = None

    @property
    def counts(self) -> RunCounts:
        """The counters of the run."""
        return RunCounts(self.total_steps, self.total_episodes, self.opt_steps, self.n_events)

    @property
    def labels(self) -> dict[str, str]:
        """What names this training in other systems: its agent, and its run and attempt if it has a run."""
        found = {"agent": type(self.agent).__name__}
        if (run := self.run) is not None:
            metadata = run.metadata
            found |= {"name": metadata.name, "version": metadata.version, "run_id": metadata.run_id}
            found["attempt"] = str(run.attempt)
        return found

    @property
    def run_started_at(self) -> str | None:
        """When the run was created (ISO 8601), which identifies its checkpoints; None without a run."""
        return None if self.run is None else self.run.metadata.started_at.isoformat()

    @property
    def is_saved(self) -> bool:
        """Whether a checkpoint of exactly this state was staged or restored."""
        return self._saved_at == self._counts()

    def note_saved(self) -> None:
        """Remember that a checkpoint holds this state."""
        self._saved_at = self._counts()

    def _counts(self) -> tuple[int, ...]:
        return self.n_events, self.eval_episodes, self.n_records, self.opt_steps

    # Saving ---------------------------------------------------------------------------------------

    def number_streams(self) -> None:
        """Keep the streams of numbered actors from here on, as a session that is ``numbered`` always does."""
        if not isinstance(self.actors, NumberedActors):
            self.actors = NumberedActors(self.actors)

    def use(self, agent: LearningAgent) -> None:
        """Go on with this agent."""
        self.agent = agent

    def acting_state(self) -> dict[str, Any]:
        """Stage the entries of the agent's state that acting changes."""
        if not isinstance(self.agent, ChangesByActing):
            return {}
        state = self.agent.state_dict()
        return {name: stage(state[name], f"agent[{name!r}]") for name in self.agent.acting_state}

    def step_state(self, acting: Mapping[str, Any]) -> dict[str, Any]:
        """All that a resume needs, not staged yet.

        Args:
            acting: the entries that acting changes, if an action was chosen whose step is not learned yet.
        """
        agent, position = self.agent, self._journal_position()
        state: dict[str, Any] = {
            "format": _FORMAT,
            "kind": "step",
            "agent_type": type(agent).__name__,
            "settings": settings_of(agent),
            "prior": msgspec.to_builtins(prior_of(agent)),
            "session": {
                **self.counters(),
                "kept": msgspec.to_builtins(self.kept),
                "stats": self.stats.state_dict(),
                "recent_episodes": self.metrics.state_dict(),
                "actor_episodes": dict(self.actors.episodes),
                "open_episodes": self.actors.running,
                "streams": self.actors.encoded_streams(),
                "lockstep": self.config.lockstep,
                "attempt": 0 if self.run is None else self.run.attempt,
                "run_started_at": self.run_started_at,
            },
            "agent": {**agent.state_dict(), **acting},
            "journal": position,
        }
        if isinstance(agent, HasReplay) and (position is None or position["replay"] is None):
            state["replay"] = agent.replay.state_dict()
        return state

    def counters(self) -> dict[str, int]:
        """The counters of a checkpoint, by their names there."""
        return {key: getattr(self, name) for key, name in _COUNTERS.items()}

    def _journal_position(self) -> dict[str, Any] | None:
        """How long the journal is, and from which event it is needed; None without a journal."""
        if self.journal is None:
            return None
        needs_from, reference, rebuild_from = self.n_events, None, None
        if isinstance(self.agent, RebuildsReplay):
            standing = self.agent.replay_reference()
            rebuild_from = self.journal.rebuild_from(int(standing["n_added"]) - int(standing["size"]))
            if rebuild_from is not None:
                needs_from, reference = rebuild_from, standing
        if self.config.lockstep:  # a resume needs the running episodes, and the last event for the next turn
            needs_from = min([needs_from, max(self.n_events - 1, 0), *self.actors.running.values()])
        return {
            "events": self.n_events,
            "needs_from": needs_from,
            "rebuild_from": rebuild_from,
            "replay": reference,
        }

    # Restoring ------------------------------------------------------------------------------------

    def restore(self, path: Path, state: Mapping[str, Any], journal: Journal) -> None:
        """Restore a step checkpoint into this and the agent; the replay may come from the journal. Blocks.

        With a journal, the agent is then one with the checkpoint's settings, on which the journal goes on.

        Args:
            path: the checkpoint's file, for errors.
            state: its content.
            journal: the run's.

        Raises:
            ConfigError: It is of another format, kind or agent, or of other prior data.
            JournalBroken: The journal cannot give the replay back.
            RunBroken: Its content is not what this stoker or the agent saves.
        """
        if state.get("format") != _FORMAT or state.get("kind") != "step":
            raise ConfigError(
                f"{path}: it is a {state.get('kind')!r} of format {state.get('format')!r}, this stoker "
                f"resumes a 'step' of format {_FORMAT}; {USABLE_BY}"
            )
        with content_of(path):
            settings = None if state["journal"] is None else state["settings"]
            agent = agent_with(self.agent, state["agent_type"], settings, self.metrics.warn_once)
            check_prior(agent, msgspec.convert(state.get("prior"), PriorData | None))
            if agent is not self.agent:
                self.use(agent)
            _restore_agent(self.agent, state, journal)
            session = state["session"]
            for key, name in _COUNTERS.items():
                setattr(self, name, session[key])
            self.kept = msgspec.convert(session["kept"], KeptSteps)
            if (streams := session["streams"]) is not None:
                self.number_streams()
            self.actors.restore(session["actor_episodes"], session["open_episodes"], streams)
            self.stats.load_state_dict(session["stats"])
            self.metrics.load_state_dict(session["recent_episodes"])
        self.note_saved()


def weights_of(agent: LearningAgent, counters: Mapping[str, int]) -> dict[str, Any]:
    """Stage an agent without its replay, in the form of a checkpoint."""
    return {
        "format": _FORMAT,
        "kind": "weights",
        "agent_type": type(agent).__name__,
        "session": counters,
        "agent": stage(agent.state_dict(), "agent"),
    }


def _restore_agent(agent: LearningAgent, state: Mapping[str, Any], journal: Journal) -> None:
    position: Mapping[str, Any] | None = state["journal"]
    if position is None or position["replay"] is None:
        agent.load_state_dict(state["agent"])
        if isinstance(agent, HasReplay) and "replay" in state:
            agent.replay.load_state_dict(state["replay"])
        return
    if not isinstance(agent, RebuildsReplay):
        raise ConfigError(
            f"the checkpoint's replay is in the journal, which {type(agent).__name__} cannot read: it lacks "
            "the methods of RebuildsReplay"
        )
    before = agent.replay.state_dict()
    try:
        _observe_again(agent, journal, position)
    except (JournalBroken, RunBroken):
        agent.replay.load_state_dict(before)  # an older checkpoint may bring no replay
        raise
    agent.load_state_dict(state["agent"])
    agent.end_rebuild(position["replay"])


def _observe_again(agent: RebuildsReplay, journal: Journal, position: Mapping[str, Any]) -> None:
    """Let the agent observe what its replay held, without learning from it."""
    first, last = position["rebuild_from"], position["events"]
    points = {header.first_event: header.rebuild for header in journal.headers()}
    if points.get(first) is None:
        raise JournalBroken(
            journal.directory, f"no segment begins at event {first}, where the replay must begin"
        )
    agent.begin_rebuild(points[first], position["replay"])
    events = (event for _, event in journal.read(first, last))
    for kind, group in itertools.groupby(events, type):
        if kind is Experience:
            while chunk := list(itertools.islice(group, _CHUNK)):
                agent.observe(cast("list[Experience]", chunk))
        else:
            for event in group:
                if isinstance(event, EpisodeStarted | EpisodeEnded | StreamMoved | StreamEnded):
                    agent.on_episode_start(event.actor_id)
