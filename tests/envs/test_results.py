"""What an environment may give back, and that each value of the wrong form is refused by name."""

from __future__ import annotations

import copy
import threading
from collections import deque
from fractions import Fraction
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

from stoker.envs import played, stack_frames
from stoker.envs.results import owned
from stoker.envs.vector import Moves, VectorRounds
from stoker.errors import ConfigError, InvalidExperience, UnexpectedExit
from stoker.testing import ChainEnv

pytestmark = pytest.mark.anyio
STEPPINGS = ["inline", "thread", "auto"]


class Gives:
    """Gives what it is told to."""

    def __init__(self, step: Any = None, reset: Any = (0, {}), extras: Any = (), space: Any = None) -> None:
        self.given = [step, reset, {} if extras == () else extras]
        self.observation_space = space

    def reset(self, *, seed: int | None = None) -> Any:
        return self.given[1]

    def step(self, action: Any) -> Any:
        return self.given[0]

    def episode_extras(self) -> Any:
        return self.given[2]


class AsyncGives(Gives):
    async def reset(self, *, seed: int | None = None) -> Any:
        return self.given[1]

    async def step(self, action: Any) -> Any:
        return self.given[0]


FIVE = "env ({}).step returned {}: Gymnasium's are five: observation, reward, terminated, truncated, info"
TWO = "env (Gives).reset returned {}: Gymnasium's are two: observation, info (a dict)"
REWARD = "env ({}).step returned reward={}: Gymnasium's reward is one number (a float)"
FLAG = "env ({}).step returned {}={}: Gymnasium's {} is True or False"
BAD_STEPS = [
    ((0, 1.0, True, {}), FIVE.format("{0}", "4 values")),
    ((0,), FIVE.format("{0}", "1 value")),
    (None, FIVE.format("{0}", "None")),
    (3.5, FIVE.format("{0}", "one value of type float")),
    ((0, None, False, False, {}), REWARD.format("{0}", "None (NoneType)")),
    ((0, np.ones(1), False, False, {}), REWARD.format("{0}", "array([1.]) (ndarray)")),
    ((0, torch.ones(1), False, False, {}), REWARD.format("{0}", "tensor([1.]) (Tensor)")),
    ((0, [1.0], False, False, {}), REWARD.format("{0}", "[1.0] (list)")),
    ((0, "1.0", False, False, {}), REWARD.format("{0}", "'1.0' (str)")),
    ((0, np.array("1.0"), False, False, {}), REWARD.format("{0}", "array('1.0', dtype='<U3') (ndarray)")),
    ((0, bytearray(b"1.0"), False, False, {}), REWARD.format("{0}", "bytearray(b'1.0') (bytearray)")),
    ((0, np.complex64(1 + 2j), False, False, {}), REWARD.format("{0}", "np.complex64(1+2j) (complex64)")),
    ((0, torch.tensor(1 + 2j), False, False, {}), REWARD.format("{0}", "tensor(1.+2.j) (Tensor)")),
    ((0, 1.0, "False", False, {}), FLAG.format("{0}", "terminated", "'False' (str)", "terminated")),
    ((0, 1.0, False, None, {}), FLAG.format("{0}", "truncated", "None (NoneType)", "truncated")),
    ((0, 1.0, 2, False, {}), FLAG.format("{0}", "terminated", "2 (int)", "terminated")),
    ((0, 1.0, False, np.zeros(1), {}), FLAG.format("{0}", "truncated", "array([0.]) (ndarray)", "truncated")),
    ((0, 1.0, False, False, None), "env ({}).step returned info=None (NoneType): Gymnasium's info is a dict"),
]
BAD_RESETS = [
    ([0.0, 1.0], TWO.format("one value of type list")),
    (np.zeros(2), TWO.format("one value of type ndarray")),
    ((0.0, 1.0), "env (Gives).reset returned info=1.0 (float): Gymnasium's info is a dict"),
    ((0, {}, 1), TWO.format("3 values")),
    (None, TWO.format("None")),
]


@pytest.mark.parametrize(("given", "message"), BAD_STEPS)
async def test_a_step_of_the_wrong_form(given: Any, message: str) -> None:
    for kind in (Gives, AsyncGives):
        env = played(kind(step=given), "inline")
        await env.reset()
        with pytest.raises(ConfigError) as caught:
            await env.step(0)
        assert str(caught.value) == message.format(kind.__name__)
        await env.close()


