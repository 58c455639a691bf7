"""A ready-made training loop: a session, its actors, an evaluator and recorders put together."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import anyio
import msgspec
from anyio.abc import TaskGroup

from stoker.actors import EnvFactory, FailureLimit, Place, PlayerGroup, StepMetrics
from stoker.actors.episodes import check_factory
from stoker.agents.protocol import LearningAgent, config_of
from stoker.errors import ConfigError, SessionError
from stoker.exits import Contained, single_error
from stoker.multi import OpponentPool, SelfPlay
from stoker.recorders import Recorder, Recording
from stoker.runs import TrainingRun
from stoker.session import SessionConfig, TrainingSession
from stoker.session.watching import Health
from stoker.stats import StatsTracker
from stoker.threads import CallSoon, call_soon_here
from stoker.trainer.config import shared_settings
from stoker.trainer.evaluator import Evaluator
from stoker.trainer.gate import StepGate
from stoker.trainer.offline import feed
from stoker.trainer.parts import GivenDataset
from stoker.trainer.players import place_for, players_on
from stoker.trainer.trainer_config import TrainerConfig
from stoker.trainer.warming import WarmUp


class TrainResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a training.

    Attributes:
        run: the run's directory; empty: there was none.
        total_steps, total_episodes: over all attempts.
        steps_per_sec: environment steps per second of this process.
        best_eval_reward: the best evaluation, over all attempts: a mean reward, or its lower bound if
            evaluations are compared by that; None: there was none.
        last_eval_reward: the mean reward of this process's last evaluation.
        restarts: the number of environments that failed and were made again.
        opt_steps: optimization steps, over all attempts.
        stopped_because: why an evaluation ended the training; None: none did.
    """

    run: str
    total_steps: int
    total_episodes: int
    steps_per_sec: float = 0.0
    best_eval_reward: float | None = None
    last_eval_reward: float | None = None
    restarts: int = 0
    opt_steps: int = 0
    stopped_because: str | None = None


class Progress(msgspec.Struct, frozen=True):
    """The parts of a training in progress; ``session.stop()`` ends it in good order.

    ``config`` is the ``TrainConfig`` of ``train``, or the ``TrainerConfig`` of a ``Trainer``.
    """

    config: Any
    session: TrainingSession
    group: PlayerGroup
    evaluator: Evaluator

    def result(self) -> TrainResult:
        """The result so far."""
        session, evaluator = self.session, self.evaluator
        return TrainResult(
            run="" if session.run is None else str(session.run.directory),
            total_steps=session.total_steps,
            total_episodes=session.total_episodes,
            opt_steps=session.opt_steps,
            steps_per_sec=session.steps_per_sec,
            best_eval_reward=session.best_value,
            last_eval_reward=evaluator.last and evaluator.last.mean_reward,
            restarts=self.group.restarts,
            stopped_because=evaluator.stopped_because,
        )


Watch = Callable[[Progress], Coroutine[Any, Any, None]]
_Entered = tuple[StepGate, contextlib.AbstractAsyncContextManager[StepGate], anyio.TaskInfo]
"""Where steps are fetched, what the trainer is left by, and the task that entered it."""


