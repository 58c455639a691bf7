"""The learner elsewhere: a training as a detached Ray actor, which Ray starts again where a node is left.

    command ──▶ the actor, named by its run ──▶ a process that resumes the run ──▶ its workers on the cluster

The runs directory is on storage that all nodes share. After the death of the process, of the actor or of its
node, the training resumes from its checkpoint and its journal; the run's lease fences one that comes back.
The command only follows. There is one actor per run, whoever starts it.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from stoker.distributed.cluster import Cluster
from stoker.distributed.supervising import LearnerNews, LearnerStatus, Supervisor, read_status
from stoker.distributed.versions import Versions, difference
from stoker.errors import ConfigError, RunBroken, SessionError
from stoker.importing import required
from stoker.runs import TrainingRun
from stoker.runs.metadata import now, read_metadata

_ray = required("ray", "ray")
_utils = required("ray._private.utils", "ray", "ray")
_LINGER_S = 20.0
"""How long an actor stays after the end of its training, for its followers."""
_POLL_S = 5.0
_LOOK_S = 0.5
_ANSWER_S = 60.0
"""How long an actor that is there may take to answer."""


class LearnerOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What an actor is to run.

    Attributes:
        run: the absolute path of the run's directory.
        started_at: of the run, by which the actor knows it.
        words: the module that trains, and its arguments.
        cwd: the working directory.
        versions: of the command.
    """

    run: str
    started_at: str
    words: list[str]
    cwd: str
    versions: Versions


class SayLine(Protocol):
    """Takes a line that the training printed."""

    def __call__(self, text: str, *, is_output: bool) -> None:
        """Take the line; ``is_output``: it is of standard output, not of standard error."""


class LearnerActor:
    """The actor: a supervisor in a thread, and calls for those who follow. Messages are JSON."""

    def __init__(self, order: bytes) -> None:
        self._order = msgspec.json.decode(order, type=LearnerOrder)
        self._supervisor: Supervisor | None = None
        self._refused: LearnerStatus | None = None
        self._self = _ray.get_runtime_context().current_actor
        node = _ray.util.get_node_ip_address()
        if (problem := self._problem(node)) is not None:
            self._refused = LearnerStatus(state="ended", node=node, since=now(), exit_code=2, reason=problem)
        else:
            env = dict(os.environ)
            _utils.remove_ray_internal_flags_from_env(env)
            env["RAY_ADDRESS"] = _ray.get_runtime_context().gcs_address
            run = Path(self._order.run)
            self._supervisor = Supervisor(run, self._order.words, self._order.cwd, env)
        threading.Thread(target=self._live, name="stoker-supervisor", daemon=True).start()

    def _problem(self, node: str) -> str | None:
        """Why the training cannot run here."""
        if (differing := difference(self._order.versions, Versions.here())) is not None:
            return f"node {node} has {differing}: install the same there"
        run = self._order.run
        try:
            if read_metadata(Path(run)).started_at.isoformat() == self._order.started_at:
                return None
        except RunBroken:
            pass
        return (
            f"{run} is not on node {node}, where the learner would run: give a --runs-dir on storage that "
            "all nodes share under the same path"
        )

    def _live(self) -> None:
        try:
            if self._supervisor is not None:
                self._supervisor.run()
        finally:
            time.sleep(_LINGER_S)
            # From outside, as it were: an actor that ends by itself is started again.
            _ray.kill(self._self, no_restart=True)

    def news(self, after: int, timeout_s: float) -> bytes:
        """See ``Supervisor.news``."""
        if self._refused is not None:
            return msgspec.json.encode(LearnerNews(status=self._refused, lines=[], until=0))
        if self._supervisor is None:
            raise RuntimeError("it has neither begun nor refused to")
        return msgspec.json.encode(self._supervisor.news(after, timeout_s))

    def stop(self) -> None:
        """See ``Supervisor.stop``."""
        if self._supervisor is not None:
            self._supervisor.stop()


