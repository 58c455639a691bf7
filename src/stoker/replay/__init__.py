"""Where transitions are remembered, and how batches are drawn from them."""

from stoker.replay.batch import Batch, PrioritizedBatch
from stoker.replay.nesting import ArraySpec
from stoker.replay.prioritized import PrioritizedReplay
from stoker.replay.transition import TransitionSpec
from stoker.replay.uniform import UniformReplay

__all__ = ["ArraySpec", "Batch", "PrioritizedBatch", "PrioritizedReplay", "TransitionSpec", "UniformReplay"]
