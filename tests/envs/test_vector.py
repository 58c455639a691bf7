"""Rounds of a vector environment against the same sub-environments played one by one."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from stoker import ConfigError, EpisodeStatus, Experience
from stoker.envs.rounds import Round
from stoker.envs.vector import Moves, VectorRounds, autoreset_mode

N = 3
MODES = list(AutoresetMode)
by_mode = pytest.mark.parametrize("mode", MODES, ids=[mode.name for mode in MODES])


class Wander(gymnasium.Env[Any, Any]):
    """Shows a random number and the step; ends by chance, in either way.

    Args:
        kind: of observation: an array, a dict or tuple with that array in it, or text.
        reuses: whether all observations are written into one array.
    """

    action_space = spaces.Discrete(4, start=2)

    def __init__(self, kind: str = "box", *, reuses: bool = False) -> None:
        box = spaces.Box(-100.0, 100.0, (3,), np.float32)
        self.kind = kind
        self.observation_space: Any = {
            "box": box,
            "dict": spaces.Dict(seen=box, at=spaces.Discrete(100)),
            "tuple": spaces.Tuple((box, spaces.MultiBinary(2))),
            "text": spaces.Text(8),
        }[kind]
        self.seen = np.zeros(3, np.float32)
        self.reuses = reuses

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.at = 0
        return self.look(0), {"began": True}

    def step(self, action: Any) -> Any:
        assert action in self.action_space
        self.at += 1
        drawn = self.np_random.random()
        seen = self.look(action)
        return seen, float(action) + self.at / 10, bool(drawn < 0.15), bool(drawn > 0.85), {"at": self.at}

    def look(self, action: int) -> Any:
        self.seen = self.seen if self.reuses else np.zeros(3, np.float32)
        self.seen[:] = (self.np_random.random(), self.at, action)
        match self.kind:
            case "dict":
                return {"seen": self.seen, "at": self.at}
            case "tuple":
                return (self.seen, np.array([self.at % 2, 1], np.int8))
            case "text":
                return str(self.at)
            case _:
                return self.seen


def flat(value: Any) -> Any:
    """An observation as something that is equal to another by value."""
    match value:
        case dict():
            return {key: flat(part) for key, part in value.items()}
        case tuple():
            return tuple(flat(part) for part in value)
        case _:
            return np.asarray(value).tolist()


def action_of(index: int, number: int) -> int:
    return 2 + (7 * index + number) % 4


def alone(index: int, seed: int, length: int, kind: str) -> list[Any]:
    """The first transitions of one sub-environment, played on its own."""
    env = Wander(kind)
    done: list[Any] = []
    seen = flat(env.reset(seed=seed)[0])
    while len(done) < length:
        action = action_of(index, len(done))
        after, reward, terminated, truncated, _ = env.step(action)
        done.append((seen, action, reward, flat(after), EpisodeStatus.of(terminated, truncated)))
        seen = flat(after if not (terminated or truncated) else env.reset()[0])
    return done


def rounds(env: VectorEnv, count: int, seed: int | None = None) -> tuple[list[Round], list[list[Any]]]:
    """Play so many rounds; also the transitions of each sub-environment."""
    vector = VectorRounds(env, range(env.num_envs))
    now, _ = vector.reset(seed=None if seed is None else lambda index: seed + index)
    all_rounds, mine = [now], [[] for _ in range(env.num_envs)]
    for _ in range(count):
        actions = [action_of(index, len(mine[index])) if index in now.acting else None for index in range(N)]
        now = vector.step(Moves(actions))[0]
        all_rounds.append(now)
        for done in now.transitions:
            mine[done.actor_id].append(
                (
                    flat(done.observation),
                    int(done.action),
                    done.reward,
                    flat(done.next_observation),
                    done.status,
                )
            )
    vector.close()
    return all_rounds, mine


def make_wander(mode: AutoresetMode, kind: str) -> Callable[[], Wander]:
    # With SAME_STEP Gymnasium itself resets before it hands the last observation out, without a copy.
    return lambda: Wander(kind, reuses=mode is not AutoresetMode.SAME_STEP)


def sync(mode: AutoresetMode, kind: str = "box", **settings: Any) -> SyncVectorEnv:
    return SyncVectorEnv([make_wander(mode, kind)] * N, autoreset_mode=mode, **settings)


def asynchronous(mode: AutoresetMode, kind: str = "box", **settings: Any) -> AsyncVectorEnv:
    return AsyncVectorEnv([make_wander(mode, kind)] * N, autoreset_mode=mode, **settings)


KINDS: list[tuple[str, Callable[[AutoresetMode], VectorEnv], str, list[AutoresetMode]]] = [
    ("sync-one-memory", lambda mode: sync(mode, copy=False), "box", MODES),
    ("sync-dict", lambda mode: sync(mode, "dict", copy=False), "dict", [AutoresetMode.SAME_STEP]),
    ("sync-tuple", lambda mode: sync(mode, "tuple"), "tuple", [AutoresetMode.NEXT_STEP]),
    ("sync-text", lambda mode: sync(mode, "text"), "text", [AutoresetMode.DISABLED]),
    (
        "async-one-memory",
        lambda mode: asynchronous(mode, "dict", copy=False, context="fork"),
        "dict",
        MODES,
    ),
]
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.mark.parametrize(
    ("make", "kind", "mode"),
    [
        pytest.param(make, kind, mode, id=f"{name}-{mode.name}")
        for name, make, kind, modes in KINDS
        for mode in modes
    ],
)
def test_the_transitions_are_those_of_each_played_alone(make: Any, kind: str, mode: AutoresetMode) -> None:
    _, mine = rounds(make(mode), 60, seed=5)
    statuses = {done[-1] for each in mine for done in each}
    assert statuses == set(EpisodeStatus), "the rounds hold ends of both kinds"
    for index in range(N):
        assert mine[index] == alone(index, 5 + index, len(mine[index]), kind)


@by_mode
def test_what_acts_what_ends_and_what_begins(mode: AutoresetMode) -> None:
    played, _ = rounds(sync(mode), 60, seed=5)
    assert played[0].begun == [(0, 5), (1, 6), (2, 7)]
    assert (played[0].acting, played[0].transitions) == ([0, 1, 2], [])
    for before, now in itertools.pairwise(played):
        ended = [done.actor_id for done in now.transitions if done.status.is_done]
        assert [done.actor_id for done in now.transitions] == before.acting
        if mode is AutoresetMode.NEXT_STEP:
            assert now.acting == [index for index in range(N) if index not in ended]
            assert [index for index, _ in now.begun] == [i for i in range(N) if i not in before.acting]
        else:
            assert now.acting == [0, 1, 2]
            assert [index for index, _ in now.begun] == ended
        assert {seed for _, seed in now.begun} <= {None}
        for index, _ in now.begun:
            assert now.observations[index][1] == 0.0, "the first of an episode"
        for done in now.transitions:
            assert done.observation is before.observations[done.actor_id]
            if not done.status.is_done:
                assert done.next_observation is now.observations[done.actor_id]


@by_mode
def test_observations_are_in_memory_of_their_own(mode: AutoresetMode) -> None:
    vector = VectorRounds(sync(mode, copy=False))
    now, _ = vector.reset(seed=lambda index: index)
    seen: list[tuple[Any, Any]] = []
    for number in range(40):
        seen += [(observation, flat(observation)) for observation in now.observations]
        now = vector.step(Moves([2 + number % 4] * N))[0]
        seen += [(done.next_observation, flat(done.next_observation)) for done in now.transitions]
    assert all(flat(observation) == then for observation, then in seen)


def test_episodes_that_we_begin_have_the_seeds_we_give() -> None:
    vector = VectorRounds(sync(AutoresetMode.DISABLED))
    asked: list[int] = []

    def seed_of(index: int) -> int:
        asked.append(index)
        return 100 * index + len(asked)

    now, _ = vector.reset(seed=seed_of)
    begun = list(now.begun)
    for _ in range(30):
        now = vector.step(Moves([3] * N, seed_of))[0]
        begun += now.begun
        for index, seed in now.begun:
            assert flat(now.observations[index]) == flat(Wander().reset(seed=seed)[0])
    assert len(begun) == len(asked) > 10
    assert [index for index, _ in begun] == asked


def test_an_environment_with_one_seed_for_all_gets_that_of_the_first() -> None:
    env = gymnasium.make_vec("CartPole-v1", 4, vectorization_mode="vector_entry_point")
    first, _ = VectorRounds(env).reset(seed=lambda index: 11 + index)
    assert first.begun == [(0, 11), (1, 11), (2, 11), (3, 11)]
    other = gymnasium.make_vec("CartPole-v1", 4, vectorization_mode="vector_entry_point")
    assert np.array_equal(first.observations, other.reset(seed=11)[0])
    unseeded, _ = VectorRounds(env).reset()
    assert unseeded.begun == [(index, None) for index in range(4)]


def test_an_environment_that_is_vectorised_by_itself() -> None:
    vector = VectorRounds(gymnasium.make_vec("CartPole-v1", 4, vectorization_mode="vector_entry_point"))
    now, _ = vector.reset(seed=lambda index: 0)
    ends = 0
    for _ in range(60):
        before = now
        now = vector.step(Moves([1] * 4))[0]
        for done in now.transitions:
            assert done.observation is before.observations[done.actor_id]
            is_out = abs(done.next_observation[2]) > 0.2095
            assert is_out == done.status.is_terminal, "the last observation is where the pole has fallen"
            ends += is_out
    assert ends > 8


class Scripted(VectorEnv[Any, Any, Any]):
    """Two sub-environments that give what they are told to."""

    def __init__(self, metadata: dict[str, Any], info: dict[str, Any] | None = None) -> None:
        self.metadata = metadata
        self.num_envs = 2
        self.single_observation_space = spaces.Box(-9.0, 9.0, (1,), np.float32)
        self.observation_space = spaces.Box(-9.0, 9.0, (2, 1), np.float32)
        self.single_action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (2, 2), np.float32)
        self.info = {} if info is None else info
        self.closings = 0
        self.given: list[Any] = []
        self.resets: Any = np.zeros((2, 1), np.float32), {}
        self.steps: list[Any] = []

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return self.resets

    def step(self, actions: Any) -> Any:
        self.given.append(actions)
        if self.steps:
            return self.steps.pop(0)
        return np.ones((2, 1), np.float32), np.zeros(2), np.array([True, False]), np.zeros(2, bool), self.info

    def close_extras(self, **_: Any) -> None:
        self.closings += 1


def test_the_mode_is_read_in_each_form() -> None:
    for mode in MODES:
        for said in (mode, mode.value, mode.name):
            assert autoreset_mode(Scripted({"autoreset_mode": said})) is mode


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ({}, "does not say"),
        ({"autoreset_mode": "sometimes"}, "says 'sometimes' of"),
        ({"autoreset_mode": 1}, "1"),
    ],
)
def test_a_mode_that_is_not_known_is_refused(metadata: dict[str, Any], problem: str) -> None:
    env = Scripted(metadata)
    with pytest.raises(ConfigError, match=rf"a Scripted .*{problem}.*AutoresetMode.NEXT_STEP"):
        VectorRounds(env)
    assert env.closings == 1


@pytest.mark.parametrize(
    ("make", "count", "message"),
    [
        (lambda: gymnasium.make("CartPole-v1"), None, "not a gymnasium.vector.VectorEnv.*run_actors"),
        (object, None, "make_env gave a object"),
        (lambda: sync(AutoresetMode.NEXT_STEP), 4, "4 actor ids for a vector environment of 3"),
    ],
    ids=["single", "none", "another number"],
)
def test_what_cannot_be_played_in_rounds_is_refused(make: Any, count: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        VectorRounds(make(), None if count is None else range(count))


@pytest.mark.parametrize(
    "info", [{}, {"final_obs": np.array([None, None])}, {"final_observation": 1}], ids=repr
)
def test_an_end_without_its_last_observation_is_refused(info: dict[str, Any]) -> None:
    vector = VectorRounds(Scripted({"autoreset_mode": AutoresetMode.SAME_STEP}, info))
    vector.reset()
    with pytest.raises(ConfigError, match="sub-environment 0 without its last observation in info"):
        vector.step(Moves([np.zeros(2, np.float32)] * 2))


@pytest.mark.parametrize(
    "final", [np.array([[7.0], [8.0]]), [np.array([7.0]), None]], ids=["batched", "list"]
)
def test_last_observations_may_be_given_in_several_ways(final: Any) -> None:
    vector = VectorRounds(Scripted({"autoreset_mode": AutoresetMode.SAME_STEP}, {"final_obs": final}))
    vector.reset()
    now, *_ = vector.step(Moves([np.zeros(2, np.float32)] * 2))
    final[0][:] = 99.0  # it writes the next one into the same memory
    assert [done.next_observation.tolist() for done in now.transitions] == [[7.0], [1.0]]
    assert now.observations[0].tolist() == [1.0]


SEEN, ZEROS, NEVER = np.ones((2, 1), np.float32), np.zeros(2), np.zeros(2, bool)
STILL = SEEN, ZEROS, NEVER, NEVER, {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((SEEN, ZEROS, NEVER, {}), "returned 4 values: Gymnasium's are five"),
        (list(STILL), "returned one value of type list"),
        ((SEEN, np.array(["1", "1"]), NEVER, NEVER, {}), r"returned reward='1' \(str\)"),
        ((SEEN, np.array([1j, 1j]), NEVER, NEVER, {}), r"returned reward=1j \(complex\)"),
        ((SEEN, [0.0, None], NEVER, NEVER, {}), r"returned reward=None \(NoneType\)"),
        ((SEEN, [0.0, 10**400], NEVER, NEVER, {}), r"returned reward=1000"),
        ((SEEN, 0.0, NEVER, NEVER, {}), r"returned reward=0.0 \(float\) of shape \(\): .* shape \(2,\)"),
        ((SEEN, np.zeros((2, 1)), NEVER, NEVER, {}), r"returned .* of shape \(2, 1\): .* shape \(2,\)"),
        ((SEEN, ZEROS, np.array(["False", "False"]), NEVER, {}), r"returned terminated='False' \(str\)"),
        ((SEEN, ZEROS, NEVER, [False, 2], {}), r"returned truncated=2 \(int\)"),
        ((SEEN, ZEROS, NEVER, NEVER, None), r"returned info=None \(NoneType\)"),
    ],
)
def test_a_step_of_the_wrong_form_is_refused(given: Any, message: str) -> None:
    env = Scripted({"autoreset_mode": AutoresetMode.NEXT_STEP})
    vector = VectorRounds(env)
    vector.reset()
    env.steps = [given]
    with pytest.raises(ConfigError, match=r"vector environment of 2 \(Scripted\)\.step " + message):
        vector.step(Moves([np.zeros(2, np.float32)] * 2))


def test_a_reset_of_the_wrong_form_is_refused() -> None:
    env = Scripted({"autoreset_mode": AutoresetMode.NEXT_STEP})
    env.resets = SEEN
    with pytest.raises(ConfigError, match=r"\(Scripted\)\.reset returned one value of type ndarray"):
        VectorRounds(env).reset()


def test_an_episode_that_ends_in_the_step_that_begins_it_is_refused() -> None:
    vector = VectorRounds(
        Scripted({"autoreset_mode": AutoresetMode.NEXT_STEP})
    )  # it ends the first in each step
    vector.reset()
    moves = Moves([np.zeros(2, np.float32)] * 2)
    vector.step(moves)
    with pytest.raises(
        ConfigError, match="ended an episode of sub-environment 0 in the step that only begins"
    ):
        vector.step(moves)


def test_actions_are_put_together_and_an_ignored_one_is_of_the_right_form() -> None:
    env = Scripted({"autoreset_mode": AutoresetMode.NEXT_STEP})
    vector = VectorRounds(env)
    vector.reset()
    first, second = np.array([0.5, 1.0], np.float32), np.array([-0.5, 0.0], np.float32)
    now, *_ = vector.step(Moves([first, second]))
    assert now.acting == [1]
    env.steps = [STILL]
    vector.step(Moves([None, first]))
    assert [given.tolist() for given in env.given] == [[[0.5, 1.0], [-0.5, 0.0]], [[0.5, 1.0], [0.5, 1.0]]]
    assert env.given[0].dtype == np.float32


def test_actions_that_do_not_fit_are_refused() -> None:
    vector = VectorRounds(Scripted({"autoreset_mode": AutoresetMode.NEXT_STEP}))
    vector.reset()
    with pytest.raises(ConfigError, match="do not fit Box"):
        vector.step(Moves([np.zeros(3), np.zeros(2)]))


def test_it_looks_like_one_environment_of_rounds() -> None:
    vector = VectorRounds(sync(AutoresetMode.NEXT_STEP))
    assert isinstance(vector.reset()[0], Round)
    now, reward, terminated, truncated, info = vector.step(Moves([2, 3, 4]))
    assert isinstance(now.transitions[0], Experience)
    assert reward == sum(done.reward for done in now.transitions)
    assert (terminated, truncated) == (False, False)
    assert info["at"].tolist() == [1, 1, 1]
    assert vector.observation_space == Wander().observation_space
    assert vector.action_space == Wander.action_space


def test_transitions_belong_to_the_actors_that_were_given() -> None:
    vector = VectorRounds(sync(AutoresetMode.SAME_STEP), ["a", 7, "c"])
    vector.reset()
    now = vector.step(Moves([2, 3, 4]))[0]
    assert [done.actor_id for done in now.transitions] == ["a", 7, "c"]


# Columns ------------------------------------------------------------------------------------------


@by_mode
def test_columns_are_those_of_each_played_alone_and_never_written_again(mode: AutoresetMode) -> None:
    vector = VectorRounds(sync(mode, copy=False))
    now, _ = vector.reset(seed=lambda index: 5 + index)
    assert now.outcome is None
    batches = []
    counts = [0] * N
    for _ in range(60):
        acted, ids = now.acting, now.actor_ids
        actions = [action_of(index, counts[index]) if index in acted else None for index in range(N)]
        now = vector.step(Moves(actions))[0]
        actions[:] = [99] * N  # the list is the caller's
        batch = now.outcome.batch()
        assert batch.actor_ids is ids
        assert now.outcome.acted == acted
        assert len(acted) == len(batch.rewards) == len(batch.actions) == len(batch.observations)
        ends = [row for row, done in enumerate(batch.experiences()) if done.status.is_done]
        assert now.outcome.ended() == ends
        for index in acted:
            counts[index] += 1
        if acted:
            batches.append(batch)
    for index in range(N):
        mine = [done for batch in batches for done in batch.experiences() if done.actor_id == index]
        found = [
            (flat(done.observation), done.action, done.reward, flat(done.next_observation), done.status)
            for done in mine
        ]
        assert found == alone(index, 5 + index, len(found), "box")


@by_mode
def test_what_acts_is_shown_as_one_array(mode: AutoresetMode) -> None:
    vector = VectorRounds(sync(mode), ["a", 7, "c"])
    now, _ = vector.reset(seed=lambda index: 5 + index)
    whole = now.actor_ids
    assert whole == ("a", 7, "c")
    for _ in range(60):
        shown = now.shown.of(now.acting)
        assert isinstance(shown, np.ndarray)
        assert shown.tolist() == [flat(now.observations[index]) for index in now.acting]
        assert now.actor_ids == tuple(whole[index] for index in now.acting)
        assert (now.actor_ids is whole) == (len(now.acting) == N)
        now = vector.step(Moves([3] * N))[0]


@pytest.mark.parametrize("kind", ["dict", "tuple", "text"])
def test_values_that_are_no_arrays_have_no_columns(kind: str) -> None:
    vector = VectorRounds(sync(AutoresetMode.NEXT_STEP, kind))
    vector.reset()
    now = vector.step(Moves([3] * N))[0]
    assert now.outcome.batch() is None
    assert len(now.transitions) == N
    assert isinstance(now.shown.of(now.acting), list)


def test_a_last_observation_of_another_shape_is_refused() -> None:
    info = {"final_obs": [np.zeros(3, np.float32), None]}
    vector = VectorRounds(Scripted({"autoreset_mode": AutoresetMode.SAME_STEP}, info))
    vector.reset()
    with pytest.raises(ConfigError, match=r"final_obs'\] of sub-environment 0 has shape \(3,\), not \(1,\)"):
        vector.step(Moves([np.zeros(2, np.float32)] * 2))


def test_terminated_wins_over_truncated() -> None:
    env = Scripted({"autoreset_mode": AutoresetMode.NEXT_STEP})
    vector = VectorRounds(env)
    vector.reset()
    both = np.array([True, False])
    env.steps = [(SEEN, ZEROS, both, both, {})]
    batch = vector.step(Moves([np.zeros(2, np.float32)] * 2))[0].outcome.batch()
    assert (batch.terminated.tolist(), batch.truncated.tolist()) == ([True, False], [False, False])
    assert both.tolist() == [True, False], "the environment's own flags stay as they are"


@pytest.mark.parametrize("actions", [[0.5, None], [None, 1.5], [None, [1]], [None, "1"]], ids=repr)
def test_an_action_that_does_not_fit_is_refused_also_where_some_reset(actions: Any) -> None:
    env = Scripted({"autoreset_mode": AutoresetMode.NEXT_STEP})
    env.single_action_space, env.action_space = spaces.Discrete(2), spaces.MultiDiscrete([2, 2])
    vector = VectorRounds(env)
    vector.reset()
    now = vector.step(Moves([1, 0]))[0]
    assert now.acting == [1]
    with pytest.raises(ConfigError, match=r"do not fit Discrete\(2\)"):
        vector.step(Moves(actions))
