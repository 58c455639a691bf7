"""The session behind a service: opened in the background, and ended with the application.

While it rolls its run forward, requests get 503 with the progress, and ``/readyz`` says the same. A session
that fails leaves its cause for every later request, and for the program that serves it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, closing
from typing import Any, TypeAlias

import anyio
import gymnasium
from anyio.abc import TaskStatus

from stoker.errors import ConfigError, StokerError
from stoker.exits import single_error
from stoker.protocol import ProtocolError, SpaceCodec, Spaces, difference, spaces_digest
from stoker.service.connections import Connections
from stoker.service.limits import Limits
from stoker.service.policy_files import PolicyFiles, SessionPolicies
from stoker.service.steps import StepService
from stoker.session.tail import progress_told
from stoker.telemetry.opentelemetry import Spans, spans_here
from stoker.telemetry.prometheus import Exposition
from stoker.telemetry.reading import ServiceCounts, TrainingReading

_logger = logging.getLogger("stoker.service")

GymSpaces: TypeAlias = "tuple[gymnasium.Space[Any], gymnasium.Space[Any]]"
"""Of observations and of actions."""

SessionFactory: TypeAlias = Callable[..., AbstractAsyncContextManager[Any]]
"""Makes the session, or another ``Backend``. It gets the two spaces if the first client says them."""


class Hosted:
    """The session of an application, and the steps of its actors.

    Args:
        factory: makes the session; called by ``run``. If it refuses the spaces of a client, by a
            ``ConfigError``, the client is told, and it is called again with those of the next one.
        spaces: Gymnasium's, or described with names; None: the first client's hello says them.
        limits: what clients may do.
        on_end: called when the session cannot be opened, or has failed; ``failure`` says why.
    """

    def __init__(
        self,
        factory: SessionFactory,
        spaces: GymSpaces | Spaces | None,
        limits: Limits,
        *,
        on_end: Callable[[], object] | None = None,
    ) -> None:
        self._factory = factory
        self.on_end = on_end
        self._progress = "the session opens its run"
        self._has_begun = False
        self._is_closing = False
        self._exposition: Exposition | None = None
        self.limits = limits
        self.counts: ServiceCounts = ServiceCounts()
        self.are_spaces_from_client: bool = spaces is None
        self.connections: Connections = Connections()
        """The open WebSockets."""
        self.spaces = spaces.gymnasium() if isinstance(spaces, Spaces) else spaces
        self.described = Spaces.of(*spaces) if isinstance(spaces, tuple) else spaces
        """What clients are told of the spaces; None: no client has said them."""
        self._unfit: ConfigError | None = None
        self.session: Any = None
        """The session, or another ``Backend``, once it is open."""
        self.service: StepService | None = None
        """The steps of its actors, while it serves."""
        self.spans: Spans | None = None
        """What makes spans of requests; None: the program collects none."""
        self.policies: PolicyFiles | None = None
        """The newest policy as a file, while it serves."""
        self.failure: Exception | None = None
        """Why the session could not be opened, or what failed in it."""

    # From opening to closing ----------------------------------------------------------------------

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Open the session, serve, and end it when ``close`` is called: drain, save, close.

        Never raises; ``failure`` says what went wrong. Started as a task, it has begun when ``close`` may be
        called.
        """
        # Here, because an application may be made where no event loop runs.
        self._spaces_given, self._opened, self._closing = anyio.Event(), anyio.Event(), anyio.Event()
        self._opening = anyio.CancelScope()
        self._has_begun = True
        if self._is_closing:
            self.close()
        task_status.started()
        try:
            with single_error(), self._opening, progress_told(self._tell):
                async with AsyncExitStack() as stack:
                    session = await self._open(stack)
                    await self._serve(session)
        except Exception as error:  # noqa: BLE001 - kept for each later request, and given to the program
            self._fail(error)
        finally:
            self.service = None
            self._opened.set()
            self.connections.end_all(self.refusal())

    def _fail(self, error: Exception) -> None:
        self.failure = error
        if self.on_end is not None:
            self.on_end()
        else:
            traceback = None if isinstance(error, StokerError) else error
            _logger.error("the service goes on without its session: %s", error, exc_info=traceback)

    async def _open(self, stack: AsyncExitStack) -> Any:
        """Open the session; with spaces from clients, for the first ones that it takes."""
        while self.are_spaces_from_client:
            await self._spaces_given.wait()
            given: Any = self.spaces
            try:
                return await stack.enter_async_context(self._factory(*given))
            except ConfigError as error:
                self._unfit, self.spaces, self.described = error, None, None
                self._spaces_given = anyio.Event()
                self._opened.set()
                self._opened = anyio.Event()
        return await stack.enter_async_context(self._factory())

    async def _serve(self, session: Any) -> None:
        config: Any = getattr(session, "config", None)
        if config is not None and not config.numbered:
            raise ConfigError(
                "the session of a service keeps the numbers of its actors: make it with numbered=True"
            )
        self.session, self.spans = session, spans_here()
        spaces: Any = self.spaces
        codec = SpaceCodec(*spaces)
        has_disk = getattr(session, "run", None) is not None
        learns = getattr(session, "learns", True)
        service = StepService(
            session, codec, self.limits, has_disk=has_disk, learns=learns, counts=self.counts
        )
        if not learns:
            self.counts.swaps = session.swaps
        with closing(PolicyFiles(SessionPolicies(session) if learns else session)) as policies:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(service.run)
                tasks.start_soon(self.connections.end_silent, self.limits.idle_s)
                self.service, self.policies = service, policies
                self._opened.set()
                await self._closing.wait()
                self.service = self.policies = None
                tasks.cancel_scope.cancel()

    def close(self) -> None:
        """Refuse requests from now on, and let ``run`` end; a session that is not open yet never is."""
        self._is_closing = True
        if self._has_begun:
            self._closing.set()
            if not self._opened.is_set():
                self._opening.cancel()

    def _tell(self, line: str) -> None:
        self._progress = line

    # Requests -------------------------------------------------------------------------------------

    def now(self) -> StepService:
        """The steps of the actors, if the session is open.

        Raises:
            ProtocolError: 503: it is opening, has failed, or ends.
        """
        if self.service is None:
            raise self.refusal()
        return self.service

    def policies_now(self) -> PolicyFiles:
        """The newest policy as a file, if the session is open; it raises as ``now``."""
        if self.policies is None:
            raise self.refusal()
        return self.policies

    def refusal(self) -> ProtocolError:
        """Why there is no open session."""
        if self.failure is not None:
            return ProtocolError("training-failed", f"{type(self.failure).__name__}: {self.failure}")
        if self._is_closing:
            return ProtocolError("going-down", "the service is ending; connect again later", retry_after=5)
        if self.spaces is None:
            how = 'open /v1/stream and say them: {"hello": {"spaces": {"observation": ..., "action": ...}}}'
            return ProtocolError("not-ready", f"no client has said its spaces yet; {how}", retry_after=5)
        return ProtocolError("not-ready", self._progress, retry_after=1)

    async def service_for(self, spaces: Spaces | None = None, digest: str | None = None) -> StepService:
        """The steps of the actors, for a client with these spaces; waits for ``max_wait_s`` at most.

        Where the first client says the spaces, it is the one that calls this first with some.

        Args:
            spaces: the client's; None: it does not say them.
            digest: of the client's spaces, instead.

        Raises:
            ProtocolError: 422, with the path where the spaces differ; 503 as for ``now``.
        """
        if spaces is not None:
            self._agree(spaces)
        if digest is not None and self.described is not None and digest != spaces_digest(self.described):
            raise ProtocolError(
                "spaces-differ", "the run has other spaces; GET /v1/spec", path="hello.spaces_digest"
            )
        if self.service is None and self.spaces is not None and not self._is_closing:
            opened = self._opened
            with anyio.move_on_after(self.limits.max_wait_s):
                await opened.wait()
            if self._unfit is not None and self.described is None:
                raise ProtocolError("invalid", str(self._unfit), path="hello.spaces")
        return self.now()

    def _agree(self, spaces: Spaces) -> None:
        try:
            found = None if self.described is None else difference(self.described, spaces)
            given = spaces.gymnasium()
        except ConfigError as error:
            where, _, detail = str(error).partition(": ")
            raise ProtocolError("invalid", detail, path=f"hello.spaces.{where}") from error
        if self.described is None:
            self.spaces, self.described = given, spaces
            self._spaces_given.set()
        elif found is not None:
            raise ProtocolError(
                "spaces-differ",
                f"the run's {found.path} is {found.one!r}, yours {found.other!r}",
                path=f"hello.spaces.{found.path}",
            )

    # Readings -------------------------------------------------------------------------------------

    def exposition(self) -> Exposition:
        """The metrics of session and service for Prometheus.

        Raises:
            MissingDependency: prometheus-client is not installed.
        """
        if self._exposition is None:
            self._exposition = Exposition(self._telemetry, self.counts)
        return self._exposition

    def _telemetry(self) -> TrainingReading | None:
        read: Callable[[], TrainingReading] | None = getattr(self.session, "telemetry", None)
        return None if read is None else read()

    def waits(self) -> list[str]:
        """What keeps the session from taking steps now, in sentences; empty: nothing does."""
        if self.service is None:
            return [self.refusal().detail]
        health: Any = getattr(self.session, "health", None)
        if health is None:
            return []
        found = health()
        if found.failure is not None:
            return [found.failure]
        limit_s = self.limits.max_wait_s
        is_stuck = (found.learner_s or 0.0) > limit_s or (
            found.writer is not None and found.writer_s > limit_s
        )
        return list(found.waits) or ["a part of the session does not come back"] if is_stuck else []
