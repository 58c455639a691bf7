"""MultiAgentSession: several policies that learn together, each in a session and a run of its own.

A *joint step* is one step of an environment in which several agents act. Its outcomes go to the sessions of
all policies, or to none: ``joint_step`` brackets that. Between two joint steps the group *commits*: all
sessions make durable what they have accepted, and then ``group.json`` names where each of them stands. A
resume goes forward to the last commit in each run, so that all policies stand at the same joint step, however
the process ended.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import anyio
import msgspec
from anyio import to_thread
from anyio.lowlevel import checkpoint_if_cancelled

from stoker.agents.protocol import LearningAgent, check_agent
from stoker.errors import ConfigError, SessionClosed, SessionError, SessionFailed
from stoker.exits import single_error
from stoker.recorders import Recorder, Recording
from stoker.runs import GroupPosition, TrainingGroup
from stoker.session import SessionConfig, SessionReadings, TrainingSession
from stoker.settings import settings_from

_OWN = {
    "max_steps": "give max_joint_steps",
    "save_interval": "checkpoints are common: give checkpoint_freq",
    "final_checkpoint": "the group writes it",
    "roll_forward": "a group goes forward to its last commit",
    "roll_forward_to": "a group goes forward to its last commit",
    "repeated_limits": "give max_joint_steps",
}
"""Settings of a session that the group decides, and the way out."""


class GroupReadings(msgspec.Struct, frozen=True, kw_only=True):
    """The counters of a group at one moment.

    Attributes:
        joint_steps: joint steps, over all environments and attempts.
        committed_steps: how many of them the last commit holds; without a group directory 0.
        policies: the counters of each policy's session, by name.
    """

    joint_steps: int
    committed_steps: int
    policies: dict[str, SessionReadings]


class MultiAgentSession:
    """Several training sessions that begin, commit, resume and end together: an async context manager.

    One that fails takes the others down, and leaving the block raises its failure. With a resumed group, all
    policies go on from the joint step of the last commit; what was learned behind it is lost, at most what
    ``flush_interval_s`` has taken.

    Args:
        agents: what learns, by the name of the policy.
        policy_of: the policy of an agent of the environment, by its name.
        group: where everything goes, a new or a resumed one with these policies; None: nowhere.
        max_joint_steps: joint steps after which the group ends, exactly; over all attempts. None: no limit.
        checkpoint_freq: joint steps between the common checkpoints of all policies; 0: only the final one.
        recorders: where the metrics of each policy go, by its name.
        settings: the other fields of ``SessionConfig``, by name, for each session.

    Raises:
        ConfigError: A setting cannot be used, or the policies are not those of the group.
    """

    def __init__(
        self,
        agents: Mapping[str, LearningAgent],
        policy_of: Callable[[str], str],
        group: TrainingGroup | None = None,
        *,
        max_joint_steps: int | None = None,
        checkpoint_freq: int = 10_000,
        recorders: Mapping[str, Sequence[Recorder] | Recording] | None = None,
        **settings: Any,
    ) -> None:
        for name, way_out in _OWN.items():
            if name in settings:
                raise ConfigError(f"MultiAgentSession: {name}={settings[name]!r}: {way_out}")
        if not agents:
            raise ConfigError("MultiAgentSession: agents is empty: give at least one policy")
        if group is not None and set(agents) != set(group.runs):
            raise ConfigError(
                f"MultiAgentSession: agents for {sorted(agents)}, but {group.directory} is of "
                f"{sorted(group.runs)}: give an agent for each of these"
            )
        for name, value in (("max_joint_steps", max_joint_steps), ("checkpoint_freq", checkpoint_freq)):
            if not (type(value) is int and value >= 0) and not (value is None and name == "max_joint_steps"):
                raise ConfigError(f"MultiAgentSession: {name}={value!r}: give an int of at least 0")
        for agent in agents.values():
            check_agent(agent)
        config = settings_from(settings, SessionConfig, "MultiAgentSession")
        if group is not None and not config.journal:
            raise ConfigError("MultiAgentSession: journal=False: a group stands at a place in its journals")
        self.agents: dict[str, LearningAgent] = dict(agents)
        self.policy_of = policy_of
        self.group = group
        self.max_joint_steps = max_joint_steps
        self.joint_steps: int = 0
        """Joint steps, over all environments and attempts."""
        self._settings = settings
        self._recorders = dict(recorders or {})
        self._checkpoint_freq = checkpoint_freq
        self._flush_interval_s = config.flush_interval_s
        self._sessions: dict[str, TrainingSession] = {}
        self._open: contextlib.AsyncExitStack | None = None
        self._lock = anyio.Lock()
        self._committed_at = 0.0
        self._boundary: dict[str, int] = {}
        """The accepted steps of each session when the last joint step was complete."""
        self._checkpointed_steps = -1
        self._is_stopping = self._is_stopped = False
        self._awaited: tuple[int, anyio.Event] | None = None
        self.was_stopped: bool = False
        """Whether ``stop`` was called."""

    # Life -----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._open is not None or self._sessions:
            raise SessionError("MultiAgentSession: a group is opened once: make a new one")
        async with contextlib.AsyncExitStack() as stack:
            if (group := self.group) is not None:
                await to_thread.run_sync(group.acquire)
                stack.callback(group.release)
                self.joint_steps = group.committed.joint_steps
            for name, agent in self.agents.items():
                session = self._session(name, agent)
                await stack.enter_async_context(session)
                self._sessions[name] = session
            self._committed_at = time.monotonic()
            self._note_boundary()
            if self._is_over:
                self._stop_sessions()
            self._open = stack.pop_all()
        return self

    def _session(self, name: str, agent: LearningAgent) -> TrainingSession:
        settings: dict[str, Any] = {**self._settings, "checkpoint_freq": 0, "final_checkpoint": False}
        run = None
        if self.group is not None:
            run = self.group.runs[name]
            settings["roll_forward_to"] = self.group.committed.policies[name].events
        return TrainingSession(agent, run, recorders=self._recorders.get(name, ()), **settings)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        stack, self._open = self._open, None
        if stack is None:
            raise SessionError("MultiAgentSession: it was not entered")
        try:
            # Not in the middle of a joint step, where a native cancellation may end it.
            if self._failure() is None and self._is_at_boundary:
                with anyio.CancelScope(shield=True), contextlib.suppress(SessionError):
                    await self._commit(with_checkpoint=True)
        finally:
            failure = self._failure()
            if failure is not None:
                self._fail_others(*failure)
            try:
                await stack.__aexit__(kind, error, traceback)
            except SessionFailed as last:
                if failure is None:
                    raise
                raise failure[1] from (failure[1].__cause__ or last)

    def _failure(self) -> tuple[str, SessionFailed] | None:
        """The policy whose session has failed, and how; None: none has."""
        for name, session in self._sessions.items():
            try:
                session.require_open("group")
            except SessionFailed as failure:
                return name, failure
            except SessionClosed:
                continue
        return None

    def _fail_others(self, name: str, failure: SessionFailed) -> None:
        for other, session in self._sessions.items():
            if other != name:
                session.fail(f"policy {name!r} of its group", failure)

    # Sessions -------------------------------------------------------------------------------------

    @property
    def sessions(self) -> Mapping[str, TrainingSession]:
        """The session of each policy, by name.

        Raises:
            SessionClosed: The group was not entered.
        """
        if not self._sessions:
            raise SessionClosed("sessions", entered=False)
        return self._sessions

    @property
    def is_done(self) -> bool:
        """Whether the group is to end: it was stopped, or one of the sessions is done."""
        return self._is_stopping or any(session.is_done for session in self.sessions.values())

    def stop(self) -> None:
        """End the group behind the present joint step: then no session accepts any more experiences.

        Raises:
            SessionClosed: The group was not entered.
        """
        if self._open is None:
            raise SessionClosed("stop", entered=bool(self._sessions))
        self._is_stopping = self.was_stopped = True

    def note_signal(self, name: str) -> None:
        """Record that a signal, for example ``SIGTERM``, is why the sessions end; ``stop`` follows."""
        for session in self.sessions.values():
            session.note_signal(name)

    def _stop_sessions(self) -> None:
        self._is_stopping = self._is_stopped = True
        for session in self.sessions.values():
            with contextlib.suppress(SessionError):  # it has failed, which ends the others
                session.stop()

    def readings(self) -> GroupReadings:
        """All counters at this moment; from any thread."""
        return GroupReadings(
            joint_steps=self.joint_steps,
            committed_steps=0 if self.group is None else self.group.committed.joint_steps,
            policies={name: session.readings() for name, session in self.sessions.items()},
        )

    # Joint steps ----------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def joint_step(self) -> AsyncGenerator[None]:
        """Around handing the outcomes of one joint step to the sessions: a commit holds all or nothing.

        Only one joint step is handed over at a time, and not cut short where the task is cancelled. Ends with
        ``on_joint_step``. For loops of your own; ``JointActorGroup`` does the same.
        """
        await checkpoint_if_cancelled()
        with anyio.CancelScope(shield=True):
            async with self._lock:
                yield
                await self.on_joint_step()

    async def on_joint_step(self, env_index: int = 0) -> None:
        """Count a joint step whose outcomes all sessions have; commit if it is time; end at the limit.

        No other joint step may be half handed over meanwhile. One without any outcome, such as a reset, does
        not count.
        """
        del env_index
        if self._is_at_boundary or self._is_stopped:  # if it is stopped, the outcomes were refused
            return
        self.joint_steps += 1
        self._note_boundary()
        if self._awaited is not None and self.joint_steps >= self._awaited[0]:
            self._awaited[1].set()
        is_due = bool(self._checkpoint_freq) and self.joint_steps % self._checkpoint_freq == 0
        is_over = self._is_over or self.is_done
        if is_due or is_over or time.monotonic() - self._committed_at >= self._flush_interval_s:
            await self._commit(with_checkpoint=is_due)
        if is_over:
            self._stop_sessions()

    async def reached(self, joint_steps: int) -> None:
        """Wait until so many joint steps are done; for one task at a time."""
        if self.joint_steps < joint_steps:
            self._awaited = joint_steps, anyio.Event()
            await self._awaited[1].wait()

    async def commit(self) -> None:
        """Make durable what all sessions have accepted, as one: a resume goes on from here, or from later."""
        with anyio.CancelScope(shield=True):
            async with self._lock:
                await self._commit(with_checkpoint=False)

    async def checkpoint(self) -> None:
        """Commit, and write a common checkpoint of all policies."""
        with anyio.CancelScope(shield=True):
            async with self._lock:
                await self._commit(with_checkpoint=True)

    @property
    def _is_over(self) -> bool:
        return self.max_joint_steps is not None and self.joint_steps >= self.max_joint_steps

    @property
    def _is_at_boundary(self) -> bool:
        return self._boundary == self._accepted()

    def _note_boundary(self) -> None:
        self._boundary = self._accepted()

    def _accepted(self) -> dict[str, int]:
        return {name: session.accepted_steps for name, session in self._sessions.items()}

    async def _commit(self, *, with_checkpoint: bool) -> None:
        """Commit between two joint steps; a checkpoint is written when the commit holds what it counts.

        So no checkpoint lies beyond the last commit, and a resume always finds one that it can use.
        """
        positions: dict[str, GroupPosition] = {}

        async def flush(name: str, session: TrainingSession) -> None:
            counts = await session.flush()
            positions[name] = GroupPosition(events=counts.n_events, steps=counts.total_steps)

        await self._at_once(flush)
        self._committed_at = time.monotonic()
        if self.group is None:
            return
        positions = {name: positions[name] for name in self._sessions}
        await to_thread.run_sync(self.group.commit, self.joint_steps, positions)
        if with_checkpoint and self._checkpointed_steps != self.joint_steps:
            await self._at_once(lambda _, session: session.checkpoint())
            self._checkpointed_steps = self.joint_steps

    async def _at_once(self, call: Callable[[str, TrainingSession], Coroutine[Any, Any, None]]) -> None:
        with single_error():
            async with anyio.create_task_group() as tasks:
                for name, session in self._sessions.items():
                    tasks.start_soon(call, name, session)
