"""MLflow, read back with its own client: from a SQLite store, and from a server that is really started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import anyio
import msgspec
import numpy as np
import pytest
from anyio import to_thread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stoker.errors import ConfigError
from stoker.recorders import (
    Histogram,
    JsonlRecorder,
    MLflowRecorder,
    Outcome,
    Recording,
    RunContext,
    TensorBoardRecorder,
)
from stoker.recorders.mlflow import request_timeouts

# MLflow 3.17 uses what SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
asyncio_only = pytest.mark.parametrize("anyio_backend", ["asyncio"])
"""MLflow works in a thread of its own, whatever the event loop: each of these takes seconds."""


TIMEOUT, RETRIES = "MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


def test_requests_give_up_after_seconds_while_a_recorder_is_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(TIMEOUT, raising=False)
    monkeypatch.setenv(RETRIES, "3")
    request_timeouts.begin()
    request_timeouts.begin()
    assert (os.environ[TIMEOUT], os.environ[RETRIES]) == ("5", "3")
    request_timeouts.end()
    assert os.environ[TIMEOUT] == "5"
    request_timeouts.end()
    assert TIMEOUT not in os.environ
    assert os.environ[RETRIES] == "3"


class Server:
    """``mlflow server`` on a store and a port that outlive it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Return when it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--backend-store-uri", f"sqlite:///{self._directory / 'mlflow.db'}", "--workers", "1"]
        command += ["--artifacts-destination", str(self._directory / "artifacts")]
        self._process = process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self._directory,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            start_new_session=True,
        )
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if "Uvicorn running on" in line:
                break
        else:
            raise RuntimeError("".join(lines))

        def drain(output: IO[str] = process.stdout) -> None:
            with output:
                output.read()

        threading.Thread(target=drain, daemon=True).start()  # so that it never blocks on a full pipe

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of one SQLite store: making its tables takes seconds."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[Server]:
    found = Server(store)
    found.start()
    yield found
    found.kill()


