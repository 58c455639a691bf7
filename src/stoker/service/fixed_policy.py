"""Actions without a training: a policy of a run or of ``stoker export`` behind the same protocol.

If it is the best or the latest policy of a run that is being trained, each newer one is taken up between two
forward passes. A file that is damaged or missing changes nothing.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Literal, NamedTuple, Self

import anyio
import msgspec
import numpy as np

from stoker.errors import ConfigError, SessionClosed, StokerError
from stoker.journal import EpisodeEnded, StreamMoved
from stoker.policies.description import ObservationPart, PolicyDescription, parts_in
from stoker.policies.exported import FILES, LoadedPolicy
from stoker.policies.exporting import PolicyFormat, exported_files
from stoker.policies.loading import is_exported, load_policy
from stoker.policies.of_runs import trained_policy
from stoker.protocol import Spaces, difference
from stoker.runs import TrainingRun
from stoker.service.policy_files import PinnedPolicy
from stoker.session.acting import Inference
from stoker.session.decisions import Decision
from stoker.session.publishing import Answer
from stoker.threads import DedicatedThread
from stoker.types import ActMode, ActorId, AnyPath, Experience
from stoker.writer import files

_logger = logging.getLogger("stoker.service")

_Mark = tuple[str, int, int, int]
"""What tells two files of one name apart."""


class _Held(NamedTuple):
    policy: LoadedPolicy
    parts: tuple[ObservationPart, ...]
    is_discrete: bool
    spaces: Spaces
    version: int
    export: Callable[[PolicyFormat], bytes]

    def act(self, observations: Sequence[Any]) -> Any:
        columns = [
            np.stack([parts_in(each, (part,))[0] for each in observations]).astype(part.dtype, copy=False)
            for part in self.parts
        ]
        actions = self.policy.compute(*columns)["action"]
        return actions.tolist() if self.is_discrete else actions


class FixedPolicy:
    """A ``Backend`` that learns nothing, and a ``PolicySource``; an async context manager.

    Args:
        path: as for ``load_policy``, which reads it at once. Blocks.
        which: as for ``load_policy``.
        look_every_s: how often to look for a newer policy of the run.

    Attributes:
        spaces: what it observes and does; a newer policy of other spaces is refused.
        total_steps: records that it was given.
        total_episodes: episodes that ended.
        swaps: how many policies were ``taken`` up, and how many were ``refused``.

    Raises:
        RunNotFound, RunBroken, CheckpointNotFound, CheckpointCorrupt, ConfigError, MissingDependency: As for
            ``load_policy``.
    """

    learns: ClassVar[Literal[False]] = False
    is_done: ClassVar[Literal[False]] = False
    run: ClassVar[None] = None

    def __init__(
        self,
        path: AnyPath,
        which: str | int | None = None,
        *,
        look_every_s: float = 1.0,
    ) -> None:
        self._path, self._which = Path(path), None if which is None else str(which)
        self._run = None if is_exported(self._path) else TrainingRun.find(path)
        self._look_every_s = look_every_s
        self._mark = self._look()
        self._held = self._load()
        self.spaces: Spaces = self._held.spaces
        self.total_steps: int = 0
        self.total_episodes: int = 0
        self.streams: Mapping[ActorId, Any] = {}
        self.swaps: Counter[str] = Counter()
        self._inference = Inference(self._act, "auto")
        self._thread = DedicatedThread("stoker-policy")
        self._replaced = anyio.Event()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(tasks.cancel_scope.cancel)
            stack.callback(self._thread.close)
            stack.callback(self._inference.close, lambda: SessionClosed("act", entered=True))
            tasks.start_soon(self._inference.run)
            if self._run is not None:
                tasks.start_soon(self._follow)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, trace)

    # As a backend ---------------------------------------------------------------------------------

    def offer_events(self, events: Sequence[Any]) -> int:
        """Count events; return how many there are."""
        self.total_steps += sum(isinstance(event, Experience | StreamMoved) for event in events)
        self.total_episodes += sum(
            isinstance(event, EpisodeEnded)
            or (isinstance(event, StreamMoved) and event.evaluated is not None)
            for event in events
        )
        return len(events)

    async def observe_events(self, events: Sequence[Any]) -> int:
        """Count events; return how many there are."""
        return self.offer_events(events)

    async def decide_many(
        self, observations: Sequence[Any], actor_ids: Sequence[ActorId], mode: ActMode = ActMode.EXPLORE
    ) -> list[Decision]:
        """Choose an action for each observation, in one pass; the same ones in each mode."""
        shown: Any = np.stack(observations) if {*map(type, observations)} == {np.ndarray} else observations
        actions, _, version = await self._inference.ask_many(shown, mode, actor_ids)
        return [Decision(action, None, version) for action in actions]

    async def flush(self) -> None:
        """Return: there is nothing to write."""

    # As a source of policies ----------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Whose policy acts now, in words."""
        about = self._held.policy.description
        return f"{about['agent']} of {about['run'] or self._path} at step {about['total_steps']:,}"

    @property
    def policy_version(self) -> int:
        """The optimization steps behind the policy, or one more than the version of the one before it."""
        return self._held.version

    async def next_policy(self, after: int) -> int:
        """Wait until a policy acts whose version is above ``after``, and return its version."""
        while self._held.version <= after:
            await self._replaced.wait()
        return self._held.version

    async def pinned(self) -> PinnedPolicy:
        """The policy that acts now."""
        return PinnedPolicy(self._held.version, self._held.export)

    async def refresh(self) -> bool:
        """Take up the run's policy if there is a newer one, and say whether there was."""
        before = self._held
        try:
            mark = await self._thread.run(self._look)
            if mark is None or mark == self._mark:
                return False
            self._mark = mark  # also of a file that is refused: it is reported once
            held = await self._thread.run(self._load)
        except StokerError as error:
            return self._refuse(str(error))
        except Exception as error:  # noqa: BLE001 - a whole file can still hold anything
            return self._refuse(repr(error))
        if (found := difference(before.spaces, held.spaces)) is not None:
            return self._refuse(f"it has other spaces: {found}")
        if held.policy.description == before.policy.description:
            return False
        self._held = held._replace(version=max(held.version, before.version + 1))
        self.swaps["taken"] += 1
        self._replaced.set()
        self._replaced = anyio.Event()
        _logger.info("policy %d acts: %r", self._held.version, held.policy)
        return True

    def _refuse(self, why: str) -> Literal[False]:
        self.swaps["refused"] += 1
        _logger.warning("%s: the newest policy is not taken (%s); the one before stays", self._path, why)
        return False

    async def _follow(self) -> None:
        while True:
            await anyio.sleep(self._look_every_s)
            await self.refresh()

    # Policies -------------------------------------------------------------------------------------

    def _look(self) -> _Mark | None:
        """The file that the policy comes from; None: there is none now, or it does not change."""
        run = self._run
        if run is None:
            return None
        named = {"best": run.best_checkpoint_path, "latest": run.latest_checkpoint_path}
        for name in named if self._which is None else (self._which,):
            if name in named and (stat := files.stat_of(named[name])) is not None:
                return name, stat.st_ino, stat.st_mtime_ns, stat.st_size
        return None

    def _load(self) -> _Held:
        if self._run is None:
            policy, export = load_policy(self._path), self._exported
        else:
            trained = trained_policy(self._run.directory, self._which)
            policy = LoadedPolicy(trained.compute(trained.module()), trained.description, "torch")

            def export(form: PolicyFormat) -> bytes:
                return exported_files(trained, (form,), reads_journal=False)[1][FILES[form]]

        about = msgspec.convert(policy.description, PolicyDescription)
        spaces, is_discrete = msgspec.convert(about.spaces, Spaces), about.action.kind == "discrete"
        held = _Held(policy, about.observation, is_discrete, spaces, about.opt_steps, export)
        action = held.act([spaces.gymnasium()[0].sample()])
        if not np.isfinite(action).all():
            raise ConfigError(f"{self._path}: its policy gives the action {action[0]}, which is not finite")
        return held

    def _exported(self, form: PolicyFormat) -> bytes:
        """The file of an exported policy, which is never made from another one."""
        directory = self._path if self._path.is_dir() else self._path.parent
        try:
            return (directory / FILES[form]).read_bytes()
        except OSError as error:
            raise ConfigError(
                f"{directory} has no {FILES[form]}: export the policy in this format"
            ) from error

    def _act(self, observations: Sequence[Any], mode: ActMode, actor_ids: Sequence[ActorId]) -> Answer:
        held = self._held
        return held.act(observations), None, held.version
