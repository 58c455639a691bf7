"""Checkpoints of a run: which are pruned, which is loaded, which is the latest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from power_cuts import Disk, PowerCuts
from stoker import CheckpointCorrupt, CheckpointNotFound, ConfigError, TrainingRun, WriteFailed
from stoker.runs import Retention
from stoker.writer import files, load_checkpoint, publish_checkpoint, verify_checkpoint

pytestmark = pytest.mark.anyio
STEPS = [5, 9, 10, 100, 99, 1000]


@pytest.fixture
async def run(tmp_path: Path) -> TrainingRun:
    run = await TrainingRun.create("x", root=tmp_path)
    run.acquire()
    for step in sorted(STEPS):
        run.publish_step({"step": step}, step)
    run.publish_best({"step": 9, "best": {"value": 1.0, "total_steps": 9}})
    return run


def names(run: TrainingRun) -> set[str]:
    return {path.name for path in run.checkpoints_directory.iterdir() if not path.name.startswith(".")}


def newest(run: TrainingRun) -> dict[str, Any] | None:
    """The content of the checkpoint that a resume begins from."""
    return next((state for _, state in run.candidates()), None)


def at(step: int) -> dict[str, Any]:
    """What says of which step a checkpoint is."""
    return {"session": {"total_steps": step}}


def tear(path: Path) -> None:
    """Damage the file under this name only."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("keep", "every", "left"),
    [
        (6, 0, sorted(STEPS)),
        (99, 0, sorted(STEPS)),
        (3, 0, [99, 100, 1000]),
        (1, 0, [1000]),
        (0, 0, []),
        (1, 50, [100, 1000]),
        (2, 5, [5, 10, 100, 1000]),
        (0, 5, [5, 10, 100, 1000]),
        (0, 99, [99, 1000]),
    ],
)
async def test_prune_keeps_the_newest_by_number_and_never_touches_latest_or_best(
    run: TrainingRun, keep: int, every: int, left: list[int]
) -> None:
    stray = ["step_7.pt.broken", "step_x.pt", "step_8.pt.tmp", "notes.txt"]
    for name in stray:
        (run.checkpoints_directory / name).write_text("")
    gone = [step for step in sorted(STEPS) if step not in left]
    doomed = run.doomed(Retention(last=keep, every=every))
    assert doomed == [run.checkpoint_path(step) for step in gone]
    assert await run.prune_checkpoints(keep, every) == gone
    assert run.checkpoint_steps() == left
    assert names(run) == {f"step_{step}.pt" for step in left} | {"latest.pt", "best.pt", *stray}
    assert load_checkpoint(run.best_checkpoint_path)["step"] == 9


@given(st.sets(st.integers(0, 50)), st.none() | st.integers(0, 8), st.integers(0, 6))
def test_what_is_kept_and_what_is_given_up_are_all_there_is(
    steps: set[int], last: int | None, every: int
) -> None:
    retention = Retention(last=last, every=every)
    doomed, newest = retention.doomed(list(steps)), retention.newest(list(steps))
    kept = steps - set(doomed)
    assert set(newest) <= kept
    assert kept - set(newest) <= {step for step in steps if every and step % every == 0}
    assert newest == sorted(steps)[len(steps) - len(newest) :]
    assert len(newest) >= min(len(steps), len(steps) if last is None else last)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"last": -1}, "last=-1"), ({"every": -5}, "every=-5"), ({"best": 0}, "best=0"), ({"last": 1.5}, "1.5")],
)
def test_a_retention_that_means_nothing_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Retention(**settings)


async def test_a_checkpoint_that_cannot_be_removed_does_not_stop_the_pruning(run: TrainingRun) -> None:
    (run.checkpoint_path(5)).unlink()
    (run.checkpoint_path(5)).mkdir()  # no checkpoint, and nothing that unlink could remove
    assert await run.prune_checkpoints(1) == [9, 10, 99, 100]
    assert run.checkpoint_steps() == [1000]
    assert run.checkpoint_path(5).is_dir()


