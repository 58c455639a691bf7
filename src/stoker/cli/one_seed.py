"""The process of one seed of a sweep: ``python -m stoker.cli.one_seed``, started by ``stoker.cli.sweeping``.

    standard input     one line, the ``Order``; then nothing, until its end says: finish, save and end
    standard output    lines, each a ``Report``
    standard error     text for people, and what the environment prints

The input also ends when the parent dies, however that happens: no seed is trained on without its parent.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
from typing import IO, TYPE_CHECKING, Any, Literal

import msgspec

from stoker.cli.driving import Driver
from stoker.cli.main import ended, run_async, search_here
from stoker.cli.streams import steady_streams
from stoker.cli.sweep_messages import Order, Report
from stoker.cli.train import Resume, Train
from stoker.trainer.config import TrainConfig, config_from
from stoker.trainer.views.readings import Reading
from stoker.trainer.views.view import View

if TYPE_CHECKING:
    from stoker.agents.protocol import LearningAgent
    from stoker.runs import TrainingRun
    from stoker.trainer import TrainResult

_MOST_BYTES = 4096
"""A pipe takes that many bytes whole or not at all."""


class Reporter(View[Reading]):
    """Writes reports; one that the parent does not take in time is dropped, as a later one says more.

    Args:
        descriptor: the pipe to the parent.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._last = Report()

    def tell(self, **changes: Any) -> None:
        """Report what has changed."""
        self._last = msgspec.structs.replace(self._last, **changes)
        line = msgspec.json.encode(self._last) + b"\n"
        if len(line) <= _MOST_BYTES:
            with contextlib.suppress(OSError):  # full, or the parent is gone
                os.write(self._descriptor, line)

    def show(self, reading: Reading, *, last: bool = False) -> None:
        """Report a reading."""
        self.tell(
            total_steps=reading.total_steps,
            limit=reading.limit,
            steps_per_s=reading.steps_per_s,
            eta_s=reading.eta_s,
            mean_reward=reading.mean_reward if math.isfinite(reading.mean_reward) else None,
            last_eval=reading.last_eval and reading.last_eval[0],
            best=reading.best and reading.best[0],
        )


class SeedDriver(Driver):
    """Reports a training to the parent, which shows all of them, instead of showing it."""

    def __init__(self, command: Train | Resume, reporter: Reporter) -> None:
        super().__init__(command)
        self._reporter = reporter

    async def drive(
        self,
        config: TrainConfig,
        run: TrainingRun,
        agent: LearningAgent,
        *,
        roll_forward: bool | Literal["strict"] = True,
    ) -> int:
        """As every driver does; first report the run."""
        self._reporter.tell(run=str(run.directory), limit=config.total_timesteps)
        return await super().drive(config, run, agent, roll_forward=roll_forward)

    def view_of(self, config: TrainConfig) -> View[Reading]:
        """The reporter."""
        return self._reporter

    def say(self, text: str) -> None:
        """Say nothing: the parent says it once for all."""

    def say_result(self, head: str, result: TrainResult, config: TrainConfig, reading: Reading) -> None:
        """Report how the training ended; its result is on disk."""
        self._reporter.tell(ended=head)


class Lifeline:
    """The standard input of this process, at whose end it finishes.

    Args:
        descriptor: the pipe from the parent.
    """

    def __init__(self, descriptor: int) -> None:
        self.driver: Driver | None = None
        """What drives the training, once there is something to finish."""
        self._input: IO[bytes] = open(descriptor, "rb")  # noqa: SIM115 - open as long as the process lives

    def order(self) -> Order | None:
        """The order of the parent, which is watched from now on; None: it was gone before that."""
        line = self._input.readline()
        threading.Thread(target=self._watch, name="stoker-lifeline", daemon=True).start()
        return msgspec.json.decode(line, type=Order) if line.endswith(b"\n") else None

    def _watch(self) -> None:
        with contextlib.suppress(OSError):
            self._input.read()
        # A batch system may have sent a signal to all processes: a second one would end this one at once.
        if self.driver is None or self.driver.signalled_at is None:
            os.kill(os.getpid(), signal.SIGTERM)


def _pipes() -> tuple[int, int]:
    """Take the pipes from and to the parent, so that no other code reads or writes them."""
    orders, reports = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return orders, reports


def _command_of(order: Order) -> Train | Resume:
    if order.command == "resume":
        return Resume(**order.fields)
    fields = dict(order.fields)
    return Train(training=config_from(fields.pop("training")), **fields)


def main() -> int:
    """Train the seed that the input orders; the exit code of ``stoker train`` or ``stoker resume``."""
    orders, reports = _pipes()
    lifeline, reporter = Lifeline(orders), Reporter(reports)
    output = steady_streams()
    order = lifeline.order()
    if order is None:
        return 130

    async def train() -> int:
        command = _command_of(order)
        with SeedDriver(command, reporter) as driver:
            lifeline.driver = driver
            return await (
                command.train_with(driver) if isinstance(command, Train) else command.resume_with(driver)
            )

    def work() -> int:
        search_here()
        return run_async(train)

    return output.checked(ended(work))


if __name__ == "__main__":
    sys.exit(main())
