"""The guard of signals and deadlines: when it ends a program, and when it lets it live."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time

import pytest

import launching
from stoker.signals import SignalGuard

DEADLINE_S = 30.0


class Guard(SignalGuard):
    """Words its last lines."""

    def overdue(self, *, loop_turns: bool) -> str:
        return f"overdue, {loop_turns=}"

    def interrupted(self) -> str:
        return "interrupted"


@pytest.mark.parametrize("grace_s", [10.0, 100_000.0])
def test_a_signal_may_bring_the_end_nearer_and_never_moves_it_away(grace_s: float) -> None:
    async def main() -> None:
        asked = asyncio.Event()
        latest = time.monotonic() + 1000
        with Guard([signal.SIGUSR2], grace_s, latest) as guard:
            guard.finish_with(asked.set)
            signal.raise_signal(signal.SIGUSR2)
            await asyncio.wait_for(asked.wait(), DEADLINE_S)
            assert guard.first == signal.SIGUSR2
            assert guard.signalled_at is not None
            assert guard.leaves_at == min(latest, guard.signalled_at + grace_s)

    asyncio.run(main())


PROGRAM = """
import asyncio, ctypes, os, signal, sys, time
from stoker.signals import SignalGuard

what = sys.argv[1]

class Guard(SignalGuard):
    def overdue(self, *, loop_turns):
        return "overdue"
    def interrupted(self):
        return "interrupted"

async def main():
    with Guard([signal.SIGTERM], 0.2) as guard:
        if what == "nothing to finish":
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(5)
        asked = asyncio.Event()
        guard.finish_with(asked.set)
        signal.raise_signal(signal.SIGTERM)
        await asked.wait()
        if what == "lock":
            ctypes.PyDLL(None).sleep(5)
        if what == "terminal":
            os.set_blocking(2, False)
            try:
                while True:
                    os.write(2, bytes(4096))
            except BlockingIOError:
                os.set_blocking(2, True)
            await asyncio.sleep(5)
    time.sleep(2.5)  # longer than the guard would have waited
    print("alive")

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("what", "ends"),
    [
        pytest.param("nothing to finish", (130, "", "interrupted\n"), id="nothing is to be finished yet"),
        pytest.param("lock", (1, "", "Timeout"), id="it holds the interpreter lock when the grace is over"),
        pytest.param("terminal", (1, "", "\0"), id="nobody reads its last line"),
        pytest.param("nothing", (0, "alive\n", ""), id="it has ended in time and goes on"),
    ],
)
def test_what_a_signal_does_to_a_program(what: str, ends: tuple[int, str, str]) -> None:
    program = launching.Popen(
        [sys.executable, "-c", PROGRAM, what], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        program.wait(DEADLINE_S)
    finally:
        program.kill()
        out, err = program.communicate()
    code, printed, says = ends
    assert (program.returncode, out) == (code, printed)
    assert says in err
    assert bool(err) == bool(says)