async def test_a_power_cut_at_any_time_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    run.acquire()
    retention = Retention(last=1)
    run.publish_step({"step": 1}, 1, retention)
    cuts = PowerCuts(run.checkpoints_directory, monkeypatch)
    found = tmp_path / "found.pt"
    n_cuts = 0

    def one_is_whole(disk: Disk) -> None:
        nonlocal n_cuts
        n_cuts += 1
        for name in ("step_1.pt", "step_2.pt"):
            if content := disk.read(run.checkpoints_directory / name):
                found.write_bytes(content)
                verify_checkpoint(found)
                return
        pytest.fail("neither the old checkpoint is there nor the new one")

    cuts.at_each = one_is_whole
    run.publish_step({"step": 2}, 2, retention)
    cuts.close()
    assert n_cuts
    assert newest(run) == {"step": 2}
    assert run.checkpoint_steps() == [2]


async def test_latest_is_a_second_name_of_what_was_published_last(run: TrainingRun) -> None:
    latest = run.checkpoints_directory / "latest.pt"
    assert latest.samefile(run.checkpoint_path(1000))
    run.publish_step({"step": 1001}, 1001, Retention(last=2))
    assert latest.samefile(run.checkpoint_path(1001))
    assert run.checkpoint_steps() == [1000, 1001]
    run.publish_step({"step": 1002}, 1002, Retention(last=0))
    assert run.checkpoint_steps() == []
    assert run.latest_checkpoint_path == latest
    assert newest(run) == {"step": 1002}, "latest is left"


async def test_a_checkpoint_that_is_rewritten_does_not_change_under_its_other_name(run: TrainingRun) -> None:
    run.publish_step({"step": "again"}, 1000)
    assert newest(run) == {"step": "again"}
    latest = run.checkpoints_directory / "latest.pt"
    assert latest.samefile(run.checkpoint_path(1000))
    publish_checkpoint({"step": "alone"}, run.checkpoint_path(1000))
    assert not latest.samefile(run.checkpoint_path(1000))


async def test_the_latest_is_what_verifies_whatever_latest_pt_is(run: TrainingRun) -> None:
    (run.checkpoints_directory / "latest.pt").unlink()
    assert run.latest_checkpoint_path == run.checkpoint_path(1000)
    tear(run.checkpoint_path(1000))
    assert run.latest_checkpoint_path == run.checkpoint_path(100), "though it was whole a moment ago"
    reader = await TrainingRun.open(run.directory)
    assert reader.latest_checkpoint_path == run.checkpoint_path(100)
    for step in STEPS[:-1]:
        tear(run.checkpoint_path(step))
    assert run.latest_checkpoint_path.name == "latest.pt"


async def test_newer_checkpoints_that_do_not_load_are_set_aside_by_an_attempt_from_an_older_one(
    run: TrainingRun, caplog: pytest.LogCaptureFixture
) -> None:
    before = names(run)
    tear(run.checkpoint_path(1000))
    run.checkpoint_path(100).write_bytes(b"")
    for _ in range(2):
        assert newest(run) == {"step": 99}
        assert names(run) == before, "nobody has gone on from it yet"
    run.begin_attempt(99, 0)
    assert names(run) == before - {"step_1000.pt", "step_100.pt"} | {
        "step_1000.pt.broken",
        "step_100.pt.broken",
    }
    assert run.checkpoint_steps() == [5, 9, 10, 99]
    assert (run.checkpoints_directory / "latest.pt").samefile(run.checkpoint_path(99))
    told = [record.message for record in caplog.records]
    assert [text.rpartition("; ")[2] for text in told[:2]] == ["passed over"] * 2
    assert told[-2:] == [
        "set aside step_100.pt.broken: it did not load",
        "set aside step_1000.pt.broken: it did not load",
    ]


