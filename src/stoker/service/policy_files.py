"""``GET /v1/policy``: the newest policy as one file, for clients that choose their actions themselves.

A policy is exported when a client asks for it, in a thread of its own, and once for each version and format.
Clients that wait for a newer one share it.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, NamedTuple, Protocol

import anyio
import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from stoker.errors import ConfigError, ExportFailed, MissingDependency, RunBroken
from stoker.exits import single_error
from stoker.policies.exported import FILES
from stoker.policies.exporting import PolicyFormat, exported_files
from stoker.policies.of_runs import policy_in
from stoker.protocol import ProtocolError
from stoker.service.asgi import cancel_when_gone
from stoker.session import TrainingSession
from stoker.threads import DedicatedThread


class PinnedPolicy(NamedTuple):
    """One policy of a source, which does not change.

    Attributes:
        version: of the policy.
        export: makes the content of its file. Blocks.
    """

    version: int
    export: Callable[[PolicyFormat], bytes]


class PolicySource(Protocol):
    """Where policies come from, each newer than the one before."""

    @property
    def policy_version(self) -> int:
        """The version of the policy that acts now."""
        ...

    async def next_policy(self, after: int) -> int:
        """Wait until a policy acts whose version is above ``after``, and return its version."""
        ...

    async def pinned(self) -> PinnedPolicy:
        """The newest policy."""
        ...


class SessionPolicies:
    """The policies of a session, as a source."""

    def __init__(self, session: TrainingSession) -> None:
        self._session = session

    @property
    def policy_version(self) -> int:
        """The version of the policy that acts now."""
        return self._session.policy_version

    async def next_policy(self, after: int) -> int:
        """As ``TrainingSession.next_policy``."""
        return await self._session.next_policy(after)

    async def pinned(self) -> PinnedPolicy:
        """The policy when everything accepted so far is learned."""
        snapshot, run = await self._session.snapshot(), self._session.run

        def export(form: PolicyFormat) -> bytes:
            trained = policy_in(snapshot.state, run)
            return exported_files(trained, (form,), reads_journal=False)[1][FILES[form]]

        return PinnedPolicy(snapshot.opt_steps, export)


class PolicyFile(NamedTuple):
    """The file of a policy.

    Attributes:
        content: all of it; see ``stoker.policies.exported.policy_from_bytes``.
        version: of the policy.
        digest: SHA-256 of the content, in hexadecimal digits.
        pinned_at: when the policy was looked up, in monotonic seconds.
    """

    content: bytes
    version: int
    digest: str
    pinned_at: float


class PolicyFiles:
    """The newest file of each format; used on one event loop.

    Args:
        source: of the policies.
        interval_s: between two exports of one format, at least: a busy learner publishes hundreds of
            policies each second.
    """

    def __init__(self, source: PolicySource, *, interval_s: float = 1.0) -> None:
        self._source = source
        self._interval_s = interval_s
        self._kept: dict[PolicyFormat, PolicyFile] = {}
        self._one_at_a_time = anyio.Lock()
        self._thread = DedicatedThread("stoker-export")
        self._waits: set[anyio.CancelScope] = set()
        self._is_closed = False
        self.n_exports: int = 0
        """How many files were made."""

    @property
    def version(self) -> int:
        """Of the policy that acts now."""
        return self._source.policy_version

    async def has_newer(self, after: int, within_s: float = math.inf) -> bool:
        """Wait for a policy whose version is above ``after``; False: none came in this time.

        Raises:
            ProtocolError: The service ends.
        """
        is_there = False
        with anyio.CancelScope(deadline=anyio.current_time() + within_s) as wait:
            self._waits.add(wait)
            try:
                await self._source.next_policy(after)
                is_there = True
            finally:
                self._waits.discard(wait)
        if self._is_closed:
            raise ProtocolError("going-down", "no more policies are given", retry_after=5)
        return is_there

    async def newest(self, form: PolicyFormat, after: int = -1) -> PolicyFile:
        """Wait for a policy whose version is above ``after``, and return its file.

        Cancelled: an export that has begun ends in its thread, and its file is dropped.

        Raises:
            ProtocolError: The policy has no file of this format; or the service ends.
        """
        await self.has_newer(after)
        wanted_at = time.monotonic()
        async with self._one_at_a_time:
            kept = self._kept.get(form)
            if kept is not None:
                if kept.version == self._source.policy_version or (
                    kept.version > after and kept.pinned_at >= wanted_at - self._interval_s
                ):
                    return kept
                await anyio.sleep(max(0.0, kept.pinned_at + self._interval_s - time.monotonic()))
            pinned_at = time.monotonic()
            pinned = await self._source.pinned()
            try:
                content = await self._thread.run(pinned.export, form)
            except (ConfigError, ExportFailed, MissingDependency, RunBroken) as error:
                raise ProtocolError("no-policy", f"{form}: {error}") from error
            self.n_exports += 1
            digest = hashlib.sha256(content).hexdigest()
            self._kept[form] = file = PolicyFile(content, pinned.version, digest, pinned_at)
            return file

    def close(self) -> None:
        """Give no more files, and let nobody wait for one."""
        self._is_closed = True
        for wait in self._waits:
            wait.cancel()
        self._thread.close()


class _Query(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: PolicyFormat = "onnx"
    after: Annotated[int, Meta(ge=-1, le=2**53 - 1)] = -1
    wait: Annotated[float, Meta(ge=0, le=3600)] = 3600.0


def policy_endpoint(
    files: Callable[[], PolicyFiles], admit: Callable[[Request], object], max_wait_s: float
) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of ``GET /v1/policy?format=onnx&after=812&wait=10``.

    It answers with one file, whose version is in the header ``stoker-policy-version`` and whose digest is its
    ETag. 204: in ``wait`` seconds no policy newer than ``after`` came; 304: the client has this file.

    Args:
        files: of the session; may raise ``ProtocolError`` while it is not open.
        admit: raises ``ProtocolError`` for a request that may not have it.
        max_wait_s: the longest wait, and the one if a client does not say.
    """

    async def policy(request: Request) -> Response:
        admit(request)
        query = _query(request.query_params)
        wait_s = min(query.wait, max_wait_s)
        source = files()
        is_there = query.after < source.version
        if not is_there:
            with single_error():
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(cancel_when_gone, request.receive, tasks.cancel_scope)
                    is_there = await source.has_newer(query.after, wait_s)
                    tasks.cancel_scope.cancel()
        if not is_there:
            return Response(status_code=204)
        found = await source.newest(query.format, query.after)
        tag = f'"{found.digest}"'
        headers = {"etag": tag, "cache-control": "no-cache", "stoker-policy-version": str(found.version)}
        given = request.headers.get("if-none-match", "")
        if {each.strip().removeprefix("W/") for each in given.split(",")} & {tag, "*"}:
            return Response(status_code=304, headers=headers)
        headers["content-disposition"] = f'attachment; filename="{FILES[query.format]}"'
        return Response(found.content, headers=headers, media_type="application/octet-stream")

    return policy


def _query(given: Mapping[str, str]) -> _Query:
    try:
        return msgspec.convert(dict(given), _Query, strict=False)
    except msgspec.ValidationError as error:
        detail, _, where = str(error).partition(" - at `$.")
        raise ProtocolError("invalid", detail, path=where.rstrip("`") or None) from None
