"""Records as a run of MLflow: params, tags, metrics, artifacts and the outcome.

MLflow's own calls send one request per metric and wait minutes for an unreachable server. Here the values of
a record are sent together, requests time out after seconds, and unsent values are kept, up to a bound, until
the server is back.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
import threading
import time
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

from stoker.errors import ConfigError
from stoker.recorders.protocol import BaseRecorder, Outcome, RunContext, imported
from stoker.recorders.values import Record, row_value

_logger = logging.getLogger("stoker.recorders")

_VALUES_AT_ONCE = 1000  # MLflow's limit of one request, for metrics, params and tags together
_PARAMS_AT_ONCE = 100  # its limit for params, and for tags
_RELATIVE = re.compile(r"(sqlite:///|file:|(?!(?:databricks|databricks-uc|uc)$)(?=[^:]+$))(?!/|:memory:)(.+)")
"""A store on the disk: scheme, and relative path; a path without a scheme has no colon."""
_NOT_IN_KEY = re.compile(r"[^\w./ -]")
_LONGEST_KEY = 250
_LONGEST_PARAM = 500  # the limit of MLflow 1 and 2
_LONGEST_TAG = 5000
_SEND_S = 10.0
"""The longest time that ``flush`` sends kept values; well below the time limit of one call."""

_STATUS: Mapping[Outcome, str] = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
_HOPELESS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
"""MLflow's error codes for a request that will never succeed."""

_REQUEST_SETTINGS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}


class _RequestTimeouts:
    """Short time-outs for MLflow's requests while a recorder is open.

    By default MLflow tries seven times, for two minutes each. It reads other values only from environment
    variables, at each request: they are set from the first ``begin`` to the last ``end``, unless the user has
    set them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_begun = 0
        self._ours: set[str] = set()

    def begin(self) -> None:
        """Let MLflow's requests time out after seconds from now on."""
        with self._lock:
            self._n_begun += 1
            for name in _REQUEST_SETTINGS.keys() - os.environ.keys():
                os.environ[name] = _REQUEST_SETTINGS[name]
                self._ours.add(name)

    def end(self) -> None:
        """Undo one ``begin``; the last restores the environment."""
        with self._lock:
            self._n_begun -= 1
            if self._n_begun == 0:
                for name in self._ours:
                    os.environ.pop(name, None)
                self._ours.clear()


request_timeouts: Final = _RequestTimeouts()
"""One for the process, like its environment."""


