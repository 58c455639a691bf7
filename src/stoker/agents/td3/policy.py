"""The acting side of TD3: the actor's action, with noise to explore."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stoker.agents.squashing import noisy, squashed
from stoker.agents.twin_critics import TwinCriticPolicy
from stoker.types import ActMode


class TD3Policy(TwinCriticPolicy):
    """Adds normal noise in EXPLORE, of the published ``exploration_noise``. See ``TwinCriticPolicy``."""

    def _chosen(self, outputs: NDArray[np.float32], mode: ActMode) -> NDArray[np.float64]:
        if mode is ActMode.EXPLOIT:
            return squashed(outputs)
        return noisy(outputs, self.published["exploration_noise"], self._explore)
