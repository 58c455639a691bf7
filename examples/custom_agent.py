"""An agent of your own, in bare torch: REINFORCE (Williams 1992) on CartPole.

docs/agents.md says what a session needs of an agent.

python examples/custom_agent.py
"""
# ruff: noqa: D102 - the protocol says what each method is for

import copy
from collections.abc import Sequence
from typing import Any

import anyio
import numpy as np
import torch
from torch import nn

from stoker import ActMode, ActorId, Experience, TrainingRun, TrainingSession, make_gym, run_actors

GAMMA = 0.99
EPISODES_PER_UPDATE = 8
Step = tuple[list[float], int, float]  # observation, action, reward: plain, as a checkpoint wants it


class SoftmaxPolicy:
    """The acting side: one forward pass for all who wait."""

    def __init__(self, net: nn.Module, generator: torch.Generator) -> None:
        self.net, self.generator = copy.deepcopy(net), generator

    @torch.no_grad()
    def act(self, observations: Sequence[Any], mode: ActMode) -> tuple[list[int], None]:
        logits = self.net(torch.as_tensor(np.stack(observations)))
        if mode is ActMode.EXPLOIT:
            return logits.argmax(1).tolist(), None
        return torch.multinomial(logits.softmax(1), 1, generator=self.generator)[:, 0].tolist(), None


class Reinforce:
    """Makes actions likelier the more reward came after them."""

    acting_state = frozenset({"generator"})  # acting draws from it, learning does not

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.net = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2))
        for weight in self.net.parameters():
            weight.data.uniform_(-0.2, 0.2, generator=self.generator)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-2)
        self.total_steps = 0
        self.running: dict[ActorId, list[Step]] = {}
        self.ended: list[list[Step]] = []

    def policy(self) -> SoftmaxPolicy:
        return SoftmaxPolicy(self.net, self.generator)

    def publish(self, policy: SoftmaxPolicy) -> None:
        policy.net.load_state_dict(self.net.state_dict())

    def observe(self, experiences: Sequence[Experience]) -> None:
        self.total_steps += len(experiences)
        for experience in experiences:  # many actors' episodes, interleaved
            step = (experience.observation.tolist(), int(experience.action), float(experience.reward))
            self.running.setdefault(experience.actor_id, []).append(step)
            if experience.status.is_done:
                self.ended.append(self.running.pop(experience.actor_id))

    def learn(self) -> dict[str, float] | None:
        if len(self.ended) < EPISODES_PER_UPDATE:
            return None
        observations, actions, returns = [], [], []
        for episode in self.ended:
            rest = 0.0
            for observation, action, reward in reversed(episode):
                rest = reward + GAMMA * rest
                observations.append(observation)
                actions.append(action)
                returns.append(rest)
        self.ended = []
        gains = torch.tensor(returns)
        logits = self.net(torch.tensor(observations))
        losses = nn.functional.cross_entropy(logits, torch.tensor(actions), reduction="none")
        loss = (losses * (gains - gains.mean()) / (gains.std() + 1e-8)).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.item()}

    def episode_extras(self, actor_id: ActorId) -> dict[str, float]:
        return {}

    def on_episode_start(self, actor_id: ActorId) -> None:
        self.running.pop(actor_id, None)  # an episode that was given up

    def state_dict(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "total_steps": self.total_steps,
            "running": self.running,
            "ended": self.ended,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.total_steps = state["total_steps"]
        self.running, self.ended = copy.deepcopy((state["running"], state["ended"]))


async def train(steps: int, runs_dir: str) -> None:
    run = await TrainingRun.create("custom-agent", root=runs_dir)
    session = TrainingSession(Reinforce(), run, max_steps=steps, queue_capacity=64)
    async with session, anyio.create_task_group() as beside:
        beside.start_soon(report, session)
        await run_actors(session, lambda: make_gym("CartPole-v1"), 8, seed=0)
        beside.cancel_scope.cancel()
    print(f"{session.total_steps:,} steps, {session.total_episodes} episodes, in {run.directory}")


async def report(session: TrainingSession) -> None:
    while True:
        await anyio.sleep(1)
        recent = session.stats.window().mean_reward
        print(f"{session.total_steps:>8,} steps  mean reward of the last 100: {recent:6.1f}", flush=True)


def main(steps: int = 100_000, runs_dir: str = "runs") -> None:
    torch.set_num_threads(1)  # the fastest for a network this small
    anyio.run(train, steps, runs_dir)


if __name__ == "__main__":
    main()
