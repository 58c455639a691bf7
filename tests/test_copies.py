"""Pickling and copying: every public error, setting, record and result crosses a process pool as it is."""

from __future__ import annotations

import copy
import importlib
import inspect
import multiprocessing
import pickle
import pkgutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete, Space

import stoker
from stoker import errors
from stoker.envs import Outcome
from stoker.errors import ActorFailed, RunNotFound, SessionFailed, StokerError, WriteFailed
from stoker.nested import difference
from stoker.policies.description import ActionDescription, ObservationPart
from stoker.protocol import (
    ActorAnswer,
    BoxSpace,
    DiscreteSpace,
    Hello,
    ProtocolError,
    Record,
    Spec,
    SpecLimits,
    Welcome,
)
from stoker.runs import Attempt, GroupPosition
from stoker.session import SessionReadings
from stoker.stats import EpisodeRecord
from stoker.telemetry import Buckets, Finding, Profile, TrainingReading
from stoker.types import EpisodeStatus, Experience

HELD = object()
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CAUSE = ValueError("simulator crashed", 3)
RECORD = EpisodeRecord(1.5, 3, EpisodeStatus.TERMINATED, {"epsilon": 0.5})
STEP = Experience(np.arange(3.0), 1, 0.5, np.arange(3.0), EpisodeStatus.CONTINUING, "left", (0.1, 0.2))
PROFILE = Profile(seconds=1.0, shares={"learner": {"learning": 1.0}})
FINDING = Finding(culprit="learner", text="The learner is the bottleneck.")
ATTEMPT = Attempt(number=1, started_at=WHEN)
EPISODE = {"total_reward": 1.5, "length": 3, "status": EpisodeStatus.TRUNCATED, "extras": {"x": 1.0}}
COLUMNS = (torch.ones(2, 3), torch.ones(2), torch.ones(2), torch.ones(2, 3), torch.ones(2))

