"""An agent whose policy can be sent to processes, and environments that misbehave there.

Everything here can be imported, and so pickled by name; nothing here needs torch or pytest.
"""

from __future__ import annotations

import atexit
import logging.handlers
import multiprocessing
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete

from stoker.testing import ChainEnv, CrashingEnv, FakeAgent
from stoker.types import ActMode

PLACE = r" \(\S+portable_parts\.py:\d+\)$"
"""A pattern of where an error of this module was raised, at the end of its text."""


class Right:
    """A portable policy that goes right; what it remembers says with which weights."""

    def __init__(self, opts: int = 0, seed: int | None = None, needs: Any = None, width: int = 8) -> None:
        self.opts = opts
        self.width = width
        self.seed = seed
        self.generator = np.random.default_rng(seed)
        self.exploration_rate = 0.25
        self.needs = needs

    def act(self, observations: Sequence[Any], mode: ActMode) -> tuple[list[int], list[Any]]:
        if any(np.shape(observation) != (1,) for observation in observations):
            raise ValueError("an observation of another shape")
        if any(observation[0] == -13 for observation in observations):
            raise ZeroDivisionError("13 brings no luck")
        drawn = float(self.generator.random())
        return [1] * len(observations), [{"opts": self.opts, "drawn": drawn, "pid": os.getpid()}] * len(
            observations
        )

    def fork(self, seed: int) -> Right:
        return Right(self.opts, seed, width=self.width)

    def weights(self) -> dict[str, Any]:
        return {"opts": self.opts, "matrix": np.full((self.width, self.width), self.opts)}

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        assert (weights["matrix"] == weights["opts"]).all()
        self.opts = weights["opts"]


class PortableAgent(FakeAgent):
    """Learns nothing but counts how often it was to, which is what its policies' weights are."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(1, **settings)
        self.exploration_rate = 0.5
        self.opts = 0
        self.opts_before: list[int] = []
        """For each experience, the optimization steps done when it was taken in."""
        self.lags: list[int] = []
        """And the staleness of those whose policy is known."""

    def policy(self) -> Any:
        return Right(self.opts)

    def publish(self, policy: Any) -> None:
        policy.opts = self.opts

    def observe(self, experiences: Sequence[Any]) -> None:
        super().observe(experiences)
        for experience in experiences:
            self.opts_before.append(self.opts)
            if experience.policy_version is not None:
                self.lags.append(self.opts - experience.policy_version)

    def learn(self) -> Mapping[str, float] | None:
        super().learn()
        self.opts += 1
        return {}

    def check_experience(self, experience: Any) -> None:
        self.check_observation(experience.observation)
        self.check_observation(experience.next_observation)

    def check_observation(self, observation: Any) -> None:
        from stoker.errors import InvalidExperience

        if np.shape(observation) != (1,):
            raise InvalidExperience(f"an observation of shape {np.shape(observation)}")
        if not np.isfinite(observation).all():
            raise InvalidExperience(f"an observation of {observation}")


class RightLists(Right):
    """The same, with actions that are lists."""

    def act(self, observations: Sequence[Any], mode: ActMode) -> tuple[list[Any], list[Any]]:
        actions, extras = super().act(observations, mode)
        return [[float(action)] for action in actions], extras

    def fork(self, seed: int) -> RightLists:
        return RightLists(self.opts, seed)


class ListsAgent(PortableAgent):
    """The same, with a policy whose actions are lists."""

    def policy(self) -> Any:
        return RightLists(self.opts)


class Overwriting:
    """Three steps in one list, which it gives each time; it overwrites the action, too."""

    def __init__(self) -> None:
        self.seen = [0.0]

    def reset(self, *, seed: int | None = None) -> Any:
        self.seen[0] = 0.0
        return self.seen, {}

    def step(self, action: Any) -> Any:
        action[0] *= 5
        self.seen[0] += 1.0
        return self.seen, 1.0, self.seen[0] == 3.0, False, {}


class Seeded(ChainEnv):
    """A chain of three that begins with a number from its seeded generator, and says where it lives."""

    def __init__(self, length: int = 3) -> None:
        super().__init__(length)
        self.thread = threading.get_ident()

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        _, info = super().reset(seed=seed, options=options)
        self.first = float(np.float32(self.np_random.random()))
        return np.array([self.first], np.float32), info

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        return (
            observation + np.float32(self.first),
            reward,
            terminated,
            truncated,
            {**info, "is_success": True},
        )

    def episode_extras(self) -> dict[str, float]:
        same = self.thread == threading.get_ident()
        return {"first": self.first, "pid": float(os.getpid()), "same_thread": float(same)}


class Deadly(Seeded):
    """Ends its process in the episode of this seed."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.fatal = seed

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        if seed == self.fatal:
            os._exit(1)
        return super().reset(seed=seed, options=options)


class Threaded(Seeded):
    """Says how many threads torch uses."""

    def episode_extras(self) -> dict[str, float]:
        import torch

        return {"n_threads": float(torch.get_num_threads())}


