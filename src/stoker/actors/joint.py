"""Environments that several agents play together, as actors on one session or on several.

Each agent of each environment is a stream of episodes, from its birth to its death. A ``Seat`` is where the
agents of one policy act and learn: in each joint step it gets all of them at once, so that there is one
forward pass for each policy. An environment that fails costs the running episodes of its agents.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import anyio
import msgspec

from stoker.actors.actor import Player, PlayerSettings
from stoker.actors.episodes import EnvFactory, FailureLimit, extras_in
from stoker.actors.group import PlayerGroup
from stoker.actors.seats import Assign, LearningSeat, Seat, Seating
from stoker.actors.sessions import ActorSession
from stoker.actors.streams import ActorReport
from stoker.actors.timing import ACTING, OBSERVING, RESETTING, STARTING, STEPPING
from stoker.envs import PlayedEnv, Stepping
from stoker.envs.joint import CheckedJointEnv, JointStep, Outcome
from stoker.envs.pettingzoo import joint_env
from stoker.envs.results import then
from stoker.envs.seeding import next_seed
from stoker.errors import ConfigError
from stoker.stats import EpisodeRecord, check_record
from stoker.types import Experience

OnJointStep: TypeAlias = Callable[[int], Awaitable[None]]


async def run_joint_actors(
    seats: ActorSession | Mapping[str, Seat], make_env: EnvFactory, num_envs: int = 8, **settings: Any
) -> list[ActorReport]:
    """Play environments of several agents until a session is done, each agent as an actor.

    Args:
        seats: an entered session, whose policy all agents share; or a seat for each policy.
        make_env: makes one environment: PettingZoo's, Parallel or AEC, or a ``JointEnv``; may be async.
            Called again after a failure.
        num_envs: how many environments.
        settings: those of ``JointActorGroup``: ``policy_of``, ``assign``, ``seed``, ``limit``, ``stepping``
            and ``on_joint_step``.

    Returns:
        What each agent of each environment has done; ``env_s`` is the time of its environment, and
        ``restarts`` are those of its environment.

    Raises:
        ActorFailed, ConfigError, SessionError: As for ``JointActorGroup``.
    """
    group = JointActorGroup(seats, make_env, num_envs, **settings)
    await group.run()
    return group.reports


class JointActorGroup(PlayerGroup):
    """The agents of environments that several agents play together, as a group of actors.

    The actor id of an agent is the index of its environment and its name, such as ``"3/red_1"``. The group
    ends when one of the sessions is done; a joint step is begun only while none is. ``actor_timeout_s`` and
    ``on_silent_actor`` are those of the first session, and apply to each environment.

    Seeds: an environment's episode is seeded from ``seed``, the index of the environment and the number of
    the episode, as those of ``run_actors`` are.

    Args:
        seats: the session whose policy all agents share, entered; or a seat for each policy, by its name.
        factory: makes one environment: PettingZoo's, Parallel or AEC, or a ``JointEnv``; may be async. Called
            again after a failure.
        num_envs: how many environments.
        policy_of: the policy's name for each agent's; None: there is one seat.
        assign: chooses the seats anew for each episode, instead of ``policy_of``.
        seed: the run's; None: no seeds.
        limit: how many failures of its environment each of them survives.
        stepping: where plain environments are stepped; see ``Stepping``.
        on_joint_step: awaited with the environment's index when all seats have taken a joint step. No other
            environment hands over a joint step meanwhile, and a cancellation waits until it has returned.

    Raises:
        ConfigError: There is no session among the seats, or one is ``lockstep``; or both or none of
            ``policy_of`` and ``assign`` are given for several seats. From ``run``: agents under one policy
            have different spaces; agents that take turns play with ``max_staleness``.
    """

    def __init__(
        self,
        seats: ActorSession | Mapping[str, Seat],
        factory: EnvFactory,
        num_envs: int = 8,
        *,
        policy_of: Callable[[str], str] | None = None,
        assign: Assign | None = None,
        seed: int | None = None,
        limit: FailureLimit | None = None,
        stepping: Stepping = "auto",
        on_joint_step: OnJointStep | None = None,
    ) -> None:
        by_name: Mapping[str, Seat] = (
            seats if isinstance(seats, Mapping) else {"the policy": LearningSeat(seats)}
        )
        sessions = [*dict.fromkeys(seat.session for seat in by_name.values() if seat.session is not None)]
        if not sessions:
            raise ConfigError(
                f"seats={seats!r}: give at least one that learns, such as LearningSeat(session)"
            )
        if num_envs < 1:
            raise ConfigError(f"num_envs={num_envs}: give at least one environment")
        if (policy_of is not None and assign is not None) or (
            len(by_name) > 1 and policy_of is None and assign is None
        ):
            raise ConfigError(f"{len(by_name)} seats: give policy_of or assign, which say who has which")
        if any(session.config.lockstep for session in sessions):
            raise ConfigError(
                "lockstep=True: the agents of an environment act at once and cannot take turns with the "
                "learner; train without lockstep: a resume learns all of the journal, to the bit, and begins "
                "new episodes"
            )
        settings = PlayerSettings(
            factory=factory, seed=seed, limit=limit or FailureLimit(), stepping=stepping
        )
        seating = Seating(by_name, policy_of, assign)
        commits = None if on_joint_step is None else _Commits(on_joint_step, anyio.Lock())
        players = [_JointPlayer(sessions, index, settings, seating, commits) for index in range(num_envs)]
        super().__init__(sessions[0], players, *sessions[1:])


class _Commits(NamedTuple):
    """Lets environments hand over their joint steps one at a time and whole, for one who commits them."""

    on_joint_step: OnJointStep
    lock: anyio.Lock


class _Life:
    """An agent of the running episode, from its birth to its death."""

    __slots__ = ("action", "actor_id", "length", "observation", "report", "seat", "total_reward")

    def __init__(self, seat: Seat, report: ActorReport) -> None:
        self.seat = seat
        self.report = report
        self.actor_id = report.actor_id
        self.observation: Any = None
        self.action: Any = None
        self.total_reward = 0.0
        self.length = 0

    def close(self, outcome: Outcome) -> Experience:
        """The transition of the last action."""
        self.total_reward += outcome.reward
        self.length += 1
        self.report.steps += 1
        return Experience(
            self.observation,
            self.action,
            outcome.reward,
            outcome.next_observation,
            outcome.status,
            self.actor_id,
        )

    def record(self, outcome: Outcome) -> EpisodeRecord:
        """Its episode, which the outcome ended."""
        extras = extras_in(outcome.info)
        return check_record(EpisodeRecord(self.total_reward, self.length, outcome.status, extras))


class _JointPlayer(Player):
    """Plays one environment of several agents.

    Args:
        sessions: of the seats, the first of which counts the environment's failures.
        index: of the environment.
        settings: those of the group.
        seating: which agent has which seat.
        commits: None: nobody commits joint steps.
    """

    def __init__(
        self,
        sessions: Sequence[ActorSession],
        index: int,
        settings: PlayerSettings,
        seating: Seating,
        commits: _Commits | None,
    ) -> None:
        make = settings.factory
        own = msgspec.structs.replace(settings, factory=lambda: then(make(), self._adapted))
        super().__init__(sessions[0], index, own)
        self.streams = []  # each seat has those of its agents
        self._index = index
        self._sessions = sessions
        self._seating = seating
        self._commits = commits
        self._next_episode = -1  # not known before the agents are
        self._lives: dict[str, _Life] = {}
        self._lost: list[_Life] = []
        self._reports: dict[str, ActorReport] = {}
        self._agents: tuple[str, ...] = ()

    async def run(self) -> None:
        """See ``Player``."""
        own = self._stream.report
        own.begun_at, own.ended_at = time.monotonic(), None
        try:
            await super().run()
        finally:
            own.ended_at = time.monotonic()

    @property
    def reports(self) -> list[ActorReport]:
        """What each of its agents has done so far; before one is known, what became of the environment."""
        own, clock = self._stream.report, self.clock
        own.act_s, own.wait_s = clock.seconds(ACTING), clock.seconds(OBSERVING)
        for report in self._reports.values():
            for name in ("restarts", "last_error", "env_s", "act_s", "wait_s", "begun_at", "ended_at"):
                setattr(report, name, getattr(own, name))
        return [*self._reports.values()] or [own]

    @property
    def _is_over(self) -> bool:
        return any(session.is_done for session in self._sessions)

    def _adapted(self, made: Any) -> CheckedJointEnv:
        env = joint_env(made)
        self._seating.check(env)
        self._agents = env.agents
        return env

    def _lose_actions(self) -> None:
        for life in self._lives.values():
            life.seat.lose_action(life.actor_id)

    def _note_failure(self, error: str) -> None:
        own = self._stream.report
        own.restarts += 1
        own.last_error = error
        self._lost += self._lives.values()
        self._lives = {}

    async def _play_env(self) -> None:
        self.clock.enter(STARTING)
        earlier_s = self._stream.report.env_s
        async with self._opened_env() as env:
            if self._next_episode < 0:
                ids = [f"{self._index}/{agent}" for agent in self._agents]
                known = [session.actor_episodes(each) for each in ids for session in self._sessions]
                self._next_episode = max(known, default=0)
            try:
                while not self._is_over:
                    await self._play_episode(env)
            finally:
                self._stream.report.env_s = earlier_s + env.busy_s

    async def _play_episode(self, env: PlayedEnv) -> None:
        episode, self._next_episode = self._next_episode, self._next_episode + 1
        seed = next_seed(self._settings.seed, self._index, episode)
        seat_of = self._seating.of(self._index, episode)
        self.clock.enter(RESETTING)
        now: JointStep = cast("Any", await self.calls(env.reset(seed)))
        await self._hand_over(now, seat_of, seed)
        while not (now.is_over or self._is_over):
            self.clock.enter(ACTING)
            actions = await self._act(now)
            if self._is_over:
                return
            self.clock.enter(STEPPING)
            now = cast("Any", await self.calls(env.step(actions)))
            await self._hand_over(now, seat_of, seed)

    async def _act(self, now: JointStep) -> dict[str, Any]:
        """The actions of all who act, from one call of each seat."""
        lives, acting = self._lives, now.acting
        if len(acting) < len(lives):
            for session in self._sessions:
                if session.config.max_staleness is not None:
                    raise ConfigError(
                        f"max_staleness={session.config.max_staleness}: agents that take turns wait for each "
                        "other with open actions, and could wait forever; train without max_staleness"
                    )
        agents_of: dict[Seat, list[str]] = {}
        for agent in acting:
            agents_of.setdefault(lives[agent].seat, []).append(agent)
        actions: dict[str, Any] = {}
        # In one order for all environments: two that wait for each other's seats would wait forever.
        for seat in agents_of if len(agents_of) == 1 else sorted(agents_of, key=id):
            agents = agents_of[seat]
            chosen = await seat.act(
                [acting[agent] for agent in agents], [lives[agent].actor_id for agent in agents]
            )
            for agent, action in zip(agents, chosen, strict=True):
                life = lives[agent]
                life.observation, life.action = acting[agent], action
                actions[agent] = action
        return actions

    async def _hand_over(self, now: JointStep, seat_of: Callable[[str], Seat], seed: int | None) -> None:
        """Give a joint step to all seats."""
        self.clock.enter(OBSERVING)
        if (commits := self._commits) is None:
            await self._observe(now, seat_of, seed)
            return
        async with commits.lock:
            with anyio.CancelScope(shield=True):
                await self._observe(now, seat_of, seed)
                await commits.on_joint_step(self._index)

    async def _observe(self, now: JointStep, seat_of: Callable[[str], Seat], seed: int | None) -> None:
        lives = self._lives
        observed: dict[Seat, list[Experience]] = {}
        ended: list[tuple[_Life, EpisodeRecord]] = []
        for agent, outcome in now.outcomes.items():
            life = lives[agent]
            observed.setdefault(life.seat, []).append(life.close(outcome))
            if outcome.status.is_done:
                ended.append((lives.pop(agent), life.record(outcome)))
        for seat, experiences in observed.items():
            await seat.observe(experiences)
        for life, record in ended:
            life.report.episodes += 1
            await life.seat.end_episode(life.actor_id, record)
        for agent in now.acting:
            if agent not in lives:
                lives[agent] = life = _Life(seat_of(agent), self._report_of(agent))
                await life.seat.start_episode(life.actor_id, seed)
        if self._lost:
            lost, self._lost = self._lost, []
            running = {(life.seat, life.actor_id) for life in lives.values()}
            for life in lost:
                if (life.seat, life.actor_id) not in running:  # else it has begun anew
                    await life.seat.start_episode(life.actor_id, None)

    def _report_of(self, agent: str) -> ActorReport:
        if (report := self._reports.get(agent)) is None:
            self._reports[agent] = report = ActorReport(f"{self._index}/{agent}")
        return report
