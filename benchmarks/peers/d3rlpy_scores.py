"""The mean greedy return of d3rlpy's agent after N updates; the last line is the number.

Runs in an environment that has d3rlpy: ``python d3rlpy_scores.py DATA.npz ENV AGENT N SETTINGS SEED``.
"""

import json
import sys

import d3rlpy
import gymnasium
import numpy as np
import torch

EVAL_EPISODES, EVAL_SEED = 50, 1_000_000
CONFIGS = {
    "iql": "IQLConfig",
    "awac": "AWACConfig",
    "sac": "SACConfig",
    "dqn": "DQNConfig",
    "cql": "DiscreteCQLConfig",
    "bc": "BCConfig",
    "bc-discrete": "DiscreteBCConfig",
}

torch.set_num_threads(1)
path, env_id, agent, n_updates, settings, seed = sys.argv[1:]
settings, env = json.loads(settings), gymnasium.make(env_id)
with np.load(path, allow_pickle=False) as file:
    columns = {key: file[key] for key in file.files}
is_discrete = columns["actions"].ndim == 1
actions = columns["actions"][:, None] if is_discrete else columns["actions"]
dataset = d3rlpy.dataset.MDPDataset(
    observations=columns["observations"],
    actions=actions,
    rewards=columns["rewards"][:, None],
    terminals=columns["terminals"],
    timeouts=columns["timeouts"],
    action_space=d3rlpy.ActionSpace.DISCRETE if is_discrete else d3rlpy.ActionSpace.CONTINUOUS,
)
d3rlpy.seed(int(seed))
name = "bc-discrete" if agent == "bc" and is_discrete else agent
kind = getattr(d3rlpy.algos, "DoubleDQNConfig" if name == "dqn" and settings["double"] else CONFIGS[name])
fields = kind.__dataclass_fields__
chosen = {name: settings[name] for name in fields if name in settings}
encoder = d3rlpy.models.VectorEncoderFactory(hidden_units=settings["hidden_sizes"])
optimizer = d3rlpy.optimizers.AdamFactory(clip_grad_norm=settings["max_grad_norm"])
for name in fields:
    if name.endswith("encoder_factory"):
        chosen[name] = encoder
    elif name.endswith("optim_factory"):
        chosen[name] = optimizer
    elif name.endswith("learning_rate"):
        chosen[name] = settings["learning_rate"]
if "inverse_temperature" in settings:
    beta = settings["inverse_temperature"]
    chosen |= {"weight_temp": beta} if agent == "iql" else {"lam": 1 / beta}
if not is_discrete:
    low, high = env.action_space.low, env.action_space.high
    chosen["action_scaler"] = d3rlpy.preprocessing.MinMaxActionScaler(minimum=low, maximum=high)
algorithm = kind(**chosen).create(device="cpu:0")
algorithm.build_with_dataset(dataset)
rng, size = np.random.default_rng(int(seed)), settings["batch_size"]
# Its replay draws the same, one transition after another, which takes as long as the update: uniformly, but
# for the last steps of truncated episodes, as it has no observations behind them.
starts = np.flatnonzero(columns["timeouts"] == 0)
for _ in range(int(n_updates)):
    rows = rng.choice(starts, size)
    ends = columns["terminals"][rows, None]
    algorithm.update(
        d3rlpy.dataset.TransitionMiniBatch(
            observations=columns["observations"][rows],
            actions=actions[rows].astype(np.float32),
            rewards=columns["rewards"][rows, None],
            next_observations=columns["observations"][(rows + 1) % len(actions)] * (1 - ends),
            next_actions=actions[rows].astype(np.float32),
            terminals=ends,
            intervals=np.ones_like(ends),
            transitions=[],
        )
    )

total = 0.0
for number in range(EVAL_EPISODES):
    observation, _ = env.reset(seed=EVAL_SEED + number)
    is_over = False
    while not is_over:
        action = algorithm.predict(observation[None].astype(np.float32))[0]
        observation, reward, terminated, truncated, _ = env.step(action)
        total += float(reward)
        is_over = terminated or truncated
print(json.dumps(total / EVAL_EPISODES))