async def test_a_latest_that_does_not_load_is_of_no_abandoned_future(run: TrainingRun) -> None:
    tear(run.checkpoints_directory / "latest.pt")
    run.begin_attempt(7, 0)
    assert {name for name in names(run) if name.startswith("latest")} == {"latest.pt"}
    assert "step_9.pt.abandoned" in names(run)


async def test_a_broken_checkpoint_that_was_rewritten_is_not_set_aside(run: TrainingRun) -> None:
    tear(run.checkpoint_path(1000))
    assert newest(run) == {"step": 100}
    run.publish_step({"step": "anew"}, 1000)
    run.begin_attempt(1000, 0)
    assert newest(run) == {"step": "anew"}


async def test_candidates_come_newest_first_and_end_with_latest_where_it_is_another_file(
    run: TrainingRun,
) -> None:
    assert [state["step"] for _, state in run.candidates()] == sorted(STEPS, reverse=True)
    publish_checkpoint({"step": "kept"}, run.checkpoints_directory / "latest.pt")
    await run.prune_checkpoints(1)
    assert [(path.name, state["step"]) for path, state in run.candidates()] == [
        ("step_1000.pt", 1000),
        ("latest.pt", "kept"),
    ]


async def test_a_reader_sets_nothing_aside(run: TrainingRun, caplog: pytest.LogCaptureFixture) -> None:
    tear(run.checkpoint_path(1000))
    tear(run.best_checkpoint_path)
    before = names(run)
    reader = await TrainingRun.open(run.directory)
    assert newest(reader) == {"step": 100}
    assert reader.bests() == []
    assert names(run) == before
    assert all("passed over" in record.message for record in caplog.records)
    assert len(caplog.records) == 2


async def test_checkpoints_of_which_none_loads_are_an_error_every_time(run: TrainingRun) -> None:
    before = names(run)
    for path in run.checkpoints_directory.glob("*.pt"):
        path.unlink()
        path.write_bytes(b"torn")
    said = set()
    for _ in range(3):
        writer = await again(run)
        with pytest.raises(CheckpointCorrupt, match="not a whole checkpoint") as caught:
            newest(writer)
        [note] = caught.value.__notes__
        said.add((str(caught.value), note))
        assert names(run) == before, "nothing was renamed"
        writer.release()
    [(_, note)] = said
    assert "none of the 7 checkpoints" in note
    assert "`stoker train`" in note
    writer = await again(run)
    assert writer.load_best_score() is None
    assert "best.pt.broken" in names(run)


async def again(run: TrainingRun) -> TrainingRun:
    """The run as the next process has it."""
    run.release()
    resumed = await TrainingRun.resume(run.directory)
    resumed.acquire()
    return resumed


async def test_a_new_attempt_puts_latest_right_and_what_lies_beyond_it_aside(run: TrainingRun) -> None:
    latest = run.checkpoints_directory / "latest.pt"
    resumed = await again(run)
    files.link_atomically(run.checkpoint_path(100), latest)  # as a kill before the relinking leaves it
    resumed.begin_attempt(1000, 0)
    assert latest.samefile(run.checkpoint_path(1000))
    resumed.begin_attempt(99, 0, 7)
    assert resumed.metadata.attempts[-1].from_events == 7
    assert resumed.checkpoint_steps() == [5, 9, 10, 99]
    assert {"step_100.pt.abandoned", "step_1000.pt.abandoned"} <= names(run)
    assert latest.samefile(run.checkpoint_path(99))
    assert resumed.latest_checkpoint_path == run.checkpoint_path(99)


async def test_a_run_without_checkpoints_has_none(tmp_path: Path) -> None:
    run = await TrainingRun.create("new", root=tmp_path)
    assert run.checkpoint_steps() == []
    assert newest(run) is None
    assert run.load_best_score() is None
    assert run.bests() == []
    assert await run.prune_checkpoints(3) == []
    await run.aclose()


