"""The base of agents that learn from a replay, by way of DQN: rebuilding the replay, losses of episodes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn

from stoker.agents import DQN
from stoker.agents.off_policy import EpisodeLosses, TargetNetwork
from stoker.agents.packing import PackedWeights
from stoker.agents.protocol import RebuildsReplay
from stoker.errors import ConfigError
from stoker.nested import difference
from stoker.testing.agent_driving import as_batch
from stoker.types import EpisodeStatus, Experience
from stoker.writer import stage

MakeAgent = Callable[..., DQN]
MakeExperiences = Callable[..., list[Experience]]
Event = Experience | int | str
"""What a journal holds: a transition, or the actor that begins an episode."""

SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "n-step": {"n_step": 3},
    "clipped": {"clip_rewards": 1.0, "n_step": 2},
    "normalized": {"normalize_rewards": True},
    "prioritized": {"prioritized": True},
    "all": {
        "prioritized": True, "n_step": 3, "normalize_rewards": True, "clip_rewards": 2.0, "dueling": True,
        "normalize_observations": True,
    },
}  # fmt: skip


def journal(make_experiences: MakeExperiences, count: int) -> list[Event]:
    """Three interleaved actors, of which one gives an episode up at times."""
    streams = [make_experiences(count, actor_id, seed) for seed, actor_id in enumerate(("a", 1, 2))]
    events: list[Event] = []
    for at, steps in enumerate(zip(*streams, strict=True)):
        events += steps
        if at % 7 == 6:
            events.append("a")
    return events


def play(agent: DQN, events: list[Event], *, learns: bool) -> None:
    for event in events:
        if isinstance(event, Experience):
            agent.observe([event])
            if learns:
                agent.learn()
        else:
            agent.on_episode_start(event)


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_rebuilt_agent_goes_on_bit_for_bit(
    make_agent: MakeAgent, make_experiences: MakeExperiences, kind: str
) -> None:
    events = journal(make_experiences, 60)
    live = make_agent(seed=1, **SETTINGS[kind])
    assert isinstance(live, RebuildsReplay)
    play(live, events[:73], learns=True)  # in the middle of windows and of a step of all actors
    point = stage(live.rebuild_point(), "point")
    play(live, events[73:150], learns=True)  # more than the replay's 64 transitions
    saved, reference = stage(live.state_dict(), "agent"), stage(live.replay_reference(), "reference")

    rebuilt = make_agent(seed=2, **SETTINGS[kind])
    rebuilt.begin_rebuild(point, reference)
    play(rebuilt, events[73:150], learns=False)
    rebuilt.load_state_dict(saved)
    rebuilt.end_rebuild(reference)
    assert difference(rebuilt.replay.state_dict(), live.replay.state_dict()) is None
    assert difference(rebuilt.replay_reference(), reference) is None

    play(live, events[150:], learns=True)
    play(rebuilt, events[150:], learns=True)
    assert difference(rebuilt.state_dict(), live.state_dict()) is None
    assert difference(rebuilt.replay.state_dict(), live.replay.state_dict()) is None


def test_the_point_holds_what_rewards_are_scaled_with(
    make_agent: MakeAgent, make_experiences: MakeExperiences
) -> None:
    live = make_agent(normalize_rewards=True)
    live.observe(make_experiences(40))
    point = live.rebuild_point()
    assert point["rewards"]["count"] == 41  # and the 0 that returns begin with
    assert point["n_added"] == 40


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_step", 2), ("clip_rewards", 1.0), ("normalize_rewards", True), ("prioritized", True)],
)
def test_a_replay_made_with_other_settings_is_not_rebuilt(
    make_agent: MakeAgent, make_experiences: MakeExperiences, name: str, value: Any
) -> None:
    live, other = make_agent(), make_agent(**{name: value})
    live.observe(make_experiences(10))
    own = getattr(live.config, name)
    with pytest.raises(ConfigError, match=f"^{name}={value}: this run's replay was made with {own}"):
        other.begin_rebuild(live.rebuild_point(), live.replay_reference())
    assert len(other.replay) == other.replay.n_added == 0


@pytest.mark.parametrize("settings", [{"n_step": 2}, {"normalize_rewards": True}, {}])
def test_another_discount_is_refused_where_a_replay_depends_on_it(
    make_agent: MakeAgent, make_experiences: MakeExperiences, settings: dict[str, Any]
) -> None:
    live, other = make_agent(gamma=0.9, **settings), make_agent(gamma=0.8, **settings)
    live.observe(make_experiences(10))
    rebuild = partial(other.begin_rebuild, live.rebuild_point(), live.replay_reference())
    if not settings:
        rebuild()
        return
    with pytest.raises(ConfigError, match="^gamma=0.8: this run's replay was made with 0.9"):
        rebuild()


def test_only_a_step_that_terminated_has_no_future_however_it_came(make_agent: MakeAgent) -> None:
    seen = np.zeros(4, np.float32)
    steps = [Experience(seen, 0, 1.0, seen, status) for status in EpisodeStatus]
    one_by_one, together, columns = make_agent(), make_agent(), make_agent()
    for step in steps:
        one_by_one.observe([step])
    together.observe(steps)
    columns.observe_batch(as_batch(steps))
    for agent in (one_by_one, together, columns):
        masks = agent.replay.state_dict()["bootstrap_masks"].tolist()
        assert masks == [float(status is not EpisodeStatus.TERMINATED) for status in EpisodeStatus]


def test_a_target_follows_the_weights_and_what_observations_are_normalized_by() -> None:
    network = nn.Linear(1, 1)
    network.register_buffer("mean", torch.zeros(2))
    weights = PackedWeights(network)
    soft, hard = TargetNetwork(network, weights, 0.25, 1), TargetNetwork(network, weights, None, 2)
    weights.values.fill_(0.0)
    soft.weights.values.fill_(0.0)
    weights.values.fill_(4.0)
    network.get_buffer("mean").fill_(4.0)
    for opt_steps in (1, 2):
        soft.follow(opt_steps)
        hard.follow(opt_steps)
        expected = 1.0 if opt_steps == 1 else 1.75
        assert soft.weights.values.tolist() == [expected] * 2
        assert soft.network.get_buffer("mean").tolist() == [expected] * 2
        assert (hard.network.get_buffer("mean").tolist() == [4.0] * 2) == (opt_steps == 2)
        assert (hard.weights.values.tolist() == [4.0] * 2) == (opt_steps == 2)


def test_an_episode_that_is_given_up_is_learned_to_its_last_step_and_no_further(
    make_agent: MakeAgent, make_experiences: MakeExperiences
) -> None:
    """Before each next step, three steps of the one before: none of them crosses into the next episode."""
    agent = make_agent(n_step=3, gamma=0.5)
    steps = [msgspec.structs.replace(step, status=EpisodeStatus.CONTINUING) for step in make_experiences(8)]
    agent.observe(steps[:5])
    assert agent.replay.n_added == 3
    agent.on_episode_start(steps[0].actor_id)
    assert agent.replay.n_added == 5
    agent.observe(steps[5:])
    kept = agent.replay.state_dict()
    assert kept["rewards"].tolist() == pytest.approx(
        [
            sum(0.5**k * step.reward for k, step in enumerate(steps[first:end]))
            for first, end in ((0, 3), (1, 4), (2, 5), (3, 5), (4, 5), (5, 8))
        ]
    )
    assert kept["bootstrap_masks"].tolist() == [0.25, 0.25, 0.25, 0.5, 1.0, 0.25]


LOSSES = st.floats(0, 1e6)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", 3]), LOSSES), max_size=40))
def test_interleaved_actors_are_summed_up_apart(stream: list[tuple[str | int, float]]) -> None:
    losses = EpisodeLosses()
    for actor_id, loss in stream:
        losses.observed(actor_id)
        losses.add(loss)
    for actor_id in ("a", "b", 3):
        own = [loss for actor, loss in stream if actor == actor_id]
        expected = {}
        if own:
            expected = {"loss_mean": np.mean(own), "loss_max": max(own)}
        if len(own) > 1:
            expected["loss_std"] = np.std(own)
        assert losses.take(actor_id) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert losses.state_dict()["running"] == {}


def test_taking_and_dropping_forget_that_actor_only() -> None:
    losses = EpisodeLosses()
    for actor_id in (1, 2, 3):
        losses.observed(actor_id)
        losses.add(1.0)
    losses.take(1)
    losses.drop(2)
    losses.drop("never seen")
    assert losses.take(1) == losses.take(2) == {}
    assert losses.take(3) == {"loss_mean": 1.0, "loss_max": 1.0}


def test_losses_after_an_episode_was_dropped_belong_to_none_until_the_next_step() -> None:
    losses = EpisodeLosses()
    losses.observed("a")
    losses.add(1.0)
    losses.drop("a")
    losses.add(2.0)
    assert losses.take("a") == {}
    losses.observed("a")
    losses.add(3.0)
    assert losses.take("a") == {"loss_mean": 3.0, "loss_max": 3.0}


def test_losses_of_the_running_episode_count_on_after_a_load() -> None:
    losses, loaded = EpisodeLosses(), EpisodeLosses()
    losses.observed("a")
    losses.add(1.0)
    loaded.load_state_dict(losses.state_dict())
    loaded.add(3.0)
    assert loaded.take("a") == {"loss_mean": 2.0, "loss_max": 3.0, "loss_std": 1.0}
