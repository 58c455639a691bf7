"""The tail of a journal: what a process learned behind its last checkpoint, learned again by a resume.

    checkpoint ──▶ the events behind it, under the settings they were recorded with ──▶ where to go on from

Nothing is written meanwhile, so that a kill changes nothing. Most rows that follow from these events are on
disk already; those that are missing there are written by the attempt that goes on.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Generator
from itertools import zip_longest

import msgspec

from stoker.errors import ConfigError, JournalBroken, RelearningFailed, SessionError
from stoker.exits import Contained
from stoker.journal import JournalEvent, SegmentHeader
from stoker.nested import is_same
from stoker.runs import TrainingRun
from stoker.session.events import Outbox
from stoker.session.learner import Learner
from stoker.session.missing import MissingRows
from stoker.session.relearning import Relearning
from stoker.types import ActMode, Experience
from stoker.writer import stage

_logger = logging.getLogger("stoker.session")
_progress_logger = logging.getLogger("stoker.session.resume")
_SHOWN_EVERY_S = 2.0
_LONG = 10
"""Checkpoint periods, beyond which a tail is longer than any kill leaves it."""


class Tail(msgspec.Struct, frozen=True, kw_only=True):
    """A tail that was learned again.

    Attributes:
        n_events, n_steps: how many events, and environment steps among them.
        has_learned: whether the agent is another one than the checkpoint's.
        is_exact: whether running episodes may go on, and exploration with them: it was in ``lockstep``.
        seconds: how long that took.
        missing: the rows that are not on disk.
    """

    n_events: int
    n_steps: int
    has_learned: bool
    is_exact: bool
    seconds: float
    missing: MissingRows


def learn_tail(
    learner: Learner, run: TrainingRun, is_given_up: Callable[[], bool], *, is_exact: bool
) -> Tail | None:
    """Let a restored learner learn what the journal holds behind it. Blocks, and writes nothing.

    Where an event is damaged or missing, the tail ends before it, with a warning. The learner has begun
    afterwards, with the settings of the last event; it is to be given its own.

    Args:
        learner: has restored the checkpoint, or is new where the run has none.
        run: of the journal; its present attempts say which events count.
        is_given_up: asked between two chunks; then this raises.
        is_exact: whether running episodes are to go on. If all of the tail is in ``lockstep``, each action is
            then chosen again, as the actors did one by one, for the generators of exploration.

    Returns:
        None: there is no tail.

    Raises:
        JournalBroken: An event is damaged or missing, and ``roll_forward`` is ``"strict"`` or there is a
            ``roll_forward_to``.
        RelearningFailed, UnexpectedExit: The agent failed on an event.
        ConfigError: The agent is not as the one was that the journal begins with.
        SessionError: It was given up.
    """
    journal, first, counts = run.journal, learner.n_events, _counts_of(learner)
    config, last = learner.config, learner.config.roll_forward_to
    n_there = journal.n_behind(first) if last is None else last - first
    if not n_there:
        return None
    headers = _headers(learner, run)
    is_exact = is_exact and all(header.lockstep for header in headers)
    # Without a checkpoint, an agent that stops half-way must be as it was for the next try.
    agent = learner.agent
    new = None if first else stage(learner.step_state({}))
    missing = MissingRows(run, learner)
    progress = _Progress(learner, journal.end()[1])

    def undo() -> None:
        if new is not None:
            learner.use(agent)
            learner.restore(run.directory, new, journal)

    def fed(outbox: Outbox) -> None:
        if is_given_up():
            raise SessionError("open was given up")
        missing.take(outbox)
        progress.show()

    learner.config = msgspec.structs.replace(
        config, checkpoint_freq=0, save_interval=0, publish_interval=1 << 62
    )
    learner.begin()
    before = _ActingAgain(learner) if is_exact else None
    started = time.monotonic()
    try:
        with Contained("the agent"):
            Relearning(learner, journal, last, fed=fed, before=before).learn()
    except JournalBroken as error:
        if config.roll_forward == "strict" or last is not None:
            undo()
            if last is None:
                error.add_note(
                    "without --strict, a resume learns what comes before that and goes on from there"
                )
            raise
        n_lost = first + n_there - learner.n_events
        _logger.warning(
            "%s; the training goes on from step %d, and the %d event%s behind that no longer count",
            error,
            learner.total_steps,
            n_lost,
            "s" * (n_lost != 1),
        )
    except BaseException as error:
        undo()
        if isinstance(error, RelearningFailed):
            way_out = "roll_forward=False (`stoker resume --no-roll-forward`) goes back to the checkpoint"
            error.add_note(f"nothing was written; {way_out}")
        raise
    missing.settle(learner)
    learned = Tail(
        n_events=learner.n_events - first,
        n_steps=learner.total_steps - counts[0],
        is_exact=is_exact,
        has_learned=_counts_of(learner) != counts,
        seconds=time.monotonic() - started,
        missing=missing,
    )
    progress.end(learned.seconds)
    return learned


def _counts_of(learner: Learner) -> tuple[int, int, int]:
    return learner.total_steps, learner.opt_steps, learner.kept.steps


def _headers(learner: Learner, run: TrainingRun) -> list[SegmentHeader]:
    """The headers of the tail's segments.

    Raises:
        ConfigError: The agent has other steps behind it than the one that the first of them begins with.
    """
    first, headers = learner.n_events, run.journal.headers()
    for header in headers:
        if header.first_event == first and header.total_steps != learner.total_steps:
            raise ConfigError(
                f"{run.journal_directory}: it goes on from step {header.total_steps}, but this "
                f"{type(learner.agent).__name__} has {learner.total_steps} steps: resume with an agent made "
                "as the run's was, or with roll_forward=False"
            )
    return [
        header
        for header, following in zip_longest(headers, headers[1:])
        if (following is None or following.first_event > first)
        and (learner.config.roll_forward_to is None or header.first_event < learner.config.roll_forward_to)
    ]


class _ActingAgain:
    """Chooses each action again before its transition is learned: that moves the exploration's generators."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._has_warned = False

    def __call__(self, event: JournalEvent) -> None:
        if not isinstance(event, Experience):
            return
        actions, _, _ = self._learner.policies.act([event.observation], ActMode.EXPLORE, [event.actor_id])
        if not self._has_warned and not is_same(actions[0], event.action):
            self._has_warned = True
            _logger.warning(
                "after step %d the policy chooses %r, and the journal has %r: if actions were not chosen one "
                "by one with act, exploration goes on otherwise than without the interruption",
                self._learner.total_steps,
                actions[0],
                event.action,
            )


