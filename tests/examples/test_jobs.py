"""The job scripts and the manifest of ``examples/jobs``: valid, and the scripts run against a server."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import msgspec
import pytest
import yaml
from starlette.routing import Route

import launching
from stoker import Experience, TrainingRun
from stoker.cli.actor import PlayOnServer
from stoker.cli.limits import seconds
from stoker.cli.main import main
from stoker.cli.serve import Serve
from stoker.service.app import make_app

JOBS = Path(__file__).resolve().parents[2] / "examples" / "jobs"
MANIFEST = [*yaml.safe_load_all((JOBS / "kubernetes.yaml").read_text())]
WAIT_S = 120.0
COUNTING = """
import itertools, os, time
import gymnasium, numpy as np

numbers = itertools.count()

class Counting(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self):
        self.number, self.n = next(numbers), 0

    def seen(self):
        return np.array([os.getpid(), self.number, self.n], np.float32)

    def reset(self, *, seed=None, options=None):
        return self.seen(), {}

    def step(self, action):
        time.sleep(0.01)
        self.n += 1
        return self.seen(), 1.0, self.n % 20 == 0, False, {}
"""
"""An environment whose observation is its process, its number there, and how many steps it has made."""


# Kubernetes ---------------------------------------------------------------------------------------


def test_the_manifest_is_valid_to_the_letter() -> None:
    from lightkube.models import apps_v1, batch_v1, core_v1

    kinds = [core_v1.Service, apps_v1.StatefulSet, batch_v1.Job]
    assert [each["kind"] for each in MANIFEST] == [kind.__name__ for kind in kinds]
    for each, kind in zip(MANIFEST, kinds, strict=True):
        known = msgspec.to_builtins(msgspec.convert(each, kind))  # refuses types that Kubernetes does
        assert unknown_in(each, known) == []
    assert unknown_in({"spec": [{"prot": 1}]}, {"spec": [{"port": None}]}) == [".spec[0].prot"]


def unknown_in(given: Any, known: Any, path: str = "") -> list[str]:
    """The fields that were given and that Kubernetes does not know."""
    match given:
        case dict():
            found = [
                unknown_in(value, known[key], f"{path}.{key}") if key in known else [f"{path}.{key}"]
                for key, value in given.items()
            ]
        case list():
            pairs = enumerate(zip(given, known, strict=True))
            found = [unknown_in(one, other, f"{path}[{place}]") for place, (one, other) in pairs]
        case _:
            found = [] if given == known else [[path]]
    return [each for part in found for each in part]


def test_the_parts_of_the_manifest_find_each_other() -> None:
    service, learner, actors = MANIFEST
    learning, playing = [each["spec"]["template"]["spec"] for each in (learner, actors)]
    [server], [player] = learning["containers"], playing["containers"]
    serve = Serve.from_words("serve", server["command"][2:])
    play = PlayOnServer.from_words("actor", player["command"][2:])
    [port] = service["spec"]["ports"]
    assert play.connect == f"http://{service['metadata']['name']}:{port['port']}"
    assert serve.port == port["port"] == server["ports"][0]["containerPort"]
    assert service["spec"]["selector"] == learner["spec"]["template"]["metadata"]["labels"]
    assert learner["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    assert learner["spec"]["serviceName"] == service["metadata"]["name"]
    assert play.env == serve.env
    app = make_app(contextlib.nullcontext, spaces=None)
    routes = {route.path for route in app.routes if isinstance(route, Route)}
    probes = [server[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert {probe["path"] for probe in probes} <= routes
    assert {probe["port"] for probe in probes} == {server["ports"][0]["name"]}
    for pod, container, grace_s, path in (
        (learning, server, seconds("--grace", serve.grace), serve.token_file),
        (playing, player, play.grace, play.token_file),
    ):
        assert pod["terminationGracePeriodSeconds"] > grace_s
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        claims = {claim["metadata"]["name"] for claim in learner["spec"]["volumeClaimTemplates"]}
        assert set(mounts) <= {*volumes, *claims}
        [secret] = [name for name, volume in volumes.items() if "secret" in volume]
        made = (JOBS / "kubernetes.yaml").read_text().split("apiVersion")[0]
        key = Path(path).name
        assert f"{volumes[secret]['secret']['secretName']} --from-file={key}\n" in made
        assert path == f"{mounts[secret]}/{key}"
    assert serve.runs_dir == mounts_of(server)["runs"]
    rules = [
        rule["onExitCodes"] for rule in actors["spec"]["podFailurePolicy"]["rules"] if "onExitCodes" in rule
    ]
    assert {rule["containerName"] for rule in rules} == {player["name"]}
    assert play.stopped_code in rules[1]["values"]


def mounts_of(container: Any) -> dict[str, str]:
    return {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}


# Slurm and ssh ------------------------------------------------------------------------------------


class Site:
    """A directory in which job scripts run, with stand-ins for the commands of Slurm and for ssh.

    ``srun`` and ``ssh`` run their command here, ``scontrol`` notes what it is asked, ``sleep`` does nothing.
    """

    def __init__(self, directory: Path, *, records: bool = False) -> None:
        self.directory = directory
        self._commands = directory / "bin"
        self._commands.mkdir()
        self.command("srun", 'shift; echo $$ >> "$SLURM_ARRAY_TASK_ID.pids"; exec "$@"')
        self.command("scontrol", 'echo "$*" >> scontrol.log')
        self.command("sleep", ":")
        self.command("ssh", 'while test "$1" != -R; do shift; done; exec sh -c "$4"')
        if records:
            self.command("stoker", 'printf "%s\\n" "$@" > words; exit "${CODE:-0}"')

    def command(self, name: str, script: str) -> None:
        path = self._commands / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)

    @contextlib.contextmanager
    def running(self, script: str, *words: str, **variables: str) -> Generator[subprocess.Popen[bytes]]:
        """A script that runs, in a group of processes of its own."""
        programs = (
            f"{self._commands}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        )
        environment = {**os.environ, "PATH": programs, "LEARNER_HOST": "127.0.0.1", **variables}
        with (self.directory / f"{script}.log").open("ab") as log:
            process = subprocess.Popen(
                ["bash", JOBS / script, *words],
                cwd=self.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(WAIT_S)

    def run(self, script: str, *words: str, **variables: str) -> int:
        """Run a script to its end, and return its exit code."""
        with self.running(script, *words, **variables) as process:
            return process.wait(WAIT_S)

    def words(self) -> list[str]:
        """With which the script called ``stoker``."""
        return (self.directory / "words").read_text().splitlines()


def test_the_scripts_call_stoker_with_words_that_it_takes(tmp_path: Path) -> None:
    site = Site(tmp_path, records=True)
    assert site.run("learner.slurm.sh", SLURM_JOB_ID="30007", LEARNER_FLAGS="--agent dqn") == 0
    name, *words = site.words()
    serve = Serve.from_words(name, words)
    assert (tmp_path / "learner.url").read_text() == f"http://127.0.0.1:{serve.port}\n"
    task = {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_JOB_ID": "77"}
    assert site.run("actors.slurm.sh", **task) == 0
    name, *words = site.words()
    play = PlayOnServer.from_words(name, words)
    assert (play.name, play.connect, play.env) == ("actors-5", f"http://127.0.0.1:{serve.port}", serve.env)
    assert site.run("actors.slurm.sh", **task, CODE="2") == 2, "a wrong flag is not tried again"
    assert len((tmp_path / "5.pids").read_text().splitlines()) == 2
    assert site.run("actors.slurm.sh", **task, CODE="1") == 1, "a learner that is away is, but not for ever"
    assert len((tmp_path / "5.pids").read_text().splitlines()) == 42
    assert not (tmp_path / "scontrol.log").exists()
    assert site.run("actors.ssh.sh", "node-1", "node-2") == 0
    name, *words = site.words()
    play = PlayOnServer.from_words(name, words)
    assert play.name in ("node-1", "node-2")


def test_actors_over_ssh_end_with_the_script_or_with_its_connection(tmp_path: Path) -> None:
    site = Site(tmp_path)
    actor = 'trap "echo ended >> calls; exit 75" TERM; echo "$STOKER_TOKEN" >> calls'
    site.command("stoker", f"{actor}; while :; do /bin/sleep 0.1; done")
    site.command("ssh", 'while test "$1" != -R; do shift; done; exec setsid sh -c "$4"')  # the other machine
    calls = tmp_path / "calls"
    for end, code in ((signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)):
        calls.write_text("")
        with site.running("actors.ssh.sh", "node-1", STOKER_TOKEN="secret") as process:
            wait_for(calls, "secret\n")
            if end == signal.SIGKILL:
                os.killpg(process.pid, end)  # all that runs on this machine
            else:
                process.send_signal(end)
            wait_for(calls, "secret\nended\n")
            assert process.wait(WAIT_S) == code


def wait_for(path: Path, text: str) -> None:
    """Return when the file holds this."""
    deadline = time.monotonic() + WAIT_S
    while path.read_text() != text:
        assert time.monotonic() < deadline, path.read_text()
        time.sleep(0.05)


@pytest.mark.timeout(300)  # it starts four programs
def test_an_array_of_tasks_plays_each_step_once_through_a_kill_and_time_limits(tmp_path: Path) -> None:
    (tmp_path / "counting.py").write_text(COUNTING)
    site = Site(tmp_path)
    with contextlib.chdir(tmp_path):
        token = shlex.split("token actors --actors actors- --token-file actors.token")
        with (tmp_path / "tokens.toml").open("w") as file, contextlib.redirect_stdout(file):
            assert main(token) == 0
    assert (tmp_path / "actors.token").stat().st_mode & 0o777 == 0o600
    with serving(site) as (server, client):
        tasks = {"ENVIRONMENT": "counting:Counting", "NUM_ACTORS": "2", "SLURM_ARRAY_JOB_ID": "77"}
        other = site.running("actors.slurm.sh", **tasks, SLURM_ARRAY_TASK_ID="1")
        with other as limited:
            with site.running("actors.slurm.sh", **tasks, SLURM_ARRAY_TASK_ID="0") as killed:
                before = played(client, "actors-0", more_than=0)
                os.killpg(killed.pid, signal.SIGKILL)
            with site.running("actors.slurm.sh", **tasks, SLURM_ARRAY_TASK_ID="0") as requeued:
                played(client, "actors-0", more_than=before)
                played(client, "actors-1", more_than=0)
                limited.send_signal(signal.SIGUSR1)  # its time limit
                limited.wait(WAIT_S)
                requeued.send_signal(signal.SIGTERM)  # scancel
                assert requeued.wait(WAIT_S) == 75
        server.send_signal(signal.SIGTERM)
        assert server.wait(WAIT_S) == 0
    assert (tmp_path / "scontrol.log").read_text() == "requeue 77_1\n"
    log = (tmp_path / "actors.slurm.sh.log").read_text()
    said = [int(n.replace(",", "")) for n in re.findall(r"^([\d,]+) steps", log, re.MULTILINE)]
    lives = learned(tmp_path)
    assert all(steps == [*range(1, len(steps) + 1)] for steps in lives.values()), "each once, in order"
    counts: defaultdict[int, int] = defaultdict(int)
    for (pid, _), steps in lives.items():
        counts[pid] += len(steps)
    first, second = [int(pid) for pid in (tmp_path / "0.pids").read_text().split()]
    [limited_pid] = [int(pid) for pid in (tmp_path / "1.pids").read_text().split()]
    assert set(counts) == {first, second, limited_pid}
    assert sorted(said) == sorted([counts[second], counts[limited_pid]]), "all that they played is there"


@contextlib.contextmanager
def serving(site: Site) -> Generator[tuple[subprocess.Popen[bytes], httpx2.Client]]:
    """The server that the learner's script starts, as a fork that has imported torch, and a client of it."""
    recording = site.directory / "recording"
    recording.mkdir()
    flags = "--agent dqn --hidden-sizes 16 16 --opt-interval 64 --keep-journal all"
    recorder = Site(recording, records=True)
    job = str(os.getpid())
    assert (
        recorder.run(
            "learner.slurm.sh", SLURM_JOB_ID=job, LEARNER_FLAGS=flags, ENVIRONMENT="counting:Counting"
        )
        == 0
    )
    (recording / "learner.url").rename(site.directory / "learner.url")
    url = (site.directory / "learner.url").read_text().strip()
    with (
        (site.directory / "server.log").open("wb") as log,
        launching.Popen(
            [sys.executable, "-m", "stoker", *recorder.words()], cwd=site.directory, stdout=log, stderr=log
        ) as server,
        httpx2.Client(
            base_url=url,
            headers={"authorization": f"Bearer {(site.directory / 'actors.token').read_text().strip()}"},
        ) as client,
    ):
        try:
            yield server, client
        finally:
            server.kill()


def played(client: httpx2.Client, task: str, *, more_than: int) -> int:
    """How many records the server has of a task's two actors, once that is 30 more than a number."""
    deadline = time.monotonic() + WAIT_S
    while True:
        n_records = 0
        for number in range(2):
            with contextlib.suppress(httpx2.TransportError):
                answer = client.get(f"/v1/actors/{task}-{number}").json().get("answer")
                n_records += answer["next"] - 1 if answer else 0
        if n_records > more_than + 30:
            return n_records
        assert time.monotonic() < deadline
        time.sleep(0.05)  # between two requests


def learned(directory: Path) -> dict[tuple[int, int], list[int]]:
    """The numbers of the steps in the journal, in order, by process and environment."""
    [metadata] = (directory / "runs").rglob("metadata.json")
    run = anyio.run(TrainingRun.open, metadata.parent)
    lives: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for _, event in run.journal.read(0):
        if isinstance(event, Experience):
            pid, number, n = map(int, event.next_observation)
            lives[pid, number].append(n)
    return dict(lives)