PART = {"name": "observation", "path": (), "shape": (4,), "dtype": "float32", "space": "Box"}
ACTION = {"kind": "discrete", "shape": (), "dtype": "int64", "counts": (2,), "low": (0,), "high": (1,)}
POLICY = {
    **dict.fromkeys(("env", "agent", "run", "checkpoint"), "a"),
    **dict.fromkeys(("format", "total_steps", "opt_steps", "frame_stack"), 1),
    "mean_reward": None,
    "spaces": {},
    "observation": (ObservationPart(**PART),),
    "action": ActionDescription(**ACTION),
    "preprocessing": (),
}
ANSWER = (4, 2, 1, "memo", 812)
LIMITS = (1 << 20, 1024, 16, 1024, 64, 10.0, 300.0, 0.5, 600.0)
SPEC = Spec("1.0", "running", SpecLimits(*LIMITS))
SPACES = (BoxSpace([2]), DiscreteSpace(2))
PROBLEM = ProtocolError("invalid", "it is no number", path="steps[0].reward").problem(3)
ARGUMENTS: dict[str, dict[str, Any] | tuple[Any, ...]] = {
    "ActionUse": {"name": "actions", "shares": (0.5, 0.5), "entropy": 1.0},
    "ActorConflict": ("left", "act()"),
    "ActorFailed": (3, 5, 60.0, CAUSE),
    "ActorReport": (3,),
    "ActorAnswer": ANSWER,
    "ActorState": {"actor": "left", "answer": ActorAnswer(*ANSWER)},
    "Activity": ("syncing train_episodes.jsonl", 1.0, 2),
    "ArraySpec": (torch.float32, (2,)),
    "Assignment": {"actor_id": "left", "seed": 3, "episode": 1},
    "Attempt": {"number": 1, "started_at": WHEN},
    "Batch": COLUMNS,
    "Check": ("resumes", len),
    "BoxSpace": ([2],),
    "Buckets": ((0.1, 1.0), [1, 2, 3], 4.5),
    "CheckpointCorrupt": (Path("step_1.pt"), "cut short"),
    "CheckpointNotFound": ("there is none",),
    "ClockReading": (1.0, {"learner": {"learning": 1.0}}, {"steps": 3.0}),
    "ColumnReport": {
        **dict.fromkeys(("min", "max", "first_bad"), None),
        "name": "rewards",
        "n_not_finite": 1,
        "n_outside": 0,
    },
    "ConfigError": ("no",),
    "ContractViolation": ("a", "b", "c"),
    "DatasetGiven": (3, "0a"),
    "DatasetInfo": {
        "source": "a",
        "format": "npz",
        "observation_space": Discrete(2),
        "action_space": Discrete(3),
    },
    "DatasetReport": {
        **dict.fromkeys(("source", "format", "env_id", "observation_space", "action_space"), "a"),
        **dict.fromkeys(("n_episodes", "n_steps", "n_dropped", "n_with_seed", "n_with_version"), 1),
        **dict.fromkeys(("returns", "lengths", "normalized", "ref_min_score", "ref_max_score"), None),
        "spaces_are_inferred": False,
        "ends": {"terminated": 1},
        "columns": (),
        "actions": (),
        "distinct": 1.0,
        "histogram": (1.0,),
    },
    "Decision": (1, np.array([0.1, 0.2]), 7),
    "DictSpace": ({"left": DiscreteSpace(2)},),
    "Difference": ("observation.shape", [2], [3]),
    "DiscreteSpace": (2,),
    "EnvWrapper": ("gymnasium.wrappers:TimeLimit", {"max_episode_steps": 9}),
    "Episode": {
        "observations": np.zeros((3, 2)),
        "actions": np.zeros(2),
        "rewards": np.ones(2),
        "status": EpisodeStatus.TRUNCATED,
        "seed": 3,
    },
    "EpisodeAnswer": ("a", 3, False, True, "running"),
    "EpisodeEnded": (RECORD, 3),
    "EpisodeMessage": ("a", [[0.5], [1.5]], [1], [0.5], True),
    "EpisodeRecord": (1.5, 3, EpisodeStatus.TERMINATED, {"epsilon": 0.5}),
    "EpisodeStarted": ("left", 42, 1, (0.5, 1.0)),
    "ErrorFrame": (PROBLEM,),
    "EvalEpisodeRow": {"total_steps_at_eval": 3, "time": WHEN, **EPISODE},
    "EvalReport": (3, 2, {"mean": float("nan")}),
    "Evaluation": (3, (RECORD,)),
    "EventRow": {
        "time": WHEN,
        "attempt": 1,
        "total_steps": 3,
        "kind": "best_changed",
        "details": {"value": 1.5, "step": 3},
    },
    "Explanation": {"profile": PROFILE, "findings": (FINDING,)},
    "Experience": (STEP.observation, 1, 0.5, STEP.next_observation, EpisodeStatus.TERMINATED, 3, (0.1,), 7),
    "ExperienceBatch": (
        np.zeros((2, 3)),
        np.zeros(2),
        np.ones(2),
        np.ones((2, 3)),
        np.zeros(2, bool),
        np.ones(2, bool),
        (1, "left"),
    ),
    "ExportFailed": ("no",),
    "Finding": {"culprit": "learner", "text": "The learner is the bottleneck."},
    "Health": {
        **dict.fromkeys(stoker.Health.__struct_fields__, 1),
        "failure": "the agent failed",
        "silent": (),
        "waits": ("the disk",),
    },
    "InvalidJointStep": ("red", "has left"),
    "JointStep": ({"red": 0}, {"blue": Outcome(0.5, 1, EpisodeStatus.TERMINATED)}),
    "Outcome": (0.5, 1, EpisodeStatus.TERMINATED),
    "HelloFrame": (Hello(take_over=["left"]),),
    "Holder": {"pid": 3, "host": "a", "since": WHEN, "command": "stoker train"},
    "InvalidAgentState": ("agent['lock']", object()),
    "InvalidDataset": {"source": "a.npz", "problem": "no", "episode": 3, "step": 1},
    "InvalidExperience": ("no",),
    "JournalBroken": ("journal", "gone"),
    "JournalReport": {
        "torn_bytes": 0,
        "problems": [(Path("journal"), "cut short")],
        "steps_before": {1: 2},
    },
    "Memo": (3, 1, 0.5),
    "MetricsRow": {"total_steps": 3, "metrics": {"train/loss": 0.5}, "time": WHEN},
    "MissingDependency": ("mlflow", "mlflow"),
    "MultiBinarySpace": ([2],),
    "MultiDiscreteSpace": ([2, 3],),
    "OpenEpisode": (3, 1.5, True),
    "Optimized": (3,),
    "PolicyDescription": POLICY,
    "PolicyValue": {
        **dict.fromkeys(("value", "low", "high", "gamma", "data_value", "data_return"), 0.5),
        **dict.fromkeys(("n_episodes", "n_steps", "n_updates"), 3),
    },
    "Principal": {"name": "game", "sha256": "0" * 64, "rate": 2.5},
    "PolicySnapshot": ("a policy", 3, {"agent": {}}, 2),
    "PongFrame": (3,),
    "PrioritizedBatch": (*COLUMNS, torch.ones(2), torch.ones(2)),
    "Problem": tuple(getattr(PROBLEM, name) for name in PROBLEM.__struct_fields__),
    "Profile": {"seconds": 1.0, "shares": {"learner": {"learning": 1.0}}},
    "ProtocolError": {
        "kind": "gap",
        "detail": "send record 3 first",
        "actors": {"left": ActorAnswer(*ANSWER)},
    },
    "Readiness": ("running",),
    "Record": ("left", 1, [0.5]),
    "RecorderFailed": ("mlflow", CAUSE),
    "RelearningFailed": (3, 4, 2, CAUSE),
    "Replayed": (0, 3, 1, 2, ()),
    "RunBroken": ("runs/a", "no"),
    "RunContext": {"name": "cartpole", "directory": Path("runs/a"), "params": {"lr": 0.1}},
    "RunDirectoryError": ("runs/a", "no"),
    "RunLocked": (Path("runs/a"), "process 3"),
    "RunFenced": ("runs/x", 3, "process 1 on host-b"),
    "RunMetadata": {
        "name": "a",
        "version": "v1",
        "run_id": "x",
        "started_at": WHEN,
        "last_updated": WHEN,
        "attempts": (ATTEMPT,),
    },
    "RunStatus": ("crashed", "attempt failed: ValueError: no number"),
    "RunNotFound": ("runs/a", "no"),
    "RunningEpisode": (42, (STEP,)),
    "PriorData": ("0" * 64, 100, 0.5),
    "Segment": (Path("journal"), 1, 2),
    "SegmentHeader": {
        "attempt": 1,
        "first_event": 0,
        "total_steps": 0,
        "agent_type": "DQN",
        "opt_interval": 1,
        "rebuild": np.arange(3),
    },
    "SessionClosed": {"what": "observe", "entered": True},
    "SessionError": ("no",),
    "SessionFailed": ("agent", CAUSE),
    "SessionReadings": dict.fromkeys(SessionReadings.__struct_fields__, 1),
    "Spaces": SPACES,
    "Spec": ("1.0", "running", SpecLimits(*LIMITS)),
    "SpecLimits": LIMITS,
    "Stalled": ("the writer", 3.0, "check the disk"),
    "StepAnswer": ({"left": ActorAnswer(*ANSWER)}, "running", 3),
    "StepMessage": ([Record("left", 1, [0.5])],),
    "StepMetrics": dict.fromkeys(stoker.StepMetrics.__struct_fields__, 1)
    | {"status": EpisodeStatus.TRUNCATED},
    "StokerError": ("no",),
    "TrainConfig": {"env": "CartPole-v1"},
    "TrainEpisodeRow": {"total_steps": 3, "episode": 1, "actor_id": "left", "time": WHEN, **EPISODE},
    "TrainResult": dict.fromkeys(stoker.TrainResult.__struct_fields__, 1) | {"run": "runs/a"},
    "TrainingDiverged": ("loss=nan",),
    "TupleSpace": ([DiscreteSpace(2)],),
    "Weights": (3, {"matrix": np.ones((2, 2))}),
    "Welcome": (1024, 64, SPEC),
    "WelcomeFrame": (Welcome(1024, 64, SPEC),),
    "WindowStats": (1, 2.0, 3.0, 1.0, 4.0),
    "TrainingReading": {
        **dict.fromkeys(TrainingReading.__struct_fields__, 1),
        **{
            key: {"a": 1}
            for key in ("labels", "refused", "staleness", "busy_s", "by_actor", "actors", "train", "user")
        },
        **dict.fromkeys(("act_s", "act_batch_size", "observe_wait_s", "commit_s"), Buckets((1.0,))),
    },
    "WrittenDataset": {"path": Path("a"), "format": "npz", "n_episodes": 1, "n_steps": 2, "bytes": 3},
    "GroupCommit": {"joint_steps": 3, "policies": {"red": GroupPosition(events=4, steps=3)}},
    "GroupReadings": {"joint_steps": 3, "committed_steps": 2, "policies": {}},
    "WriteFailed": (Path("metadata.json"), OSError(28, "No space left on device")),
    "NoImprovement": (3,),
    "Notice": ("warning", "stoker.envs", "slow", None),
    "Spread": (1.0, 0.0, 0.5, 1.0, 1.5, 2.0),
    "StopAtReward": (475.0,),
    "NodeReading": {"node": "10.0.0.5", "steps": 3, "why": "1 CPU"},
    "StreamPoint": (3, (0.5, 1.0), 1.5, 2, EpisodeStatus.TRUNCATED, False),
    "StreamEnded": ("left",),
    "StreamMoved": ("left", 3, (0.5, 1.0), 1.5, 3, RECORD),
    "WorkerStatus": {
        **dict.fromkeys(("worker", "incarnation", "n_actors", "steps", "lost_steps", "late_batches"), 1),
        "node": "10.0.0.5",
        "state": "waiting",
        "actor_ids": ("left", 2),
        "since_s": 0.5,
        "why": "",
    },
}
"""What to make an example of each class from. Those that need no arguments are not in here."""

