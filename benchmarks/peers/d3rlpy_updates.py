"""Optimization steps per second of d3rlpy's ``fit`` on one thread; the last line is the number.

Runs in an environment that has d3rlpy: ``python d3rlpy_updates.py CONFIG DATA.npz N``.
"""

import json
import sys
import time

import d3rlpy
import numpy as np
import torch
from d3rlpy.logging import NoopAdapterFactory

torch.set_num_threads(1)
name, path, n_updates = sys.argv[1], sys.argv[2], int(sys.argv[3])
with np.load(path, allow_pickle=False) as file:
    columns = {key: file[key] for key in file.files}
is_discrete = columns["actions"].ndim == 1
dataset = d3rlpy.dataset.MDPDataset(
    observations=columns["observations"],
    actions=columns["actions"][:, None] if is_discrete else columns["actions"],
    rewards=columns["rewards"][:, None],
    terminals=np.zeros(len(columns["rewards"]), np.float32),
    timeouts=columns["timeouts"].astype(np.float32),
    action_space=d3rlpy.ActionSpace.DISCRETE if is_discrete else d3rlpy.ActionSpace.CONTINUOUS,
)
encoder = d3rlpy.models.VectorEncoderFactory(hidden_units=[256, 256])
kind = getattr(d3rlpy.algos, name)
fields = kind.__dataclass_fields__
encoders = {field: encoder for field in fields if field.endswith("encoder_factory")}
algorithm = kind(batch_size=256, **encoders).create(device="cpu:0")


def fit(n: int) -> None:
    algorithm.fit(
        dataset, n_steps=n, n_steps_per_epoch=n, show_progress=False, logger_adapter=NoopAdapterFactory()
    )


fit(20)
started = time.perf_counter()
fit(n_updates)
print(json.dumps(n_updates / (time.perf_counter() - started)))
