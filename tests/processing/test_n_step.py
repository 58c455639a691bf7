"""n-step transitions against tables worked out by hand, at both kinds of end and with interleaved actors."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from hypothesis import given, settings, strategies as st

from stoker.agents.dqn.agent import DQN
from stoker.agents.dqn.config import DQNConfig
from stoker.errors import ConfigError
from stoker.journal.codec import decode, encode
from stoker.processing.n_step import NStepWindows
from stoker.processing.steps import StepProcessor
from stoker.testing.contract import difference, through_file
from stoker.types import EpisodeStatus, Experience

C, TERMINATED, TRUNCATED = EpisodeStatus.CONTINUING, EpisodeStatus.TERMINATED, EpisodeStatus.TRUNCATED


def step(at: int, reward: float, status: EpisodeStatus = C, actor_id: int | str = 0) -> Experience:
    return Experience(at, at * 10, reward, at + 1, status, actor_id)


def shown(transitions: list[tuple[Experience, float]]) -> list[tuple[int, int, float, int, float]]:
    return [(t.observation, t.action, t.reward, t.next_observation, mask) for t, mask in transitions]


# gamma = 0.5, n = 3, rewards 1, 2, 4, 8: observation, action, sum of rewards, next observation, mask
TABLES = [
    (
        C,
        [[], [], [(0, 0, 3.0, 3, 0.25)], [(1, 10, 6.0, 4, 0.25)]],
    ),
    (
        TERMINATED,
        [[], [], [(0, 0, 3.0, 3, 0.25)], [(1, 10, 6.0, 4, 0.0), (2, 20, 8.0, 4, 0.0), (3, 30, 8.0, 4, 0.0)]],
    ),
    (
        TRUNCATED,
        [[], [], [(0, 0, 3.0, 3, 0.25)], [(1, 10, 6.0, 4, 0.25), (2, 20, 8.0, 4, 0.5), (3, 30, 8.0, 4, 1.0)]],
    ),
]


@pytest.mark.parametrize(("end", "expected"), TABLES, ids=["goes on", "terminated", "truncated"])
def test_three_steps(end: EpisodeStatus, expected: list[list[tuple[int, int, float, int, float]]]) -> None:
    windows = NStepWindows(3, 0.5)
    steps = [step(0, 1.0), step(1, 2.0), step(2, 4.0), step(3, 8.0, end)]
    assert [shown(windows.add(each)) for each in steps] == expected


def test_an_episode_shorter_than_n() -> None:
    windows = NStepWindows(5, 0.5)
    assert windows.add(step(0, 1.0)) == []
    assert shown(windows.add(step(1, 1.0, TRUNCATED))) == [(0, 0, 1.5, 2, 0.5), (1, 10, 1.0, 2, 1.0)]


def test_a_given_up_episode_bootstraps_from_where_it_was_left() -> None:
    windows = NStepWindows(3, 0.5)
    windows.add(step(0, 1.0, actor_id="a"))
    windows.add(step(1, 1.0, actor_id="a"))
    windows.add(step(7, 1.0, actor_id="b"))
    assert shown(windows.give_up("a")) == [(0, 0, 1.5, 2, 0.5), (1, 10, 1.0, 2, 1.0)]
    assert windows.give_up("a") == []
    assert windows.state_dict()["actions"] == [70], "the other actor's window is untouched"


@given(
    n_step=st.integers(1, 5),
    script=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([C, C, C, TERMINATED, TRUNCATED])), max_size=60
    ),
)
def test_interleaved_actors_get_what_each_would_get_alone(
    n_step: int, script: list[tuple[int, EpisodeStatus]]
) -> None:
    together = NStepWindows(n_step, 0.9)
    alone = {actor: NStepWindows(n_step, 0.9) for actor in range(3)}
    count = 0
    for at, (actor, status) in enumerate(script):
        experience = step(at, float(at % 7), status, actor)
        mixed, single = together.add(experience), alone[actor].add(experience)
        assert shown(mixed) == shown(single)
        count += len(mixed)
    count += sum(len(together.give_up(actor)) for actor in range(3))
    assert count == len(script), "each transition starts exactly one"


ACTIONS: dict[str, list[Any]] = {
    "whole numbers": [3, np.int64(-1), np.array(2, np.uint8)],
    "vectors": [np.array([0.5, -1.0], np.float32), np.array([0.1, 2.0], np.float32), np.zeros(2, np.float32)],
    "real numbers": [np.float32(0.5), 0.25, np.array(1.5, np.float32)],
    "several whole numbers": [np.array([1, 2]), np.array([0, 3]), np.array([5, 5])],
    "lists": [[0.5, 1.0], [0.25, 1.0], [0.0, 0.0]],
}


@pytest.mark.parametrize("kind", ACTIONS)
def test_actions_of_any_kind_survive_in_open_windows(kind: str) -> None:
    whole, first, second = (NStepWindows(3, 0.5) for _ in range(3))
    steps = [
        Experience(np.array([at], np.float32), action, 1.0, np.array([at + 1], np.float32), C, actor_id)
        for at, (action, actor_id) in enumerate(zip(ACTIONS[kind], ["a", 1, "a"], strict=True))
    ]
    for each in steps:
        assert whole.add(each) == first.add(each) == []
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    for actor_id in ("a", 1):
        expected, found = whole.give_up(actor_id), second.give_up(actor_id)
        assert len(found) == len(expected) > 0
        for (left, left_mask), (right, right_mask) in zip(found, expected, strict=True):
            assert np.array_equal(left.action, right.action)
            assert np.array_equal(left.observation, right.observation)
            assert (left.reward, left.actor_id, left_mask) == (right.reward, right.actor_id, right_mask)


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
@settings(max_examples=150, deadline=None)
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


def test_whole_numbers_are_saved_as_they_always_were() -> None:
    windows = NStepWindows(3, 0.5)
    windows.add(Experience(np.zeros(1), np.int64(4), 1.0, np.zeros(1), C))
    assert windows.state_dict()["actions"] == [4]
    assert type(windows.state_dict()["actions"][0]) is int


def test_no_open_window_survives_too() -> None:
    first, second = NStepWindows(3, 0.5), NStepWindows(3, 0.5)
    second.add(step(0, 1.0))
    second.load_state_dict(first.state_dict())
    assert second.give_up(0) == []


@pytest.mark.parametrize(("n_step", "gamma", "named"), [(0, 0.5, "n_step=0"), (1, 1.5, "gamma=1.5")])
def test_unfit_settings_are_refused(n_step: int, gamma: float, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        NStepWindows(n_step, gamma)


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
