"""The acting side of IQN: as DQN's, by the mean of quantiles at fixed midpoints."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stoker.agents.dqn.policy import QPolicy
from stoker.agents.iqn.network import QuantileNetwork
from stoker.agents.networks import predict


class IQNPolicy(QPolicy[QuantileNetwork]):
    """Acts by the mean of K quantiles at fixed midpoints, which draws no random number; see ``QPolicy``."""

    def _values(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        network, small = self.network, self._small
        midpoints = network.head.midpoints
        if small is None or len(rows) * len(midpoints) > small.most_rows:
            return predict(network, rows, self._device)[0]
        features = np.maximum(small.outputs(small.inputs(rows), 0), 0.0)
        embedding = np.maximum(small.outputs(midpoints.numpy(), 1), 0.0)
        products = features[:, None, :] * embedding
        quantiles = small.outputs(products.reshape(-1, products.shape[2]), 2)
        values: NDArray[np.float32] = quantiles.reshape(len(rows), len(midpoints), -1).mean(axis=1)
        return network.joined(values) if network.dueling else values
