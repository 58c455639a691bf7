"""A small agent that keeps every promise, to break them one by one; it is portable and checks its input."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from stoker import ActMode, ConfigError, Experience, InvalidExperience


class SmallPolicy:
    def __init__(self, net: nn.Linear, generator: torch.Generator) -> None:
        self.net, self.generator = copy.deepcopy(net), generator

    @torch.no_grad()
    def act(self, observations: Sequence[Any], mode: ActMode) -> tuple[list[int], list[float] | None]:
        logits = self.net(torch.as_tensor(np.stack(observations))).log_softmax(1)
        if mode is ActMode.EXPLOIT:
            return logits.argmax(1).tolist(), None
        actions = torch.multinomial(logits.exp(), 1, generator=self.generator)
        return actions[:, 0].tolist(), logits.gather(1, actions)[:, 0].tolist()

    def fork(self, seed: int) -> SmallPolicy:
        return type(self)(self.net, torch.Generator().manual_seed(seed))

    def weights(self) -> dict[str, Any]:
        return {name: tensor.clone() for name, tensor in self.net.state_dict().items()}

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        self.net.load_state_dict(weights)

    def __getstate__(self) -> dict[str, Any]:
        return {"net": self.net, "generator": self.generator.get_state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.net, self.generator = state["net"], torch.Generator()
        self.generator.set_state(state["generator"])


class Small:
    """A linear policy that makes its last action likelier, the more so the more reward it got."""

    make_policy: type[SmallPolicy] = SmallPolicy
    warmup = 20
    needs_policy_extras = False

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.net = nn.Linear(1, 2)
        for weight in self.net.parameters():
            weight.data.uniform_(-0.5, 0.5, generator=self.generator)
        self.total_steps = 0
        self.last: list[float] = []
        self.returns: dict[Any, float] = {}

    def policy(self) -> Any:
        return self.make_policy(self.net, self.generator)

    def publish(self, policy: Any) -> None:
        policy.net.load_state_dict(self.net.state_dict())

    def check_observation(self, observation: Any) -> None:
        if np.shape(observation) != (1,) or not np.isfinite(observation).all():
            raise InvalidExperience(f"observation={observation!r}")

    def check_experience(self, experience: Experience) -> None:
        self.check_observation(experience.observation)
        self.check_observation(experience.next_observation)

    def observe(self, experiences: Sequence[Experience]) -> None:
        for e in experiences:
            self.total_steps += 1
            self.last = [float(e.observation[0]), float(e.action), e.reward, float(e.policy_extras or 0.0)]
            self.returns[e.actor_id] = self.returns.get(e.actor_id, 0.0) + e.reward - 0.1

    def learn(self) -> Any:
        if self.total_steps < self.warmup:
            return None
        observation, action, reward, extra = self.last
        logits = self.net(torch.tensor([observation])).log_softmax(0)
        loss = -(reward + 0.1) * (logits[int(action)] - extra)
        self.net.zero_grad()
        loss.backward()
        with torch.no_grad():
            for weight in self.net.parameters():
                weight.sub_(0.1 * weight.grad)
        return {"loss": loss.item()}

    def episode_extras(self, actor_id: Any) -> Any:
        return {"return": self.returns.get(actor_id, 0.0)}

    def on_episode_start(self, actor_id: Any) -> None:
        self.returns.pop(actor_id, None)

    def state_dict(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "generator": self.generator.get_state(),
            "total_steps": self.total_steps,
            "last": self.last,
            "returns": self.returns,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        own = self.net.state_dict()
        if not {"net", "generator", "last", "returns"} <= state.keys() or any(
            state["net"][name].shape != own[name].shape for name in own
        ):
            raise ConfigError("the state of another agent")
        self.net.load_state_dict(state["net"])
        self.generator.set_state(state["generator"])
        self.total_steps = state["total_steps"]
        self.last, self.returns = list(state["last"]), dict(state["returns"])
