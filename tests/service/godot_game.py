"""A game with the plugin of Godot RL Agents, in Python: its side of the wire."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any, Self

import numpy as np


class Game:
    """The plugin's side: agents of a game that asks which side of 0 a number is on.

    An agent's episode takes five steps, each of which is rewarded if it is right. Every third episode is cut
    off, the others terminate.

    Args:
        port: of the trainer.
        n_agents: in this game.
        n_steps: after which the game ends.
        is_detailed: whether it sends terminal observations and truncation.
        info: what it says of itself, instead of the truth.
    """

    def __init__(
        self, port: int, n_agents: int = 1, n_steps: int = 10, *, is_detailed: bool = True, **info: Any
    ) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._n_agents, self._n_steps, self._is_detailed = n_agents, n_steps, is_detailed
        self._random = np.random.default_rng(port)
        self.info = {
            "type": "env_info",
            "observation_space": [{"obs": {"size": [1], "space": "box"}}] * n_agents,
            "action_space": [{"side": {"size": 2, "action_type": "discrete"}}] * n_agents,
            "n_agents": n_agents,
            "agent_policy_names": ["shared_policy"] * n_agents,
            **info,
        }
        self.messages: list[dict[str, Any]] = []
        self.rewards: list[float] = []
        self.ended: list[tuple[float, int, bool]] = []

    def send(self, message: Any) -> None:
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.connection.sendall(struct.pack("<I", len(data)) + data)

    def receive(self) -> dict[str, Any]:
        (length,) = struct.unpack("<I", self._exactly(4))
        self.messages.append(json.loads(self._exactly(length)))
        return self.messages[-1]

    def _exactly(self, n: int) -> bytes:
        data = b""
        while len(data) < n:
            if not (more := self.connection.recv(n - len(data))):
                raise ConnectionError("the trainer is gone")
            data += more
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.connection.close()

    def play(self) -> list[str]:
        """Play until the game or the trainer ends it; return the types of the messages that came."""
        try:
            assert self.receive()["major_version"] == "0"
            assert self.receive() == {"type": "env_info"}
            self.send(self.info)
            if self.receive()["type"] == "reset":
                self._play()
        finally:
            self.connection.close()
        return [message["type"] for message in self.messages]

    def _play(self) -> None:
        shown = [self._number() for _ in range(self._n_agents)]
        totals, lengths, n_ended = [0.0] * self._n_agents, [0] * self._n_agents, 0
        self.send({"type": "reset", "obs": [{"obs": [number]} for number in shown], "info": []})
        for _ in range(self._n_steps):
            message = self.receive()
            if message["type"] == "close":
                return
            rewards, done, info = [], [], []
            for agent, action in enumerate(message["action"]):
                rewards.append(float((shown[agent] > 0) == (action["side"] == 1)))
                totals[agent], lengths[agent] = totals[agent] + rewards[-1], lengths[agent] + 1
                last, shown[agent] = self._number(), self._number()
                done.append(lengths[agent] == 5)
                info.append({})
                if done[-1]:
                    n_ended += 1
                    is_cut_off = self._is_detailed and n_ended % 3 == 0
                    if self._is_detailed:
                        info[-1]["terminal_observation"] = {"obs": [last]}
                        info[-1]["TimeLimit.truncated"] = is_cut_off
                    info[-1]["is_success"] = totals[agent] == 5
                    self.ended.append((totals[agent], 5, is_cut_off))
                    totals[agent], lengths[agent] = 0.0, 0
            self.rewards += rewards
            obs = [{"obs": [number]} for number in shown]
            self.send({"type": "step", "obs": obs, "reward": rewards, "done": done, "info": info})
        self.receive()

    def _number(self) -> float:
        return float(self._random.uniform(-1, 1))
