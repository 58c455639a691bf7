"""MLflow's patience: short while somebody records, as it was afterwards, and the user's word counts."""

from __future__ import annotations

import os

import pytest

from stoker.recorders.patience import impatience

TIMEOUT, RETRIES = "MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


def test_it_lasts_from_the_first_to_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TIMEOUT, raising=False)
    monkeypatch.setenv(RETRIES, "3")
    impatience.begin()
    impatience.begin()
    assert (os.environ[TIMEOUT], os.environ[RETRIES]) == ("5", "3")
    impatience.end()
    assert os.environ[TIMEOUT] == "5"
    impatience.end()
    assert TIMEOUT not in os.environ
    assert os.environ[RETRIES] == "3"
