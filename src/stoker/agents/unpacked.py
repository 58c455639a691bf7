"""Observations by their parts, for an exported policy: no row of bytes lies between them and the network.

Networks read a packed row through the methods of ``PackedRows``. ``UnpackedLayout`` has the same ones for
``Unpacked`` observations, in operations that can be exported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from stoker.agents.observation_parts import PartLayout
from stoker.agents.observations import PackedObservations
from stoker.agents.packed_rows import PackedRows


class Unpacked:
    """Observations in place of packed rows.

    Attributes:
        floats: numbers and choices as a row holds them, float32 ``[B, n_floats]``.
        images: each as the environment gives it, ``[B, *shape]``.
        mask: which actions are allowed, bool ``[B, n_choices]``; None: there is no mask.
        named: the parts by name, as ``PackedObservations.named`` gives them.
    """

    def __init__(
        self,
        floats: torch.Tensor,
        images: Sequence[torch.Tensor],
        mask: torch.Tensor | None,
        named: dict[str, torch.Tensor],
    ) -> None:
        self.floats = floats
        self.images = images
        self.mask = mask
        self.named = named

    def __len__(self) -> int:
        return self.floats.shape[0]

    def __getitem__(self, columns: Any) -> torch.Tensor:
        """The mask, which is all that a network takes out of a row itself."""
        if self.mask is None:
            raise IndexError(columns)
        return self.mask


class UnpackedLayout:
    """Reads ``Unpacked`` observations.

    Args:
        observations: as the agent packs them.
    """

    def __init__(self, observations: PackedObservations) -> None:
        self._packed = observations
        self._rows = observations.rows

    def __getattr__(self, name: str) -> Any:  # sizes and columns
        if name.startswith("__") or name in ("_rows", "_packed"):
            raise AttributeError(name)
        return getattr(self._rows, name)

    def taken(self, parts: Sequence[torch.Tensor]) -> Unpacked:
        """Observations as the environment gives them, a tensor ``[B, *shape]`` for each part."""
        floats: list[tuple[int, torch.Tensor]] = []
        images: list[tuple[int, torch.Tensor]] = []
        mask: torch.Tensor | None = None
        named: dict[str, torch.Tensor] = {}
        for part, value in zip(self._packed.parts, parts, strict=True):
            start = part.columns.start
            if part.kind == "mask":
                mask = value.reshape(-1, part.size) != 0
            elif part.kind == "image":
                images.append((start, value))
                named[part.name] = value
            else:
                column, named[part.name] = _column(part, value)
                floats.append((start, column))
        columns = [column for _, column in sorted(floats, key=lambda one: one[0])]
        ordered = tuple(image for _, image in sorted(images, key=lambda one: one[0]))
        joined = (
            torch.cat(columns, dim=1) if columns else parts[0].reshape(parts[0].shape[0], -1)[:, :0].float()
        )
        return Unpacked(joined, ordered, mask, named)

    def floats(self, rows: Unpacked) -> torch.Tensor:
        """As ``PackedRows.floats``."""
        return rows.floats

    def with_floats(self, rows: Unpacked, floats: torch.Tensor) -> Unpacked:
        """As ``PackedRows.with_floats``."""
        return Unpacked(floats, rows.images, rows.mask, rows.named)

    def vector(self, floats: torch.Tensor) -> torch.Tensor:
        """As ``PackedRows.vector``."""
        rows = self._rows
        if rows.n_floats == rows.n_numbers:
            return floats
        places = floats[:, rows.n_numbers :].unsqueeze(2)
        chosen = (
            (places == torch.arange(rows.n_numbers, rows.n_vector, dtype=torch.float32)).float().sum(dim=1)
        )
        return torch.cat([floats[:, : rows.n_numbers], chosen], dim=1)

    def image(self, rows: Unpacked, index: int) -> torch.Tensor:
        """As ``PackedRows.image``."""
        values, divisor = rows.images[index].float(), self._rows.images[index].divisor
        return values if divisor == 1.0 else values / divisor

    def flat(self, rows: Unpacked, floats: torch.Tensor) -> torch.Tensor:
        """As ``PackedRows.flat``."""
        images = [self.image(rows, index).flatten(1) for index in range(len(rows.images))]
        return torch.cat([self.vector(floats), *images], dim=1)

    def named(self, rows: Unpacked) -> dict[str, torch.Tensor]:
        """As ``PackedObservations.named``."""
        return rows.named


def _column(part: PartLayout, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A part as the items of a row, and as a user's network gets it."""
    flat = value.reshape(-1, part.size)
    if not part.counts:
        numbers = flat.float() if part.divisor == 1.0 else flat.float() / part.divisor
        return numbers, numbers.reshape(-1, *part.shape)
    values: Any = part.values
    chosen = flat.long() - torch.as_tensor(values.low.reshape(-1))
    places = torch.as_tensor([part.first + sum(part.counts[:index]) for index in range(part.size)])
    return (chosen + places).float(), chosen.reshape(-1, *part.shape)


def read_unpacked(network: nn.Module, observations: PackedObservations) -> UnpackedLayout:
    """Let a network, a copy that nothing else uses, read ``Unpacked`` observations instead of rows."""
    layout = UnpackedLayout(observations)
    for module in network.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, PackedRows | PackedObservations):
                setattr(module, name, layout)
    return layout