class Unpickled:
    """A factory that a process unpickles by calling a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.made_by = function, arguments

    def __call__(self) -> Any:
        raise AssertionError("it is called where it was pickled")

    def __reduce__(self) -> Any:
        return self.made_by


class Surrounded(Seeded):
    """Says what it has drawn, whether it has a variable of the environment, and who started its process."""

    def episode_extras(self) -> dict[str, float]:
        knows = os.environ.get("STOKER_SAID") == "yes"
        drawn = {"numpy": np.random.random(), "python": random.random()}
        return {**drawn, "knows": float(knows), "parent": float(os.getppid())}


class Tidying(Seeded):
    """Leaves work for the exit of its process: an exit handler, a log in memory, a thread that runs."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        here = Path(folder)
        atexit.register((here / "handler").touch)
        log = logging.getLogger("simulator")
        log.addHandler(logging.handlers.MemoryHandler(1000, target=logging.FileHandler(here / "log")))
        log.warning("it has begun")
        self.folder = here

    def close(self) -> None:
        threading.Thread(target=self.end).start()

    def end(self) -> None:
        threading.main_thread().join()
        (self.folder / "thread").touch()


def with_four_threads() -> type[Threaded]:
    """A factory that lets torch use four threads."""
    import torch

    torch.set_num_threads(4)
    return Threaded


def never_there(name: str) -> type[Seeded]:
    """A factory; in the process of this name it never comes."""
    if multiprocessing.current_process().name == name:
        time.sleep(3600)
    return Seeded


class Spoilt(Seeded):
    """Does something when a file says so: once, in the process that finds it first."""

    def __init__(self, spoiler: str) -> None:
        super().__init__()
        self.spoiler = Path(spoiler)
        self.steps = 0

    def step(self, action: Any) -> Any:
        self.steps += 1
        result = super().step(action)
        if self.steps < 8:
            return result
        try:
            what = self.spoiler.read_text()
            self.spoiler.unlink()
        except FileNotFoundError:
            return result
        match what:
            case "raise":
                raise RuntimeError("simulator crashed")
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                time.sleep(3600)
            case "exit":
                raise SystemExit(3)
            case "leave":
                os._exit(3)
            case "NaN reward":
                return (result[0], float("nan"), *result[2:])
            case "NaN observation":
                return (np.full(1, np.nan, np.float32), *result[1:])
            case "shape":
                return (np.zeros(2, np.float32), *result[1:])
            case "old":
                return result[:4]
            case "unlucky":
                return (np.full(1, -13, np.float32), *result[1:])
            case "objects":
                return (np.full(1, None, object), *result[1:])
        return result


class SlowChain(ChainEnv):
    def __init__(self, delay_s: float) -> None:
        super().__init__(3)
        self.delay_s = delay_s

    def step(self, action: Any) -> Any:
        time.sleep(self.delay_s)
        return super().step(action)


def by_actor(agent: FakeAgent) -> Counter[Any]:
    """How many transitions each actor had."""
    return Counter(e.actor_id for e in agent.experiences)


def always_crashing() -> CrashingEnv:
    """Makes an environment that crashes in its fifth step."""
    return CrashingEnv(Seeded(), {5})


def spoilt_by_name(folder: str) -> Spoilt:
    """Makes an environment that is spoilt by the file that is called as its process is."""
    return Spoilt(f"{folder}/{multiprocessing.current_process().name}")


def holding_the_lock(folder: str) -> HoldingTheLock:
    """Makes an environment that says where it is, and in the process of actor 1 never gives up the lock."""
    name = multiprocessing.current_process().name
    return HoldingTheLock(Path(folder) / name, forever=name.endswith("1"))


class HoldingTheLock(ChainEnv):
    """Writes its process's id down at its second step; may then hold the interpreter lock for good."""

    def __init__(self, path: Path, *, forever: bool) -> None:
        super().__init__(3)
        self.path = path
        self.forever = forever
        self.n_steps = 0

    def step(self, action: Any) -> Any:
        self.n_steps += 1
        if self.n_steps == 2:
            part = self.path.with_suffix(".part")
            part.write_text(str(os.getpid()))
            part.rename(self.path.with_suffix(".pid"))
            if self.forever:
                re.match("(a+)+$", "a" * 60 + "b")  # takes longer than anybody will wait
        time.sleep(0.001)
        return super().step(action)


class Unpicklable(Right):
    """A policy that stays where it is."""

    def fork(self, seed: int) -> Unpicklable:
        return Unpicklable(self.opts, seed, needs=threading.Lock())


class StayingAgent(PortableAgent):
    def policy(self) -> Any:
        return Unpicklable(self.opts)


def one_way() -> ChainEnv:
    """A chain that goes left only, and refuses to go right."""
    env = ChainEnv()
    env.action_space = Discrete(1)
    return env


class Wide(ChainEnv):
    """Shows its observation twice."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = Box(0.0, 5.0, (2,), np.float32)

    def _observation(self) -> Any:
        return np.repeat(super()._observation(), 2)
