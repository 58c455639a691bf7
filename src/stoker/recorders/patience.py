"""How long MLflow waits for a server that is away, while somebody records to it.

MLflow reads that from environment variables alone, at each request; by default it tries seven times, for two
minutes each. While a recorder is open they say seconds. What the user has set stays as it is.
"""

from __future__ import annotations

import os
import threading
from typing import Final

__all__ = ["impatience"]

_SETTINGS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}


class _Impatience:
    """Lasts from the first ``begin`` to the last ``end``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_begun = 0
        self._ours: set[str] = set()

    def begin(self) -> None:
        """From now on MLflow's requests give up after seconds."""
        with self._lock:
            self._n_begun += 1
            for name in _SETTINGS.keys() - os.environ.keys():
                os.environ[name] = _SETTINGS[name]
                self._ours.add(name)

    def end(self) -> None:
        """Once as often as ``begin``: MLflow's requests are as they were."""
        with self._lock:
            self._n_begun -= 1
            if self._n_begun == 0:
                for name in self._ours:
                    os.environ.pop(name, None)
                self._ours.clear()


impatience: Final = _Impatience()
"""That of this process: the environment is the process's."""
