"""Every agent and kind of space: numpy and ONNX act as the agent's own policy does."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple

from stoker import ActMode
from stoker.agents.registry import AGENTS, action_kinds, config_type, make_agent
from stoker.policies.description import parts_in, parts_of
from stoker.policies.numpy_policy import Program
from stoker.policies.of_runs import program_of, without_replay
from stoker.policies.onnx_graph import onnx_model

OBSERVATIONS: dict[str, Space[Any]] = {
    "box": Box(-3.0, 3.0, (2, 3), np.float64),
    "image": Box(0, 255, (36, 40, 3), np.uint8),
    "small image": Box(0, 1, (10, 10, 4), np.bool_),
    "number": Discrete(7, start=2),
    "masked": Dict({"action_mask": MultiBinary(4), "observation": Box(-1.0, 1.0, (3,), np.float32)}),
    "mixed": Dict(
        {
            "camera": Box(0, 255, (3, 36, 36), np.uint8),
            "speed": Box(-9.0, 9.0, (2,), np.float64),
            "bytes": Box(0, 255, (3,), np.uint8),
            "bag": Tuple([MultiDiscrete([2, 3], start=[1, 0]), MultiBinary(4), Discrete(5)]),
        }
    ),
}
ACTIONS: dict[str, Space[Any]] = {
    "discrete": Discrete(4, start=1),
    "box": Box(np.array([-1.0, -3.0]), np.array([2.0, 5.0]), dtype=np.float64),
    "several": MultiDiscrete([2, 3]),
}
CASES = [
    (agent, seen, acted)
    for agent in AGENTS
    for acted, space in ACTIONS.items()
    for seen in (OBSERVATIONS if acted == "discrete" or agent in ("sac", "td3") else ("mixed",))
    if any(kind.fits(space) for kind in action_kinds(agent))
    and not (seen == "masked" and acted != "discrete")
]


@pytest.mark.parametrize(("agent", "seen", "acted"), CASES)
def test_numpy_and_onnx_act_as_the_policy(agent: str, seen: str, acted: str) -> None:
    space, normalizes = OBSERVATIONS[seen], "image" not in seen
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of images that an mlp sees
        settings = config_type(agent)(normalize_observations=normalizes)
        made: Any = make_agent(agent, space, ACTIONS[acted], without_replay(settings))
    with torch.no_grad():
        for weights in made._network.parameters():
            weights.add_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(0)), alpha=0.02)
    module, parts = made.policy_module(), parts_of(space)
    space.seed(0)
    observations = [space.sample() for _ in range(40)]
    for observation in observations if seen == "masked" else ():
        observation["action_mask"][0] = 1
    columns = zip(*(parts_in(observation, parts) for observation in observations), strict=True)
    arrays = [
        np.stack([*map(np.asarray, column)]).astype(part.dtype)
        for part, column in zip(parts, columns, strict=True)
    ]
    actions = np.stack([*map(np.asarray, made.policy().act(observations, ActMode.EXPLOIT)[0])])
    with torch.no_grad():
        chosen_by = next(iter(module.distribution(*map(torch.as_tensor, arrays)).values()))
    assert chosen_by.nan_to_num(neginf=0.0).std(dim=0).min() > 1e-4  # they are not all alike
    program = program_of(module, parts)
    inputs = {part.name: (part.dtype, part.shape) for part in parts}
    model = onnx_model(program, inputs, {"action": (actions.dtype.name, actions.shape[1:])}, {})
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for n in (1, 40):
        given = [array[:n] for array in arrays]
        [by_onnx] = session.run(["action"], dict(zip(inputs, given, strict=True)))
        for found in (Program(*program)(*given)["action"], by_onnx):
            assert found.dtype == actions.dtype
            np.testing.assert_allclose(found, actions[:n], atol=1e-5)
