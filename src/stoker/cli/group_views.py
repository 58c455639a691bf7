"""Views of a training of several policies: a table with a line for each, or plain lines."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from functools import partial

import msgspec
from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from stoker.multi import MultiAgentSession
from stoker.trainer.views.tables import fitting_table
from stoker.trainer.views.text import duration, number
from stoker.trainer.views.view import LiveView, ScreenThread, View, is_live

_LINE_S, _RATE_S = 5.0, 10.0
"""Seconds between two plain lines, and that the speed is over."""
_BAR = 24

_WIDTHS = {
    "policy": 6,
    "steps": 9,
    "episodes": 8,
    "reward": 8,
    "length": 6,
    "eval": 8,
    "best": 8,
    "updates": 9,
}
_SPARE = ("updates", "length", "episodes", "eval", "steps", "best")
"""What a narrow terminal has no room for, in this order."""


class PolicyReading(msgspec.Struct, frozen=True, kw_only=True):
    """One policy at one moment; None where there is nothing yet."""

    name: str
    steps: int
    episodes: int
    reward: float | None
    length: float | None
    evaluation: float | None
    best: float | None
    updates: int


class GroupReading(msgspec.Struct, frozen=True, kw_only=True):
    """A group at one moment. The speed is in joint steps per second, over the last 10 s."""

    joint_steps: int
    limit: int
    steps_per_s: float
    elapsed_s: float
    policies: tuple[PolicyReading, ...]

    @property
    def eta_s(self) -> float | None:
        """Seconds until the limit at this speed."""
        return (self.limit - self.joint_steps) / self.steps_per_s if self.steps_per_s > 0 else None


class GroupScreen:
    """Shows a group that trains, from a thread: a slow terminal does not delay its actors.

    Args:
        console: where to.
        title: above the table.
        limit: joint steps of the training.
        progress: whether to show more than lines that are said.
    """

    def __init__(self, console: Console, title: str, limit: int, *, progress: bool) -> None:
        self._console = console
        self._limit = limit
        self._view: View[GroupReading] | None = None
        if progress and is_live(console):
            self._view = LiveView(
                console, lambda reading: drawn(reading, title, console.width), shows_cursor=True
            )
        elif progress:
            self._view = _GroupLines(console)
        self._began_s = time.monotonic()
        self._samples: deque[tuple[float, int]] = deque()

    def say(self, text: str) -> None:
        """Print a line beside the view."""
        with contextlib.suppress(OSError):  # the terminal is gone; the training continues
            self._console.print(text, soft_wrap=True, markup=False, highlight=False, emoji=False)

    async def follow(self, session: MultiAgentSession) -> None:
        """Show the group until cancelled, and then its last state."""
        if self._view is None:
            return
        await ScreenThread(self._view).show_to_the_end(partial(self.read, session))

    def read(self, session: MultiAgentSession) -> GroupReading:
        """The group now."""
        now, steps = time.monotonic(), session.joint_steps
        self._samples.append((now, steps))
        while len(self._samples) > 2 and now - self._samples[0][0] > _RATE_S:
            self._samples.popleft()
        then, steps_then = self._samples[0]
        return GroupReading(
            joint_steps=steps,
            limit=self._limit,
            steps_per_s=(steps - steps_then) / (now - then) if now > then else 0.0,
            elapsed_s=now - self._began_s,
            policies=tuple(_policy(session, name) for name in session.sessions),
        )


class _GroupLines(View[GroupReading]):
    """A line every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown_at = time.monotonic()

    def show(self, reading: GroupReading, *, last: bool = False) -> None:
        """Print a line when one is due."""
        if time.monotonic() - self._shown_at >= _LINE_S:
            self._shown_at = time.monotonic()
            self._console.out(line_of(reading), highlight=False)


def _policy(session: MultiAgentSession, name: str) -> PolicyReading:
    one = session.sessions[name]
    found = one.telemetry()
    return PolicyReading(
        name=name,
        steps=one.total_steps,
        episodes=one.total_episodes,
        reward=found.episode_reward,
        length=found.episode_length,
        evaluation=found.eval_reward,
        best=one.best_value,
        updates=one.opt_steps,
    )


def drawn(reading: GroupReading, title: str, width: int) -> RenderableType:
    """The progress of the group, and a line for each policy."""
    parts = (
        f"{reading.joint_steps:,}/{reading.limit:,} joint steps",
        f"{reading.steps_per_s:,.0f}/s",
        f"ETA {duration(reading.eta_s)}",
        f"elapsed {duration(reading.elapsed_s)}",
    )
    said = Text("  ".join(parts))
    head = Table.grid(padding=(0, 2, 0, 0))
    bar = ProgressBar(total=max(reading.limit, 1), completed=reading.joint_steps, width=_BAR)
    head.add_row(*[bar] * (len(said) + _BAR + 2 <= width), said)
    table = fitting_table(_WIDTHS, [_cells(policy) for policy in reading.policies], _SPARE, width)
    return Group(Text(title, style="bold"), head, table)


def _cells(policy: PolicyReading) -> list[Text]:
    values = map(number, (policy.reward, policy.length, policy.evaluation, policy.best))
    numbers = (f"{policy.steps:,}", f"{policy.episodes:,}", *values, f"{policy.updates:,}")
    return [Text(policy.name, style="bold cyan"), *map(Text, numbers)]


def line_of(reading: GroupReading) -> str:
    """The group in one line."""
    parts = [f"  {reading.joint_steps:,}/{reading.limit:,} joint steps  {reading.steps_per_s:,.0f}/s"]
    for policy in reading.policies:
        reward = f"reward {number(policy.reward)}"
        parts.append(f"{policy.name}: {reward}, {policy.episodes:,} episodes")
    return "   ".join(parts)
