"""One interface to all kinds of environments, their calls where they belong, one player for each."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import gymnasium
import pytest
from gymnasium.error import ClosedEnvironmentError
from gymnasium.vector import SyncVectorEnv
from hypothesis import given, strategies as st

from stoker.envs import make_played, played, stack_frames
from stoker.envs.stepping import SLOW_STEP_S, SLOW_STEPS, SLOW_WINDOW, SlowSteps
from stoker.envs.vector import VectorRounds
from stoker.errors import ConfigError
from stoker.testing import AsyncChainEnv, ChainEnv, CrashingEnv

pytestmark = pytest.mark.anyio

DEADLINE_S = 20
KINDS = [  # and whether it is called on a thread
    pytest.param(lambda: ChainEnv(3), "inline", False, id="inline"),
    pytest.param(lambda: ChainEnv(3), "thread", True, id="thread"),
    pytest.param(lambda: ChainEnv(3), "auto", False, id="auto"),
    pytest.param(lambda: AsyncChainEnv(3), "auto", False, id="async"),
    pytest.param(lambda: AsyncChainEnv(3), "thread", False, id="async-thread"),
]


class Threads(ChainEnv):
    """Notes which thread does what, and says so in info."""

    def __init__(self, delay_s=0.0, length=5):
        super().__init__(length)
        self.delay_s = delay_s
        self.seen = {"construct": {threading.get_ident()}}

    def note(self, what):
        self.seen.setdefault(what, set()).add(threading.get_ident())
        return {"thread": threading.get_ident()}

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0], self.note("reset")

    def step(self, action):
        time.sleep(self.delay_s)
        return (*super().step(action)[:4], self.note("step"))

    def episode_extras(self):
        self.note("extras")
        return {"fuel": 0.5}

    def close(self):
        self.note("close")


class Stuck(ChainEnv):
    """Its step waits until the test lets it go."""

    def __init__(self):
        super().__init__()
        self.entered = threading.Event()
        self.let_go = threading.Event()
        self.closed = threading.Event()
        self.closed_on = None
        self.made_on = threading.get_ident()

    def step(self, action):
        self.entered.set()
        assert self.let_go.wait(DEADLINE_S)
        return super().step(action)

    def close(self):
        self.closed_on = threading.get_ident()
        self.closed.set()


async def wait_for(event):
    assert await anyio.to_thread.run_sync(event.wait, DEADLINE_S)


@pytest.mark.parametrize(("factory", "stepping", "on_thread"), KINDS)
async def test_every_kind_plays_the_same_episode(factory, stepping, on_thread):
    for env in (await make_played(factory, stepping, "left"), played(factory(), stepping, "left")):
        assert (await env.call(threading.get_ident) != threading.get_ident()) is on_thread
        assert env.action_space == gymnasium.spaces.Discrete(2)
        assert env.observation_space.shape == (1,)
        assert env.busy_s == 0.0
        observation, info = await env.reset(7)
        assert (observation.tolist(), info) == ([0.0], {})
        busy_s = env.busy_s
        assert busy_s > 0.0
        positions = []
        for action in (0, 1, 1, 1):
            observation, reward, terminated, truncated, _ = await env.step(action)
            positions.append((float(observation[0]), reward, terminated, truncated))
        assert positions == [
            (0, 0.0, False, False),
            (1, 0.0, False, False),
            (2, 0.0, False, False),
            (3, 1.0, True, False),
        ]
        assert env.busy_s > busy_s
        assert await env.episode_extras() == {}
        await env.close()
        await env.close()
        for call in (env.reset, lambda: env.step(1), env.episode_extras):  # noqa: B023 - called at once
            with pytest.raises(ClosedEnvironmentError, match="left"):
                await call()


@pytest.mark.parametrize("stepping", ["inline", "thread", "auto"])
async def test_a_crash_comes_through_and_the_environment_can_go_on(stepping):
    env = await make_played(lambda: CrashingEnv(ChainEnv(3), {2}), stepping)
    await env.reset(0)
    await env.step(1)
    with pytest.raises(RuntimeError, match="simulator crashed"):
        await env.step(1)
    assert (await env.step(1))[0].tolist() == [2.0]
    await env.close()


async def test_a_seed_reaches_every_kind():
    for stepping in ("inline", "thread", "auto"):
        env = await make_played(lambda: ChainEnv(50, slip=0.5), stepping)
        walks = []
        for seed in (3, 3, 4):
            await env.reset(seed)
            walks.append([float((await env.step(1))[0][0]) for _ in range(30)])
        assert walks[0] == walks[1] != walks[2]
        await env.close()


# Where calls are made


async def test_a_threaded_environment_sees_one_thread_in_its_life():
    made = []
    env = await make_played(lambda: made.append(Threads()) or made[0], "thread", "sim")
    await env.reset(0)
    for _ in range(3):
        await env.step(0)
    assert await env.episode_extras() == {"fuel": 0.5}
    await env.close()
    seen = made[0].seen
    assert set(seen) == {"construct", "reset", "step", "extras", "close"}
    threads = set.union(*seen.values())
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


async def test_one_that_exists_already_is_called_on_one_thread():
    plain = Threads()
    env = played(plain, "thread")
    await env.reset(0)
    await env.step(0)
    await env.close()
    threads = set.union(plain.seen["reset"], plain.seen["step"], plain.seen["close"])
    assert len(threads) == 1
    assert threads != plain.seen["construct"]


async def test_two_threaded_environments_have_two_threads():
    first, second = await make_played(Threads, "thread"), await make_played(Threads, "thread")
    assert (await first.reset())[1]["thread"] != (await second.reset())[1]["thread"]
    await first.close()
    await second.close()


async def test_an_inline_environment_stays_on_the_event_loop():
    plain = Threads(delay_s=0.003)
    env = played(plain, "inline")
    await env.reset(0)
    for _ in range(8):
        await env.step(0)
    await env.episode_extras()
    await env.close()
    assert set.union(*plain.seen.values()) == {threading.get_ident()}


async def test_auto_moves_a_slow_environment_for_good():
    plain = Threads(delay_s=0.02)
    env = await make_played(lambda: plain, "auto")
    await env.reset(0)
    threads = [(await env.step(0))[4]["thread"] for _ in range(1 + SLOW_STEPS)]
    assert set(threads) == {threading.get_ident()}
    plain.delay_s = 0.0
    later = {(await env.step(0))[4]["thread"] for _ in range(5)}
    later.add((await env.reset(0))[1]["thread"])
    await env.episode_extras()
    await env.close()
    later |= plain.seen["extras"] | plain.seen["close"]
    assert len(later) == 1
    assert threading.get_ident() not in later


async def test_auto_does_not_take_waiting_for_blocking():
    env = await make_played(lambda: Hidden(AsyncChainEnv(5, latency=0.003)), "auto")
    await env.reset(0)
    for _ in range(6):
        await env.step(0)
    loop_thread = threading.get_ident()
    assert await env.call(threading.get_ident) == loop_thread
    await env.close()


SLOW, FAST = SLOW_STEP_S * SLOW_WINDOW / 2, SLOW_STEP_S / 2
WAITED = 5e-3  # what a step of microseconds may wait for the interpreter lock
JUDGED = [
    ("never", [FAST] * 1000, None),
    ("warm-up does not count", [SLOW, SLOW, SLOW], None),
    ("always", [SLOW] * 4, 3),
    ("just at the limit", [SLOW_STEP_S] * 10, None),
    ("now and then", [FAST, SLOW, FAST, FAST, SLOW, FAST, SLOW], 6),
    ("rarely", ([FAST] * SLOW_WINDOW + [SLOW]) * 10, None),
    ("at both ends of the window", [FAST, SLOW, SLOW, *[FAST] * (SLOW_WINDOW - 3), SLOW], SLOW_WINDOW),
    ("a little, but always", [FAST, *[SLOW_STEP_S * 1.5] * 20], 14),
    ("a busy process", ([FAST] * 5 + [WAITED]) * 50, None),
    ("just outside", [FAST, SLOW, SLOW, *[FAST] * (SLOW_WINDOW - 2), SLOW], None),
]


@pytest.mark.parametrize(("what", "times", "at"), JUDGED, ids=[case[0] for case in JUDGED])
def test_slowness_is_judged_over_a_window(what, times, at):
    judge = SlowSteps()
    verdicts = [judge.note(step_s) for step_s in times]
    assert (verdicts.index(True) if True in verdicts else None) == at


@given(st.lists(st.booleans(), max_size=400))
def test_slowness_agrees_with_counting(slow):
    judge = SlowSteps()
    verdicts = [judge.note(SLOW if step else FAST) for step in slow]
    counted = [
        slow[at] and sum(slow[max(1, at - SLOW_WINDOW + 1) : at + 1]) >= SLOW_STEPS and at > 0
        for at in range(len(slow))
    ]
    assert verdicts == counted


# Async in disguise


class Hidden:
    """An async environment whose methods do not look it."""

    def __init__(self, env):
        self.env = env
        self.closed_on = None

    def reset(self, *, seed=None, options=None):
        return self.env.reset(seed=seed)

    def step(self, action):
        return self.env.step(action)

    def episode_extras(self):
        async def extras():
            await anyio.lowlevel.checkpoint()
            return {"ping": 1.0}

        return extras()

    def close(self):
        return self.env.close()


@pytest.mark.parametrize("stepping", ["inline", "thread", "auto"])
async def test_what_can_be_awaited_is_awaited(stepping):
    hidden = Hidden(AsyncChainEnv(1))
    env = played(hidden, stepping)
    assert (env.observation_space, env.action_space) == (None, None)
    assert (await env.reset(0))[0].tolist() == [0.0]
    assert (await env.step(1))[1:4] == (1.0, True, False)
    assert await env.episode_extras() == {"ping": 1.0}
    await env.close()
    assert hidden.env.closed


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "async"])
@pytest.mark.parametrize("hidden", [True, False], ids=["lambda", "function"])
async def test_an_async_factory_is_awaited_on_the_loop(plain, hidden):
    made_on = []

    async def factory():
        await anyio.lowlevel.checkpoint()
        made_on.append(threading.get_ident())
        return ChainEnv(1) if plain else AsyncChainEnv(1)

    for stepping in ("inline", "thread", "auto"):
        env = await make_played((lambda: factory()) if hidden else factory, stepping)  # noqa: PLW0108
        assert made_on.pop() == threading.get_ident()
        on_thread = await env.call(threading.get_ident) != threading.get_ident()
        assert on_thread is (plain and stepping == "thread")
        await env.reset(0)
        assert (await env.step(1))[2] is True
        await env.close()


# Cancellation and closing


async def test_a_stuck_step_is_left_at_once_and_closed_when_it_comes_back():
    stuck = []
    env = await make_played(lambda: stuck.append(Stuck()) or stuck[0], "thread")
    plain = stuck[0]
    await env.reset(0)
    scope = anyio.CancelScope()

    async def step():
        with scope:
            await env.step(1)

    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(step)
            await wait_for(plain.entered)
            scope.cancel()
        assert scope.cancelled_caught
        await env.close()
        assert not plain.let_go.is_set()
        assert not plain.closed.is_set()
        plain.let_go.set()
        await wait_for(plain.closed)
    assert plain.closed_on == plain.made_on


async def test_an_abandoned_step_is_over_before_the_next_call():
    plain = Stuck()
    env = played(plain, "thread")
    await env.reset(0)
    scope = anyio.CancelScope()

    async def step():
        with scope:
            await env.step(1)

    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(step)
            await wait_for(plain.entered)
            scope.cancel()
        plain.let_go.set()
        assert (await env.step(1))[0].tolist() == [2.0]
        await env.close()


async def test_closing_after_a_step_that_was_abandoned_before_it_began_waits_for_close():
    for _ in range(20):
        plain = Stuck()
        plain.let_go.set()
        env = played(plain, "thread")
        await env.reset(0)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await env.step(1)
        await env.close()
        assert plain.closed.is_set()


async def test_a_construction_is_left_at_once_and_closed_when_it_comes_back():
    entered, let_go, made = threading.Event(), threading.Event(), Stuck()

    def factory():
        made.made_on = threading.get_ident()
        entered.set()
        assert let_go.wait(DEADLINE_S)
        return made

    scope = anyio.CancelScope()

    async def construct():
        with scope:
            await make_played(factory, "thread")

    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(construct)
            await wait_for(entered)
            scope.cancel()
        assert scope.cancelled_caught
        let_go.set()
        await wait_for(made.closed)
    assert made.closed_on == made.made_on


@pytest.mark.parametrize(("factory", "stepping", "on_thread"), KINDS)
async def test_closing_is_carried_out_also_when_cancelled(factory, stepping, on_thread):
    closed = threading.Event()

    def make():
        env = factory()
        if isinstance(env, AsyncChainEnv):

            async def close():
                await anyio.lowlevel.checkpoint()
                closed.set()
        else:
            close = closed.set
        env.close = close
        return env

    env = await make_played(make, stepping)
    await env.reset(0)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await env.close()
    assert closed.is_set()


@pytest.mark.parametrize("stepping", ["inline", "thread", "auto"])
async def test_an_error_in_close_is_raised(stepping):
    class Leaks(ChainEnv):
        def close(self):
            raise OSError("socket gone")

    env = await make_played(Leaks, stepping)
    await env.reset(0)
    with pytest.raises(OSError, match="socket gone"):
        await env.close()


async def test_a_factory_that_fails_leaves_no_thread():
    threads = []

    def factory():
        threads.append(threading.current_thread())
        raise LookupError("no licence")

    with pytest.raises(LookupError, match="no licence"):
        await make_played(factory, "thread")
    await anyio.to_thread.run_sync(threads[0].join, DEADLINE_S)
    assert not threads[0].is_alive()


async def test_closing_ends_the_thread():
    env = await make_played(ChainEnv, "thread")
    thread = await env.call(threading.current_thread)
    await env.close()
    await anyio.to_thread.run_sync(thread.join, DEADLINE_S)
    assert not thread.is_alive()


async def test_a_close_that_fails_after_an_abandoned_step_is_logged(caplog):
    class Leaks(Stuck):
        def close(self):
            raise OSError("socket gone")

    plain = Leaks()
    env = played(plain, "thread", "sim")
    await env.reset(0)
    thread = await env.call(threading.current_thread)
    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(env.step, 1)
            await wait_for(plain.entered)
            tasks.cancel_scope.cancel()
        await env.close()
        plain.let_go.set()
        await anyio.to_thread.run_sync(thread.join, DEADLINE_S)
    assert "sim: closing it failed" in caplog.text
    assert "socket gone" in caplog.text


# What an environment may give back


class Wraps(gymnasium.Wrapper):
    pass


@pytest.mark.parametrize("stepping", ["inline", "thread", "auto"])
async def test_extras_are_found_through_wrappers(stepping):
    env = await make_played(lambda: Wraps(gymnasium.wrappers.TimeLimit(Threads(), 9)), stepping)
    await env.reset(0)
    assert await env.episode_extras() == {"fuel": 0.5}
    await env.close()


async def test_the_outermost_extras_win_and_are_a_copy():
    class Says(Wraps):
        kept: dict[str, float] = {"fuel": 1.5}  # noqa: RUF012

        def episode_extras(self):
            return self.kept

    env = await make_played(lambda: Wraps(Says(Threads())), "inline")
    extras = await env.episode_extras()
    assert extras == {"fuel": 1.5}
    extras["fuel"] = 0.0
    assert await env.episode_extras() == {"fuel": 1.5}


# What cannot be played


async def test_an_unknown_stepping_names_the_choices():
    expected = "stepping='threads' is unknown: choose one of 'auto', 'inline', 'thread'"
    with pytest.raises(ConfigError) as caught:
        played(ChainEnv(), "threads")
    assert str(caught.value) == expected
    made = []
    with pytest.raises(ConfigError) as caught:
        await make_played(lambda: made.append(1), "threads")
    assert str(caught.value) == expected
    assert made == []


UNPLAYABLE = [
    (lambda: 5, "env is a int without a method 'reset'"),
    (lambda: None, "env is a NoneType without a method 'reset'"),
    (lambda: ChainEnv, "ChainEnv\\(\\)"),
    (lambda: gymnasium.vector.SyncVectorEnv([ChainEnv]), "vector environment"),
]


@pytest.mark.parametrize(("factory", "message"), UNPLAYABLE)
async def test_what_is_no_environment_is_refused(factory, message):
    with pytest.raises(ConfigError, match=message):
        played(factory(), "auto")
    for stepping in ("inline", "thread"):
        with pytest.raises(ConfigError, match=message):
            await make_played(factory, stepping)


# No two players step one environment

REFUSED = "b is the same ChainEnv object that a still plays"
TimeLimit = gymnasium.wrappers.TimeLimit


class Plain:
    """A wrapper that knows nothing of Gymnasium's."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self.observation_space, self.action_space = env.observation_space, env.action_space

    def reset(self, **settings: Any) -> Any:
        return self.env.reset(**settings)

    def step(self, action: Any) -> Any:
        return self.env.step(action)