class _Progress:
    """Logs how far a tail is learned.

    Args:
        learner: whose steps are counted.
        last_step: the environment steps at the tail's end.
    """

    def __init__(self, learner: Learner, last_step: int) -> None:
        self._learner = learner
        self._first, self._n_steps = learner.total_steps, max(0, last_step - learner.total_steps)
        self._began_at = self._shown_at = time.monotonic()
        freq = learner.config.checkpoint_freq
        if freq and self._n_steps > _LONG * freq:
            _logger.warning(
                "the journal holds %d steps behind the checkpoint of step %d, more than %d periods of %d: "
                "learning them again takes as long as learning them did; with roll_forward=False "
                "(`stoker resume --no-roll-forward`) they are given up instead",
                self._n_steps,
                self._first,
                _LONG,
                freq,
            )
        if self._n_steps:
            say_progress(
                f"learning {self._n_steps:,} steps again that were journaled after step {self._first:,}"
            )

    def show(self) -> None:
        """Log a line if the last one was some seconds ago."""
        now = time.monotonic()
        if now - self._shown_at < _SHOWN_EVERY_S:
            return
        self._shown_at = now
        n_done = self._learner.total_steps - self._first
        speed = n_done / (now - self._began_at)
        left = f"{(self._n_steps - n_done) / speed:,.0f} s left" if speed and n_done < self._n_steps else ""
        say_progress(f"  {n_done:,} of {self._n_steps:,} steps  {speed:,.0f}/s  {left}".rstrip())

    def end(self, seconds: float) -> None:
        """Log the end."""
        n_done = self._learner.total_steps - self._first
        if n_done:
            speed = n_done / max(seconds, 1e-9)
            say_progress(f"learned {n_done:,} steps again in {seconds:.1f} s ({speed:,.0f}/s)")


def say_progress(text: str) -> None:
    """Log a line about the progress of what comes before a training goes on."""
    _progress_logger.info("%s", text)


class _Told(logging.Handler):
    def __init__(self, say: Callable[[str], object]) -> None:
        super().__init__(logging.INFO)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(record.getMessage())


@contextlib.contextmanager
def progress_told(say: Callable[[str], object]) -> Generator[None]:
    """Hand the lines about the progress of tails and data sets to a function until left.

    Those of tails come from the learner's thread. They are also log records of ``stoker.session.resume`` at
    level INFO.
    """
    told, level = _Told(say), _progress_logger.level
    _progress_logger.addHandler(told)
    _progress_logger.setLevel(min(logging.INFO, _progress_logger.getEffectiveLevel()))
    try:
        yield
    finally:
        _progress_logger.removeHandler(told)
        _progress_logger.setLevel(level)
