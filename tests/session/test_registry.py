"""Where the episodes of actors stand, after each event of theirs."""

from __future__ import annotations

import numpy as np
import pytest
from training_parts import batch_of

from stoker.journal import EpisodeStarted, StreamMoved
from stoker.session.registry import ActorRegistry, StreamPoint
from stoker.session.streams import NumberedActors
from stoker.types import EpisodeStatus, Experience

ON, OVER = EpisodeStatus.CONTINUING, EpisodeStatus.TERMINATED
SEEN = np.zeros(3, np.float32)


def step(status: EpisodeStatus = ON, seq: int | None = None) -> Experience:
    return Experience(SEEN, 0, 1.0, SEEN, status, "a", seq=seq)


@pytest.mark.parametrize("in_batches", [False, True])
def test_an_episode_that_ended_without_a_record_is_not_the_next_one(in_batches: bool) -> None:
    actors = ActorRegistry()
    for number, status in ((3, ON), (5, OVER), (9, ON), (11, ON)):
        actors.step(batch_of([step(status)]) if in_batches else [step(status)], number)
        assert actors.running == {"a": 3 if number < 9 else 9}


def test_the_rewards_of_an_episode_that_is_not_learned_are_not_those_of_the_next() -> None:
    actors = NumberedActors()
    actors.start(EpisodeStarted("a", None, 1, SEEN), 0)
    actors.step([step(seq=2)], 1)
    actors.step([step(seq=3)], 2)
    assert (actors.streams["a"].total_reward, actors.streams["a"].length) == (2.0, 2)
    actors.leave(StreamMoved("a", 4, SEEN, 50.0, 7))
    assert not actors.streams["a"].is_learning
    actors.step([step(seq=5)], 4)
    assert isinstance(found := actors.streams["a"], StreamPoint)
    assert (found.total_reward, found.length, found.is_learning) == (1.0, 1, True)