class Trainer:
    """Trains an agent on environments.

    ``train`` runs a whole training; inside of ``async with trainer`` it runs step by step, with
    ``train_step`` or ``async for``, and without an evaluation at its end. Each training ends at the next
    multiple of ``max_opts``, or of ``max_steps`` if that comes first, beyond the progress of agent and run: a
    second one does as much again, and one that was interrupted does the rest. For a total over all trainings
    give the session's own setting, as in ``Trainer(..., config, max_steps=100_000)`` with none in the config.
    A training ends with everything flushed and saved.

    Args:
        agent: the agent.
        factory: makes one environment, plain or async, for each actor, and again after a failure; a
            factory of vector environments is ``vector_factory``.
        config: limits and periods.
        run: the destination of episodes, metrics and checkpoints; None: they are not kept.
        eval_factory: makes the evaluation's environments, or a vector environment that plays them all; None:
            ``factory`` does.
        vector_factory: makes one vector environment of ``num_envs``, which all actors play in ``train``; with
            ``config.actors`` threads or processes, that of one of the ``workers``, of an equal share. None:
            each plays one of its own. ``factory`` then makes those of evaluations.
        is_joint: whether several agents play each environment together (PettingZoo's, or a ``JointEnv``),
            all with this one policy. Then a step is that of one agent, and ``num_envs`` is still the number
            of environments.
        opponents: with ``is_joint``: it learns in games against these, frozen policies of its own past.
        recorders: further destinations of the metrics.
        stats: statistics over training episodes; None: mean reward and length.
        limit: how many failures of an environment are tolerated.
        warm_data: prior data, in the forms of ``train_offline``, of which each batch of an off-policy agent
            has a share; they are read when the first training begins. A resumed run needs the same ones.
        mix: their share (Ball et al. 2023, section 4.1), above 0 and below 1.
        session_settings: further settings of the session, by the names of ``SessionConfig``.

    Raises:
        ConfigError: A setting is unknown or out of range.
    """

    def __init__(
        self,
        agent: LearningAgent,
        factory: EnvFactory,
        config: TrainerConfig | None = None,
        *,
        run: TrainingRun | None = None,
        eval_factory: EnvFactory | None = None,
        vector_factory: EnvFactory | None = None,
        is_joint: bool = False,
        opponents: OpponentPool | None = None,
        recorders: Sequence[Recorder] | Recording = (),
        stats: StatsTracker | None = None,
        limit: FailureLimit | None = None,
        warm_data: GivenDataset | None = None,
        mix: float = 0.5,
        **session_settings: Any,
    ) -> None:
        self.agent = agent
        self.config: TrainerConfig = TrainerConfig() if config is None else config
        self.run = run
        self._factory = factory
        self._eval_factory = factory if eval_factory is None else eval_factory
        self._vector_factory = vector_factory
        for each in (factory, self._eval_factory):
            check_factory(each)
        self._is_joint = is_joint
        self._opponents = opponents
        if opponents is not None and not is_joint:
            raise ConfigError("opponents: a game needs several agents: give is_joint=True, too")
        if is_joint and self.config.actors == "ray":
            raise ConfigError("actors='ray' plays single environments: with is_joint=True leave it out")
        self._recorders = recorders
        self._stats = StatsTracker() if stats is None else stats
        self._limit = limit
        self._warm_up = None if warm_data is None else WarmUp(agent, warm_data, mix)
        self._settings = self._session_settings(session_settings)
        self._session()  # refuses what cannot be used, before anything is begun
        self._is_stopped = False
        self._n_fed = 0  # transitions of a data set that the agent has observed
        self._progress: Progress | None = None
        self._loop: tuple[int, CallSoon] | None = None  # thread and entrance of the event loop that trains
        self._entered: _Entered | None = None
        self.result: TrainResult | None = None
        """The result of the last training."""

    @property
    def session(self) -> TrainingSession:
        """The session: during ``train`` and ``train_offline``, and inside of ``async with``.

        Raises:
            SessionError: There is none at the moment.
        """
        if self._progress is None:
            raise SessionError(
                "session: none at the moment; it exists during `train()` and inside of `async with trainer`"
            )
        return self._progress.session

    def health(self) -> Health:
        """The session's health.

        Raises:
            SessionError: There is no session at the moment.
        """
        return self.session.health()

    def note_signal(self, name: str) -> None:
        """Record that a signal, for example ``SIGTERM``, is why the training ends; ``stop`` follows."""
        if self._progress is not None:
            self._progress.session.note_signal(name)

    def stop(self) -> None:
        """End the training in good order, from any task or thread; ``train`` then returns its result.

        No more steps are accepted and nothing more is evaluated. What was accepted is learned and saved.

        Raises:
            SessionError: This trainer does not train at the moment.
        """
        if self._loop is None:
            raise SessionError("stop: this trainer does not train at the moment")
        self._is_stopped = True  # a session that is not open yet is stopped when it opens
        thread, call_soon = self._loop
        if threading.get_ident() == thread:
            self._stop_session()
        else:
            with contextlib.suppress(RuntimeError):  # the event loop has ended, and the training with it
                call_soon(self._stop_session)

    def _stop_session(self) -> None:
        if self._progress is not None:
            with contextlib.suppress(SessionError):  # it is closing, or has failed
                self._progress.session.stop()

    # Whole ----------------------------------------------------------------------------------------

    async def train(self, *, watch: Watch | None = None) -> TrainResult:
        """Train until a limit, until an evaluation ends it, or until the session is stopped.

        Args:
            watch: runs beside the training and is cancelled when that ends.

        Raises:
            ConfigError: There is no limit, or agent, environments and run do not fit.
            ActorFailed: An environment failed too often.
            SessionFailed: The agent, the writer or a recorder failed.
        """
        if watch is None and self._settings["max_opts"] is None and self._settings["max_steps"] is None:
            raise ConfigError("train: set max_opts or max_steps, or the training never ends")
        async with self._running("train", watch=watch) as (progress, _):
            await progress.group.run()
        return progress.result()

    async def train_offline(self, dataset: GivenDataset, *, watch: Watch | None = None) -> TrainResult:
        """Optimize ``max_opts`` times on a fixed data set; environments serve evaluation alone.

        Steps are optimization steps: those of the result, of checkpoints, rows, evaluations and recorders.
        The agent observes the data set once: a further training on the same one, also in a resumed run,
        continues where the one before ended; another data set is refused. The journal holds the transitions,
        so a resume is exact, and neither that nor a replay needs the data set.

        Args:
            dataset: a ``Dataset``, the name of one as ``open_dataset`` takes it, experiences, or columns by
                name (see ``parts_of``). One that is named is not opened where the run has all of it.
            watch: runs beside the training and is cancelled when that ends.

        Raises:
            ConfigError: There is no ``max_opts``, the data set is empty, does not fit the agent's spaces or
                is not that of the run, or the agent skips learning on it.
            SessionFailed: The agent, the writer or a recorder failed.
        """
        if self._settings["max_opts"] is None:
            raise ConfigError("train_offline: set max_opts, the number of optimization steps")
        config = config_of(self.agent)
        if (
            getattr(config, "learning_rate_schedule", "constant") != "constant"
            and getattr(config, "schedule_counts", "total_steps") == "total_steps"
        ):
            raise ConfigError(
                "train_offline: learning_rate_schedule='linear' counts environment steps, of which there "
                "are none: make the agent with schedule_counts='opt_steps'"
            )
        async with self._running("train_offline", watch=watch, **_OFFLINE) as (progress, _):
            session = progress.session
            n_fed = self._n_fed if self.run is None else session.kept_steps
            if await feed(session, dataset, n_fed) and self.run is not None and not session.is_stopped:
                await session.checkpoint()
            wanted = (session.config.max_opts or 0) - session.opt_steps
            done = await session.optimize(wanted)
            if done < wanted and not session.is_done:
                raise ConfigError(
                    f"train_offline: after {done} optimization steps the agent skipped one: it waits for "
                    f"more than the {session.kept_steps} transitions of the data set; lower what it waits "
                    "for (learning_starts, batch_size)"
                )
        self._n_fed = session.kept_steps if self.run is not None else n_fed + session.kept_steps
        return progress.result()

    # Step by step ---------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._vector_factory is not None or self._is_joint:
            kind = "joint environments" if self._is_joint else "the environments of a vector_factory"
            raise ConfigError(
                f"async with trainer: {kind} cannot be stepped one by one: use `train`, or single ones"
            )
        steps = self._stepping()
        self._entered = (await steps.__aenter__(), steps, anyio.get_current_task())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        if self._entered is None:
            raise SessionError("this trainer was not entered: use `async with trainer:`")
        _, steps, task = self._entered
        if (here := anyio.get_current_task()) != task:
            raise SessionError(
                f"this trainer was entered in task {task.name!r} and is left in task {here.name!r}: leave it "
                "in the task that entered it, as `async with` does"
            )
        self._entered = None
        return await steps.__aexit__(kind, error, traceback)

    @contextlib.asynccontextmanager
    async def _stepping(self) -> AsyncGenerator[StepGate]:
        gate = StepGate(lambda: self.session.remaining_steps)
        async with self._running("async with", gate=gate) as (progress, training):
            progress.session.on_end(gate.shut)
            training.start_soon(self._play, progress.group, gate)
            try:
                yield gate
                if progress.session.is_stopped or not progress.session.is_done:
                    training.cancel_scope.cancel()  # else this waits for the last evaluation
            finally:
                gate.close()

    async def train_step(self) -> StepMetrics | None:
        """Do one environment step and the learning that follows from it; None: the training has ended.

        Raises:
            SessionError: The trainer is not entered, or another call is waiting for a step.
        """
        step = await self._entered_gate("train_step").fetch(ahead=1)
        await self.session.barrier()
        return step

    def __aiter__(self) -> Self:
        """The steps in their order; all actors play at the same time, each at most one step ahead."""
        return self

    async def __anext__(self) -> StepMetrics:
        """The next step.

        Raises:
            SessionError: The trainer is not entered.
        """
        step = await self._entered_gate("async for").fetch(ahead=self.config.num_envs)
        if step is None:
            raise StopAsyncIteration
        return step

    def _entered_gate(self, what: str) -> StepGate:
        if self._entered is None:
            raise SessionError(f"{what}: enter the trainer first, as in `async with trainer:`")
        return self._entered[0]

    async def _play(self, group: PlayerGroup, gate: StepGate) -> None:
        await group.run()
        gate.close()  # not on failure: waiting callers are then cancelled with the cause

    # Parts ----------------------------------------------------------------------------------------

    def _session_settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        settings = shared_settings(self.config, SessionConfig)
        # Room for two steps of each actor keeps policies fresh.
        settings["queue_capacity"] = max(16, 2 * self.config.num_envs)
        if self.config.save_interval:
            settings["checkpoint_freq"] = 0
        limits = {name: settings[name] for name in ("max_steps", "max_opts") if settings[name] is not None}
        return {**settings, **given, **limits, "repeated_limits": tuple(limits)}

    def _session(self, **changes: Any) -> TrainingSession:
        settings = {**self._settings, **changes}
        return TrainingSession(self.agent, self.run, recorders=self._recorders, stats=self._stats, **settings)

    @contextlib.asynccontextmanager
    async def _running(
        self, what: str, *, gate: StepGate | None = None, watch: Watch | None = None, **changes: Any
    ) -> AsyncGenerator[tuple[Progress, TaskGroup]]:
        """A training with the evaluator and the watcher beside it; waits for the evaluator at the end.

        Only one at a time: two of them would share the agent.
        """
        if self._loop is not None:
            raise SessionError(f"{what}: this trainer is in a training already")
        self._loop = (threading.get_ident(), call_soon_here())
        self._is_stopped, self.result = False, None
        try:
            if self._warm_up is not None:
                await self._warm_up.run()
            async with contextlib.AsyncExitStack() as stack:
                # First: without its cluster, nothing begins.
                place = await stack.enter_async_context(place_for(self.config))
                session = await stack.enter_async_context(self._session(**changes))
                games = None
                if (pool := self._opponents) is not None:
                    games = await SelfPlay.open(session, pool, self._factory, stepping=self.config.stepping)
                self._progress = progress = self._begin(session, gate, games, place)
                if self._is_stopped:
                    session.stop()
                with single_error():
                    async with anyio.create_task_group() as watching:
                        if watch is not None:
                            watching.start_soon(_watched, watch, progress)
                        async with anyio.create_task_group() as training:
                            if session.config.eval_interval or session.config.eval_freq:
                                training.start_soon(progress.evaluator.run)
                            yield progress, training
                        watching.cancel_scope.cancel()
                if self._opponents is not None:
                    await self._opponents.close()
            self.result = progress.result()
        finally:
            self._progress = self._loop = None

    def _begin(
        self, session: TrainingSession, gate: StepGate | None, games: SelfPlay | None, place: Place | None
    ) -> Progress:
        config = self.config
        group = players_on(
            session,
            config,
            self._factory,
            self._limit,
            vector_factory=self._vector_factory,
            is_joint=self._is_joint,
            games=games,
            gate=gate,
            place=place,
        )
        evaluator = Evaluator(session, self._eval_factory, config.evaluation, stepping=config.stepping)
        return Progress(config, session, group, evaluator)


_OFFLINE: dict[str, Any] = {
    "offline": True,
    "opt_interval": 0,
    "warmup_period": 0,
    "max_steps": None,
    "max_staleness": None,
}


async def _watched(watch: Watch, progress: Progress) -> None:
    with Contained("watch"):
        await watch(progress)
