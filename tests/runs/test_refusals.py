"""What the system refuses: the error names the file, the cause and what to do about this very cause."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stoker import TrainingRun, WriteFailed
from stoker.errors import with_way_out
from stoker.writer import publish_checkpoint

PROGRAM = Path(__file__).with_name("refused_reads.py")


def unprivileged() -> list[str]:
    """What a command line begins with so that root, too, is refused what it has no permission for."""
    if os.geteuid() != 0:
        return []
    if (setpriv := shutil.which("setpriv")) is None:
        pytest.skip("root is refused nothing, and there is no setpriv to change that")
    rights = "-dac_override,-dac_read_search"
    return [setpriv, f"--bounding-set={rights}", f"--inh-caps={rights}"]


def test_a_file_without_permission_is_not_damage_and_nothing_is_set_aside(tmp_path: Path) -> None:
    done = subprocess.run(
        [*unprivileged(), sys.executable, str(PROGRAM), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *refusals, last, forked = map(json.loads, done.stdout.splitlines())
    assert len(refusals) == 7
    for found in refusals:
        assert found["path"] in found["said"]
        assert "Permission denied; check its owner and permissions" in found["said"]
        assert "free space" not in found["said"]
    kinds = [found.get("error") for found in refusals]
    broken = "RunBroken"
    assert kinds == [broken, broken, "RunDirectoryError", broken, broken, "WriteFailed", None]
    assert last["said"] == "6", "with its permissions back, the run goes on from its newest step"
    assert forked["said"] == "6", "a fork of a step file does not read latest.pt"
    assert not list(tmp_path.rglob("*.broken*")) + list(tmp_path.rglob("*.abandoned*"))


def test_the_way_out_is_that_of_the_cause() -> None:
    for number, advice in (
        (errno.ENOSPC, "free space"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EIO, "dmesg"),
        (errno.ENOENT, "directory is gone"),
        (errno.EBUSY, "remove the cause"),
    ):
        said = with_way_out(OSError(number, os.strerror(number)))
        assert said.startswith(os.strerror(number))
        assert advice in said
        assert ("free space" in said) == (number in (errno.ENOSPC, errno.EDQUOT))


@pytest.mark.anyio
@pytest.mark.parametrize("target", ["latest.pt", "nowhere.pt"], ids=["circle", "dangling"])
async def test_a_link_that_leads_nowhere_is_no_checkpoint_and_is_replaced(
    tmp_path: Path, target: str
) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    latest = run.checkpoints_directory / "latest.pt"
    latest.symlink_to(target)
    assert list(run.candidates()) == []
    run.acquire()
    run.publish_step(state(3), 3)
    assert latest.samefile(run.checkpoint_path(3))
    assert run.latest_checkpoint_path == run.checkpoint_path(3)
    run.release()


@pytest.mark.anyio
async def test_a_directory_in_the_place_of_a_checkpoint_is_named(tmp_path: Path) -> None:
    run = await TrainingRun.create("x", root=tmp_path)
    run.acquire()
    run.checkpoint_path(3).mkdir()
    with pytest.raises(WriteFailed, match=r"step_3\.pt: Is a directory; .* move it away"):
        run.publish_step(state(3), 3)
    run.checkpoint_path(3).rmdir()
    run.publish_step(state(3), 3)
    run.latest_checkpoint_path.with_name("latest.pt").unlink()
    (run.checkpoints_directory / "latest.pt").mkdir()
    assert [path.name for path, _ in run.candidates()] == ["step_3.pt"]
    run.begin_from(3)
    assert (run.checkpoints_directory / "latest.pt").is_file()
    run.release()


def state(step: int) -> dict[str, Any]:
    return {"kind": "step", "session": {"total_steps": step}}


def test_a_disk_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(WriteFailed, match="its directory is gone: keep a run where it is"):
        publish_checkpoint({}, tmp_path / "gone" / "step_3.pt")
