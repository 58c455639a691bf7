"""Does it learn its environments, and how soon, beside Stable-Baselines3 with its zoo and its defaults?

A training is one process: stoker as ``stoker train`` runs it, with rows, journal, checkpoints and
evaluations; or Stable-Baselines3, as it is, without evaluations. When it has ended, the policy that it ended
with plays 100 greedy episodes, off the clock, and so does stoker's best one.

    python -m benchmarks.zoo [CASE ...] [--only stoker|sb3] [--jobs 2] [--save FILE] [--table]

A case is ``ppo/Acrobot-v1`` (a preset, the zoo's settings), ``defaults/ppo/Acrobot-v1`` (no preset, defaults)
or ``dqn/CartPole-v1/30000`` (a preset, that many steps). Its beginning, such as ``defaults``, names all cases
that begin so. FILE gets a line of JSON for each training that ends; what it holds is not trained again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import anyio
import gymnasium
import msgspec
import numpy as np
import torch

from benchmarks.measure import QUICK, machine
from benchmarks.zoo_cases import CASES, Case
from stoker import PolicySnapshot, TrainingRun, train
from stoker.trainer import agent_for, config_from, evaluate
from stoker.trainer.making import env_for
from stoker.writer import load_checkpoint

SYSTEMS = ("stoker", "sb3")
EVAL_EPISODES = 100
EVAL_SEED = 1_000_000


class Outcome(msgspec.Struct, frozen=True):
    """What one training came to.

    Attributes:
        system: which system was trained.
        case: the name of the case.
        seed: of the training.
        steps: environment steps.
        took_s: seconds.
        cpu_s: seconds of processors, which say more than ``took_s`` on a busy machine.
        reward: of the final policy, the mean over 100 episodes.
        best: the same of the best policy that the training has kept.
    """

    system: str
    case: str
    seed: int
    steps: int
    took_s: float
    cpu_s: float
    reward: float
    best: float | None = None

    @property
    def key(self) -> tuple[str, str, int]:
        """Which training this was."""
        return self.system, self.case, self.seed


def stoker_outcome(case: Case, seed: int) -> Outcome:
    env = under_another_name(case.env) if case.without_preset else case.env
    total = {} if case.total is None else {"total_timesteps": case.total}
    config = config_from({"env": env, "agent": case.agent, "seed": seed, **total})
    torch.set_num_threads(config.torch_threads)

    async def judged(agent: Any) -> float:
        snapshot = PolicySnapshot(agent.policy(), total_steps=0, state={})
        found = await evaluate(snapshot, partial(env_for, config), EVAL_EPISODES, seed=EVAL_SEED)
        return found.mean_reward

    async def main() -> Outcome:
        with tempfile.TemporaryDirectory(dir=".") as root:  # a disk; the system's /tmp may be memory
            run = await TrainingRun.create("bench", root=root)
            agent = agent_for(config)
            started, cpu_s = time.perf_counter(), time.process_time()
            result = await train(config, run, agent=agent)
            took_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_s
            reward = await judged(agent)
            agent.load_state_dict(load_checkpoint(run.best_checkpoint_path)["agent"])
            best = await judged(agent)
            return Outcome("stoker", case.name, seed, result.total_steps, took_s, cpu_s, reward, best)

    return anyio.run(main, backend_options={"use_uvloop": True})


def under_another_name(env: str) -> str:
    """Register a copy of an environment, for which there is no preset."""
    spec = gymnasium.spec(env)
    name = f"Unheard{env}"
    gymnasium.register(
        name,
        spec.entry_point,
        max_episode_steps=spec.max_episode_steps,
        order_enforce=spec.order_enforce,
        kwargs=spec.kwargs,
    )
    return name


# Stable-Baselines3 -------------------------------------------------------------------------------------


def sb3_outcome(case: Case, seed: int) -> Outcome:
    import stable_baselines3
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    torch.set_num_threads(1)
    settings = dict(case.sb3 or {})
    envs: Any = make_vec_env(case.env, n_envs=case.sb3_envs, seed=seed)
    if case.normalizes:
        envs = VecNormalize(envs, gamma=settings.get("gamma", 0.99))
    algorithm: Any = getattr(stable_baselines3, case.agent.upper())
    model = algorithm("MlpPolicy", envs, device="cpu", seed=seed, **settings)
    started, cpu_s = time.perf_counter(), time.process_time()
    model.learn(case.steps)
    took_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_s
    normalizer = model.get_vec_normalize_env()

    def act(observations: Sequence[Any]) -> Any:
        rows = np.stack(observations)
        rows = rows if normalizer is None else normalizer.normalize_obs(rows)
        return model.predict(rows, deterministic=True)[0]

    reward = played(act, case.env)
    return Outcome("sb3", case.name, seed, model.num_timesteps, took_s, cpu_s, reward)


def played(act: Callable[[Sequence[Any]], Any], env_name: str) -> float:
    """The mean total reward of 100 episodes, played side by side."""
    envs = [gymnasium.make(env_name) for _ in range(EVAL_EPISODES)]
    running = {place: env.reset(seed=EVAL_SEED + place)[0] for place, env in enumerate(envs)}
    total = 0.0
    while running:
        actions = act(list(running.values()))
        for place, action in zip(list(running), actions, strict=True):
            running[place], reward, terminated, truncated, _ = envs[place].step(action)
            total += float(reward)
            if terminated or truncated:
                del running[place]
    return total / EVAL_EPISODES


# Together ----------------------------------------------------------------------------------------------


class Ledger:
    """The outcomes so far, in a file of JSON lines if one is named.

    Args:
        path: the file; None: they are only remembered.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = Lock()
        self._found: dict[tuple[str, str, int], Outcome] = {}
        if path is not None and path.exists():
            outcomes = msgspec.json.Decoder(Outcome).decode_lines(path.read_bytes())
            self._found = {outcome.key: outcome for outcome in outcomes}

    def known(self, system: str, case: Case, seed: int) -> Outcome | None:
        """The outcome of a training that has run."""
        return self._found.get((system, case.name, seed))

    def outcome(self, system: str, case: Case, seed: int) -> Outcome:
        """The outcome of a training: the saved one, or else that of a separate process that trains now."""
        if (known := self.known(system, case, seed)) is not None:
            return known
        command = [sys.executable, "-m", "benchmarks.zoo", "--one", system, str(seed), case.name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        line = done.stdout.splitlines()[-1]
        with self._lock:
            outcome = self._found[system, case.name, seed] = msgspec.json.decode(line, type=Outcome)
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(f"{line}\n")
        return outcome


def line(case: Case, system: str, outcomes: Sequence[Outcome], goal: float | None) -> str:
    def median(name: str) -> float:
        return statistics.median(getattr(outcome, name) for outcome in outcomes)

    rewards = ", ".join(f"{outcome.reward:.0f}" for outcome in outcomes)
    best = "" if outcomes[0].best is None else f", its best one {median('best'):.1f}"
    verdict = ""
    if goal is not None:
        reached = sum(outcome.reward >= goal for outcome in outcomes)
        is_reached = median("reward") >= goal if case.n_reach is None else reached >= case.n_reach
        verdict = (
            f"; goal {goal:.1f} {'reached' if is_reached else 'MISSED'}, by {reached} of {len(outcomes)}"
        )
    return (
        f"  {system:<8} {median('steps'):>9,.0f} steps in {median('took_s'):7.1f} s; at the end "
        f"{median('reward'):.1f}{best} (seeds: {rewards}){verdict}"
    )


def show(case: Case, ledger: Ledger, systems: Sequence[str], n_seeds: int) -> None:
    """Print a case; what is not yet trained is trained now."""
    print(f"\n{case.name}")
    found = {system: [ledger.outcome(system, case, seed) for seed in range(n_seeds)] for system in systems}
    goal = case.goal
    if goal is None and "sb3" in found:
        goal = statistics.median(outcome.reward for outcome in found["sb3"])
    for system, outcomes in found.items():
        print(line(case, system, outcomes, case.goal if system == "sb3" else goal), flush=True)
    if len(found) == len(SYSTEMS):
        ours, theirs = (statistics.median(each.took_s for each in found[system]) for system in SYSTEMS)
        print(f"  ratio    {theirs / ours:.2f} times as soon through")


def table(cases: Sequence[Case], ledger: Ledger) -> str:
    """What is known so far, as a table of Markdown; nothing is trained."""
    head = "| Case, goal | " + " | ".join(f"{system}: at the end | steps | s" for system in SYSTEMS) + " |"
    lines = [head, f"|{'---|' * (1 + 3 * len(SYSTEMS))}"]
    for case in cases:
        cells = [case.name if case.goal is None else f"{case.name}, {case.goal:g}"]
        for system in SYSTEMS:
            outcomes = [each for seed in range(case.n_seeds) if (each := ledger.known(system, case, seed))]
            cells += _cells(outcomes) if outcomes else [""] * 3
        if any(cells[1:]):
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(outcomes: Sequence[Outcome]) -> list[str]:
    rewards = [outcome.reward for outcome in outcomes]
    each = ", ".join(f"{reward:.0f}" for reward in rewards)
    steps, took_s = (
        statistics.median(getattr(each, name) for each in outcomes) for name in ("steps", "took_s")
    )
    return [f"**{statistics.median(rewards):.0f}** ({each})", f"{steps:,.0f}", f"{took_s:,.0f}"]


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        system, seed, name = sys.argv[2:]
        outcome = (stoker_outcome if system == "stoker" else sb3_outcome)(CASES[name], int(seed))
        print(json.dumps(msgspec.to_builtins(outcome)))
        return
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--only", choices=SYSTEMS, help="train one system")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the outcomes in this file")
    parser.add_argument(
        "--table", action="store_true", help="print what FILE holds as Markdown, and train nothing"
    )
    parser.add_argument("--quick", action="store_true", help="one seed")
    asked = parser.parse_args()
    chosen = dict(CASES) if not asked.cases else {}
    for word in asked.cases:
        named = {name: CASES[name] for name in CASES if f"{name}/".startswith(f"{word.rstrip('/')}/")}
        if not named:
            sys.exit(f"no such case: {word}; there are {', '.join(CASES)}")
        chosen |= named
    ledger = Ledger(asked.save)
    if asked.table:
        print(table(list(chosen.values()), ledger))
        return
    failed: list[str] = []
    print(f"\nzoo, {EVAL_EPISODES} greedy episodes after each training, medians over the seeds\n{machine()}")
    with ThreadPoolExecutor(max(1, asked.jobs)) as pool:
        for case in chosen.values():
            systems = [each for each in SYSTEMS if asked.only in (None, each)]
            systems = systems if case.sb3 is not None else [each for each in systems if each == "stoker"]
            n_seeds = 1 if QUICK else case.n_seeds
            trainings = [(system, seed) for seed in range(n_seeds) for system in systems]
            if not trainings:
                continue
            try:
                list(pool.map(lambda each, case=case: ledger.outcome(each[0], case, each[1]), trainings))
            except subprocess.CalledProcessError as error:  # its own message is on stderr
                failed.append(case.name)
                print(f"\n{case.name}\n  FAILED: {' '.join(error.cmd[-3:])}", flush=True)
                continue
            show(case, ledger, systems, n_seeds)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
