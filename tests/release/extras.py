"""Install each extra alone beside the wheel, and use what it is for (make extras).

    python tests/release/extras.py [EXTRA ...]

One environment holds the wheel without extras. Each extra gets an environment of its own that sees the first:
pip installs there what the extra adds, ``pip check`` looks at both, and the use below must succeed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "build" / "extras"
OF_DEVELOPERS = {"all", "bench", "dev", "docs", "faults", "test"}
SERVER = str(HERE / "service" / "bin" / "python")
SHORT = "train CartPole-v1 -n 300 --eval-freq 0 --no-progress --runs-dir"
SESSION = """
import anyio
from stoker import DQN, TrainingSession, make_gym, run_actors

async def main():
    env = make_gym("CartPole-v1")
    async with TrainingSession(DQN(env.observation_space, env.action_space), max_steps=100) as session:
        await run_actors(session, lambda: make_gym("CartPole-v1"), 2)
        {within}
"""
FRAME = """
import anyio
from stoker import TrainingRun

async def main():
    run = await TrainingRun.open("runs/CartPole-v1")
    assert len(await anyio.to_thread.run_sync(lambda: run.to_frame("train", library="{library}"))) > 0

anyio.run(main)
"""
SERVE = """
import subprocess, sys
words = [{python!r}, "-P", "-m", "stoker", "serve", "--env", "CartPole-v1", "--port", "0"]
process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
address = next(line for line in process.stdout if "http://" in line).split()[1]
{client}
process.terminate()
assert process.wait(120) == 0
"""
PLAY = """
client = [sys.executable, "-P", "-m", "stoker", "actor", "--connect", address, "--env", "CartPole-v1"]
assert subprocess.run([*client, "--steps", "100"], timeout=300).returncode == 0
"""
USES: dict[str, list[str]] = {
    "atari": ["import stoker; env = stoker.make_gym('ALE/Pong-v5'); env.reset(seed=0); env.step(0)"],
    "client": [SERVE.format(python=SERVER, client=PLAY)],
    "data": [
        "stoker data export runs/CartPole-v1 -o exported",
        "stoker data export runs/CartPole-v1 -o rows.parquet --format parquet",
        "stoker data describe exported",
    ],
    "mlflow": [f"stoker {SHORT} tracked --track mlflow"],
    "onnx": [
        "stoker export runs/CartPole-v1 -o onnx --format onnx",
        "import stoker; stoker.load_policy('onnx/policy.onnx')",
    ],
    "otel": [
        "from opentelemetry import trace; trace.set_tracer_provider(trace.NoOpTracerProvider())\n"
        "from stoker.telemetry import spans_here; assert spans_here() is not None"
    ],
    "pandas": [FRAME.format(library="pandas")],
    "pettingzoo": ["import pettingzoo, stoker; stoker.make_pettingzoo"],
    "plot": ["stoker plot runs/CartPole-v1 -o curve.png"],
    "polars": [FRAME.format(library="polars")],
    "prometheus": [
        SESSION.format(
            within="from stoker.telemetry.prometheus import Exposition\n"
            "        assert b'stoker_' in Exposition(session.telemetry)()[0]"
        )
        + "anyio.run(main)"
    ],
    "ray": [f"stoker {SHORT} clustered --actors ray --cluster local --workers 1 --worker-cpus 0"],
    "service": [
        SERVE.format(python=SERVER, client=""),
        "from stoker.dashboard import make_app; make_app('runs')",
    ],
    "tensorboard": [f"stoker {SHORT} tracked --track tensorboard"],
    "trackio": [f"stoker {SHORT} tracked --track trackio"],
    "trio": [SESSION.format(within="") + "anyio.run(main, backend='trio')"],
    "uvloop": [SESSION.format(within="") + "anyio.run(main, backend_options={'use_uvloop': True})"],
    "video": ["stoker record runs/CartPole-v1 -o film.mp4"],
    "wandb": [f"stoker {SHORT} tracked --track wandb"],
}
OF_THE_ENVIRONMENT = {"video": ["pygame-ce"]}
"""What CartPole itself needs besides: Gymnasium draws it with pygame."""


def pip(python: Path, *words: str | Path) -> None:
    subprocess.run([python, "-m", "pip", "--disable-pip-version-check", "--quiet", *words], check=True)


def environment(name: str, sees: Path | None = None) -> Path:
    """A new environment's Python; it sees the packages of another one."""
    place = HERE / name
    venv.create(place, clear=True, with_pip=True)
    if sees is not None:
        (libraries,) = place.glob("lib/python*/site-packages")
        (libraries / "sees.pth").write_text(f"{sees}\n")
    return place / "bin" / "python"


def use(python: Path, how: str, cwd: Path) -> bool:
    """Run a command of stoker or a program."""
    words = [python, "-P", "-c", how]
    if how.startswith("stoker "):
        words = [python, "-P", "-m", *how.split()]
    offline = {
        "WANDB_MODE": "offline",
        "TRACKIO_DIR": str(cwd / "trackio"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    return (
        subprocess.run(words, cwd=cwd, env={**os.environ, **offline}, timeout=600, check=False).returncode
        == 0
    )


def main(names: list[str]) -> None:
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    if extras - OF_DEVELOPERS != set(USES):
        raise SystemExit(f"without a use, or without an extra: {(extras - OF_DEVELOPERS) ^ set(USES)}")
    shutil.rmtree(HERE, ignore_errors=True)
    (wheel,) = (ROOT / "dist").glob("*.whl")
    constraints = ROOT / "constraints.txt"
    bare = environment("bare")
    pip(bare, "install", "--no-compile", "-c", constraints, wheel)
    pip(bare, "check")
    (packages,) = (HERE / "bare").glob("lib/python*/site-packages")
    work = HERE / "work"
    work.mkdir()
    if not use(bare, f"stoker {SHORT} runs", work):
        raise SystemExit("the wheel without extras cannot train")
    failed: list[str] = []
    for name in dict.fromkeys(["service", *(names or sorted(USES))]):  # the client plays with its server
        python = environment(name, packages)
        wanted = [f"{wheel}[{name}]", *OF_THE_ENVIRONMENT.get(name, [])]
        pip(python, "install", "--no-compile", "-c", constraints, *wanted)
        pip(python, "check")
        works = all(use(python, how, work) for how in USES[name])
        print(f"{name}: {'works' if works else 'FAILS'}", flush=True)
        failed += [] if works else [name]
        if name != "service":
            shutil.rmtree(HERE / name)
    if failed:
        raise SystemExit(f"these extras do not suffice: {', '.join(failed)}")


if __name__ == "__main__":
    main(sys.argv[1:])
