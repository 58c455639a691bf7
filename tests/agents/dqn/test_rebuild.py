"""A replay that is filled again from what was observed is, bit by bit, the one that was lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from stoker.agents import DQN
from stoker.agents.protocol import RebuildsReplay
from stoker.errors import ConfigError
from stoker.types import Experience
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


def same(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    return left == right


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
    assert same(rebuilt.replay.state_dict(), live.replay.state_dict())
    assert same(rebuilt.replay_reference(), reference)

    play(live, events[150:], learns=True)
    play(rebuilt, events[150:], learns=True)
    assert same(rebuilt.state_dict(), live.state_dict())
    assert same(rebuilt.replay.state_dict(), live.replay.state_dict())


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


def test_points_and_references_of_earlier_versions_are_taken(
    make_agent: MakeAgent, make_experiences: MakeExperiences
) -> None:
    live, rebuilt = make_agent(n_step=3), make_agent(n_step=3)
    point = live.rebuild_point()
    del point["rewards"]
    live.observe(make_experiences(30))
    known_then = {"position", "size", "n_added", "capacity", "generator", "n_step"}
    reference = {name: value for name, value in live.replay_reference().items() if name in known_then}
    rebuilt.begin_rebuild(point, reference)
    rebuilt.observe(make_experiences(30))
    rebuilt.end_rebuild(reference)
    assert same(rebuilt.replay.state_dict(), live.replay.state_dict())
