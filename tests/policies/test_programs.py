"""What numpy and ONNX compute of a traced module is what torch computes, for any size of the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional

from stoker.errors import ConfigError
from stoker.policies.numpy_policy import Program as NumpyProgram
from stoker.policies.onnx_graph import onnx_model
from stoker.policies.tracing import traced


class Calls(nn.Module):
    """A module that calls a function of its input."""

    def __init__(self, function: Callable[..., Any], *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self._function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._function(x, *self.parts)


def in_place(x: torch.Tensor) -> torch.Tensor:
    y = (x * 2).relu_().add_(1.0, alpha=0.5)
    y.clamp_(0.25, 1.5)
    return y.mul_(y).sub_(x)


VECTOR = {
    "layers": (lambda x, *parts: parts[1](parts[0](x).tanh()), nn.Linear(6, 5), nn.Linear(5, 3)),
    "activations": lambda x: torch.cat(
        [
            functional.relu(x),
            functional.elu(x),
            functional.silu(x),
            functional.leaky_relu(x, 0.2),
            functional.softplus(x),
            torch.sigmoid(x),
            x.exp(),
            x.abs().sqrt(),
            (2 + x * x).reciprocal(),
        ],
        dim=-1,
    ),
    "normal": (lambda x, layer: layer(x), nn.LayerNorm(6)),
    "softmax": lambda x: x.softmax(-1) + x.log_softmax(-1),
    "in place": in_place,
    "parts": lambda x: torch.stack([*x.split([2, 2, 2], dim=1), x[:, ::3], x[:, 4:]], dim=1).flatten(1),
    "single": lambda x: x[:, 2] - x.unbind(1)[-1] + x.select(1, 0).square(),
    "reduced": lambda x: x.sum(1) + x.mean(dim=1) * x.amax(dim=1) - x.amin(dim=1) + x.max(1).values,
    "one-hot": lambda x: (x[:, :1].long().clamp(0, 3).unsqueeze(-1) == torch.arange(4)).float().flatten(1),
    "choice": lambda x: torch.where((x > 0) & ~(x >= 1.5) | (x.long() != 0), x, -torch.inf).argmax(dim=1),
    "gathered": lambda x: x.gather(1, x.argmax(dim=1, keepdim=True)) + x.index_select(1, torch.tensor([5])),
    "table": (lambda x, table: table(x.long().abs()[:, :2]).flatten(1), nn.Embedding(9, 4)),
    "spread": lambda x: torch.ones(3).exp().expand(x.shape[0], 3) * torch.zeros_like(x)[:, :3] + 2,
    "double": lambda x: (x.double() / 3).clamp(max=0.5),
    "many": lambda x: (x.unsqueeze(1) * torch.ones(4, 1)).reshape(-1, 6).tanh().view(x.shape[0], 4, 6).sum(1),
    "cosine": lambda x: (x.unsqueeze(-1) * torch.arange(1, 4)).cos().transpose(1, 2).mean(dim=2),
    "all": lambda x: torch.where((x > -2).all(dim=1, keepdim=True), x, 0) + (x > 3).any(1)[:, None],
    "masked": lambda x: x.masked_fill(x < 0, -1e9).maximum(torch.tensor(0.1)).pow(2.0),
}
IMAGE = {
    "convolutions": (
        lambda x, *parts: parts[1](parts[0](x.float().div_(255).permute(0, 3, 1, 2)).relu_()).flatten(1),
        nn.Conv2d(3, 4, 3, 2, padding=(1, 0)),
        nn.Conv2d(4, 2, (2, 1), bias=False),
    ),
    "bytes": lambda x: (x / 255).mean(dim=(1, 2)),
}


@pytest.mark.parametrize("name", [*VECTOR, *IMAGE])
def test_numpy_and_onnx_compute_what_torch_does(name: str) -> None:
    given: Any = (VECTOR | IMAGE)[name]
    module = Calls(*given) if isinstance(given, tuple) else Calls(given)
    generator = np.random.default_rng(0)
    rows = generator.normal(0, 2, (9, 6)).astype(np.float32)
    if name in IMAGE:
        rows = generator.integers(0, 256, (9, 8, 7, 3), np.uint8)
    example = torch.as_tensor(np.zeros_like(rows[0]))
    program = traced(module, lambda x: {"y": module(x)}, {"x": example})
    wanted = module(torch.as_tensor(rows)).detach().numpy()
    play = NumpyProgram(*program)
    model = onnx_model(
        program, {"x": (rows.dtype.name, rows.shape[1:])}, {"y": (wanted.dtype.name, wanted.shape[1:])}, {}
    )
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for n in (1, 4, 9):
        for found in (play(rows[:n])["y"], session.run(["y"], {"x": rows[:n]})[0]):
            assert found.dtype == wanted.dtype
            np.testing.assert_allclose(found, wanted[:n], rtol=1e-5, atol=1e-6)


def test_a_program_has_only_what_its_outputs_need() -> None:
    layers = nn.Linear(6, 2), nn.Linear(6, 1)
    module = Calls(lambda x, used, unused: (used(x), unused(x))[0], *layers)
    program = traced(module, lambda x: {"y": module(x), "again": module(x)}, {"x": torch.zeros(6)})
    assert [node.op for node in program.nodes] == ["linear"]
    assert program.outputs["y"] == program.outputs["again"]
    assert [array.shape for array in program.constants.values()] == [(6, 2), (2,)]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x.cumsum(1), "uses the operation 'cumsum' of torch, which cannot be exported"),
        (lambda x: x * (2.0 if x.sum() > -1 else x.sum().item()), "_local_scalar_dense"),
        (lambda x: x + torch.arange(float(x.shape[0]))[:, None], "makes a tensor of the batch's size"),
        (lambda x: x if x.shape[0] == 2 else x * 2, "computes otherwise for 2 and 3 observations"),
    ],
)
def test_what_cannot_be_a_program_is_refused_by_name(function: Any, message: str) -> None:
    module = Calls(function)
    with pytest.raises(ConfigError, match=message):
        traced(module, lambda x: {"y": module(x)}, {"x": torch.zeros(6)})


def test_a_view_of_memory_that_was_written_is_refused() -> None:
    def write(x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        y[:, :2].relu_()
        return y

    module = Calls(write)
    with pytest.raises(ConfigError, match="uses a tensor again that it has written into"):
        traced(module, lambda x: {"y": module(x)}, {"x": torch.zeros(6)})
