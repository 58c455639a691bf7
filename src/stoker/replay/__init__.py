"""Where transitions are remembered, and how batches are drawn from them."""

from stoker.replay.batch import Batch
from stoker.replay.uniform import UniformReplay

__all__ = ["Batch", "UniformReplay"]
