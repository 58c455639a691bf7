"""The example clients play on a real server; those whose tools are not here send what its schema says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ledgers import CartPoleServer, compare, journaled, read_ledger

from stoker.protocol import Record, StepMessage, decode_step

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "clients"
WAIT_S = 60.0


def needs(tool: str) -> Any:
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")


def run(*words: str | Path, **options: Any) -> str:
    done = subprocess.run(
        [*map(str, words)], capture_output=True, text=True, timeout=WAIT_S, check=False, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wait_for_lines(path: Path, count: int, client: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert client.poll() is None, "the client has ended"
        assert time.monotonic() < deadline, f"no {count} records in {WAIT_S:g} s"
        os.sched_yield()


@needs("node")
def test_javascript_loses_and_doubles_nothing_when_the_server_is_killed_twice(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    play = Path(__file__).with_name("play.mjs")
    with CartPoleServer(tmp_path) as server:
        words = ["node", play, EXAMPLES / "javascript", server.url, ledger, "3", "100"]
        with subprocess.Popen([*map(str, words)], stderr=subprocess.PIPE) as client:
            for count in (60, 180):
                wait_for_lines(ledger, count, client)
                server.kill()
                server.start()
            _, errors = client.communicate(timeout=WAIT_S)
        assert client.returncode == 0, errors.decode()
        server.kill()  # close() has returned: all is on disk
        written = read_ledger(ledger)
        assert sorted(written) == ["js-0", "js-1", "js-2"]
        assert compare(written, server.run()) >= 300


@needs("cargo")
@needs("curl")
@needs("node")
def test_the_others_play_beside_each_other_until_all_is_on_disk(tmp_path: Path) -> None:
    with CartPoleServer(tmp_path, ["-n", "600"]) as server:
        said = run("sh", EXAMPLES / "curl" / "two_steps.sh", server.url, "by-hand").splitlines()
        first, second, repeated = (msgspec.json.decode(line)["actors"]["by-hand"] for line in said)
        assert (first["next"], second["next"], repeated["next"], repeated["durable"]) == (2, 3, 3, 2)
        assert first["action"] in (0, 1)
        again = run("sh", EXAMPLES / "curl" / "two_steps.sh", server.url, "by-hand").splitlines()
        assert msgspec.json.decode(again[-1])["actors"]["by-hand"]["next"] == 5, "it asks where it stands"

        manifest = EXAMPLES / "rust" / "Cargo.toml"
        cargo = ["cargo", "run", "--quiet", "--offline", "--manifest-path", manifest]
        environment = {**os.environ, "CARGO_TARGET_DIR": str(tmp_path / "rust")}
        copied = shutil.copytree(manifest.parent, tmp_path / "copied")  # cargo writes a lock file beside it
        cargo[-1] = copied / "Cargo.toml"
        said_by_rust = run(*cargo, "--", server.url, "100", "by-rust", env=environment)
        assert "all of them on the server's disk" in said_by_rust

        script = EXAMPLES / "javascript" / "cartpole.js"
        said_by_node = run("node", script, server.url, "4")  # until the training has its steps
        assert "ended: " in said_by_node
        server.stop()
        rows = journaled(server.run())
    assert len(rows["by-hand"]) == 4
    steps = [row for row in rows["by-rust"] if not row.start]
    assert f"{len(steps)} steps" in said_by_rust
    assert len(steps) >= 100
    assert sum(not row.start for actor in rows.values() for row in actor) == 600


# Those without their tools --------------------------------------------------------------------------------

LITERALS = {
    "csharp/StokerActor.cs": r'\["(\w+)"\] = ([\w().?!+]+)',
    "godot/stoker_actor.gd": r'"(\w+)": ([\w.()]+)',
}
SAMPLES: dict[str, Any] = {
    "actor": "npc", "seq": 1, "start": True, "observation": [0.0], "action": 1, "memo": "kQ", "reward": 1.0,
    "terminated": False, "truncated": True,
}  # fmt: skip


@pytest.mark.parametrize("file", LITERALS)
def test_what_it_sends_is_what_the_schema_says(file: str) -> None:
    source = (EXAMPLES / file).read_text()
    names = {name for name, _ in re.findall(LITERALS[file], source)}
    fields = names & set(Record.__struct_fields__)
    assert fields == set(SAMPLES), "the fields of its two kinds of records"
    assert names - fields <= {"steps", "ack", *StepMessage.__struct_fields__}
    start = {name: SAMPLES[name] for name in ("actor", "seq", "start", "observation")}
    step = {name: SAMPLES[name] for name in SAMPLES if name != "start"} | {"seq": 2}
    sent = msgspec.json.encode({"steps": [start, step], "ack": "durable"})
    assert [record.seq for record in decode_step(sent, "json").steps] == [1, 2]


@pytest.mark.parametrize("file", [*LITERALS, "javascript/stoker.js", "rust/src/stoker.rs"])
def test_it_calls_what_there_is_and_knows_the_problems_by_their_kinds(file: str) -> None:
    from stoker.protocol.problems import KINDS

    source = (EXAMPLES / file).read_text()
    assert {"/v1/step", "/v1/actors/"} <= set(re.findall(r"/v1/\w+/?", source))
    assert set(re.findall(r'"(gap|[a-z]+-[a-z]+(?:-[a-z]+)?)"', source)) - {
        "content-type",
        "content-length",
        "retry-after",
    } <= {*KINDS}
