"""A training that is killed: a program that resumes a run, trains on, and sends itself SIGKILL.

Its argument is an ``Order`` as JSON. Before it dies it keeps what the agent and the counters are.
"""

from __future__ import annotations

import copy
import math
import os
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
import gymnasium
import msgspec
import numpy as np
import torch
from training_parts import BOX, batch_of, dqn, transition

from stoker import DQN, PPO, DQNConfig, PPOConfig, TrainingRun, TrainingSession, run_actors
from stoker.agents.protocol import ChangesByActing, LearningAgent
from stoker.testing import AsyncChainEnv, ChainEnv
from stoker.writer import stage

N_ACTORS = 3


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to do.

    Attributes:
        root: the runs directory; the run's name is ``dying``.
        agent: ``dqn`` or ``ppo``; or ``chain``: in ``lockstep``, in environments.
        until: the environment step to die at, with everything flushed; or not all of it, for ``chain``.
        dies_in_learning: the optimization step to die in, before that.
        n_rows: 1: transitions come one by one; more: in batches of that many.
        settings: of the session.
    """

    root: str
    agent: str = "dqn"
    until: int
    dies_in_learning: int | None = None
    n_rows: int = 1
    settings: dict[str, Any] = {}


def agent_for(kind: str, seed: int = 3) -> Any:
    """The agent of that kind, for the transitions of ``training_parts``."""
    if kind == "dqn":
        return dqn(seed, n_step=3, prioritized=True)
    config = PPOConfig(hidden_sizes=(8,), rollout_steps=32, n_epochs=2, batch_size=16)
    return PPO(BOX, gymnasium.spaces.Discrete(2), config, seed=seed)


async def play(session: TrainingSession, until: int, n_rows: int = 1) -> None:
    """Play the stream of transitions up to a step, each with an action of the session's policy."""
    while (k := session.accepted_steps) < until:
        steps = [transition(number, N_ACTORS) for number in range(k, k + n_rows)]
        if n_rows == 1:
            action = await session.act(steps[0].observation, actor_id=steps[0].actor_id)
            await session.observe(msgspec.structs.replace(steps[0], action=action))
        else:
            steps = [msgspec.structs.replace(step, actor_id=row) for row, step in enumerate(steps)]
            batch = batch_of(steps)
            actions = await session.act_many(batch.observations, batch.actor_ids)
            await session.observe_batch(msgspec.structs.replace(batch, actions=np.asarray(actions)))
        for number, step in enumerate(steps, k):
            if step.status.is_done:
                await session.on_episode(float(number), 10, step.status, actor_id=step.actor_id)


def chain_agent(seed: int = 5) -> DQN:
    """An agent for ``play_in_turns``."""
    env = ChainEnv(4)
    config = DQNConfig(
        hidden_sizes=(8,), batch_size=4, learning_starts=8, buffer_size=60, epsilon_decay_steps=200, n_step=3
    )
    return DQN(env.observation_space, env.action_space, config, seed=seed)


class DeadlyChain(AsyncChainEnv):
    """A chain whose steps go astray, that flushes the session now and then and ends the process at a step."""

    def __init__(self, session: TrainingSession, until: float) -> None:
        super().__init__(4)
        self._chain = ChainEnv(4, slip=0.2)
        self._session, self._until = session, until

    async def step(self, action: Any) -> Any:
        steps = self._session.total_steps
        if steps >= self._until:
            die()
        if steps % 16 == 5:
            await self._session.flush()
        return await super().step(action)


async def play_in_turns(session: TrainingSession, until: float = math.inf) -> None:
    """Play five environments in lockstep, to the session's end or until the process dies at that step."""
    await run_actors(session, lambda: DeadlyChain(session, until), 5, seed=1)


def kept_of(session: TrainingSession, agent: LearningAgent, *, ends_episodes: bool = False) -> dict[str, Any]:
    """A copy of all that a training is, but for what acting changes.

    With ``ends_episodes`` as it is once a resume has ended the running episodes.
    """
    actors = session.core.learner.actors
    if ends_episodes:
        agent = copy.deepcopy(agent)
        for actor_id in actors.running:
            agent.on_episode_start(actor_id)
    left_out: frozenset[str] = agent.acting_state if isinstance(agent, ChangesByActing) else frozenset()
    state = {key: value for key, value in agent.state_dict().items() if key not in left_out}
    replay: Any = getattr(agent, "replay", None)
    return stage({
        "agent": state,
        "replay": None if replay is None else replay.state_dict(),
        "counters": [session.total_steps, session.total_episodes, session.opt_steps],
        "stats": session.stats.state_dict(),
        "episodes": dict(actors.episodes),
        "window": session.core.learner.metrics.state_dict(),
    })  # fmt: skip


def die() -> None:
    """End this process as ``kill -9`` does."""
    os.kill(os.getpid(), signal.SIGKILL)


async def live_and_die(order: Order) -> None:
    root = Path(order.root)
    if (root / "dying").exists():
        run = await TrainingRun.resume(root / "dying")
    else:
        run = await TrainingRun.create("dying", root=root)
    if order.agent == "chain":
        async with TrainingSession(chain_agent(), run, **order.settings) as session:
            await play_in_turns(session, order.until)
        return
    agent = agent_for(order.agent)
    learn = agent.learn

    def learn_or_die() -> Any:
        if agent.opt_steps == order.dies_in_learning:
            die()
        return learn()

    agent.learn = learn_or_die
    session = TrainingSession(agent, run, **order.settings)
    await session.open()
    await play(session, order.until, order.n_rows)
    await session.flush()
    del agent.learn
    torch.save(kept_of(session, agent, ends_episodes=True), root / "at_death.pt")
    die()


if __name__ == "__main__":
    anyio.run(live_and_die, msgspec.json.decode(sys.argv[1], type=Order))