class Counted(MLflowRecorder):
    """Counts its flushes in semaphores that a test can wait for."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.sent = threading.Semaphore(0)
        self.failed = threading.Semaphore(0)

    def flush(self) -> None:
        try:
            super().flush()
        except Exception:
            self.failed.release()
            raise
        self.sent.release()


async def reached(semaphore: threading.Semaphore) -> None:
    assert await to_thread.run_sync(lambda: semaphore.acquire(timeout=60))


def client_of(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def uri_of(directory: Path) -> str:
    return f"sqlite:///{directory / 'mlflow.db'}"


def only_run(uri: str, experiment: str) -> Any:
    client = client_of(uri)
    (run,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return run


def metric(uri: str, run: Any, key: str) -> list[tuple[int, float]]:
    history = client_of(uri).get_metric_history(run.info.run_id, key)
    return sorted((found.step, found.value) for found in history)


@pytest.mark.anyio
@asyncio_only
async def test_every_sink_agrees_with_the_rows(server: Server, context: RunContext, tmp_path: Path) -> None:
    context = msgspec.structs.replace(context, name="agree")
    rows: list[dict[str, Any]] = []
    generator = np.random.default_rng(0)
    recorders = [
        MLflowRecorder(server.uri),
        TensorBoardRecorder(tmp_path / "events"),
        JsonlRecorder(rows.append),
    ]
    recording = Recording(recorders, on_error="fail", timeout_s=100, statistics=("min", "max"))
    async with recording.opened(context):
        for step in range(0, 1200, 100):
            for loss in generator.normal(size=4).astype(np.float32):
                recording.store({"train/loss": loss, "rollout/ep_rew_mean": float(step)})
            recording.store({"n": step})
            recording.flush(step)
        artifact = tmp_path / "weights.pt"
        artifact.write_bytes(b"weights")
        recording.put_artifact(artifact, "checkpoints")
    run = only_run(server.uri, "agree")
    events = EventAccumulator(str(tmp_path / "events"), size_guidance={"scalars": 0}).Reload()
    names = {"train/loss", "rollout/ep_rew_mean", "n"}
    names = {f"{key}{end}" for key in names for end in ("", "_min", "_max")}
    assert {*rows[0]["metrics"]} == {*run.data.metrics} == {*events.Tags()["scalars"]} == names
    for key in names:
        expected = [(row["total_steps"], row["metrics"][key]) for row in rows]
        assert len(expected) == 12
        assert metric(server.uri, run, key) == expected
        assert [(event.step, event.value) for event in events.Scalars(key)] == [
            (step, np.float32(value)) for step, value in expected
        ]
    assert run.data.params == {"agent/gamma": "0.99", "agent/hidden": "[64, 64]", "session/max_steps": "None"}
    assert run.info.status == "FINISHED"
    assert run.data.tags["team"] == "blue"
    assert run.data.tags["stoker.run_id"] == "20260102_030405"
    found = await to_thread.run_sync(client_of(server.uri).list_artifacts, run.info.run_id, "checkpoints")
    assert [(item.path, item.file_size) for item in found] == [("checkpoints/weights.pt", 7)]


@pytest.mark.faults
@pytest.mark.anyio
@asyncio_only
async def test_a_server_that_is_killed_gets_everything_when_it_is_back(
    server: Server, context: RunContext, caplog: pytest.LogCaptureFixture
) -> None:
    context = msgspec.structs.replace(context, name="away")
    rows: list[dict[str, Any]] = []
    recorder = Counted(server.uri)
    async with Recording([recorder, JsonlRecorder(rows.append)], timeout_s=100).opened(context) as recording:
        recording.put(0, {"a": 0.0})
        await reached(recorder.sent)
        await to_thread.run_sync(server.kill)
        with anyio.fail_after(60):
            for step in (1, 2, 3):
                recording.put(step, {"a": float(step), "note": f"at {step}"})
                await reached(recorder.failed)
        assert recorder.n_unsent == 3
        logged = [record.getMessage() for record in caplog.records if record.name == "stoker.recorders"]
        assert len(logged) == 1
        assert logged[0].startswith("the recorder 'mlflow' failed in flushing: MlflowException: ")
        assert logged[0].endswith("the run continues, and the next record is tried")
        await to_thread.run_sync(server.start)
        recording.put(4, {"a": 4.0})
        await reached(recorder.sent)
        assert recorder.n_unsent == 0
    assert [row["total_steps"] for row in rows] == [0, 1, 2, 3, 4]
    run = only_run(server.uri, "away")
    assert metric(server.uri, run, "a") == [(k, float(k)) for k in range(5)]
    assert run.data.tags["note"] == "at 3"
    assert run.info.status == "FINISHED"
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ


@pytest.mark.anyio
@asyncio_only
async def test_a_server_that_is_away_from_the_start(
    tmp_path: Path, context: RunContext, caplog: pytest.LogCaptureFixture
) -> None:
    rows: list[dict[str, Any]] = []
    server = Server(tmp_path)  # never started
    with anyio.fail_after(60):
        async with Recording([MLflowRecorder(server.uri), JsonlRecorder(rows.append)]).opened(
            context
        ) as recording:
            recording.put(0, {"a": 1.0})
    assert [row["total_steps"] for row in rows] == [0]
    logged = [record.getMessage() for record in caplog.records if record.name == "stoker.recorders"]
    assert "failed in opening" in logged[0]
    assert logged[-1] == "the recorder 'mlflow' did not get 1 records"
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ


def test_a_server_that_does_not_answer_is_given_up(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        recorder = MLflowRecorder(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(Exception, match="timed out|Max retries"):
            recorder.open(context)
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "1"


@pytest.mark.parametrize(
    ("outcome", "expected"), [("finished", "FINISHED"), ("failed", "FAILED"), ("stopped", "KILLED")]
)
def test_the_outcome_is_the_runs_status(
    store: Path, context: RunContext, outcome: Outcome, expected: str
) -> None:
    context = msgspec.structs.replace(context, name=f"ended-{outcome}", directory=store)
    recorder = MLflowRecorder(experiment=f"experiment-{outcome}", run_name="my run", tags={"mine": "1"})
    recorder.open(context)
    run = only_run(uri_of(store), f"experiment-{outcome}")
    assert run.info.status == "RUNNING"
    recorder.write(1, {"a": 1.0})
    recorder.close(outcome)
    run = only_run(uri_of(store), f"experiment-{outcome}")
    assert (run.info.status, run.info.run_name, run.data.tags["mine"]) == (expected, "my run", "1")
    assert run.data.metrics == {"a": 1.0}
    assert run.info.artifact_uri.startswith((store / "mlartifacts").as_uri())


def test_a_resumed_run_continues_in_its_mlflow_run(
    store: Path, context: RunContext, caplog: pytest.LogCaptureFixture
) -> None:
    context = msgspec.structs.replace(context, name="resumed", directory=store)
    other = msgspec.structs.replace(context, version="v3")
    ids: list[str] = []
    attempts = [
        (context, "failed"),
        (
            msgspec.structs.replace(
                context, resumed=True, total_steps=50, params={"agent/gamma": 0.9, "new": 1}
            ),
            "stopped",
        ),
        (msgspec.structs.replace(context, resumed=True, total_steps=70), "finished"),
        (other, "finished"),
    ]
    for k, (attempt, outcome) in enumerate(attempts):
        recorder = MLflowRecorder()
        recorder.open(attempt)
        recorder.write(k, {"a": float(k)})
        recorder.flush()
        recorder.close(outcome)  # type: ignore[arg-type]
        ids.append(recorder.run_id)
    assert len(set(ids[:3])) == 1
    assert ids[3] != ids[0], "another version is another run"
    run = client_of(uri_of(store)).get_run(ids[0])
    assert metric(uri_of(store), run, "a") == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert run.data.tags["stoker.resumed_at"] == "50,70"
    assert run.data.params["agent/gamma"] == "0.99"
    assert run.data.params["new"] == "1"
    assert run.info.status == "FINISHED"
    logged = [record.getMessage() for record in caplog.records if record.name == "stoker.recorders"]
    assert logged == ["the param 'agent/gamma' was '0.99' and is '0.9' now: MLflow keeps the first"]


def test_values_that_mlflow_cannot_hold_are_cut_or_left_out_and_logged_once(
    store: Path, context: RunContext, caplog: pytest.LogCaptureFixture
) -> None:
    params = {f"p{k}": k for k in range(250)} | {"long": "x" * 10_000}
    params |= {"odd//name: 50!": 0, "odd//name: 50%": 1}  # one name in MLflow
    context = msgspec.structs.replace(context, name="limits", directory=store, params=params)
    recorder = MLflowRecorder()
    with caplog.at_level("INFO", "stoker.recorders"):
        recorder.open(context)
        for step in range(2):
            record = {f"m{k}": float(k) for k in range(2300)}
            recorder.write(step, {**record, "h": Histogram([1.0]), "nan": float("nan"), "text": "y" * 10_000})
        recorder.flush()
        recorder.close("finished")
    run = only_run(uri_of(store), "limits")
    assert len(run.data.params) == 252
    assert run.data.params["odd/name_ 50_"] == "1"
    assert run.data.params["long"] == "x" * 497 + "..."
    assert run.data.tags["text"] == "y" * 5000
    assert len(run.data.metrics) == 2301
    assert np.isnan(run.data.metrics["nan"])
    assert metric(uri_of(store), run, "m2299") == [(0, 2299.0), (1, 2299.0)]
    logged = [record.getMessage() for record in caplog.records if record.name == "stoker.recorders"]
    assert len(logged) == 1
    assert logged[0].startswith("h is Histogram(float64 [1]), which MLflow's metrics cannot hold")


def test_a_record_is_one_request_and_kept_values_are_bounded(
    store: Path, context: RunContext, caplog: pytest.LogCaptureFixture
) -> None:
    context = msgspec.structs.replace(context, name="bounded", directory=store)
    recorder = MLflowRecorder(most_kept=100)
    recorder.open(context)
    real, batches = recorder._client, []

    class Counting:
        is_away = True

        def log_batch(self, run_id: str, **what: Any) -> None:
            batches.append(len(what["metrics"]))
            if self.is_away:
                raise ConnectionError("nobody there")
            real.log_batch(run_id, **what)

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    recorder._client = client = Counting()
    for step in range(6):
        recorder.write(step, {f"m{k}": float(step) for k in range(20)})
        with pytest.raises(ConnectionError):
            recorder.flush()
    assert batches == [20, 40, 60, 80, 100, 100]
    client.is_away = False
    recorder.write(6, {f"m{k}": 6.0 for k in range(20)})
    recorder.flush()
    recorder.write(7, {f"m{k}": 7.0 for k in range(20)})
    recorder.flush()
    assert batches[6:] == [100, 20]
    recorder.close("finished")
    run = only_run(uri_of(store), "bounded")
    assert metric(uri_of(store), run, "m3") == [(k, float(k)) for k in range(2, 8)]
    logged = [record.getMessage() for record in caplog.records if record.name == "stoker.recorders"]
    assert logged == [
        "values cannot be sent to MLflow: there is no room to keep more, so the oldest are left out",
        "40 values could not be sent to MLflow",
    ]


def test_refused_values_do_not_block_later_ones(store: Path, context: RunContext) -> None:
    from mlflow.exceptions import MlflowException

    context = msgspec.structs.replace(context, name="refused", directory=store)
    recorder = MLflowRecorder()
    recorder.open(context)
    recorder.write(-(1 << 70), {"bad": 1.0})  # a step that no store can hold
    recorder.write(1, {"fine name": 1.0, "bad:;name": 1.0})
    with pytest.raises(MlflowException):
        recorder.flush()
    assert recorder.n_unsent == 0
    recorder.write(2, {"a": 2.0})
    recorder.flush()
    recorder.close("finished")
    assert only_run(uri_of(store), "refused").data.metrics == {"a": 2.0}


def test_a_deleted_experiment_is_an_error(store: Path, context: RunContext) -> None:
    context = msgspec.structs.replace(context, name="deleted", directory=store)
    recorder = MLflowRecorder()
    recorder.open(context)
    recorder.close("finished")
    client = client_of(uri_of(store))
    client.delete_experiment(client.get_experiment_by_name("deleted").experiment_id)
    with pytest.raises(ConfigError, match="'deleted' has been deleted"):
        MLflowRecorder().open(context)
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ


def test_settings_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(ConfigError, match="most_kept=0"):
        MLflowRecorder(most_kept=0)
    with pytest.raises(ConfigError, match=r"MLflowRecorder\(tracking_uri="):
        MLflowRecorder().open(RunContext(name="x"))


def test_the_environment_variable_names_the_store_unless_an_argument_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    context = RunContext(name="named", directory=tmp_path)
    assert MLflowRecorder()._where(context) == ("http://127.0.0.1:5000", None)
    assert MLflowRecorder("http://127.0.0.1:6000")._where(context) == ("http://127.0.0.1:6000", None)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("sqlite:////srv/mlflow.db", "sqlite:////srv/mlflow.db"),
        ("sqlite:///mine.db", "sqlite:///{here}/mine.db"),
        ("sqlite:///12:30/mine.db", "sqlite:///{here}/12:30/mine.db"),
        ("sqlite:///uc", "sqlite:///{here}/uc"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("databricks", "databricks"),
        ("uc:profile", "uc:profile"),
        ("mlruns", "{here}/mlruns"),
        ("file:mlruns", "file:{here}/mlruns"),
        (None, "sqlite:///{here}/run/mlflow.db"),
    ],
)
def test_a_relative_store_stays_where_it_was_named(
    given: str | None, kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    recorder, context = MLflowRecorder(given), RunContext(name="moved", directory=Path("run"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert recorder._where(context)[0] == kept.format(here=tmp_path)
