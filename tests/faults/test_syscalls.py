"""The system calls of the writing path: a kill at the n-th of each kind, and each of them refused.

strace is attached to a worker (``worker.py``) and either kills it as it enters its n-th call, or answers
the call with EIO or ENOSPC. A thread counts its own calls. STOKER_FAULTS_CALLS sets up to which call of
each kind.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from breaking import Breaker, amount, check, no_strace, traced
from worker import Confirmed, Order

pytestmark = pytest.mark.skipif(bool(no_strace()), reason=no_strace())

WRITING = (
    "write", "pwrite64", "writev", "fdatasync", "fsync", "rename", "renameat", "renameat2", "link", "linkat",
    "unlink", "unlinkat", "ftruncate", "openat", "mkdir",
)  # fmt: skip
CYCLES = 6
"""What a worker does before it ends, if nothing ends it."""
OFTEN = {"save_every": 1, "checkpoint_freq": 200}
"""Checkpoints in each cycle: they make most of the calls."""


class Tally(NamedTuple):
    """What came of tampering with one call.

    Attributes:
        hit: whether the worker came so far as to make it.
        said: what it had confirmed by then.
        noticed_s: from the first refusal to the worker's last word.
    """

    hit: bool
    said: Confirmed
    noticed_s: float = 0.0


# A kill at the n-th call --------------------------------------------------------------------------


def kill_at(breaker: Breaker, order: Order, call: str, n: int, before: list[Confirmed]) -> Tally:
    """Kill a worker as one of its threads enters its n-th call of that kind, and look at what is left."""
    worker = breaker.start(msgspec.structs.replace(order, held=True))
    log = Path(order.root).with_suffix(".strace")
    with traced(worker, log, "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={n}"):
        status = worker.end(60)
    assert status in (0, -signal.SIGKILL), worker.log()
    check(Path(order.root), [*before, worker.said])
    return Tally(status != 0, worker.said)


def kill_at_each(directory: Path, calls: tuple[str, ...], upto: int, agent: str) -> str:
    """Kill at the first, second, ... call of each kind, until it is not made any more.

    Each time a worker on a new run, which then is finished; and one on a run that goes on from kill to kill.

    Returns:
        What came of it, in one line.
    """
    kills = 0
    with Breaker(directory) as breaker:
        for call in calls:
            old = Order(root=str(directory / f"{call}_on"), agent=agent, cycles=CYCLES, **OFTEN)
            said = [finished(breaker, old, [])]
            for n in range(1, upto + 1):
                new = Order(root=str(directory / f"{call}_{n}"), cycles=CYCLES, **OFTEN)
                at_new = kill_at(breaker, new, call, n, [])
                finished(breaker, new, [at_new.said])
                at_old = kill_at(breaker, old, call, n, said)
                said.append(at_old.said)
                kills += at_new.hit + at_old.hit
                if not (at_new.hit or at_old.hit):
                    break
            finished(breaker, old, said)
    names = ", ".join(calls)
    return f"{kills} kills at {names}: 0 confirmed rows lost, 0 torn files, {kills} went on, 0 doubles"


def finished(breaker: Breaker, order: Order, said: list[Confirmed]) -> Confirmed:
    """Let a worker go on with the run to a good end."""
    worker = breaker.start(msgspec.structs.replace(order, cycles=2))
    assert worker.end(60) == 0, worker.log()
    assert worker.said.has_ended
    check(Path(order.root), [*said, worker.said])
    return worker.said


# A call refused -----------------------------------------------------------------------------------

CALLS = ("write", "fdatasync", "fsync", "rename", "link", "unlink", "ftruncate")
"""``ftruncate`` takes a write back that was refused, so it is refused together with that write."""

MAY_BE_MENDED = ("link", "unlink")
"""Not every refusal of these is an error: a link that is refused becomes a copy."""


def refuse(breaker: Breaker, root: Path, call: str, error: str, when: str) -> Tally:
    """Let a call be refused: the worker says so in one line and ends, and the run goes on afterwards."""
    order = Order(root=str(root), cycles=40, **OFTEN)
    before = finished(breaker, order, [])
    worker = breaker.start(msgspec.structs.replace(order, held=True))
    log = root.with_suffix(".strace")
    refused_calls = (call,) if call != "ftruncate" else ("write", "ftruncate")
    injections = [
        f"inject={each}:error={error}:when={'1+' if each == 'ftruncate' else when}" for each in refused_calls
    ]
    options = [word for injection in injections for word in ("-e", injection)]
    with traced(worker, log, "-e", f"trace={','.join(refused_calls)}", *options):
        status = worker.end(30)  # one that hangs is an error
    refused = [line for line in log.read_text().splitlines() if "(INJECTED)" in line]
    said = worker.said
    if refused and (status or call not in MAY_BE_MENDED):
        assert status == 1, f"{call} was refused, and it ended with {status}\n{refused[0]}\n{worker.log()}"
        assert said.error in ("SessionFailed", "WriteFailed"), said
        assert "\n" not in said.text
        assert "cannot write" in said.text, said.text
    else:
        assert status == 0, worker.log()
        assert said.has_ended
    check(root, [before, said])
    finished(breaker, order, [before, said])
    first = float(refused[0].split()[1]) if refused else 0.0
    return Tally(bool(refused), said, said.error_at - first if refused and said.error else 0.0)


def refuse_each(directory: Path, refusals: list[tuple[str, str, str]]) -> str:
    """Refuse each call in turn; what came of all, in one line."""
    with Breaker(directory) as breaker:
        tallies = [refuse(breaker, directory / f"runs_{k}", *refusal) for k, refusal in enumerate(refusals)]
    told = [tally for tally in tallies if tally.said.error]
    slowest = max((tally.noticed_s for tally in told), default=0.0)
    return (
        f"{len(tallies)} refusals of {', '.join(dict.fromkeys(call for call, _, _ in refusals))}: "
        f"{sum(tally.hit for tally in tallies)} reached, {len(told)} told with a typed error, 0 hung, "
        f"0 confirmed rows lost, {len(tallies)} resumed; the slowest ended {slowest:.3f} s after its refusal"
    )


# Short and full forms -----------------------------------------------------------------------------


def test_kills_at_some_calls(tmp_path: Path) -> None:
    print("\n" + kill_at_each(tmp_path, ("rename", "fdatasync"), 1, "fake"))


@pytest.mark.faults
@pytest.mark.parametrize("call", WRITING)
def test_kills_at_every_call(tmp_path: Path, call: str) -> None:
    print("\n" + kill_at_each(tmp_path, (call,), amount("CALLS", 40), "dqn"))


SOME = [("write", "ENOSPC", "5+"), ("fdatasync", "EIO", "3")]


def test_some_refusals(tmp_path: Path) -> None:
    print("\n" + refuse_each(tmp_path, SOME))


@pytest.mark.faults
@pytest.mark.parametrize("call", CALLS)
def test_every_refusal(tmp_path: Path, call: str) -> None:
    firsts = range(1, amount("CALLS", 40) + 1, 3)
    refusals = [
        (call, error, f"{n}{end}") for n in firsts for error in ("EIO", "ENOSPC") for end in ("", "+")
    ]
    print("\n" + refuse_each(tmp_path, refusals))
