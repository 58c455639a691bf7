"""The acting side of SAC: draws from the squashed distribution, or takes its mean."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stoker.agents.squashing import drawn, likeliest
from stoker.agents.twin_critics import TwinCriticPolicy
from stoker.types import ActMode


class SACPolicy(TwinCriticPolicy):
    """Draws actions in EXPLORE, and squashes the mean in EXPLOIT. See ``TwinCriticPolicy``."""

    def _chosen(self, outputs: NDArray[np.float32], mode: ActMode) -> NDArray[np.float64]:
        return likeliest(outputs) if mode is ActMode.EXPLOIT else drawn(outputs, self._explore)