async def own_latest(run: TrainingRun, step: int) -> Path:
    """Make ``latest.pt`` a file of its own that holds that step."""
    latest = run.checkpoints_directory / "latest.pt"
    publish_checkpoint({"step": "own", **at(step)}, latest)
    return latest


@pytest.mark.parametrize(("step", "place"), [(2000, 0), (1000, None), (500, 1), (10, None), (7, 5), (1, 6)])
async def test_a_separate_latest_is_tried_in_the_order_of_its_step(
    run: TrainingRun, step: int, place: int | None
) -> None:
    latest = await own_latest(run, step)
    expected = [run.checkpoint_path(one) for one in sorted(STEPS, reverse=True)]
    if place is not None:  # else a step file of that step comes first, and it is not tried as well
        expected.insert(place, latest)
    assert [path for path, _ in run.candidates()] == expected
    assert run.latest_checkpoint_path == expected[0]


async def test_a_separate_latest_stands_in_for_a_damaged_step_file(run: TrainingRun) -> None:
    latest = await own_latest(run, 1000)
    tear(run.checkpoint_path(1000))
    path, state = next(run.candidates())
    assert (path, state["step"]) == (latest, "own")
    assert run.latest_checkpoint_path == latest
    run.begin_attempt(1000, 0)
    assert "step_1000.pt.broken" in names(run)
    assert load_checkpoint(latest)["step"] == "own", "it is all that is left of it"
    assert next((await again(run)).candidates())[0] == latest


async def test_a_separate_latest_is_kept_when_a_run_resumes_from_an_older_step(run: TrainingRun) -> None:
    latest = await own_latest(run, 2000)
    run.begin_attempt(100, 0)
    assert load_checkpoint(latest.with_name("latest.pt.abandoned"))["step"] == "own"
    assert latest.samefile(run.checkpoint_path(100))
    latest.unlink()
    latest.write_bytes(b"torn")
    resumed = await again(run)
    assert newest(resumed) == {"step": 100}
    resumed.begin_attempt(100, 0)
    assert latest.with_name("latest.pt.broken").read_bytes() == b"torn"
    assert latest.samefile(run.checkpoint_path(100))


def remove_step_checkpoints(run: TrainingRun) -> None:
    for path in [*run.checkpoints_directory.glob("step_*"), *run.checkpoints_directory.glob("latest*")]:
        path.unlink()


@pytest.mark.parametrize(
    ("left", "sign"),
    [
        (".published", "some were written"),
        ("step_7.pt.broken", "step_7.pt.broken is what was set aside"),
        ("step_7.pt.abandoned2", "step_7.pt.abandoned2 is"),
        ("latest.pt.broken", "latest.pt.broken is"),
    ],
)
async def test_a_run_that_lost_its_checkpoints_does_not_start_over(
    run: TrainingRun, left: str, sign: str
) -> None:
    remove_step_checkpoints(run)
    (run.checkpoints_directory / ".published").unlink()
    (run.checkpoints_directory / left).write_bytes(b"")
    for _ in range(2):
        run = await again(run)
        with pytest.raises(CheckpointNotFound, match="no step checkpoint any more") as caught:
            list(run.candidates())
        assert sign in str(caught.value)
        assert "put one back" in str(caught.value)


async def test_an_attempt_that_began_from_a_checkpoint_says_that_there_was_one(run: TrainingRun) -> None:
    run.begin_attempt(1000, 0)
    remove_step_checkpoints(run)
    (run.checkpoints_directory / ".published").unlink()
    with pytest.raises(CheckpointNotFound, match="attempt 2 began with one of step 1000"):
        newest(run)


async def test_a_best_from_before_the_first_checkpoint_is_no_sign_of_one(tmp_path: Path) -> None:
    run = await TrainingRun.create("killed", root=tmp_path)
    run.publish_best(best(1.0, 3))
    tear(run.best_checkpoint_path)
    resumed = await again(run)
    assert list(resumed.candidates()) == []
    assert resumed.bests() == []
    assert "best.pt.broken" in names(run)
    assert list(resumed.candidates()) == []