class DetachedLearner:
    """A training that runs as a detached actor, seen by the command that started it or follows it. Blocks.

    Args:
        cluster: where it runs; the caller closes it.
        run: the run's directory.
    """

    def __init__(self, cluster: Cluster, run: Path) -> None:
        self._cluster = cluster
        self._run = run
        self._name = f"stoker-learner-{hashlib.sha256(os.fsencode(run)).hexdigest()[:16]}"

    def is_running(self) -> bool:
        """Whether the cluster has an actor of this run whose training has not ended."""
        if (actor := self._actor()) is None:
            return False
        try:
            raw = _ray.get(actor.news.remote(0, 0.0), timeout=_POLL_S)
        except (_ray.exceptions.RayActorError, _ray.exceptions.GetTimeoutError):
            return True  # it waits for a place, or is being started again
        return msgspec.json.decode(raw, type=LearnerNews).status.state != "ended"

    def start(self, words: Sequence[str], *, num_gpus: int = 0) -> None:
        """Start the actor, which outlives this process; if the run has one already, nothing happens.

        Args:
            words: the module that resumes the run, and its arguments.
            num_gpus: of the learner.

        Raises:
            RunBroken: The run cannot be read.
        """
        order = LearnerOrder(
            run=str(self._run),
            started_at=TrainingRun.find(self._run).metadata.started_at.isoformat(),
            words=list(words),
            cwd=str(Path.cwd()),
            versions=Versions.here(),
        )
        if (actor := self._actor()) is not None and not self.is_running():  # it lingers for its followers
            _ray.kill(actor, no_restart=True)
            until = time.monotonic() + _ANSWER_S
            while self._actor() is not None and time.monotonic() < until:
                time.sleep(_LOOK_S)
        _ray.remote(LearnerActor).options(
            name=self._name,
            namespace=self._cluster.namespace,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            max_concurrency=16,
            num_cpus=1,
            num_gpus=num_gpus,
        ).remote(msgspec.json.encode(order))

    def stop(self) -> None:
        """Let the training finish and save; ``follow`` returns when it has.

        Raises:
            ConfigError: There is no such actor.
            SessionError: It does not answer.
        """
        actor = self._actor()
        if actor is None:
            raise ConfigError(
                f"{self._run}: the cluster at {self._cluster.address} has no learner of this run"
            )
        try:
            _ray.get(actor.stop.remote(), timeout=_ANSWER_S)
        except (_ray.exceptions.RayError, _ray.exceptions.GetTimeoutError) as error:
            raise SessionError(f"the learner of {self._run} does not answer; try again") from error

    def follow(
        self, say: SayLine, note: Callable[[str], object], is_left: Callable[[], bool]
    ) -> LearnerStatus | None:
        """Hand on what the training prints until it has ended.

        Args:
            say: gets each line.
            note: gets what happens to the learner, in words.
            is_left: asked twice a second; then this returns.

        Returns:
            How it ended; None: ``is_left``.

        Raises:
            SessionError: The cluster has lost the actor, or cannot be reached any more.
        """
        after, node, n_restarts, noted = 0, "", 0, ""
        while (actor := self._actor()) is not None:
            request = actor.news.remote(after, _POLL_S)
            try:
                while not (done := _ray.wait([request], timeout=_LOOK_S)[0]):
                    if is_left():
                        return None
                    if not node and (shortage := self._cluster.shortage(1.0, 1)) and shortage != noted:
                        noted = shortage
                        note(f"the learner waits for a place: {shortage.replace('worker', 'process')}")
                news = msgspec.json.decode(_ray.get(done[0]), type=LearnerNews)
            except _ray.exceptions.RayActorError as error:
                if is_left():
                    return None
                if node:
                    note(f"the learner on {node} is lost ({_first_line(error)}); it is started again")
                after, node = 0, ""
                time.sleep(_LOOK_S)
                continue
            except _ray.exceptions.RayError as error:
                raise SessionError(
                    f"the learner of {self._run} cannot be followed: {_first_line(error)}"
                ) from error
            status = news.status
            if status.node != node:
                note(f"the learner runs on {status.node}")
            after, node = news.until, status.node
            for is_output, text in news.lines:
                say(text, is_output=is_output)
            if status.restarts > n_restarts and status.state != "ended":
                note(f"restart {status.restarts} of the learner: {status.reason}")
            n_restarts = status.restarts
            if status.state == "ended":
                return status
            if is_left():
                return None
        status = read_status(self._run)
        if status is None or status.state != "ended":
            raise SessionError(
                f"the cluster at {self._cluster.address} has lost the learner of {self._run}: start it again "
                "with `stoker resume` and --restart-learner"
            )
        return status

    def _actor(self) -> Any:
        try:
            return _ray.get_actor(self._name, namespace=self._cluster.namespace)
        except ValueError:
            return None


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
