"""Build the wheel and sdist of the newest commit into dist/, and check what strangers rely on (make dist).

Two clones at different paths, with other file times, another umask, time zone and hash seed, give the same
bytes; the sdist alone builds the same wheel; the wheel holds the files of src/stoker that the commit has, the
licenses and nothing else; an index can render its metadata.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "dist"
LICENSES = ("LICENSE", "src/stoker/dashboard/page/vendor/uPlot.LICENSE")
MUST_HAVE = {
    "stoker/py.typed",
    "stoker/agents/presets.toml",
    "stoker/dashboard/page/index.html",
    "stoker/dashboard/page/vendor/uPlot.LICENSE",
    "stoker/protocol/openapi.json",
    "stoker/telemetry/grafana.json",
}
NOT_IN_SDIST = {".ci", ".dockerignore"}


def output(*command: str | Path, cwd: Path = ROOT) -> str:
    return subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout


def build(source: Path, into: Path, epoch: str, *what: str, umask: int = 0o022, **differs: str) -> list[Path]:
    """Build what is named, or the sdist and from it the wheel."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": epoch, **differs}
    command = [sys.executable, "-m", "build", "--no-isolation", *what, "--outdir", into, source]
    subprocess.run(command, env=environment, umask=umask, check=True, stdout=subprocess.DEVNULL)
    return sorted(into.iterdir())


def digests(files: list[Path]) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def check_wheel(wheel: Path, tracked: list[str]) -> None:
    """The wheel holds the package as it is in git, its licenses and its metadata."""
    name = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    metadata = [f"{name}/{file}" for file in ("METADATA", "RECORD", "WHEEL", "entry_points.txt")]
    licenses = [f"{name}/licenses/{path}" for path in LICENSES]
    package = [path.removeprefix("src/") for path in tracked if path.startswith("src/stoker/")]
    with zipfile.ZipFile(wheel) as archive:
        holds = set(archive.namelist())
    expected = {*metadata, *licenses, *package}
    if holds != expected or not holds >= MUST_HAVE:
        missing = sorted((expected | MUST_HAVE) - holds)
        raise SystemExit(f"{wheel.name}: unexpected: {sorted(holds - expected)}; missing: {missing}")


def check_sdist(sdist: Path, tracked: list[str]) -> None:
    """The sdist holds the commit's files, and its metadata."""
    with tarfile.open(sdist) as archive:
        holds = {path.partition("/")[2] for path in archive.getnames()}
    expected = {path for path in tracked if path.split("/")[0] not in NOT_IN_SDIST} | {"PKG-INFO"}
    if holds != expected:
        raise SystemExit(
            f"{sdist.name}: unexpected: {sorted(holds - expected)}; missing: {sorted(expected - holds)}"
        )


def main() -> None:
    if changed := output("git", "status", "--porcelain", "--untracked-files=no"):
        raise SystemExit(f"commit first; a release is built from a commit, and these differ:\n{changed}")
    epoch = output("git", "log", "-1", "--format=%ct").strip()
    tracked = output("git", "ls-files").splitlines()
    with tempfile.TemporaryDirectory(prefix="stoker-dist-") as name:
        clones = Path(name) / "one", Path(name) / "two" / "at another path"
        for clone in clones:
            output("git", "clone", "--quiet", "--no-local", ROOT, clone)
        for path in clones[1].rglob("*"):
            os.utime(path, (10**9, 10**9))
        first = build(clones[0], Path(name) / "a", epoch)
        second = build(clones[1], Path(name) / "b", epoch, umask=0o077, TZ="Asia/Kolkata", PYTHONHASHSEED="7")
        direct = build(clones[1], Path(name) / "c", epoch, "--wheel")
        for again in (second, direct):
            if not digests(again).items() <= digests(first).items():
                raise SystemExit(f"builds differ: {digests(first)} and {digests(again)}")
        sdist, wheel = sorted(first, key=lambda path: path.suffix == ".whl")
        check_wheel(wheel, tracked)
        check_sdist(sdist, tracked)
        for check in (("twine", "check", "--strict", sdist, wheel), ("check_wheel_contents", wheel)):
            subprocess.run([sys.executable, "-m", *check], check=True)
        shutil.rmtree(DIST, ignore_errors=True)
        DIST.mkdir()
        lines = [f"{digest}  {name}\n" for name, digest in digests(first).items()]
        for path in (sdist, wheel):
            shutil.copyfile(path, DIST / path.name)
    (DIST / "SHA256SUMS").write_text("".join(lines))
    print(f"built twice, equal, in {DIST} (SOURCE_DATE_EPOCH={epoch}):\n{''.join(lines)}", end="")


if __name__ == "__main__":
    main()
