"""How many transitions of agents per second does a joint environment give, with learning?

Against a plain Python loop that does the same: the same PettingZoo environments, the same agent with the same
network, and the same number of optimization steps, without a session. And with an agent that does nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import anyio
import numpy as np
import torch
from mpe2 import simple_spread_v3

from benchmarks.measure import QUICK, Idle, repeated, report
from stoker import DQN, ActMode, DQNConfig, EpisodeStatus, Experience, TrainingSession, run_joint_actors

N_STEPS = 3_000 if QUICK else 15_000
RUNS = 3 if QUICK else 5
OPT_INTERVAL = 4


def make() -> Any:
    return simple_spread_v3.parallel_env(max_cycles=25)


def learner() -> DQN:
    env = make()
    name = env.possible_agents[0]
    return DQN(env.observation_space(name), env.action_space(name), DQNConfig(learning_starts=500), seed=0)


def plain(agent: Any, n_envs: int) -> None:
    """One pass over the observations of all environments, and a list of transitions, in each round."""
    envs = [make() for _ in range(n_envs)]
    seen = [env.reset(seed=place)[0] for place, env in enumerate(envs)]
    policy = agent.policy()
    n_steps = n_learned = 0
    while n_steps < N_STEPS:
        waiting = [(place, name) for place, env in enumerate(envs) for name in env.agents]
        actions, _ = policy.act([seen[place][name] for place, name in waiting], ActMode.EXPLORE)
        chosen: list[dict[str, Any]] = [{} for _ in envs]
        for (place, name), action in zip(waiting, actions, strict=True):
            chosen[place][name] = action
        steps: list[Experience] = []
        for place, env in enumerate(envs):
            after, rewards, terminated, truncated, _ = env.step(chosen[place])
            for name, action in chosen[place].items():
                status = EpisodeStatus.of(terminated[name], truncated[name])
                before, last = seen[place][name].copy(), after[name].copy()
                step = Experience(before, action, float(rewards[name]), last, status, f"{place}/{name}")
                steps.append(step)
            seen[place] = after if env.agents else env.reset()[0]
        agent.observe(steps)
        n_steps += len(steps)
        while n_learned < n_steps // OPT_INTERVAL:
            n_learned += 1
            if agent.learn() is not None:
                agent.publish(policy)


def ours(agent: Any, n_envs: int) -> None:
    async def main() -> None:
        settings = {"max_steps": N_STEPS, "opt_interval": OPT_INTERVAL, "publish_interval": 1}
        async with TrainingSession(agent, **settings) as session:
            await run_joint_actors(session, make, n_envs, seed=0, stepping="inline")

    anyio.run(main)


def rate(play: Callable[[Any, int], None], agent: Callable[[], Any], n_envs: int) -> float:
    made = agent()
    begun = time.perf_counter()
    play(made, n_envs)
    return N_STEPS / (time.perf_counter() - begun)


def main() -> None:
    torch.set_num_threads(1)
    np.seterr(all="ignore")
    for n_envs in (1, 8):
        for what, agent in (("DQN", learner), ("no learning", Idle)):
            contenders = {"stoker": ours, "plain loop": plain}
            rows = repeated(
                {name: lambda p=play, a=agent, n=n_envs: rate(p, a, n) for name, play in contenders.items()},
                RUNS,
            )
            median = {name: statistics.median(values) for name, values in rows.items()}
            report(
                f"simple_spread, {n_envs} environments of 3 agents, {what}",
                "transitions/s",
                rows,
                {"stoker / plain loop": median["stoker"] / median["plain loop"]},
            )


if __name__ == "__main__":
    main()
