"""``stoker actor``: play Gymnasium environments for a training on a server."""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta

from stoker.cli.options import Flag
from stoker.cli.parsing import ReportCommand
from stoker.cli.printing import say_json
from stoker.errors import ConfigError, SessionClosed
from stoker.settings import Count, Positive
from stoker.trainer.config import TrainConfig, config_from
from stoker.trainer.views.text import duration, number

if TYPE_CHECKING:
    from stoker.actors import ActorReport, StepMetrics
    from stoker.client import RemoteSession
    from stoker.types import ActorId

_TOKEN = "STOKER_TOKEN"  # noqa: S105 - the name of a variable


class PlayOnServer(ReportCommand, frozen=True, kw_only=True):
    """Play environments for a training on a server, which `stoker serve` runs.

    Each step is learned exactly once: steps are kept until the server has them on disk, and are sent again
    after a cut connection or a restart of the server. It ends when the training ends, or at Ctrl-C or
    SIGTERM, once everything is on the server's disk.
    """

    connect: Annotated[
        str, Flag(metavar="URL", missing="the server, such as --connect http://127.0.0.1:8000")
    ]
    """The server's address."""

    env: Annotated[str, Flag(metavar="ENV", missing="an environment, such as --env CartPole-v1")]
    """A Gymnasium id or module:factory; its spaces must be those of the server."""

    num_actors: Annotated[Count, Flag(short="-n")] = 8
    """Number of environments, each an actor of its own."""

    steps: Annotated[Count | None, Flag(metavar="INT", default="default: until the training ends")] = None
    """End after this many environment steps, over all actors."""

    episodes: Annotated[Count | None, Flag(metavar="INT", default="default: until the training ends")] = None
    """End after this many episodes, over all actors."""

    seed: Annotated[int | None, Flag(metavar="INT", default="default: a random one")] = None
    """Seed of the episodes."""

    token_file: Annotated[str, Flag(metavar="FILE", default="default: the variable STOKER_TOKEN")] = ""
    """A file that holds the token for the server."""

    name: Annotated[str, Flag(metavar="NAME", default="default: a random one")] = ""
    """Begins the actors' names at the server. Started again under its name, an actor continues its stream."""

    take_over: bool = False
    """Take over actors of this name from a connection that the server still holds for alive."""

    transport: Literal["auto", "websocket", "http"] = "auto"
    """How to reach the server; auto: by WebSocket, or HTTP if that is refused."""

    local_policy: bool = False
    """Choose actions here with the server's policy, without a round trip; not for PPO."""

    epsilon: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.05
    """With --local-policy, the probability of a random action; that policy does not explore by itself."""

    patience: Positive = 120.0
    """Seconds for which the server may be out of reach."""

    imports: Annotated[tuple[str, ...], Flag(name="import", metavar="MODULE", repeats=True)] = ()
    """What registers environments: modules to import, or module:function to call."""

    env_kwargs: dict[str, Any] = {}  # noqa: RUF012 - msgspec copies it
    """Keyword arguments for making the environment."""

    wrapper: Annotated[tuple[str, ...], Flag(metavar="MODULE:CLASS", repeats=True)] = ()
    """Wrappers of each environment, the first one innermost."""

    frame_stack: Count = 1
    """Number of last observations that the agent sees at once."""

    stepping: Literal["auto", "inline", "thread"] = "auto"
    """Where environments are stepped: inline on the event loop, each in a thread, or auto."""

    grace: Positive = 30.0
    """Seconds to finish after a signal."""

    stopped_code: Annotated[int, Meta(ge=0, le=255)] = 0
    """Exit code if a signal ended it before the training ended: a scheduler that starts failed jobs again
    needs one that is not 0."""

    async def __call__(self) -> int:
        from stoker.trainer.making import env_for, plays_jointly, spaces_for

        config = self._config()
        if plays_jointly(config):
            raise ConfigError(
                f"--env {config.env}: a remote actor plays single environments; `stoker train` plays this"
            )
        spaces = spaces_for(config)  # before anything heavy is imported: a wrong name is reported at once

        from stoker.actors import ActorGroup
        from stoker.client import connect
        from stoker.session import stop_on_signals

        stop, started_at = _Stop(), time.monotonic()
        async with (
            stop_on_signals(stop, grace_s=self.grace),
            connect(
                self.connect,
                token=self._token(),
                spaces=spaces,
                name=self.name or None,
                take_over=self.take_over,
                transport=self.transport,
                local_policy=self.local_policy,
                epsilon=self.epsilon,
                patience_s=self.patience,
            ) as session,
        ):
            stop.session = session
            budget = Budget(self.steps, self.episodes)
            group = ActorGroup(
                session,
                partial(env_for, config),
                self.num_actors,
                seed=self.seed,
                stepping=self.stepping,
                gate=budget,
                on_step=budget.on_step,
            )
            print(f"playing {self.env} for {self.connect} as {session.prefix}0 ...", file=sys.stderr)
            await group.run()
        self._report(session, group.reports, budget, time.monotonic() - started_at)
        return self.stopped_code if stop.was_asked and not session.has_ended else 0

    def _config(self) -> TrainConfig:
        given = {name: getattr(self, name) for name in ("env", "imports", "env_kwargs", "frame_stack")}
        return config_from({**given, "wrappers": list(self.wrapper)}, "actor")

    def _token(self) -> str | None:
        if not self.token_file:
            return os.environ.get(_TOKEN)
        try:
            token = Path(self.token_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--token-file {self.token_file}: cannot be read: {error}") from error
        if not token or not token.isprintable() or " " in token:
            raise ConfigError(
                f"--token-file {self.token_file}: give a file that holds the token and nothing else"
            )
        return token

    def _report(
        self, session: RemoteSession, reports: list[ActorReport], budget: Budget, elapsed_s: float
    ) -> None:
        steps, is_over = session.accepted_steps, session.has_ended
        restarts = sum(report.restarts for report in reports)
        facts = {
            "steps": steps,
            "episodes": budget.ended,
            "mean_reward": budget.mean_reward,
            "restarts": restarts,
            "training": "done" if is_over else "running",
        }
        if self.json:
            say_json(facts)
            return
        print(
            f"{number(steps)} steps, {number(budget.ended)} episodes in {duration(elapsed_s)} "
            f"({steps / max(elapsed_s, 1e-9):,.0f} steps/s); all of them are on the server"
        )
        if budget.mean_reward is not None:
            print(f"  mean reward        {number(budget.mean_reward)}")
        if restarts:
            print(f"  env restarts       {number(restarts)}")
        print(f"  the training       {'has ended' if is_over else 'goes on'}")


class Budget:
    """Ends actors after a number of steps or of episodes, over all of them, and counts their episodes.

    Args:
        steps: the most steps; None: no limit.
        episodes: the most episodes, which are played to their ends; None: no limit.
    """

    def __init__(self, steps: int | None, episodes: int | None) -> None:
        self._steps = steps
        self._episodes = episodes
        self._playing: set[ActorId] = set()
        self._n_steps = 0
        self._total_reward = 0.0
        self.ended: int = 0
        """Episodes that were played to their ends."""

    @property
    def mean_reward(self) -> float | None:
        """Of these episodes."""
        return self._total_reward / self.ended if self.ended else None

    async def enter(self, actor_id: ActorId) -> bool:
        """Whether this actor may do a step."""
        if self._steps is not None and self._n_steps >= self._steps:
            return False
        if actor_id not in self._playing:
            if self._episodes is not None and self.ended + len(self._playing) >= self._episodes:
                return False
            self._playing.add(actor_id)
        self._n_steps += 1
        return True

    def give_back(self, actor_id: ActorId) -> None:
        """The episode of this actor is lost."""
        self._playing.discard(actor_id)

    async def on_step(self, metrics: StepMetrics) -> None:
        """Count an episode that has ended."""
        if metrics.episode_over:
            self._playing.discard(metrics.actor_id)
            self.ended += 1
            self._total_reward += metrics.episode_reward


class _Stop:
    """What a signal stops: the session, once there is one."""

    session: RemoteSession | None = None
    was_asked = False

    def stop(self) -> None:
        if self.session is None:
            raise SessionClosed("stop", entered=False)
        self.was_asked = True
        self.session.stop()
