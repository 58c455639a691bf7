"""An agent of your own, in bare torch: REINFORCE (Williams 1992) on CartPole.

docs/agents.md says what a session needs of an agent, docs/testing.md how to check that yours has it.

python examples/custom_agent.py
"""
# ruff: noqa: D101, D102 - the protocol says what each part is for

import copy

import anyio
import numpy as np
import torch
from torch import nn

from stoker import ActMode, ConfigError, TrainingRun, TrainingSession, make_gym, run_actors


class Policy:
    def __init__(self, net, generator):
        self.net, self.generator = copy.deepcopy(net), generator

    @torch.no_grad()
    def act(self, observations, mode):
        chances = self.net(torch.as_tensor(np.stack(observations))).softmax(1)
        if mode is ActMode.EXPLOIT:
            return chances.argmax(1).tolist(), None
        return torch.multinomial(chances, 1, generator=self.generator)[:, 0].tolist(), None


class Reinforce:
    needs_policy_extras = False  # it learns from any action, not only from its policy's
    acting_state = frozenset({"generator"})  # acting draws from it, learning does not

    def __init__(self, seed=0):
        self.generator = torch.Generator().manual_seed(seed)
        self.net = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2))
        for weight in self.net.parameters():
            weight.data.uniform_(-0.2, 0.2, generator=self.generator)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-2)
        self.total_steps, self.running, self.ended = 0, {}, []  # rows of observation, action, reward

    def policy(self):
        return Policy(self.net, self.generator)

    def publish(self, policy):
        policy.net.load_state_dict(self.net.state_dict())

    def observe(self, experiences):
        for step in experiences:  # of many actors' episodes, interleaved
            self.total_steps += 1
            episode = self.running.setdefault(step.actor_id, [])
            episode.append([step.observation.tolist(), int(step.action), float(step.reward)])
            if step.status.is_done:
                for row, after in zip(episode[-2::-1], episode[::-1], strict=False):
                    row[2] += 0.99 * after[2]  # what was a reward becomes a discounted return
                self.ended += self.running.pop(step.actor_id)

    def learn(self):
        if len(self.ended) < 200:
            return None
        observations, actions, returns = map(torch.tensor, zip(*self.ended, strict=True))
        gains, self.ended = (returns - returns.mean()) / (returns.std() + 1e-8), []
        surprise = nn.functional.cross_entropy(self.net(observations), actions, reduction="none")
        self.optimizer.zero_grad()
        (loss := (surprise * gains).mean()).backward()
        self.optimizer.step()
        return {"loss": loss.item()}

    def episode_extras(self, actor_id):
        return {}

    def on_episode_start(self, actor_id):
        self.running.pop(actor_id, None)  # an episode that was given up

    def state_dict(self):
        learned = {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}
        seen = {"total_steps": self.total_steps, "running": self.running, "ended": self.ended}
        return {**learned, **seen, "generator": self.generator.get_state()}

    def load_state_dict(self, state):
        shapes = {name: weight.shape for name, weight in self.net.state_dict().items()}
        if {name: weight.shape for name, weight in state.get("net", {}).items()} != shapes:
            raise ConfigError(f"not the state of a Reinforce whose net is {shapes}")
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.total_steps = state["total_steps"]
        self.running, self.ended = copy.deepcopy((state["running"], state["ended"]))


async def train(steps, runs_dir):
    run = await TrainingRun.create("custom-agent", root=runs_dir)
    async with TrainingSession(Reinforce(), run, max_steps=steps, queue_capacity=64) as session:
        await run_actors(session, lambda: make_gym("CartPole-v1"), 8, seed=0)
    mean = session.stats.window().mean_reward
    print(f"{session.total_steps:,} steps, mean reward of the last 100: {mean:.1f}, in {run.directory}")


def main(steps=100_000, runs_dir="runs"):
    torch.set_num_threads(1)  # the fastest for a network this small
    anyio.run(train, steps, runs_dir)


if __name__ == "__main__":
    main()
