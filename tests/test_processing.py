"""Moments and scaled rewards against numpy, transitions against tables worked out by hand.

The tables have gamma 0.5, 3 steps and rewards within 2.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from hypothesis import given, settings, strategies as st

from stoker.agents import DQN, DQNConfig
from stoker.errors import ConfigError
from stoker.journal.codec import decode, encode
from stoker.nested import difference
from stoker.processing import RewardScaler, RunningMoments, StepProcessor
from stoker.testing.contract import through_file
from stoker.types import ActMode, ActorId, EpisodeStatus, Experience

C, TERMINATED, TRUNCATED = EpisodeStatus.CONTINUING, EpisodeStatus.TERMINATED, EpisodeStatus.TRUNCATED

CONFIG = DQNConfig(normalize_observations=True, learning_starts=0, batch_size=4, target_update_interval=7)


def rows(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal([5.0, -100.0, 0.0], [0.01, 30.0, 1.0], (n, 3))


def observed(row: np.ndarray) -> Experience:
    return Experience(row.astype(np.float32), 1, 1.0, row.astype(np.float32), EpisodeStatus.CONTINUING)


def normalizing(config: DQNConfig = CONFIG) -> DQN:
    return DQN(Box(-np.inf, np.inf, (3,), np.float32), Discrete(2), config, seed=2)


@given(seed=st.integers(0, 1000), n_batches=st.integers(1, 5), offset=st.floats(-1e6, 1e6))
@settings(max_examples=40, deadline=None)
def test_moments_are_those_of_all_rows_together(seed: int, n_batches: int, offset: float) -> None:
    data = rows(100 * n_batches, seed) + offset
    moments = RunningMoments(3)
    changes = [moments.add(row) for row in data]
    assert sum(changes) == n_batches
    assert moments.mean().numpy() == pytest.approx(data.mean(axis=0), rel=1e-5, abs=1e-5)
    deviation = 1 / moments.scale().numpy()
    assert deviation == pytest.approx(np.sqrt(data.var(axis=0) + 1e-8), rel=1e-4)


def test_nothing_changes_before_the_first_batch_is_full() -> None:
    moments = RunningMoments(3)
    assert not any(moments.add(row) for row in rows(99))
    assert moments.mean().tolist() == [0, 0, 0]
    assert moments.scale().tolist() == [1, 1, 1]
    assert moments.add(rows(1)[0])
    assert moments.mean().tolist() != [0, 0, 0]


def test_a_part_that_never_changes_is_not_blown_up() -> None:
    moments = RunningMoments(1)
    for _ in range(100):
        moments.add([3.0])
    assert moments.scale().item() == pytest.approx(1e4)


@given(
    shape=st.sampled_from([(), (1,), (3,), (2, 3), (2, 2, 3)]),
    kind=st.sampled_from("Bfd"),
    at=st.integers(0, 210),
)
@settings(max_examples=40, deadline=None)
def test_state_survives_at_every_point_whatever_the_shape(shape: tuple[int, ...], kind: str, at: int) -> None:
    data = (np.random.default_rng(at).random((210, *shape)) * 200).astype(kind)
    size = math.prod(shape)
    whole, first, second = RunningMoments(size), RunningMoments(size), RunningMoments(size)
    for row in data:
        whole.add(row)
    for row in data[:at]:
        first.add(row)
    second.load_state_dict(through_file(first.state_dict()))
    for row in data[at:]:
        second.add(row)
    assert difference(whole.state_dict(), second.state_dict()) is None


def test_later_changes_of_the_callers_array_do_not_reach_it() -> None:
    moments = RunningMoments(1)
    array = np.zeros(1)
    for k in range(100):
        array[0] = k
        moments.add(array)
    assert moments.mean().item() == pytest.approx(49.5)


def test_the_networks_see_normalized_observations() -> None:
    learner = normalizing()
    plain = normalizing(DQNConfig(learning_starts=0, batch_size=4))
    data = rows(300)
    learner.observe([observed(row) for row in data])
    seen = ((data.astype(np.float32) - data.mean(axis=0)) / data.std(axis=0)).astype(np.float32)
    ours, theirs = learner.policy(), plain.policy()
    expected = theirs.network(torch.as_tensor(seen))
    assert torch.allclose(ours.network(torch.as_tensor(data.astype(np.float32))), expected, atol=2e-2)


def test_policies_and_target_keep_their_moments_until_they_get_new_weights() -> None:
    learner = normalizing()
    policy = learner.policy()
    before = policy.network.input_mean.clone()
    learner.observe([observed(row) for row in rows(100)])
    assert torch.equal(policy.network.input_mean, before)
    target = learner.state_dict()["target"]
    assert torch.equal(target["input_mean"], before)
    learner.publish(policy)
    assert not torch.equal(policy.network.input_mean, before)
    for _ in range(7):
        learner.learn()
    assert torch.equal(learner.state_dict()["target"]["input_mean"], policy.network.input_mean)


def test_an_outlier_is_limited() -> None:
    learner = normalizing()
    learner.observe([observed(row) for row in rows(100)])
    policy = learner.policy()
    far, farther = (torch.tensor([[1e6, 0.0, 0.0]]), torch.tensor([[1e9, 0.0, 0.0]]))
    assert torch.equal(policy.network(far), policy.network(farther))
    assert policy.act([np.array([1e9, 0, 0], np.float32)], ActMode.EXPLOIT)[0][0] in (0, 1)


def rewarded(reward: float, status: EpisodeStatus = C, actor_id: int | str = 0) -> Experience:
    return Experience(0, 0, reward, 1, status, actor_id)


def test_clipping_limits_both_sides() -> None:
    for reward, learned in [(-9.0, -2.0), (-2.0, -2.0), (0.5, 0.5), (2.0, 2.0), (1e30, 2.0)]:
        scaler = RewardScaler(0.5, clip=2.0)
        assert scaler.changes_rewards
        assert scaler.scaled(rewarded(reward)) == learned


def test_what_is_learned_from_is_a_plain_float() -> None:
    for reward in [1, np.float32(0.1), np.int64(3), True]:
        scaled = RewardScaler(0.5, clip=100.0).scaled(rewarded(reward))
        assert type(scaled) is float
        assert scaled == float(reward)


def test_without_settings_nothing_changes() -> None:
    scaler = RewardScaler(0.9)
    assert not scaler.changes_rewards
    assert [scaler.scaled(rewarded(reward)) for reward in (3.0, -4.0)] == [3.0, -4.0]
    assert scaler.scale == 1.0


def test_rewards_are_divided_by_the_spread_of_returns() -> None:
    # gamma 0.5; returns of "a": 2, 0.5 * 2 + 3 = 4, ended; of "b": 6, 0.5 * 6 - 1 = 2; of "a" anew: 8;
    # and the 0 that all of them begin with, counted once
    scaler = RewardScaler(0.5, normalize=True)
    stream = [
        (rewarded(2.0, C, "a"), [2.0]),
        (rewarded(6.0, C, "b"), [2.0, 6.0]),
        (rewarded(3.0, TERMINATED, "a"), [2.0, 6.0, 4.0]),
        (rewarded(-1.0, C, "b"), [2.0, 6.0, 4.0, 2.0]),
        (rewarded(8.0, C, "a"), [2.0, 6.0, 4.0, 2.0, 8.0]),
    ]
    for experience, returns in stream:
        expected = experience.reward / np.std([0.0, *returns])
        assert scaler.scaled(experience) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("end", [TERMINATED, TRUNCATED, None], ids=["terminated", "truncated", "given up"])
def test_an_episodes_return_begins_at_nothing(end: EpisodeStatus | None) -> None:
    scaler = RewardScaler(1.0, normalize=True)
    scaler.scaled(rewarded(5.0, end or C))
    if end is None:
        scaler.give_up(0)
    scaler.scaled(rewarded(1.0))
    assert scaler.state_dict()["returns"] == [1.0]
    assert scaler.scale == pytest.approx(np.std([0.0, 5.0, 1.0]))


def test_rewards_are_left_alone_until_there_is_one() -> None:
    scaler = RewardScaler(0.9, normalize=True)
    assert [scaler.scaled(rewarded(0.0, TERMINATED)) for _ in range(3)] == [0.0] * 3
    assert scaler.scale == 1.0


@pytest.mark.parametrize("reward", [5.0, -16.0, 1e-4])
def test_actors_that_begin_in_step_do_not_blow_their_rewards_up(reward: float) -> None:
    """Their first returns hardly differ: scaled by these alone, rewards would be thousands."""
    scaler = RewardScaler(0.99, normalize=True)
    noise = np.random.default_rng(0)
    found = [
        abs(scaler.scaled(rewarded(reward * (1 + 1e-4 * noise.normal()), C, actor_id)))
        for _ in range(20)
        for actor_id in range(8)
    ]
    assert max(found) < 5.0


def test_clipping_comes_after_dividing() -> None:
    scaler = RewardScaler(0.0, normalize=True, clip=1.5)
    assert scaler.scaled(rewarded(1.0)) == 1.5  # divided by 0.5: 2
    assert scaler.scaled(rewarded(-99.0)) == -1.5  # divided by 46.9: -2.1
    assert scaler.scaled(rewarded(10.0)) == pytest.approx(10.0 / np.std([0.0, 1.0, -99.0, 10.0]), rel=1e-6)


@given(rewards=st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=50), cut=st.integers(0, 50))
def test_a_loaded_scaler_goes_on_bit_for_bit(rewards: list[float], cut: int) -> None:
    whole, first, second = (RewardScaler(0.9, normalize=True) for _ in range(3))
    stream = [rewarded(reward, C, at % 3) for at, reward in enumerate(rewards)]
    expected = [whole.scaled(each) for each in stream]
    found = [first.scaled(each) for each in stream[:cut]]
    second.load_state_dict(first.state_dict())
    found += [second.scaled(each) for each in stream[cut:]]
    assert found == expected
    assert second.state_dict() == whole.state_dict()


@pytest.mark.parametrize("clip", [0.0, -1.0, math.nan])
def test_an_unfit_limit_is_refused(clip: float) -> None:
    with pytest.raises(ConfigError, match=f"clip={clip}: rewards are clipped to .* give a number above 0"):
        RewardScaler(0.9, clip=clip)


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
    scaler, windows = RewardScaler(0.9, normalize=True, clip=3.0), StepProcessor(n_step, 0.9)
    for at, (actor_id, reward, status) in enumerate(script):
        if status is None:
            scaler.give_up(actor_id)
            assert shown(own.give_up(actor_id)) == shown(windows.give_up(actor_id))
            continue
        experience = step(at, reward, status, actor_id)
        scaled = step(at, scaler.scaled(experience), status, actor_id)
        assert shown(own.process(experience)) == shown(windows.process(scaled))


def test_an_episode_shorter_than_n() -> None:
    own = StepProcessor(5, 0.5)
    assert own.process(step(0, 1.0)) == []
    assert shown(own.process(step(1, 1.0, TRUNCATED))) == [(0, 0, 1.5, 2, 0.5), (1, 10, 1.0, 2, 1.0)]


@given(
    n_step=st.integers(1, 5),
    script=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([C, C, C, TERMINATED, TRUNCATED])), max_size=60
    ),
)
def test_interleaved_actors_get_what_each_would_get_alone(
    n_step: int, script: list[tuple[int, EpisodeStatus]]
) -> None:
    together = StepProcessor(n_step, 0.9)
    alone = {actor: StepProcessor(n_step, 0.9) for actor in range(3)}
    count = 0
    for at, (actor, status) in enumerate(script):
        experience = step(at, float(at % 7), status, actor)
        mixed, single = together.process(experience), alone[actor].process(experience)
        assert shown(mixed) == shown(single)
        count += len(mixed)
    count += sum(len(together.give_up(actor)) for actor in range(3))
    assert count == len(script), "each transition starts exactly one"


OBSERVATIONS: dict[str, Any] = {
    "number": lambda rng: float(rng.random()),
    "float32 []": lambda rng: np.array(rng.random(), np.float32),
    "numpy scalar": lambda rng: np.float32(rng.random()),
    "discrete": lambda rng: np.int64(rng.integers(5)),
    "uint8 image": lambda rng: rng.integers(0, 255, (2, 3, 1)).astype(np.uint8),
    "bools": lambda rng: rng.random(3) > 0.5,
    "big-endian": lambda rng: rng.random(2).astype(">f4"),
    "dtypes that vary": lambda rng: rng.random(2).astype(rng.choice(["f4", "f8"])),
    "shapes that vary": lambda rng: rng.random(int(rng.integers(1, 4))),
    "list": lambda rng: [float(rng.random()), 1.0],
    "dict": lambda rng: {"camera": rng.integers(0, 9, (2, 2)).astype(np.uint8), "speed": float(rng.random())},
    "tuple": lambda rng: (rng.random(2), int(rng.integers(3))),
    "nested": lambda rng: {
        "a": (rng.random(1), {"b": rng.integers(3, size=2)}),
        "c": np.int8(rng.integers(3)),
    },
}


@given(
    observed=st.sampled_from(sorted(OBSERVATIONS)),
    acted=st.sampled_from(sorted(OBSERVATIONS)),
    script=st.lists(
        st.tuples(st.sampled_from([0, "a"]), st.sampled_from([C, C, C, TERMINATED])), max_size=12
    ),
    at=st.integers(0, 12),
)
@settings(max_examples=40, deadline=None)
def test_a_processor_saved_at_any_point_goes_on_as_without(
    observed: str, acted: str, script: list[tuple[int | str, EpisodeStatus]], at: int
) -> None:
    rng = np.random.default_rng(0)
    see, do = OBSERVATIONS[observed], OBSERVATIONS[acted]
    steps = [
        Experience(see(rng), do(rng), float(rng.random()), see(rng), status, actor_id)
        for actor_id, status in script
    ]
    settings = {"n_step": 3, "gamma": 0.5, "normalize_rewards": True, "clip_rewards": 2.0}
    whole, resumed, rebuilt = (StepProcessor(**settings) for _ in range(3))
    for each in steps[:at]:
        whole.process(each)
    resumed.load_state_dict(through_file(whole.state_dict()))
    rebuilt.load_state_dict(decode(encode(whole.state_dict())))
    copied = copy.deepcopy(whole)

    def rest(processor: StepProcessor) -> list[Any]:
        made = [transition for each in steps[at:] for transition in processor.process(each)]
        return [*made, *processor.give_up(0), *processor.give_up("a")]

    expected = [in_arrays(made) for made in rest(whole)]
    for processor in (resumed, rebuilt, copied):
        assert difference([in_arrays(made) for made in rest(processor)], expected) is None


def in_arrays(made: tuple[Experience, float]) -> list[Any]:
    """A transition with its numbers as arrays: of one kind, whether as they were given or from a state."""
    step, mask = made
    parts = (step.observation, step.action, step.reward, step.next_observation)
    return [arrays(part) for part in parts] + [step.status.name, step.actor_id, mask]


def arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: arrays(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return [arrays(part) for part in value]
    array = np.asarray(value)
    if array.ndim == 0 and array.dtype.kind == "i":
        return int(array)
    return array.astype(array.dtype.newbyteorder("="))


def test_open_windows_are_replaced_by_a_load() -> None:
    first, second = StepProcessor(3, 0.5), StepProcessor(3, 0.5)
    second.process(step(0, 1.0))
    second.load_state_dict(first.state_dict())
    assert second.give_up(0) == []


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"n_step": 0}, "n_step=0"), ({"gamma": -0.1}, "gamma=-0.1"), ({"clip_rewards": 0.0}, "clip=0.0")],
    ids=["n_step", "gamma", "clip"],
)
def test_unfit_settings_are_refused(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        StepProcessor(**settings)


def test_the_replay_holds_the_targets_of_the_table() -> None:
    config = DQNConfig(n_step=3, gamma=0.5, learning_starts=0, batch_size=1)
    agent = DQN(Box(-9, 9, (1,), np.float32), Discrete(100), config)
    end = [(0, 1.0, C), (1, 2.0, C), (2, 4.0, C), (3, 8.0, TRUNCATED)]
    for at, reward, status in end:
        here, there = np.array([at], np.float32), np.array([at + 1], np.float32)
        agent.observe([Experience(here, at, reward, there, status)])
    saved = agent.replay.state_dict()
    assert saved["rewards"].tolist() == [3.0, 6.0, 8.0, 8.0]
    assert saved["bootstrap_masks"].tolist() == [0.25, 0.25, 0.5, 1.0]
    assert saved["next_observations"].squeeze(1).tolist() == [3.0, 4.0, 4.0, 4.0]
    assert agent.total_steps == 4


def test_no_transition_joins_episodes_across_a_resume() -> None:
    """The session begins every open episode anew, for the live agent's replay and for a rebuilt one."""
    config = DQNConfig(n_step=3, gamma=0.5, learning_starts=0, batch_size=2)

    def agent() -> DQN:
        return DQN(Box(0, 999, (1,), np.float32), Discrete(2), config, seed=1)

    def experience(at: int) -> Experience:
        return Experience(np.array([at], np.float32), 0, 1.0, np.array([at + 1], np.float32), C)

    first, second = agent(), agent()
    first.observe([experience(at) for at in range(5)])
    second.load_state_dict(first.state_dict())
    second.replay.load_state_dict(first.replay.state_dict())
    second.on_episode_start(0)
    second.observe([experience(at) for at in range(200, 203)])
    saved = second.replay.state_dict()
    pairs = list(
        zip(
            saved["observations"].squeeze(1).tolist(),
            saved["next_observations"].squeeze(1).tolist(),
            strict=True,
        )
    )
    assert pairs == [(0, 3), (1, 4), (2, 5), (3, 5), (4, 5), (200, 203)]
    assert saved["rewards"].tolist() == [1.75, 1.75, 1.75, 1.5, 1.0, 1.75]
