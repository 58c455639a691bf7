"""Use an installed stoker as a stranger does: train, kill, resume, score, export, serve, look (make wheel).

Run by the Python of an environment that holds the wheel with its extra ``service``, outside the checkout.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

STOKER = str(Path(sys.executable).with_name("stoker"))
WAIT_S = 300.0
RUN = "runs/CartPole-v1"


def stoker(*words: str) -> str:
    done = subprocess.run([STOKER, *words], stdout=subprocess.PIPE, text=True, timeout=WAIT_S, check=False)
    print("$ stoker", *words, *(f"\n  {line}" for line in done.stdout.splitlines()[-3:]), flush=True)
    if done.returncode:
        raise SystemExit(f"stoker {' '.join(words)}: exit code {done.returncode}")
    return done.stdout


@contextmanager
def server(*words: str) -> Generator[str]:
    """A server's address; ended by SIGTERM, which it must answer with exit code 0."""
    process = subprocess.Popen([STOKER, *words, "--port", "0"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        greeting = next((line for line in process.stdout if "http://" in line), "")
        address = re.search(r"http://[\w.:]+", greeting)
        if address is None:
            raise SystemExit(f"stoker {' '.join(words)} printed no address; exit code {process.wait(WAIT_S)}")
        print("$ stoker", *words, f"\n  {greeting}", end="", flush=True)
        yield address[0]
        process.terminate()
        if code := process.wait(WAIT_S):
            raise SystemExit(f"stoker {' '.join(words)}: exit code {code} after SIGTERM")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def answer(address: str, body: object = None) -> bytes:
    """A server's answer; 503 is asked again after the seconds that it names."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"content-type": "application/json"})
    end = time.monotonic() + WAIT_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S) as response:
                return response.read()
        except urllib.error.HTTPError as refusal:
            if refusal.code != 503 or time.monotonic() > end:
                raise
            time.sleep(float(refusal.headers["Retry-After"]))


def train_and_kill() -> None:
    """A training that is killed once it reports steps."""
    words = ["train", "CartPole-v1", "-n", "2000"]
    process = subprocess.Popen([STOKER, *words], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    report = next((line for line in process.stderr if " steps " in line), "")
    process.kill()
    process.stderr.close()
    if (code := process.wait()) != -signal.SIGKILL:
        raise SystemExit(f"stoker {' '.join(words)}: exit code {code} before it was killed")
    print("$ stoker", *words, f"\n{report}  killed", flush=True)


def play(address: str) -> None:
    """An episode of one step, learned or not."""
    first = {"actor": "me", "seq": 1, "start": True, "observation": [0, 0, 0, 0]}
    reply = json.loads(answer(f"{address}/v1/step", {"steps": [first]}))
    print("  answered", reply, flush=True)
    if reply["actors"]["me"]["action"] not in (0, 1):
        raise SystemExit(f"{address}: no action in {reply}")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="stoker-installed-") as name:
        os.chdir(name)
        train_and_kill()
        stoker("verify", RUN)
        stoker("resume", RUN)
        stoker("verify", RUN)
        stoker("eval", RUN, "--episodes", "3")
        stoker("export", RUN, "-o", "policy", "--format", "numpy")
        with server("serve", "--env", "CartPole-v1") as address:
            play(address)
        with server("serve", "--policy", "policy") as address:
            play(address)
        with server("dash", "runs") as address:
            page, runs = answer(f"{address}/"), json.loads(answer(f"{address}/api/runs"))
            if b"<html" not in page or len(runs["runs"]) != 2:
                raise SystemExit(f"{address}: {page[:100]!r}, {runs}")
    print(f"the installed stoker works on Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