LIVE = {"Progress"}
"""Structs that hold a running session, which is of one process."""


def public_values() -> dict[str, type[Any]]:
    """Every error, struct and named tuple that stoker or one of its packages gives out, by name."""
    found: dict[str, type[Any]] = {}
    names = [module.name for module in pkgutil.walk_packages(stoker.__path__, "stoker.")]
    for module in map(
        importlib.import_module, ["stoker", *(name for name in names if "__main__" not in name)]
    ):
        is_face = hasattr(module, "__path__") or module.__name__.count(".") == 1
        for value in (getattr(module, name) for name in dir(module) if is_face and not name.startswith("_")):
            if inspect.isclass(value) and issubclass(value, (BaseException, msgspec.Struct, tuple)):
                found[value.__name__] = value
    return {name: kind for name, kind in sorted(found.items()) if name not in LIVE}


VALUES = public_values()
WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "oldest pickle": lambda value: pickle.loads(pickle.dumps(value, protocol=2)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def example(name: str) -> Any:
    given = ARGUMENTS.get(name, ())
    return VALUES[name](**given) if isinstance(given, dict) else VALUES[name](*given)


def parts(value: Any) -> Any:
    """All that makes an error or a struct, as plain containers."""
    if isinstance(value, BaseException):
        return [type(value).__name__, str(value), [*map(parts, value.args)], parts(value.__dict__)]
    if isinstance(value, msgspec.Struct):
        return [type(value).__name__, [parts(getattr(value, name)) for name in value.__struct_fields__]]
    if isinstance(value, (tuple, list)):
        return [*map(parts, cast("list[Any]", value))]
    if isinstance(value, dict):
        return {key: parts(one) for key, one in cast("dict[Any, Any]", value).items()}
    return repr(value) if isinstance(value, Space) else value


def test_there_is_an_example_of_nothing_else() -> None:
    assert set(ARGUMENTS) <= set(VALUES)


@pytest.mark.parametrize("name", VALUES)
def test_a_copy_is_of_the_same_class_and_equal(name: str) -> None:
    value = example(name)
    if isinstance(value, BaseException):
        value.add_note("in the third attempt")
    for way, copied in WAYS.items():
        found = copied(value)
        assert type(found) is type(value), way
        assert difference(parts(found), parts(value), way) is None
        if isinstance(value, BaseException):
            assert repr(found) == repr(value), way
            assert repr(found.__cause__) == repr(value.__cause__), way


def test_a_presets_settings_are_plain() -> None:
    settings = stoker.training_preset("ppo", "CartPole-v1")
    assert settings
    assert pickle.loads(pickle.dumps(settings)) == settings


class SimulatorError(Exception):
    """A library's error that pickles and cannot be unpickled, as many do."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@pytest.mark.parametrize(
    ("cause", "seen"),
    [
        (SimulatorError(3, "no display"), f"{__name__}.SimulatorError: no display"),
        (KeyError(HELD), f"KeyError: {HELD!r}"),
        (ExceptionGroup("both", [SimulatorError(3, "no display")]), "both (1 sub-exception)"),
    ],
    ids=["foreign class", "foreign argument", "group"],
)
def test_a_cause_that_no_other_process_could_load_is_described(cause: Exception, seen: str) -> None:
    cause.add_note("on display :1")
    error = SessionFailed("agent", ActorFailed(3, 5, 60.0, cause))
    found = pickle.loads(pickle.dumps(error))
    assert str(found) == str(error)
    assert isinstance(found.__cause__, ActorFailed)
    assert str(found.__cause__.__cause__) == seen
    assert found.__cause__.__cause__.__notes__ == ["on display :1"]
    assert str(copy.deepcopy(error).__cause__) == str(error.__cause__)


def test_a_group_of_errors_and_a_users_subclass_are_kept() -> None:
    group = ExceptionGroup("two", [RunNotFound("a", "b"), WriteFailed("c", OSError(28, "full"))])
    found = pickle.loads(pickle.dumps(group))
    assert [*map(repr, found.exceptions)] == [*map(repr, group.exceptions)]
    assert [error.path for error in found.exceptions] == ["a", "c"]
    assert found.exceptions[1].__cause__.errno == 28
    mine = OwnError(3, reason="out of fuel")
    assert pickle.loads(pickle.dumps(mine)).reason == "out of fuel"


class OwnError(errors.RunDirectoryError):
    """One of a user, with arguments of its own."""

    def __init__(self, number: int, *, reason: str) -> None:
        super().__init__(f"runs/{number}", reason)
        self.reason = reason


def fail(name: str) -> None:
    raise example(name)


FAILURES = [name for name, kind in VALUES.items() if issubclass(kind, StokerError)]


def test_every_error_comes_out_of_a_process_pool_executor() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for name in FAILURES:
            error = pool.submit(fail, name).exception(timeout=60)
            assert type(error) is VALUES[name]
            assert parts(error) == parts(example(name))
