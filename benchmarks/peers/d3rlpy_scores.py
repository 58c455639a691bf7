"""The mean greedy return of d3rlpy's agent after N updates; the last line is the number.

Runs in an environment that has d3rlpy: ``python d3rlpy_scores.py DATA.npz ENV AGENT N SETTINGS SEED``.
"""

import json
import sys

import d3rlpy
import gymnasium
import numpy as np
import torch
from d3rlpy.logging import NoopAdapterFactory

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
dataset = d3rlpy.dataset.MDPDataset(
    observations=columns["observations"],
    actions=columns["actions"][:, None] if is_discrete else columns["actions"],
    rewards=columns["rewards"][:, None],
    terminals=columns["terminals"],
    timeouts=columns["timeouts"],
    action_space=d3rlpy.ActionSpace.DISCRETE if is_discrete else d3rlpy.ActionSpace.CONTINUOUS,
)
d3rlpy.seed(int(seed))
kind = getattr(d3rlpy.algos, CONFIGS["bc-discrete" if agent == "bc" and is_discrete else agent])
encoder = d3rlpy.models.VectorEncoderFactory(hidden_units=settings["hidden_sizes"])
fields = kind.__dataclass_fields__
chosen = {"batch_size": settings["batch_size"]}
chosen |= {name: encoder for name in fields if name.endswith("encoder_factory")}
chosen |= {name: settings["learning_rate"] for name in fields if name.endswith("learning_rate")}
chosen |= {
    name: settings[name] for name in ("gamma", "target_update_interval", "expectile") if name in settings
}
if "inverse_temperature" in settings:
    beta = settings["inverse_temperature"]
    chosen |= {"weight_temp": beta} if agent == "iql" else {"lam": 1 / beta}
if not is_discrete:
    low, high = env.action_space.low, env.action_space.high
    chosen["action_scaler"] = d3rlpy.preprocessing.MinMaxActionScaler(minimum=low, maximum=high)
algorithm = kind(**chosen).create(device="cpu:0")
n = int(n_updates)
algorithm.fit(
    dataset, n_steps=n, n_steps_per_epoch=n, show_progress=False, logger_adapter=NoopAdapterFactory()
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