@pytest.mark.parametrize(("given", "message"), BAD_RESETS)
async def test_a_reset_of_the_wrong_form(given: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await played(Gives(reset=given), "inline").reset()
    assert str(caught.value) == message


async def test_numbers_and_flags_of_other_types_are_taken_as_what_they_are() -> None:
    for reward in (1, 1.0, True, np.float32(1), np.int64(1), np.array(1.0), torch.tensor(1.0), Fraction(1)):
        for flag in (True, np.True_, 1, np.int64(1), np.array(True), torch.tensor(True)):  # noqa: FBT003
            env = played(Gives(step=(0, reward, flag, not flag, {})), "inline")
            await env.reset()
            values = await env.step(0)
            assert [(type(value), value) for value in values[1:4]] == [
                (float, 1.0),
                (bool, True),
                (bool, False),
            ]
            await env.close()


class OldReset(ChainEnv):
    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()


@pytest.mark.parametrize("stepping", STEPPINGS)
async def test_a_reset_without_a_seed(stepping: Any) -> None:
    for env in (OldReset(), gymnasium.wrappers.TimeLimit(OldReset(), 9)):
        player = played(env, stepping)
        with pytest.raises(ConfigError, match=r"\(OldReset\)\.reset takes no 'seed'.*reset\(self, \*, seed="):
            await player.reset(3)
        await player.close()


async def test_a_sub_environment_whose_reset_takes_no_seed() -> None:
    player = played(VectorRounds(SyncVectorEnv([ChainEnv, OldReset])), "inline")
    with pytest.raises(ConfigError, match=r"\(SyncVectorEnv\)\.reset takes no 'seed'"):
        await player.reset(None)
    await player.close()


async def test_a_reset_that_fails_with_a_type_error_has_failed() -> None:
    class Fails(ChainEnv):
        def reset(self, **_: Any) -> Any:
            return len(5)  # type: ignore[arg-type]

    with pytest.raises(TypeError, match="has no len"):
        await played(Fails(), "inline").reset(3)


async def test_extras_that_are_no_mapping() -> None:
    with pytest.raises(ConfigError, match=r"sim\.episode_extras returned \[1\] \(list\)"):
        await played(Gives(extras=[1]), "inline", "sim").episode_extras()


# Observations and their space

BOX = spaces.Box(-1, 1, (2,), np.float32)
NESTED = spaces.Dict({"image": BOX, "more": spaces.Tuple((spaces.Discrete(3), BOX))})
GOOD = {"image": np.zeros(2), "more": (1, np.zeros(2))}
MISFITS = [
    (BOX, np.zeros(2), np.zeros(3), "an observation array([0., 0., 0.]) (ndarray) of shape (3,), not (2,)"),
    (BOX, [0, 0], [0, 0, 0], "an observation [0, 0, 0] (list) of shape (3,), not (2,)"),
    (BOX, np.zeros(2), None, "an observation None (NoneType) of shape (), not (2,)"),
    (BOX, np.zeros(2), [0, [1]], "an observation [0, [1]] (list) of shape None, not (2,)"),
    (spaces.Discrete(3), 1, np.ones(1), "an observation array([1.]) (ndarray) of shape (1,), not ()"),
    (NESTED, GOOD, {"image": 1}, "an observation {'image': 1} (dict), not a dict of 'image', 'more'"),
    (
        NESTED,
        GOOD,
        {**GOOD, "more": (1, 2)},
        "an observation with 'more' = with [1] = 2 (int) of shape (), not (2,)",
    ),
    (NESTED, GOOD, {**GOOD, "more": (1,)}, "an observation with 'more' = (1,) (tuple), not a tuple of 2"),
]


@pytest.mark.parametrize(("space", "good", "bad", "message"), MISFITS)
async def test_an_observation_that_never_fitted_is_wrong_and_a_later_one_is_a_failure(
    space: Any, good: Any, bad: Any, message: str
) -> None:
    rest = (1.0, False, False, {})
    plain = Gives(space=space, reset=(bad, {}))
    env = played(plain, "inline")
    with pytest.raises(ConfigError) as caught:
        await env.reset()
    assert str(caught.value).startswith(f"env (Gives).reset gave {message}: Gymnasium's rule is")
    plain.given = [(bad, *rest), (good, {}), {}]
    await env.reset()
    with pytest.raises(ConfigError):
        await env.step(0)
    plain.given[0] = (good, *rest)
    await env.step(0)
    plain.given[0] = (bad, *rest)
    with pytest.raises(InvalidExperience) as later:
        await env.step(0)
    assert message in str(later.value)
    await env.close()


async def test_an_observation_that_cannot_be_copied() -> None:
    with pytest.raises(ConfigError, match="an observation of type lock, which cannot be copied"):
        await played(Gives(reset=(threading.Lock(), {})), "inline").reset()


class Misshapen(ChainEnv):
    """Its first step shows another shape than its space's."""

    def step(self, action: Any) -> Any:
        return (np.zeros(3, np.float32), *super().step(action)[1:])


async def test_stacks_and_vector_environments_refuse_it_too() -> None:
    stack = played(stack_frames(Misshapen, 2)(), "inline")
    await stack.reset()
    with pytest.raises(
        ConfigError,
        match=r"stacked env \(Misshapen\)\.step gave an observation .* of shape \(3,\), not \(1,\)",
    ):
        await stack.step(1)
    vector = played(VectorRounds(SyncVectorEnv([ChainEnv, Misshapen])), "inline")
    await vector.reset()
    with pytest.raises(ConfigError, match=r"sub-environment 1 \(Misshapen\)\.step gave an observation"):
        await vector.step(Moves([1, 1], lambda _: None))
    await vector.close()


# Exceptions that end a process


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("error", [SystemExit(0), type("Strange", (BaseException,), {})("no")])
async def test_what_ends_a_process_comes_out_as_an_error(error: BaseException, stepping: Any) -> None:
    class Ends(ChainEnv):
        def reset(self, **_: Any) -> Any:
            raise error

        def close(self) -> None:
            raise error

    env = played(Ends(), stepping)
    for call, name in ((env.reset, "reset"), (env.close, "close")):
        with pytest.raises(UnexpectedExit, match=rf"^env\.{name} raised {type(error).__name__}\(") as caught:
            await call()
        assert caught.value.__cause__ is error


# Copies


class Point(NamedTuple):
    x: Any
    y: Any


class Picture:
    def __init__(self, pixels: list[int]) -> None:
        self.pixels = pixels

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picture) and self.pixels == other.pixels

    __hash__ = None


