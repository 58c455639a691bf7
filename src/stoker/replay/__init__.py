"""Replays: store transitions, and draw batches of them."""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.replay.layout import ArraySpec as ArraySpec
    from stoker.replay.prioritized import PrioritizedReplay as PrioritizedReplay
    from stoker.replay.ring import UniformReplay as UniformReplay
    from stoker.replay.transition import (
        Batch as Batch,
        PrioritizedBatch as PrioritizedBatch,
        TransitionSpec as TransitionSpec,
    )
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
