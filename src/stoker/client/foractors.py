"""What the actors of ``stoker.actors`` ask of a session beside its events, if the training is elsewhere."""

from __future__ import annotations

import logging

from stoker.errors import ConfigError
from stoker.runs.events import RunEvent
from stoker.session import ResumePoint, SessionConfig
from stoker.session.pacing import LearnerProgress, Pacing
from stoker.session.publishing import PolicyBuffer
from stoker.telemetry.clocks import Clocks
from stoker.types import ActorId

_logger = logging.getLogger("stoker.client")


class ForActors:
    """The part of a remote session that only actors use: clocks, counters, and what a server does instead.

    Attributes:
        agent: None: the agent is at the server.
        config: the settings of actors; those of the training are the server's.
        clocks: those of the actors.
        pacing: lets every action begin.
        supervised_actors: actors that another part watches.
    """

    agent = None

    def __init__(self) -> None:
        self.config: SessionConfig = SessionConfig()
        self.clocks: Clocks = Clocks()
        self.pacing: Pacing = Pacing(
            None, 1, lambda: LearnerProgress(0, 0, 0), lambda: 0, self.config.actor_timeout_s
        )
        self.supervised_actors: set[ActorId] = set()
        self._episodes: dict[ActorId, int] = {}

    def actor_episodes(self, actor_id: ActorId) -> int:
        """How many episodes of this actor this client has ended."""
        return self._episodes.get(actor_id, 0)

    def count_episode(self, actor_id: ActorId) -> None:
        """Count an episode that has ended."""
        self._episodes[actor_id] = self._episodes.get(actor_id, 0) + 1

    def take_resume_point(self) -> ResumePoint:
        """Nothing: an episode that a client left is abandoned."""
        return ResumePoint()

    def policy_source(self) -> PolicyBuffer:
        """Refuse it.

        Raises:
            ConfigError: The policy is at the server.
        """
        raise ConfigError(
            "actors on a server have no copies of its policy: use place='tasks' without sync_interval"
        )

    def log_event(self, event: RunEvent) -> None:
        """Log what happened to an actor; the server's run does not hold it."""
        _logger.info("%r", event)
