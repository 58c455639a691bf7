"""Where user code raises what ends a process, the training ends in good order, with one error naming it."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path
from typing import Any

import anyio
import pytest
from gymnasium.vector import SyncVectorEnv

from stoker import (
    ActorFailed,
    EvaluationSettings,
    Evaluator,
    SessionFailed,
    StokerError,
    Trainer,
    TrainerConfig,
    TrainingRun,
    TrainingSession,
    UnexpectedExit,
    evaluate,
    run_actors,
    run_vector_actors,
)
from stoker.exits import Contained
from stoker.testing import AsyncChainEnv, ChainEnv, FakeAgent

pytestmark = pytest.mark.anyio


def leave(*_: Any, **__: Any) -> Any:
    raise SystemExit(0)


async def leave_later(*_: Any) -> Any:
    await anyio.lowlevel.checkpoint()
    raise SystemExit(0)


class Leaves(ChainEnv):
    """Leaves in its fifth step; or where it is told to."""

    def __init__(self, **methods: Any) -> None:
        super().__init__(3)
        self.count = 0
        self.__dict__.update(methods)

    def step(self, action: Any) -> Any:
        self.count += 1
        return leave() if self.count == 5 else super().step(action)


class LeavesLater(AsyncChainEnv):
    async def step(self, action: Any) -> Any:
        await leave_later()
        return await super().step(action)


class LearnsNot(FakeAgent):
    def learn(self) -> Any:
        leave()


async def actors(session: TrainingSession, factory: Any = lambda: ChainEnv(3), **settings: Any) -> None:
    await run_actors(session, factory, 2, **settings)


async def vector(session: TrainingSession) -> None:
    await run_vector_actors(session, lambda: SyncVectorEnv([lambda: ChainEnv(3), Leaves]))


async def evaluation(session: TrainingSession) -> None:
    await evaluate(await session.snapshot(), lambda: Leaves(reset=leave), 3)


async def evaluator(session: TrainingSession) -> None:
    evaluator = Evaluator(session, lambda: ChainEnv(3), EvaluationSettings(n_episodes=1), on_evaluation=leave)
    await evaluator.finish()


CODE: list[tuple[str, Any, type[StokerError], str]] = [
    ("step", lambda s: actors(s, Leaves), ActorFailed, "env of actor .\\.step"),
    ("awaited step", lambda s: actors(s, LeavesLater), ActorFailed, "env of actor .\\.step"),
    (
        "step in a thread",
        lambda s: actors(s, Leaves, stepping="thread"),
        ActorFailed,
        "env of actor .\\.step",
    ),
    ("reset", lambda s: actors(s, lambda: Leaves(reset=leave)), ActorFailed, "env of actor .\\.reset"),
    ("extras", lambda s: actors(s, lambda: Leaves(episode_extras=leave)), ActorFailed, "\\.episode_extras"),
    ("factory", lambda s: actors(s, leave), ActorFailed, "the factory of env of actor ."),
    ("on_step", lambda s: actors(s, on_step=leave_later), UnexpectedExit, "on_step for actor ."),
    ("vector", vector, ActorFailed, "env of actor 0\\.step"),
    ("evaluation", evaluation, ActorFailed, "evaluation env .\\.reset"),
    ("on_evaluation", evaluator, UnexpectedExit, "on_evaluation"),
]


ASYNCIO, TRIO = ("asyncio", {"use_uvloop": False}), ("trio", {})
ON_TRIO_TOO = ("awaited step", "step in a thread", "on_evaluation")


@pytest.mark.parametrize(
    ("work", "kind", "where", "anyio_backend"),
    [
        pytest.param(work, kind, where, loop, id=f"{name} on {loop[0]}")
        for name, work, kind, where in CODE
        for loop in (ASYNCIO, TRIO)
        if loop is ASYNCIO or name in ON_TRIO_TOO
    ],
    indirect=["anyio_backend"],
)
async def test_user_code_that_leaves_ends_the_training_and_not_the_process(
    work: Any, kind: type[StokerError], where: str, tmp_path: Path
) -> None:
    run = await TrainingRun.create("chain", "v1", root=tmp_path)
    with anyio.fail_after(60), pytest.raises(kind, match=rf"({where}) raised SystemExit\(0\)"):
        async with TrainingSession(FakeAgent(action=1), run, max_steps=1000) as session:
            await work(session)
    assert run.latest_checkpoint_path is not None, "a final checkpoint"
    assert run.checkpoint_path(session.total_steps) == run.latest_checkpoint_path


async def test_an_agent_that_leaves_ends_the_session() -> None:
    with anyio.fail_after(60), pytest.raises(SessionFailed, match=r"the agent raised SystemExit\(0\)"):
        async with TrainingSession(LearnsNot(action=1), max_steps=1000) as session:
            await actors(session)


async def test_a_watch_that_leaves_ends_the_training() -> None:
    trainer = Trainer(FakeAgent(action=1), lambda: ChainEnv(3), TrainerConfig(max_steps=10**9))
    with anyio.fail_after(60), pytest.raises(UnexpectedExit, match=r"^watch raised SystemExit\(0\)"):
        await trainer.train(watch=leave_later)


# What is contained


def raised_through(error: BaseException) -> BaseException:
    def fail() -> None:
        raise error

    with pytest.raises(BaseException) as caught, Contained("here"):  # noqa: PT011
        fail()
    return caught.value


@pytest.mark.parametrize("error", [RuntimeError("x"), asyncio.CancelledError(), GeneratorExit()])
def test_what_passes(error: BaseException) -> None:
    assert raised_through(error) is error


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), BaseException("x")])
def test_what_does_not(error: BaseException) -> None:
    caught = raised_through(error)
    assert type(caught) is UnexpectedExit
    assert str(caught).startswith(f"here raised {error!r}: code inside a training must not end")
    assert caught.__cause__ is error
    assert str(pickle.loads(pickle.dumps(caught))) == str(caught)


def test_what_is_found_in_a_group() -> None:
    error = SystemExit(1)
    assert raised_through(BaseExceptionGroup("both", [ValueError(), error])).__cause__ is error


async def test_a_cancellation_passes() -> None:
    with anyio.move_on_after(0) as scope:
        with Contained("here"):
            await anyio.sleep(60)
    assert scope.cancelled_caught