class MLflowRecorder(BaseRecorder):
    """One MLflow run per stoker run, which its tags identify, so that a resumed training continues in it.

    Numbers are metrics, also NaN and infinity (the largest float in MLflow). Texts and times are tags, of
    which the last counts. Arrays, images and histograms do not fit into MLflow's metrics and are left out,
    with one log message per name. MLflow deletes no metrics: those of an earlier attempt beyond a resume
    stay, and the tag ``stoker.resumed_at`` holds the step of the resume.

    Args:
        tracking_uri: the server or store; None: ``MLFLOW_TRACKING_URI``, or without it a SQLite store in the
            run's directory, ``mlflow.db``, with artifacts in ``mlartifacts`` beside it.
        experiment: the experiment's name; None: the run's name.
        run_name: the run's name in MLflow; None: version and id of the run.
        tags: further tags.
        most_kept: the number of values kept while they cannot be sent; beyond it the oldest are left out,
            with a warning.

    Raises:
        MissingDependency: mlflow is not installed.
        ConfigError: ``most_kept`` is not a count.
    """

    name = package = "mlflow"

    def __init__(
        self,
        tracking_uri: str | None = None,
        *,
        experiment: str | None = None,
        run_name: str | None = None,
        tags: Mapping[str, str] | None = None,
        most_kept: int = 100_000,
    ) -> None:
        super().__init__()
        if most_kept < 1:
            raise ConfigError(f"most_kept={most_kept!r}: give an int of at least 1")
        self._tracking_uri = None if tracking_uri is None else _absolute_uri(tracking_uri)
        self._experiment = experiment
        self._run_name = run_name
        self._tags = dict(tags or {})
        self._entities: Any = None
        self._client: Any = None
        self.run_id: Any = ""
        """MLflow's id of the run; "" before ``open``."""
        self._unsent: deque[Any] = deque(maxlen=most_kept)
        self._unsent_tags: dict[str, str] = {}
        self._n_lost = 0
        self._is_away = False
        self._left_out: set[str] = set()

    @property
    def n_unsent(self) -> int:
        """The number of values kept for an unreachable server."""
        return len(self._unsent)

    def open(self, context: RunContext) -> None:
        """Find or make the experiment and the run, and send params and tags.

        Raises:
            ConfigError: Neither this recorder nor the run names a place.
        """
        uri, artifacts = self._where(context)
        request_timeouts.begin()
        try:
            self._entities = imported("mlflow.entities")
            self._client = imported("mlflow.tracking").MlflowClient(tracking_uri=uri)
            experiment_id = self._experiment_id(self._experiment or context.name, artifacts)
            found = self._find_run(experiment_id, context) or self._make_run(experiment_id, context)
            if found.info.status != "RUNNING":
                self._client.update_run(found.info.run_id, status="RUNNING")
            self._send_params(found, context.params)
            self.run_id = found.info.run_id
        except BaseException:
            request_timeouts.end()
            raise
        if context.resumed:
            before = found.data.tags.get("stoker.resumed_at", "")
            self._unsent_tags["stoker.resumed_at"] = f"{before},{context.total_steps}".lstrip(",")

    def write(self, step: int, record: Record) -> None:
        """Keep the values; they are sent when they fill a request, or with ``flush``."""
        now_ms = int(time.time() * 1000)
        for key, value in record.items():
            if isinstance(value, (bool, int, float)):
                if len(self._unsent) == self._unsent.maxlen:
                    self._lose(1, "there is no room to keep more, so the oldest are left out")
                self._unsent.append(self._entities.Metric(key, float(value), now_ms, step))
            elif isinstance(value, (str, datetime)):
                self._unsent_tags[key] = str(row_value(value))[:_LONGEST_TAG]
            elif key not in self._left_out:
                self._left_out.add(key)
                _logger.info("%s is %r, which MLflow's metrics cannot hold: it is left out there", key, value)
        if len(self._unsent) >= _VALUES_AT_ONCE and not self._is_away:
            self.flush()

    def flush(self) -> None:
        """Send values and tags, the oldest first, for up to ``_SEND_S``; keep those that are not sent."""
        until = time.monotonic() + _SEND_S
        self._is_away = True
        while (self._unsent or self._unsent_tags) and time.monotonic() < until:
            names = list(islice(self._unsent_tags, _PARAMS_AT_ONCE))
            metrics = list(islice(self._unsent, _VALUES_AT_ONCE - len(names)))
            tags = [self._entities.RunTag(name, self._unsent_tags[name]) for name in names]
            try:
                self._client.log_batch(self.run_id, metrics=metrics, tags=tags)
            except imported("mlflow.exceptions").MlflowException as error:
                if error.error_code in _HOPELESS:
                    self._drop(len(metrics), names)
                    self._lose(len(metrics), f"it refuses them: {error}")
                raise
            self._drop(len(metrics), names)
        self._is_away = False

    def add_artifact(self, path: Path, folder: str) -> None:
        """Upload a file."""
        self._client.log_artifact(self.run_id, str(path), folder or None)

    def close(self, status: Outcome) -> None:
        """Send the kept values, and set the run's status."""
        try:
            try:
                self.flush()
            finally:
                self._client.set_terminated(self.run_id, _STATUS[status])
        finally:
            request_timeouts.end()
            if n := self._n_lost + len(self._unsent):
                _logger.warning("%d values could not be sent to MLflow", n)

    # Opening --------------------------------------------------------------------------------------

    def _where(self, context: RunContext) -> tuple[str, str | None]:
        """The store, and the place of its artifacts if the store is the run's."""
        if self._tracking_uri is not None:
            return self._tracking_uri, None
        if (given := os.environ.get("MLFLOW_TRACKING_URI")) is not None:
            return _absolute_uri(given), None
        directory = context.need_directory("MLflowRecorder(tracking_uri=...)")
        return f"sqlite:///{directory / 'mlflow.db'}", (directory / "mlartifacts").as_uri()

    def _experiment_id(self, name: str, artifacts: str | None) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return self._client.create_experiment(name, artifact_location=artifacts)
            except imported("mlflow.exceptions").MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self._client.get_experiment_by_name(name)  # another process was quicker
        if found.lifecycle_stage != "active":
            raise ConfigError(
                f"the MLflow experiment {name!r} has been deleted: restore it, or give another experiment="
            )
        return found.experiment_id

    def _find_run(self, experiment_id: str, context: RunContext) -> Any:
        """The MLflow run of an earlier attempt; None: there is none."""
        if not context.run_id or "'" in context.run_id:
            return None
        runs = self._client.search_runs(
            [experiment_id],
            f"tags.`stoker.run_id` = '{context.run_id}'",
            order_by=["attributes.start_time DESC"],
        )
        return next((run for run in runs if _labels(context).items() <= run.data.tags.items()), None)

    def _make_run(self, experiment_id: str, context: RunContext) -> Any:
        tags = {**context.tags, **self._tags, **_labels(context)}
        name = self._run_name or " ".join(filter(None, (context.version, context.run_id))) or None
        tags = {key: value[:_LONGEST_TAG] for key, value in tags.items()}
        return self._client.create_run(experiment_id, tags=tags, run_name=name)

    def _send_params(self, run: Any, params: Mapping[str, Any]) -> None:
        """Send the params that MLflow lacks; it keeps the first value of each."""
        there: Mapping[str, str] = run.data.params
        fresh: dict[str, str] = {}
        for name, value in params.items():
            key = posixpath.normpath(_NOT_IN_KEY.sub("_", name)).lstrip("/.")[:_LONGEST_KEY] or "_"
            text = str(value)
            text = text if len(text) <= _LONGEST_PARAM else f"{text[: _LONGEST_PARAM - 3]}..."
            if there.get(key, text) != text:
                _logger.warning(
                    "the param %r was %r and is %r now: MLflow keeps the first", key, there[key], text
                )
            elif key not in there:
                fresh[key] = text  # two names may give one key, which MLflow takes once
        entries = [self._entities.Param(key, text) for key, text in fresh.items()]
        for start in range(0, len(entries), _PARAMS_AT_ONCE):
            self._client.log_batch(run.info.run_id, params=entries[start : start + _PARAMS_AT_ONCE])

    # Keeping --------------------------------------------------------------------------------------

    def _drop(self, n_metrics: int, names: list[str]) -> None:
        for _ in range(n_metrics):
            self._unsent.popleft()
        for name in names:
            del self._unsent_tags[name]

    def _lose(self, n: int, why: str) -> None:
        if not self._n_lost and n:
            _logger.warning("values cannot be sent to MLflow: %s", why)
        self._n_lost += n


def _labels(context: RunContext) -> dict[str, str]:
    """The tags that identify a run of stoker."""
    ids = {"name": context.name, "version": context.version, "run_id": context.run_id}
    return {f"stoker.{key}": value for key, value in ids.items()}


def _absolute_uri(uri: str) -> str:
    """The store's address with an absolute path, which does not depend on the working directory."""
    found = _RELATIVE.fullmatch(uri)
    return uri if found is None else f"{found[1]}{Path(found[2]).absolute()}"
