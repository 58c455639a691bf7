"""What does an exported policy cost per action, and does it act as the agent does?

One observation at a time through a [64, 64] policy of PPO: by numpy, by ONNX Runtime, as ``load_policy``
gives the policy of a run, and by Stable-Baselines3's ``predict`` with a network of the same size. Then every
agent acts on 10,000 observations of each kind of space, by its own policy and by its export.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple

from benchmarks.measure import QUICK, repeated, report
from stoker import ActMode, TrainingRun, TrainingSession, export_policy, load_policy
from stoker.agents.registry import AGENTS, action_kinds, config_type, make_agent
from stoker.policies.description import action_of, parts_in, parts_of
from stoker.policies.numpy_policy import Program
from stoker.policies.of_runs import program_of, without_replay

CALLS = 300 if QUICK else 3_000
RUNS = 3 if QUICK else 7
N_OBSERVATIONS = 500 if QUICK else 10_000
N_IMAGES = 100 if QUICK else 1_000
BATCH = 250

OBSERVATIONS: dict[str, Space[Any]] = {
    "Box": Box(-3.0, 3.0, (8,), np.float32),
    "Discrete": Discrete(50),
    "small image": Box(0, 1, (10, 10, 4), np.bool_),
    "image": Box(0, 255, (4, 84, 84), np.uint8),
    "Dict": Dict(
        {
            "camera": Box(0, 255, (10, 10, 3), np.uint8),
            "bag": Tuple([MultiDiscrete([2, 3]), MultiBinary(4)]),
            "speed": Box(-9.0, 9.0, (2,), np.float32),
        }
    ),
}
ACTIONS: dict[str, Space[Any]] = {
    "Discrete": Discrete(6),
    "Box": Box(-2.0, 2.0, (3,), np.float32),
    "MultiDiscrete": MultiDiscrete([3, 5]),
}


def per_call(act: Callable[[Any], Any], observation: Any) -> Callable[[], float]:
    def once() -> float:
        started = time.perf_counter()
        for _ in range(CALLS):
            act(observation)
        return (time.perf_counter() - started) / CALLS * 1e6

    return once


def exported(directory: Path) -> Path:
    """A policy as ``stoker export`` writes it, and the run that it is from."""
    box, settings = OBSERVATIONS["Box"], config_type("ppo")(hidden_sizes=(64, 64))
    agent = make_agent("ppo", box, ACTIONS["Box"], settings)

    async def main() -> Path:
        run = await TrainingRun.create("export", root=directory)
        async with TrainingSession(agent, run):
            pass
        return run.directory

    run = anyio.run(main)
    started = time.perf_counter()
    export_policy(run, directory / "policy", ("numpy", "onnx"))
    print(f"exported and checked in {time.perf_counter() - started:.2f} s")
    return run


def peer() -> Any:
    """Stable-Baselines3's policy of the same size."""
    import gymnasium
    from stable_baselines3 import PPO

    class Still(gymnasium.Env):
        observation_space, action_space = OBSERVATIONS["Box"], ACTIONS["Box"]

    return PPO("MlpPolicy", Still(), device="cpu")


def differences(agent: str, seen: str, acted: str) -> tuple[int, float]:
    """How many of the actions differ, and the largest distance of numbers."""
    space, actions = OBSERVATIONS[seen], ACTIONS[acted]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = config_type(agent)(normalize_observations="image" not in seen)
        made: Any = make_agent(agent, space, actions, without_replay(settings))
    module, parts = made.policy_module(), parts_of(space)
    play, policy = Program(*program_of(module, parts)), made.policy()
    is_box = action_of(actions).kind == "box"
    n_other, distance = 0, 0.0
    space.seed(0)
    n_batches = -(-(N_IMAGES if seen == "image" else N_OBSERVATIONS) // BATCH)
    for _ in range(n_batches):
        observations = [space.sample() for _ in range(BATCH)]
        arrays = [
            np.stack([np.asarray(parts_in(each, [part])[0]) for each in observations]).astype(part.dtype)
            for part in parts
        ]
        wanted = np.stack([*map(np.asarray, policy.act(observations, ActMode.EXPLOIT)[0])])
        found = play(*arrays)["action"]
        n_other += int((found != wanted).reshape(BATCH, -1).any(axis=1).sum())
        distance = max(distance, float(np.abs(found.astype(np.float64) - wanted).max()))
    return (0 if is_box else n_other), distance


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        run, observation = exported(Path(name)), OBSERVATIONS["Box"].sample()
        theirs = peer()
        rows = repeated(
            {
                "numpy": per_call(load_policy(Path(name) / "policy" / "policy.npz").act, observation),
                "ONNX Runtime": per_call(load_policy(Path(name) / "policy" / "policy.onnx").act, observation),
                "load_policy(RUN)": per_call(load_policy(run).act, observation),
                "Stable-Baselines3's predict": per_call(
                    lambda seen: theirs.predict(seen, deterministic=True), observation
                ),
            },
            RUNS,
        )
    median = {name: statistics.median(values) for name, values in rows.items()}
    notes: list[str] = []
    for agent in AGENTS:
        for acted, space in ACTIONS.items():
            if any(kind.fits(space) for kind in action_kinds(agent)):
                found = {seen: differences(agent, seen, acted) for seen in OBSERVATIONS}
                texts = [f"{seen} {count} differ, {far:.1e}" for seen, (count, far) in found.items()]
                notes.append(f"{agent}, {acted}: {'; '.join(texts)}")
    report(
        "Acting with an exported policy",
        "us per action",
        rows,
        {
            "Stable-Baselines3 / numpy": median["Stable-Baselines3's predict"] / median["numpy"],
            "Stable-Baselines3 / ONNX Runtime": median["Stable-Baselines3's predict"]
            / median["ONNX Runtime"],
        },
        notes,
    )


if __name__ == "__main__":
    main()