def objects() -> np.ndarray:
    array = np.empty(1, object)
    array[0] = [1, 2]
    return array


VALUES: list[tuple[str, Any, Any]] = [
    ("array", np.arange(4.0), lambda v: v.__setitem__(0, 9.0)),
    ("array of objects", objects(), lambda v: v[0].append(3)),
    ("list", [1, 2], lambda v: v.append(3)),
    ("deque", deque([1, 2], maxlen=2), lambda v: v.append(3)),
    ("dict", {"a": 1}, lambda v: v.update(a=2)),
    ("list in a tuple in a dict", {"a": (1, [2])}, lambda v: v["a"][1].append(3)),
    ("array in a list", [np.zeros(2)], lambda v: v[0].fill(1.0)),
    ("named tuple", Point([1], 2), lambda v: v.x.append(3)),
    ("set", {1}, lambda v: v.add(2)),
    ("object", Picture([1]), lambda v: v.pixels.append(2)),
    ("tensor", torch.zeros(2), lambda v: v.fill_(1.0)),
    ("tensor with a history", torch.ones(2, requires_grad=True) * 2, lambda v: v.data.fill_(1.0)),
]


@pytest.mark.parametrize(("value", "change"), [v[1:] for v in VALUES], ids=[v[0] for v in VALUES])
def test_a_later_change_does_not_show(value: Any, change: Any) -> None:
    mine = owned(value)
    assert type(mine) is type(value)
    shown = repr(mine) if not isinstance(value, Picture) else copy.copy(mine.pixels)
    change(value)
    assert (repr(mine) if not isinstance(value, Picture) else mine.pixels) == shown


def test_what_cannot_change_is_not_copied() -> None:
    for value in (1, 2.5, True, None, "text", b"bytes", np.float32(1.5), np.int64(3)):
        assert owned(value) is value


def test_a_deque_keeps_its_length() -> None:
    assert owned(deque([1], maxlen=3)).maxlen == 3
