"""``stoker verify`` on runs that were really trained, killed, resumed and damaged."""

from __future__ import annotations

import json
import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import gymnasium as gym
import numpy as np
import pytest

from stoker import DQN, DQNConfig, EpisodeStatus, Experience, TrainingRun, TrainingSession
from stoker.cli.main import main
from stoker.runs.verifying import Finding, verify_run

SMALL = ("--learning-starts", "64", "--hidden-sizes", "16", "--num-envs", "4")
DEADLINE_S = 40.0


@pytest.fixture
def run(trained: Any, tmp_path: Path) -> Path:
    """A copy of the trained run, with ``latest.pt`` as it was: a second name."""
    copy = Path(shutil.copytree(trained.run, tmp_path / "runs/CartPole-v1/v1" / trained.run.name))
    (copy / "checkpoints/latest.pt").unlink()
    (copy / "checkpoints/latest.pt").hardlink_to(copy / "checkpoints/step_1200.pt")
    return copy


def look(run: Path) -> list[Finding]:
    return verify_run(TrainingRun.find(run))


def of_kind(run: Path, kind: str) -> dict[str, str]:
    """File -> what is said of it, for the findings of a kind."""
    return {finding.file: finding.text for finding in look(run) if finding.kind == kind}


def lines_of(run: Path, name: str = "train_episodes.jsonl") -> list[bytes]:
    return (run / name).read_bytes().splitlines(keepends=True)


def change_metadata(run: Path, **changes: Any) -> None:
    path = run / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))


