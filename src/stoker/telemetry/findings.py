"""What a profile says of each part, and by how much the training can gain.

The bounds are operational laws (Denning and Buzen 1978, "The Operational Analysis of Queueing Network
Models"). A part that is busy for the share U of the time at the throughput X needs D = U / X per step, and
does 1 / D at most: whatever else changes, the throughput is at most X / U. With the busiest part twice as
fast it is at most X / max(U / 2, U of the next one). N actors that each spend Z per step outside that part
do at most N / (D + Z).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from stoker.telemetry.profiles import Profile

Culprit = Literal[
    "interpreter lock",
    "forward passes",
    "event loop",
    "evaluation",
    "disk",
    "learner",
    "queue",
    "environments",
    "actors",
    "recorder",
    "processors",
    "none",
]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that limits a training, or a part that does not keep up beside it.

    Attributes:
        culprit: the part.
        text: what was measured, and what follows.
        speedup: the most that the training would gain if that part were twice as fast, or there were twice as
            many of it; None: no law says.
        remedy: what to change.
    """

    culprit: Culprit
    text: str
    speedup: float | None = None
    remedy: str = ""


class Measured:
    """What the rules ask of a profile.

    Args:
        profile: of the training.
        offline: whether it trains on a data set, where steps are optimization steps and nobody plays.
    """

    def __init__(self, profile: Profile, *, offline: bool = False) -> None:
        self.profile = profile
        self.offline = offline
        self.share: Callable[..., float] = profile.share
        share = self.share
        self.learner: float = share("learner", "observing", "learning", "publishing", "staging")
        self.handover: float = share("learner", "handover")
        self.loop: float = share("loop", "running", "starved", "blocked")
        self.passes: float = share("inference", "computing", "offloaded")
        self.disk: float = max(1 - share("writer", "idle"), 0.0) if "writer" in profile.shares else 0.0
        self.stepping: float = share("actors", "stepping", "resetting", "starting")
        self.n_actors: int = round(profile.actors or 0)
        self.has_actors: bool = "actors" in profile.shares
        in_env = self.n_actors * self.stepping
        self.steps_inline: bool = self.has_actors and 0.6 * self.loop <= in_env <= 1.1
        """Whether the event loop steps the environments: then one at most is in a step, and the loop too."""

    def next_busy(self, *without: str) -> tuple[float, str]:
        """The busiest of the other parts, and its name in a sentence."""
        parts = {
            "learner": (self.learner, "the learner"),
            "loop": (self.loop, "the event loop"),
            "passes": (self.share("inference", "offloaded"), "forward passes"),
        }
        return max(busy for name, busy in parts.items() if name not in without)

    def bound(self, busy: float, *without: str, rest: float = 0.0) -> tuple[float, str]:
        """The most that the training gains if a part this busy is twice as fast; and why, in words.

        Args:
            busy: the share of the time that the part would need half of.
            without: the parts that this is about.
            rest: the share that it would need as before.
        """
        other, name = self.next_busy(*without)
        left = max(busy / 2 + rest, 0.01)
        if other > left:
            return max(1.0, 1 / other), f", for {name} is busy {percent(other)}"
        return max(1.0, 1 / left), ""


def percent(share: float) -> str:
    """The share in words: whole percents, or tenths below ten."""
    return f"{100 * share:.0f} %" if share >= 0.0995 or share < 0.0005 else f"{100 * share:.1f} %"