FORMS: list[tuple[str, Any, Any]] = [
    ("itself", lambda env: env, lambda env: env),
    ("two wrappers", lambda env: TimeLimit(env, 3), lambda env: TimeLimit(env, 4)),
    ("two plain wrappers", Plain, Plain),
    ("bare and under both kinds of wrapper", lambda env: env, lambda env: Plain(TimeLimit(env, 3))),
    ("bare and stacked", lambda env: env, lambda env: stack_frames(lambda: env, 2)()),
    ("a sub-environment", lambda env: env, lambda env: VectorRounds(SyncVectorEnv([lambda: env]))),
]


@pytest.mark.parametrize(("one", "other"), [f[1:] for f in FORMS], ids=[f[0] for f in FORMS])
@pytest.mark.parametrize("stepping", ["inline", "thread"])
async def test_the_second_player_is_refused_until_the_first_is_done(
    one: Any, other: Any, stepping: Any
) -> None:
    env = ChainEnv(3)
    first = await make_played(lambda: one(env), stepping, "a")
    with pytest.raises(ConfigError, match=REFUSED):
        await make_played(lambda: other(env), stepping, "b")
    await first.reset(0)
    await first.step(1)  # it was not closed by that
    await first.close()
    again = await make_played(lambda: other(env), stepping, "b")
    await again.close()