def files_of(run: Path) -> list[Path]:
    found = [path for path in sorted(run.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    return [path for path in found if path.suffix != ".json"]


def test_a_run_that_ended_is_whole(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(run)]) == 0
    *files, verdict = capsys.readouterr().out.splitlines()
    assert verdict == f"{run}: whole"
    names = {line.split()[0] for line in files}
    assert names == {str(path.relative_to(run)) for path in files_of(run)} | {"metadata.json", "config.json"}
    assert {finding.kind for finding in look(run)} == {"ok"}


def test_json_holds_the_same(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(run), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["run"], said["whole"]) == (str(run), True)
    assert [Finding(**one) for one in said["findings"]] == look(run)
    (run / "checkpoints/best.pt").write_bytes(b"nothing")
    assert main(["verify", str(run), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["whole"] is False


def test_any_bit_that_flips_is_noticed(run: Path) -> None:
    """In every checkpoint, row file and segment: at its ends, and all over it."""
    chance = random.Random(7)
    for path in files_of(run):
        data = path.read_bytes()
        places = {0, len(data) // 2, len(data) - 1, *chance.sample(range(len(data)), 3)}
        for place in places:
            flipped = bytearray(data)
            flipped[place] ^= 1 << chance.randrange(8)
            path.write_bytes(flipped)
            damaged = of_kind(run, "damaged")
            name = str(path.relative_to(run))
            if name == "events.jsonl":  # no checkpoint counts its rows: the last one may have been torn
                damaged |= of_kind(run, "torn")
            assert any(said.split("/")[0] == name.split("/")[0] for said in damaged), (name, place)
        path.write_bytes(data)
    assert not of_kind(run, "damaged")


def test_any_cut_is_noticed(run: Path) -> None:
    chance = random.Random(11)
    for path in files_of(run):
        if path.name == "events.jsonl":  # no checkpoint counts its rows
            continue
        data = path.read_bytes()
        for length in {0, len(data) - 1, *chance.sample(range(len(data)), 2)}:
            path.write_bytes(data[:length])
            assert of_kind(run, "damaged"), (path, length)
        path.write_bytes(data)


@pytest.mark.parametrize(
    "name",
    [
        *("metadata.json", "train_episodes.jsonl", "eval_episodes.jsonl", "checkpoints/step_1200.pt"),
        *("checkpoints/best.pt", "journal/0001-000000000000.journal"),
    ],
)
def test_a_file_that_is_gone_is_noticed(run: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (run / name).unlink()
    if name.endswith("step_1200.pt"):
        (run / "checkpoints/latest.pt").unlink()
        change_metadata(run, attempts=[*attempts(run), attempts(run)[0] | {"number": 2, "from_steps": 1200}])
    assert main(["verify", str(run)]) == 1
    assert f"{run}: DAMAGED: " in capsys.readouterr().out


def attempts(run: Path) -> list[dict[str, Any]]:
    return json.loads((run / "metadata.json").read_bytes())["attempts"]


def rewrite(run: Path, lines: list[bytes], name: str = "train_episodes.jsonl") -> None:
    (run / name).write_bytes(b"".join(lines))


def drop_a_row(run: Path) -> None:
    lines = lines_of(run)
    rewrite(run, [*lines[:3], *lines[4:]])


def swap_rows(run: Path) -> None:
    first, second, *rest = lines_of(run)
    rewrite(run, [second, first, *rest])


def lose_the_last_row(run: Path) -> None:
    rewrite(run, lines_of(run)[:-1])


def lose_the_last_evaluation(run: Path) -> None:
    rewrite(run, lines_of(run, "eval_episodes.jsonl")[:-1], "eval_episodes.jsonl")


def rename_a_checkpoint(run: Path) -> None:
    (run / "checkpoints/step_800.pt").rename(run / "checkpoints/step_801.pt")


def put_another_best(run: Path) -> None:
    shutil.copy(run / "checkpoints/step_800.pt", run / "checkpoints/best.pt")


def disagree_on_the_best(run: Path) -> None:
    change_metadata(run, best_value=1e6)


def mix_up_attempts(run: Path) -> None:
    change_metadata(run, attempts=attempts(run) * 2)


def forget_all_attempts(run: Path) -> None:
    change_metadata(run, attempts=[])


def count_below_zero(run: Path) -> None:
    change_metadata(run, total_steps=-1)


def rename_a_segment(run: Path) -> None:
    (run / "journal/0001-000000000000.journal").rename(run / "journal/0001-000000000007.journal")


def rename_an_attempt(run: Path) -> None:
    (run / "journal/0001-000000000000.journal").rename(run / "journal/0002-000000000000.journal")


def break_the_config(run: Path) -> None:
    (run / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        (drop_a_row, "train_episodes.jsonl"),
        (swap_rows, "train_episodes.jsonl"),
        (lose_the_last_row, "train_episodes.jsonl"),
        (lose_the_last_evaluation, "eval_episodes.jsonl"),
        (rename_a_checkpoint, "checkpoints/step_801.pt"),
        (put_another_best, "checkpoints/best.pt"),
        (disagree_on_the_best, "metadata.json"),
        (rename_a_segment, "journal/0001-000000000007.journal"),
        (rename_an_attempt, "journal/0002-000000000000.journal"),
        (break_the_config, "config.json"),
    ],
)
def test_whole_files_that_do_not_belong_together_are_noticed(
    run: Path, damage: Callable[[Path], None], file: str
) -> None:
    damage(run)
    assert file in of_kind(run, "damaged")


@pytest.mark.parametrize("damage", [mix_up_attempts, forget_all_attempts, count_below_zero])
def test_metadata_that_contradicts_itself_is_damaged_and_opens_no_run(
    run: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    damage(run)
    assert main(["verify", str(run)]) == 1
    assert capsys.readouterr().out.endswith(f"{run}: DAMAGED: metadata.json\n")
    assert main(["resume", str(run)]) == 1
    assert "put a whole copy of it back" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["train_episodes.jsonl", "eval_episodes.jsonl", "metrics.jsonl"])
def test_a_row_file_that_cannot_be_read_is_one_finding(run: Path, name: str) -> None:
    first, *rest = lines_of(run, name)
    rewrite(run, [first.replace(b"1", b"2", 1), *rest], name)
    [damaged] = [finding for finding in look(run) if finding.kind == "damaged"]
    assert (damaged.file, damaged.text) == (
        name,
        "line 1 is not a row (its checksum is missing or does not match); remove that line",
    )


def test_files_of_another_run_are_noticed(run: Path, stoker: Any) -> None:
    done = stoker("train", "CartPole-v1", "-n", "1200", *SMALL, "--seed", "7", "--checkpoint-freq", "400",
                  "--eval-freq", "0", "--runs-dir", "other")  # fmt: skip
    assert done.returncode == 0, done.stderr
    [other] = (run.parents[3] / "other").rglob("metadata.json")
    shutil.copy(other.parent / "checkpoints/step_1200.pt", run / "checkpoints/step_1200.pt")
    assert of_kind(run, "damaged")


def test_leftovers_are_notes(run: Path) -> None:
    leftovers = {
        "checkpoints/.step_5.pt.1.2.tmp": "left half written",
        "checkpoints/step_5.pt.broken": "did not load",
        "checkpoints/step_5.pt.broken2": "did not load",
        "checkpoints/step_5.pt.abandoned": "an earlier point",
        "train_episodes.jsonl.torn": "set aside",
        "journal/0001-000000000000.journal.torn": "set aside",
    }
    for name in leftovers:
        (run / name).write_bytes(b"left")
    notes = of_kind(run, "note")
    assert all(said in notes[name] for name, said in leftovers.items()), notes
    assert not of_kind(run, "damaged")


def test_metadata_that_lags_is_a_note(run: Path) -> None:
    change_metadata(run, total_steps=900, total_episodes=10)
    assert "behind step_1200.pt" in of_kind(run, "note")["metadata.json"]
    assert not of_kind(run, "damaged")


def test_latest_of_an_older_step_is_a_note(run: Path) -> None:
    (run / "checkpoints/latest.pt").unlink()
    shutil.copy(run / "checkpoints/step_800.pt", run / "checkpoints/latest.pt")
    assert "of step 800, not of step_1200.pt" in of_kind(run, "note")["checkpoints/latest.pt"]
    assert not of_kind(run, "damaged")


def test_a_latest_of_its_own_is_what_a_resume_begins_from_if_it_is_the_newest(run: Path) -> None:
    latest, newest = run / "checkpoints/latest.pt", run / "checkpoints/step_1200.pt"
    latest.unlink()
    shutil.copy(newest, latest)
    assert {one.text for one in look(run) if one.file.endswith("latest.pt")} == {"a copy of step_1200.pt"}
    newest.write_bytes(b"torn")
    said = of_kind(run, "note")["checkpoints/latest.pt"]
    assert said == "of step 1,200: a resume begins from it, since step_800.pt is older"
    assert list(of_kind(run, "damaged")) == ["checkpoints/step_1200.pt"]
    newest.unlink()
    assert "a resume begins from it" in of_kind(run, "note")["checkpoints/latest.pt"]
    assert not of_kind(run, "damaged")
    taken, _ = next(TrainingRun.find(run).candidates())
    assert taken == latest


def test_checkpoints_that_are_all_gone_are_damage(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (run / "checkpoints").glob("*.pt"):
        path.unlink()
    assert "there is no step checkpoint any more" in of_kind(run, "damaged")["checkpoints"]
    assert main(["resume", str(run), "-n", "1300"]) == 1
    assert "put one back" in capsys.readouterr().err
    change_metadata(run, best_value=None, best_step=None)
    (run / "checkpoints/.published").unlink()  # as if it had never had one
    assert not of_kind(run, "damaged")
    assert "a resume learns the journal from its first event on" in of_kind(run, "note")["checkpoints"]


@pytest.mark.parametrize("content", [b"", b"{", None])
def test_metadata_that_is_damaged_names_the_way_out(
    run: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "metadata.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert main(["resume", str(run)]) == 1
    assert "put a whole copy of it back; the checkpoints beside it can be read with torch.load" in (
        capsys.readouterr().err
    )


# Many small segments, a replay of a few of them, and checkpoints that outlive their journal.


async def play(root: Path, goes_on: Callable[[int], bool]) -> None:
    config = DQNConfig(hidden_sizes=(8,), batch_size=4, learning_starts=10, buffer_size=50)
    agent = DQN(gym.spaces.Box(-1, 1, (3,), np.float32), gym.spaces.Discrete(2), config, seed=3)
    settings = {
        "checkpoint_freq": 100,
        "keep_checkpoints": 2,
        "keep_every": 300,
        "journal_segment_bytes": 3000,
    }
    observation = np.zeros(3, np.float32)
    k = 0
    async with TrainingSession(agent, await TrainingRun.create("small", root=root), **settings) as session:
        while goes_on(k):
            status = EpisodeStatus.TERMINATED if k % 10 == 9 else EpisodeStatus.CONTINUING
            await session.observe(Experience(observation, k % 2, 1.0, observation + 1, status, 0))
            if status.is_done:
                await session.on_episode(10.0, 10, status)
            k += 1


@pytest.fixture(scope="module")
def many_segments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 1,000 steps, each segment of which holds some 30."""
    root = tmp_path_factory.mktemp("segments")
    anyio.run(play, root, lambda k: k < 1000)
    [run] = (root / "small/v1").iterdir()
    return run


@pytest.fixture
def segmented(many_segments: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(many_segments, tmp_path / "run"))


def segments_of(run: Path) -> list[Path]:
    return sorted((run / "journal").iterdir())


def test_an_older_checkpoint_whose_journal_is_gone_is_a_note(segmented: Path) -> None:
    assert len(segments_of(segmented)) > 3
    assert not of_kind(segmented, "damaged")
    notes = [finding.text for finding in look(segmented) if finding.kind == "note"]
    assert [note for note in notes if note.startswith("no resume from step_300.pt: ")]
    assert not [note for note in notes if "step_1000.pt" in note]


def test_the_newest_checkpoint_must_have_its_journal(segmented: Path) -> None:
    for segment in segments_of(segmented)[:-1]:
        data = segment.read_bytes()
        segment.unlink()
        damaged = of_kind(segmented, "damaged")
        is_oldest = segment == min([segment, *segments_of(segmented)])
        assert bool(damaged) or is_oldest, segment
        segment.write_bytes(data)
    for segment in segments_of(segmented)[:-1]:
        segment.unlink()
    assert "no resume from step_1000.pt" in of_kind(segmented, "damaged")["journal"]
    shutil.rmtree(segmented / "journal")
    assert "no resume from step_1000.pt" in of_kind(segmented, "damaged")["journal"]


def test_any_bit_of_many_segments_is_noticed(segmented: Path) -> None:
    chance = random.Random(5)
    for path in segments_of(segmented):
        data = path.read_bytes()
        for place in {0, len(data) - 1, *chance.sample(range(len(data)), 2)}:
            flipped = bytearray(data)
            flipped[place] ^= 1 << chance.randrange(8)
            path.write_bytes(flipped)
            assert of_kind(segmented, "damaged"), (path, place)
        path.write_bytes(data)


def test_a_live_run_is_never_called_damaged(tmp_path: Path) -> None:
    stop = threading.Event()
    training = threading.Thread(
        daemon=True, target=anyio.run, args=(play, tmp_path, lambda _: not stop.is_set())
    )
    training.start()
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not list(tmp_path.rglob("step_*.pt")):
            assert training.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        [metadata] = tmp_path.rglob("metadata.json")
        for _ in range(25):
            found = look(metadata.parent)
            assert found[0].text.startswith("being written by process ")
            assert not [finding for finding in found if finding.kind == "damaged"]
    finally:
        stop.set()
        training.join()
    assert of_kind(metadata.parent, "damaged") == {}


def test_a_killed_run_and_its_resume_are_whole(started: Any, stoker: Any, tmp_path: Path) -> None:
    process = started(
        *(
            "train",
            "CartPole-v1",
            "-n",
            "100000000",
            *SMALL,
            "--checkpoint-freq",
            "300",
            "--eval-freq",
            "400",
        ),
        *("--eval-episodes", "2", "--name", "pole"),
    )
    deadline = time.monotonic() + DEADLINE_S
    while len(list((tmp_path / "runs").rglob("step_*.pt"))) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    [run] = (tmp_path / "runs/pole/v1").iterdir()
    is_live = look(run)  # while it trains
    assert "being written by process " in is_live[0].text
    assert not [finding for finding in is_live if finding.kind == "damaged"]
    process.kill()
    process.communicate()
    assert not of_kind(run, "damaged")
    lines = lines_of(run)
    with (run / "train_episodes.jsonl").open("ab") as file:
        file.write(lines[0][:40])
    with max((run / "journal").iterdir()).open("ab") as file:
        file.write(b"\xf5\x4a\x01")
    torn = of_kind(run, "torn")
    assert "the next resume sets it aside" in torn["train_episodes.jsonl"]
    assert "torn tails of" in torn["journal"]
    assert not of_kind(run, "damaged")
    said = stoker("verify", "runs/pole")
    assert said.returncode == 0
    assert said.stdout.endswith("whole, but for the torn end that a kill leaves\n")

    newest = max(int(path.stem.removeprefix("step_")) for path in run.rglob("step_*.pt"))
    done = stoker("resume", "runs/pole", "-n", str(newest + 700))
    assert done.returncode == 0, done.stderr
    assert not of_kind(run, "damaged")
    assert "train_episodes.jsonl" not in of_kind(run, "torn")


def test_nothing_is_written(run: Path) -> None:
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in run.rglob("*")}
    look(run)
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in run.rglob("*")} == before
