"""What an actor needs of the session that it plays on: a ``TrainingSession``, or one on a server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from stoker.runs.events import RunEvent
from stoker.session import ResumePoint, SessionConfig
from stoker.session.pacing import Pacing
from stoker.session.publishing import PolicyBuffer
from stoker.telemetry.clocks import Clocks
from stoker.types import ActMode, ActorId, EpisodeStatus, Experience, ExperienceBatch


class ActorSession(Protocol):
    """Takes the events of actors, and chooses their actions. The calls are those of ``TrainingSession``."""

    @property
    def agent(self) -> Any:
        """What learns, if it is in this process."""
        ...

    @property
    def config(self) -> SessionConfig:
        """Its settings."""
        ...

    @property
    def clocks(self) -> Clocks:
        """Where actors add their clocks."""
        ...

    @property
    def pacing(self) -> Pacing:
        """Which actors may begin an action."""
        ...

    @property
    def supervised_actors(self) -> set[ActorId]:
        """Actors that another part watches."""
        ...

    @property
    def is_done(self) -> bool:
        """Whether it accepts no more experiences."""
        ...

    @property
    def is_draining(self) -> bool:
        """Whether it consumes what it has accepted, and takes nothing more."""
        ...

    @property
    def accepted_steps(self) -> int:
        """Environment steps accepted so far."""
        ...

    def actor_episodes(self, actor_id: ActorId) -> int:
        """How many episodes of this actor it knows."""
        ...

    def take_resume_point(self) -> ResumePoint:
        """The running episodes, for their actors to continue."""
        ...

    def policy_source(self) -> PolicyBuffer:
        """Where to take published policies from, for actors with copies of them."""
        ...

    def require_open(self, what: str) -> None:
        """Refuse a call that needs a running session."""
        ...

    def fail(self, part: str, error: BaseException) -> None:
        """End the session: a part that plays on it has failed."""
        ...

    def log_event(self, event: RunEvent) -> None:
        """Record something that happened to an actor."""
        ...

    async def act(self, observation: Any, mode: ActMode = ..., actor_id: ActorId = ...) -> Any:
        """Choose an action."""
        ...

    async def act_many(
        self, observations: Iterable[Any], actor_ids: Iterable[ActorId], mode: ActMode = ...
    ) -> Any:
        """Choose actions for several actors; for an array of observations they are an array."""
        ...

    async def observe(self, experience: Experience) -> None:
        """Accept one transition."""
        ...

    async def observe_many(self, experiences: Iterable[Experience]) -> None:
        """Accept several transitions in order."""
        ...

    async def observe_batch(self, batch: ExperienceBatch) -> None:
        """Accept several transitions as columns."""
        ...

    async def on_episode_start(self, actor_id: ActorId = ..., seed: int | None = ...) -> None:
        """Begin an actor's episode."""
        ...

    async def on_episode(
        self,
        total_reward: float,
        steps: int,
        status: EpisodeStatus,
        env_extras: Mapping[str, float] | None = ...,
        actor_id: ActorId = ...,
    ) -> None:
        """End an actor's episode."""
        ...

    async def barrier(self) -> None:
        """Return when everything accepted so far is consumed."""
        ...
