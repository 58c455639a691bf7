"""Learning from the journal: the same events in the same order give the same weights, to the bit.

A learner at some event is fed the events behind it, in chunks. What else decides the result, the settings of
each attempt, is in the headers of the journal's segments and applies from there on.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Sequence

from stoker.errors import JournalBroken, RelearningFailed
from stoker.journal import Journal, JournalEvent, Optimized, SegmentHeader
from stoker.session.config import LearningPeriods
from stoker.session.events import Outbox
from stoker.session.learner import Learner
from stoker.session.remaking import agent_with, check_prior, take_over, warn_of_another_origin
from stoker.types import Experience

_CHUNK = 1024
_LONG_S = 0.2


def periods_of(header: SegmentHeader) -> LearningPeriods:
    """When the agent learned in the attempt that wrote this header."""
    return LearningPeriods(header.opt_interval, header.warmup_period, header.max_opts, header.offline)


def learn_as_in(learner: Learner, header: SegmentHeader) -> None:
    """Let a learner learn as in the attempt that wrote this header, from the learner's next event on.

    Raises:
        ConfigError: Its agent was of another class, or its state has no meaning for this one.
    """
    import torch  # here, because actors that play for a server import this module

    agent = agent_with(learner.agent, header.agent_type, header.agent, learner.metrics.warn_once)
    if agent is not learner.agent:
        take_over(agent, learner.agent)
        learner.use(agent)
    if header.torch_threads != torch.get_num_threads():
        torch.set_num_threads(header.torch_threads)
    if header.numbered:
        learner.number_streams()
    if (periods := periods_of(header)) != learner.config.periods:
        learner.learn_at(periods)


@contextlib.contextmanager
def as_in_attempts(learner: Learner) -> Generator[None]:
    """Inside, a learner may come to learn with settings of attempts; then its own agent has the result.

    After an error the learner has its own agent, too, as that was left.
    """
    import torch  # as above

    own, n_threads = learner.agent, torch.get_num_threads()
    try:
        yield
        if learner.agent is not own:
            take_over(own, learner.agent)
    finally:
        torch.set_num_threads(n_threads)
        if learner.agent is not own:
            learner.use(own)


class Relearning:
    """Feeds a learner the events of a journal that are behind it, each with the settings of its attempt.

    Args:
        learner: has begun, and stands at event ``n_events`` of the journal.
        journal: holds the events behind that one.
        last: the number of the event to end before; None: the end of what is there.
        to_step: the environment step to end at, before the next one; None: all events up to ``last``.
        fed: called after each chunk with its results; what it raises ends the learning there.
        before: called with each event before it is learned, one by one; None: they are learned in chunks.

    Raises:
        ConfigError: The learner's agent has other prior data than the journal was learned with.
    """

    def __init__(
        self,
        learner: Learner,
        journal: Journal,
        last: int | None = None,
        *,
        to_step: int | None = None,
        fed: Callable[[Outbox], object] = lambda _: None,
        before: Callable[[JournalEvent], object] | None = None,
    ) -> None:
        self._learner = learner
        self._position = learner.n_events
        self._steps = learner.total_steps
        self._last, self._to_step = last, to_step
        self._fed, self._before = fed, before
        headers = journal.headers()
        for header in headers:
            check_prior(learner.agent, header.prior)
        if not self._position and headers:
            warn_of_another_origin(learner.agent, headers[0])
        self._headers = {header.first_event: header for header in headers}
        if earlier := [header for header in headers if header.first_event < self._position]:
            learn_as_in(learner, earlier[-1])
        self._events = journal.read(learner.n_events, last)
        self._size = _CHUNK
        self._is_over = False
        self._damage: JournalBroken | None = None

    def learn(self, until: int | None = None) -> None:
        """Learn the events before number ``until``, or all.

        Raises:
            JournalBroken: An event is damaged or missing; all before it are learned.
            RelearningFailed: The agent failed; ``__cause__`` is its error.
        """
        stop = self._last if until is None else until
        while chunk := self._next_chunk(stop):
            started = time.perf_counter()
            try:
                self._process(chunk)
            except Exception as error:
                numbers = self._position - len(chunk), self._position - 1
                raise RelearningFailed(*numbers, self._learner.total_steps, error) from error
            # The size changes nothing that is learned.
            self._size = _fitting(self._size, time.perf_counter() - started)
            self._fed(self._learner.take_outbox())
        if self._damage is not None:
            raise self._damage

    def _process(self, chunk: Sequence[JournalEvent]) -> None:
        """Let the learner process all of it: no checkpoint is due to a learner that writes none."""
        if self._before is None:
            self._learner.process(chunk)
            return
        for event in chunk:
            self._before(event)
            self._learner.process((event,))

    def _next_chunk(self, stop: int | None) -> list[JournalEvent]:
        """The next events of one attempt's settings, which apply from the first of them on."""
        chunk: list[JournalEvent] = []
        # At the end the settings stay: those of the next attempt come with its first event.
        if self._position != stop and (header := self._headers.pop(self._position, None)) is not None:
            learn_as_in(self._learner, header)
        while len(chunk) < self._size and self._position != stop and self._position not in self._headers:
            if (event := self._next_event()) is None:
                break
            chunk.append(event)
            self._position += 1
            if isinstance(event, Optimized):  # which may take seconds
                break
        return chunk

    def _next_event(self) -> JournalEvent | None:
        if self._is_over:
            return None
        try:
            _, event = next(self._events, (0, None))
        except JournalBroken as error:
            self._is_over, self._damage = True, error
            return None
        n_steps = 0 if event is None else self._steps_of(event)
        self._is_over = event is None or (n_steps > 0 and self._steps == self._to_step)
        if self._is_over:
            return None
        self._steps += n_steps
        if isinstance(event, Optimized) and self._to_step is not None and self._steps > self._to_step:
            return Optimized(event.n - (self._steps - self._to_step))
        return event

    def _steps_of(self, event: JournalEvent) -> int:
        """How many steps an event is, of which no settings but the learner's present ones can be."""
        if self._learner.config.offline:
            return event.n if isinstance(event, Optimized) else 0
        return int(isinstance(event, Experience))


def _fitting(size: int, took_s: float) -> int:
    """A size for the next chunk: while one is learned, nobody can cancel or see the progress."""
    if took_s > _LONG_S:
        return max(1, size // 2)
    return min(_CHUNK, 2 * size) if took_s < _LONG_S / 4 else size
