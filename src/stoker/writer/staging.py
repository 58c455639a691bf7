"""Staging: the learner copies a state to separate memory between two updates.

Learning continues while the copy is written. ``stage`` makes a fresh copy; a ``StagingArea`` makes every copy
in the same memory, which keeps the process from growing and spares the system handing out new pages (most
of what a fresh copy of a large state costs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from stoker.errors import InvalidAgentState

if TYPE_CHECKING:
    import torch

_PLAIN = frozenset({type(None), bool, int, float, str, bytes})


def stage(state: Any, where: str = "state") -> Any:
    """Copy a state to its own memory: tensors to the CPU, containers to plain ones.

    Raises:
        InvalidAgentState: It holds something that a checkpoint cannot, named by its path in the state.
    """
    return _copied(state, where, _fresh)


class StagingArea:
    """Memory for one staged state at a time, kept from one staging to the next.

    The caller promises that the state staged before is no longer in use: its tensors are written over.
    A buffer whose tensor has another shape or type by now, or is gone, is freed before anything is copied, so
    that no more than one copy is ever held. From one thread at a time.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, torch.Tensor] = {}

    @property
    def held_bytes(self) -> int:
        """The memory it keeps, in bytes."""
        return sum(buffer.nbytes for buffer in self._buffers.values())

    def stage(self, state: Any, where: str = "state") -> Any:
        """Copy a state as ``stage`` does, over the one staged before.

        Raises:
            InvalidAgentState: As for ``stage``; the state staged before is whole then.
        """
        wanted: dict[str, tuple[torch.Size, torch.dtype]] = {}
        _copied(state, where, lambda tensor, at: wanted.setdefault(at, (tensor.shape, tensor.dtype)))
        self._buffers = {
            at: buffer
            for at, buffer in self._buffers.items()
            if wanted.get(at) == (buffer.shape, buffer.dtype)
        }
        return _copied(state, where, self._copy)

    def _copy(self, tensor: torch.Tensor, at: str) -> torch.Tensor:
        import torch

        if tensor.layout != torch.strided or tensor.is_quantized:
            return _fresh(tensor, at)
        buffer = self._buffers.get(at)
        if buffer is None:
            self._buffers[at] = buffer = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
        return buffer.copy_(tensor.detach())


def _fresh(tensor: torch.Tensor, _at: str) -> torch.Tensor:
    import torch

    # copy=True, not .cpu(): a CPU tensor must be copied too, and a view must not carry its whole storage
    is_dense = tensor.layout == torch.strided
    memory_format = torch.contiguous_format if is_dense else torch.preserve_format
    return tensor.detach().to("cpu", copy=True, memory_format=memory_format)


Place = str | tuple[Any, Any, str]
"""Where a value lies: the place of what holds it, its key there, and ``" (key)"`` for a key.

Made for each value and read for few, so it becomes a text only when ``path_of`` is called.
"""


def _copied(state: Any, where: Place, copy: Callable[[torch.Tensor, str], Any]) -> Any:
    """The state with each tensor replaced by what ``copy`` makes of it and its path."""
    kind = cast("Any", type(state))
    if kind in _PLAIN:
        return state
    if kind is dict or isinstance(state, Mapping):
        mapping = cast("Mapping[Any, Any]", state)
        if _are_plain(mapping.keys()):
            if _are_plain(mapping.values()):
                return dict(mapping)
            return {key: _copied(value, (where, key, ""), copy) for key, value in mapping.items()}
        return {
            # Two tensors that are keys may read alike: no buffers for them and what they lead to.
            _copied(key, (where, None, " (key)"), _fresh): _copied(value, (where, key, ""), _fresh)
            for key, value in mapping.items()
        }
    if kind is list or kind is tuple or isinstance(state, list | tuple):
        values = cast("Sequence[Any]", state)
        if not _are_plain(values):
            values = [_copied(value, (where, i, ""), copy) for i, value in enumerate(values)]
        return list(values) if isinstance(state, list) else tuple(values)
    import torch

    if isinstance(state, torch.Tensor):
        return copy(state, path_of(where))
    raise InvalidAgentState(path_of(where), state)


def path_of(where: Place) -> str:
    """The place as an expression, for example ``state['agent'][0]``."""
    if isinstance(where, str):
        return where
    holder, key, of_key = where
    return path_of(holder) + (of_key or f"[{key!r}]")


def _are_plain(values: Iterable[Any]) -> bool:
    """Whether there is nothing to look into: most containers of a state hold numbers, and many of them."""
    return _PLAIN.issuperset(map(type, values))
