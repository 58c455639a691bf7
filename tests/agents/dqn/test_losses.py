from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from stoker.agents.dqn.losses import EpisodeLosses

LOSSES = st.floats(0, 1e6)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", 3]), LOSSES), max_size=40))
def test_interleaved_actors_are_summed_up_apart(stream: list[tuple[str | int, float]]) -> None:
    losses = EpisodeLosses()
    for actor_id, loss in stream:
        losses.add(actor_id, loss)
    for actor_id in ("a", "b", 3):
        own = [loss for actor, loss in stream if actor == actor_id]
        expected = {}
        if own:
            expected = {"loss_mean": np.mean(own), "loss_max": max(own)}
        if len(own) > 1:
            expected["loss_std"] = np.std(own)
        assert losses.take(actor_id) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert len(losses) == 0


def test_taking_and_dropping_forget_that_actor_only() -> None:
    losses = EpisodeLosses()
    for actor_id in (1, 2, 3):
        losses.add(actor_id, 1.0)
    losses.take(1)
    losses.drop(2)
    losses.drop("never seen")
    assert losses.take(1) == losses.take(2) == {}
    assert losses.take(3) == {"loss_mean": 1.0, "loss_max": 1.0}
