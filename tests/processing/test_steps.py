"""From experiences to transitions against tables worked out by hand: gamma 0.5, 3 steps, rewards within 2."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from stoker.errors import ConfigError
from stoker.processing import NStepWindows, RewardScaler, StepProcessor
from stoker.types import ActorId, EpisodeStatus, Experience

C, TERMINATED, TRUNCATED = EpisodeStatus.CONTINUING, EpisodeStatus.TERMINATED, EpisodeStatus.TRUNCATED

Shown = tuple[int, int, float, int, float]
"""Observation, action, reward, next observation, mask."""


def step(at: int, reward: float, status: EpisodeStatus = C, actor_id: ActorId = 0) -> Experience:
    return Experience(at, at * 10, reward, at + 1, status, actor_id)


def shown(transitions: object) -> list[Shown]:
    return [(t.observation, t.action, t.reward, t.next_observation, mask) for t, mask in transitions]


def processor() -> StepProcessor:
    return StepProcessor(3, 0.5, clip_rewards=2.0)


# Rewards 1, 8, -4, 2 count as 1, 2, -2, 2. Sums over three steps: 1 + 2/2 - 2/4 = 1.5, 2 - 2/2 + 2/4 = 1.5;
# over what is left at the end: -2 + 2/2 = -1, 2.
REWARDS = [1.0, 8.0, -4.0, 2.0]
BEGINNING: list[list[Shown]] = [[], [], [(0, 0, 1.5, 3, 0.25)]]
ENDS: dict[str, tuple[EpisodeStatus, list[Shown]]] = {
    "goes on": (C, [(1, 10, 1.5, 4, 0.25)]),
    "terminated": (TERMINATED, [(1, 10, 1.5, 4, 0.0), (2, 20, -1.0, 4, 0.0), (3, 30, 2.0, 4, 0.0)]),
    "truncated": (TRUNCATED, [(1, 10, 1.5, 4, 0.25), (2, 20, -1.0, 4, 0.5), (3, 30, 2.0, 4, 1.0)]),
}


@pytest.mark.parametrize("end", ENDS)
def test_three_clipped_steps(end: str) -> None:
    status, last = ENDS[end]
    steps = [step(at, reward, status if at == 3 else C) for at, reward in enumerate(REWARDS)]
    own = processor()
    assert [shown(own.process(each)) for each in steps] == [*BEGINNING, last]


def test_a_given_up_episode_bootstraps_from_where_it_was_left() -> None:
    own = processor()
    for at, reward in enumerate(REWARDS):
        own.process(step(at, reward))
    assert shown(own.give_up(0)) == [(2, 20, -1.0, 4, 0.5), (3, 30, 2.0, 4, 1.0)]
    assert own.give_up(0) == []
    assert own.give_up("never seen") == []


def test_an_episode_after_one_that_ended_or_was_given_up_begins_anew() -> None:
    own = processor()
    own.process(step(0, 1.0, TERMINATED))
    own.process(step(50, 1.0))
    own.give_up(0)
    assert [shown(own.process(step(70 + at, 1.0))) for at in range(3)] == [
        [],
        [],
        [(70, 700, 1.75, 73, 0.25)],
    ]


def test_interleaved_actors_never_mix() -> None:
    own = processor()
    found: dict[ActorId, list[Shown]] = {"a": [], 7: []}
    for at, reward in enumerate(REWARDS):
        for actor_id, offset, status in (("a", 0, TERMINATED), (7, 100, TRUNCATED)):
            last = at == len(REWARDS) - 1
            found[actor_id] += shown(own.process(step(offset + at, reward, status if last else C, actor_id)))
    assert found["a"] == [(0, 0, 1.5, 3, 0.25), *ENDS["terminated"][1]]
    assert found[7] == [
        (100 + o, 1000 + a, reward, 100 + n, mask)
        for o, a, reward, n, mask in [(0, 0, 1.5, 3, 0.25), *ENDS["truncated"][1]]
    ]


@pytest.mark.parametrize("status", list(EpisodeStatus), ids=lambda status: status.value)
def test_a_single_step_is_a_transition_with_its_reward_clipped(status: EpisodeStatus) -> None:
    own = StepProcessor(1, 0.5, clip_rewards=2.0)
    experience = step(4, 9.0, status)
    ((transition, mask),) = own.process(experience)
    assert (transition.reward, transition.status, mask) == (2.0, status, status.bootstrap_mask)
    assert experience.reward == 9.0, "what was given is left as it was"


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({}, False),
        ({"n_step": 1, "gamma": 0.0}, False),
        ({"n_step": 2}, True),
        ({"clip_rewards": 1e9}, True),
        ({"normalize_rewards": True}, True),
    ],
    ids=["defaults", "one step", "two steps", "clipped", "normalized"],
)
def test_it_says_whether_there_is_anything_to_do(settings: dict[str, object], changes: bool) -> None:
    own = StepProcessor(**settings)
    assert own.changes_steps == changes
    if not changes:
        assert shown(own.process(step(0, 5.0, TERMINATED))) == [(0, 0, 5.0, 1, 0.0)]


@given(
    script=st.lists(
        st.tuples(
            st.integers(0, 2),
            st.floats(-1e3, 1e3),
            st.sampled_from([C, C, C, TERMINATED, TRUNCATED, None]),
        ),
        max_size=40,
    ),
    n_step=st.integers(1, 4),
)
def test_it_scales_first_and_then_sums(
    script: list[tuple[int, float, EpisodeStatus | None]], n_step: int
) -> None:
    """What the two parts do one behind the other, also where episodes are given up (None)."""
    own = StepProcessor(n_step, 0.9, normalize_rewards=True, clip_rewards=3.0)
    scaler, windows = RewardScaler(0.9, normalize=True, clip=3.0), NStepWindows(n_step, 0.9)
    for at, (actor_id, reward, status) in enumerate(script):
        if status is None:
            scaler.give_up(actor_id)
            assert shown(own.give_up(actor_id)) == shown(windows.give_up(actor_id))
            continue
        experience = step(at, reward, status, actor_id)
        scaled = step(at, scaler.scaled(experience), status, actor_id)
        assert shown(own.process(experience)) == shown(windows.add(scaled))


@pytest.mark.parametrize("cut", [0, 5, 11])
def test_a_loaded_processor_goes_on_bit_for_bit(cut: int) -> None:
    settings = {"n_step": 3, "gamma": 0.9, "normalize_rewards": True, "clip_rewards": 4.0}
    whole, first, second = (StepProcessor(**settings) for _ in range(3))
    rng = np.random.default_rng(0)
    stream = [
        Experience(
            rng.normal(size=2).astype(np.float32),
            rng.normal(size=1).astype(np.float32),
            float(rng.normal()),
            rng.normal(size=2).astype(np.float32),
            TRUNCATED if at == 7 else C,
            ("a", 1)[at % 2],
        )
        for at in range(20)
    ]
    for each in stream[:cut]:
        whole.process(each)
        first.process(each)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    for each in stream[cut:]:
        for (left, left_mask), (right, right_mask) in zip(
            second.process(each), whole.process(each), strict=True
        ):
            assert np.array_equal(left.observation, right.observation)
            assert np.array_equal(left.action, right.action)
            assert (left.reward, left.status, left_mask) == (right.reward, right.status, right_mask)
            assert left.action.dtype == np.float32
    assert second.state_dict()["rewards"] == whole.state_dict()["rewards"]


def test_a_state_without_statistics_of_rewards_begins_them_anew() -> None:
    own = StepProcessor(2, 0.9, normalize_rewards=True)
    fresh = own.state_dict()["rewards"]
    for at in range(5):
        own.process(step(at, float(at)))
    own.load_state_dict({"windows": NStepWindows(2, 0.9).state_dict()})
    assert own.state_dict()["rewards"] == fresh
    assert own.give_up(0) == []


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"n_step": 0}, "n_step=0"), ({"gamma": -0.1}, "gamma=-0.1"), ({"clip_rewards": 0.0}, "clip=0.0")],
    ids=["n_step", "gamma", "clip"],
)
def test_unfit_settings_are_refused(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        StepProcessor(**settings)