async def test_plain_and_async_environments_that_have_no_wrappers_too() -> None:
    env = AsyncChainEnv(3)
    first = played(stack_frames(lambda: env, 2)(), name="a")
    with pytest.raises(ConfigError, match="b is the same AsyncChainEnv object"):
        played(env, name="b")
    await first.close()
    await played(env, name="b").close()


async def test_one_object_twice_in_a_vector_environment() -> None:
    env = ChainEnv(3)
    with pytest.raises(ConfigError, match="two sub-environments of the SyncVectorEnv are one object"):
        played(VectorRounds(SyncVectorEnv([lambda: env] * 2)))


async def test_a_player_that_is_forgotten_holds_nothing() -> None:
    env = ChainEnv(3)
    first = played(env, "inline")
    del first
    gc.collect()
    await played(env, "inline").close()


async def test_an_environment_stuck_in_a_call_stays_in_play_until_that_comes_back() -> None:
    class StuckOnce(ChainEnv):
        entered, let_go, closed = threading.Event(), threading.Event(), threading.Event()

        def step(self, action: Any) -> Any:
            self.entered.set()
            assert self.let_go.wait(20)
            return super().step(action)

        def close(self) -> None:
            self.closed.set()

    env = StuckOnce()
    first = await make_played(lambda: env, "thread", "a")
    await first.reset(0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first.step, 1)
        await anyio.to_thread.run_sync(env.entered.wait, 20)
        tasks.cancel_scope.cancel()
    await first.close()
    with pytest.raises(ConfigError, match="b is the same StuckOnce object that a still plays"):
        played(env, name="b")
    env.let_go.set()
    with anyio.fail_after(20):
        await anyio.to_thread.run_sync(env.closed.wait, 20)
        while True:
            try:
                again = played(env, name="b")
            except ConfigError:
                await anyio.lowlevel.checkpoint()  # between close and the release there is a moment
            else:
                break
    await again.close()