async def test_a_checkpoint_in_place_of_a_directory_is_refused_and_typed(run: TrainingRun) -> None:
    run.checkpoint_path(2000).mkdir()
    with pytest.raises(WriteFailed, match=r"step_2000\.pt"):
        run.publish_step({"step": 2000}, 2000, Retention(last=1))
    assert newest(run) == {"step": 1000}
    assert len(run.checkpoint_steps()) == len(STEPS), "nothing is pruned for one that was not written"


# The best policies


def best(value: float, step: int) -> dict[str, Any]:
    return {"weights": step, "best": {"value": value, "total_steps": step}}


def best_names(run: TrainingRun) -> set[str]:
    return {name for name in names(run) if name.startswith("best")}


async def test_the_best_k_are_kept_and_best_is_a_name_of_the_first(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    retention = Retention(best=3)
    for step, value in [(10, 1.0), (20, 5.0), (30, 3.0), (40, 2.0), (50, 5.0), (60, 0.5)]:
        run.publish_best(best(value, step), retention)
    scores = [(5.0, 20), (5.0, 50), (3.0, 30)]
    assert run.bests() == scores
    assert best_names(run) == {"best.pt", "best_20.pt", "best_50.pt", "best_30.pt"}
    assert run.best_checkpoint_path.samefile(run.checkpoints_directory / "best_20.pt")
    reader = await TrainingRun.open(run.directory)
    assert reader.bests() == scores, "by what the files say"
    assert reader.load_best_score() == (5.0, 20)


async def test_going_from_one_to_several_and_back(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    run.publish_best(best(1.0, 10))
    run.publish_best(best(0.5, 15))
    assert run.bests() == [(1.0, 10)]
    assert best_names(run) == {"best.pt"}
    resumed = await again(run)
    resumed.publish_best(best(2.0, 20), Retention(best=2))
    assert resumed.bests() == [(2.0, 20), (1.0, 10)]
    assert load_checkpoint(run.checkpoints_directory / "best_10.pt")["weights"] == 10
    assert load_checkpoint(run.best_checkpoint_path)["weights"] == 20
    resumed = await again(resumed)
    resumed.publish_best(best(3.0, 30))
    assert best_names(run) == {"best.pt"}
    assert (await again(resumed)).bests() == [(3.0, 30)]


async def test_a_kill_between_a_best_policy_and_its_second_name_is_repaired(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    run.publish_best(best(1.0, 10), Retention(best=2))
    publish_checkpoint(best(2.0, 20), run.checkpoints_directory / "best_20.pt")
    resumed = await again(run)
    assert resumed.load_best_score() == (2.0, 20)
    resumed.begin_attempt(20, 0)
    assert load_checkpoint(run.best_checkpoint_path)["weights"] == 20


async def test_a_best_that_does_not_load_is_set_aside_and_the_metadata_says_what_to_beat(
    run: TrainingRun,
) -> None:
    run.metadata = run.counted(9, 1, (1.0, 9))
    await run.update_metadata(9, 1)
    tear(run.best_checkpoint_path)
    resumed = await again(run)
    assert resumed.load_best_score() == (1.0, 9)
    assert "best.pt.broken" in names(run)
    assert not run.best_checkpoint_path.exists()


async def test_a_missing_best_policy_is_logged_and_must_still_be_beaten(
    run: TrainingRun, caplog: pytest.LogCaptureFixture
) -> None:
    run.metadata = run.counted(9, 1, (1.0, 9))
    await run.update_metadata(9, 1)
    run.best_checkpoint_path.unlink()
    resumed = await again(run)
    assert resumed.load_best_score() == (1.0, 9)
    [text] = [record.getMessage() for record in caplog.records]
    assert "best.pt is gone, the policy of step 9 with mean reward 1" in text
