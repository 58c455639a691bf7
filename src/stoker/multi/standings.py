"""How a policy does against its frozen opponents: results, ratings, and which of them it meets next.

Elo (Elo 1978, "The Rating of Chessplayers, Past and Present", section 1.8): a player with rating ``R`` is
expected to score ``E = 1 / (1 + 10^((R_opponent - R) / 400))`` in a game, and ``R`` becomes ``R + K (S - E)``
with the score ``S`` (1, 1/2 or 0) and ``K = 16``. An opponent's rating is that of the learner when it was
frozen, and stands still; the first one has 1000.

``pfsp`` is prioritized fictitious self-play (Vinyals et al. 2019, "Grandmaster level in StarCraft II using
multi-agent reinforcement learning", section "Prioritized fictitious self-play"): opponents are drawn by
``(1 - p)^2``, with the share ``p`` of the score that the learner takes from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Final

import msgspec

from stoker.errors import ConfigError
from stoker.runs.layout import OPPONENTS, STANDINGS
from stoker.runs.metadata import read_json_if_there
from stoker.settings import Natural

if TYPE_CHECKING:  # settings are read without numpy
    import numpy as np

ELO_K: Final = 16.0
FIRST_RATING: Final = 1000.0
_RECENT: Final = 50
"""Games with each opponent that say how strong it is now."""
_LEAST = 1e-3
"""Added to the weight of each opponent under ``pfsp``, so that a beaten one is not forgotten."""
_KINDS: Final = ("latest", "uniform", "pfsp")


class Opponent(msgspec.Struct, kw_only=True):
    """A frozen policy, and how the learner has done against it.

    Attributes:
        step: ``total_steps`` when it was frozen.
        rating: its Elo rating.
        wins, draws, losses: games of the learner against it, by how they ended for the learner.
        recent: the learner's scores in the last games.
    """

    step: Natural
    rating: float = FIRST_RATING
    wins: Natural = 0
    draws: Natural = 0
    losses: Natural = 0
    recent: list[float] = []

    @property
    def win_rate(self) -> float:
        """The share of the score that the learner took in the last games, with a drawn one before them."""
        return (sum(self.recent) + 0.5) / (len(self.recent) + 1)


class Standings(msgspec.Struct, kw_only=True):
    """The learner's rating, and its opponents in the order of their steps.

    Attributes:
        rating: the learner's Elo rating.
        games: how many were played, ever.
        opponents: those that are kept.
    """

    rating: float = FIRST_RATING
    games: Natural = 0
    opponents: list[Opponent] = []

    def add(self, opponent: Opponent, score: float) -> None:
        """Count a game in which the learner scored 1, 1/2 or 0; the opponent may have been removed since."""
        expected = 1 / (1 + 10 ** ((opponent.rating - self.rating) / 400))
        self.rating += ELO_K * (score - expected)
        self.games += 1
        opponent.wins += score > 0.5
        opponent.losses += score < 0.5
        opponent.draws += score == 0.5
        opponent.recent = [*opponent.recent[1 - _RECENT :], score]

    def metrics(self) -> dict[str, float]:
        """The rating, and the win matrix: the share of the score against each opponent in the last games."""
        played = [one for one in self.opponents if one.recent]
        rates = {f"self_play/score/step_{one.step}": fmean(one.recent) for one in played}
        found = {"self_play/elo": self.rating, "self_play/games": float(self.games)}
        if rates:
            found["self_play/score"] = fmean(score for one in played for score in one.recent)
        return {**found, "self_play/opponents": float(len(self.opponents)), **rates}


class Choice(msgspec.Struct, frozen=True):
    """How often each way to choose an opponent is taken.

    Attributes:
        shares: of ``latest``, ``uniform`` and ``pfsp``; they sum to 1.
    """

    shares: dict[str, float]

    @classmethod
    def parse(cls, text: str) -> Choice:
        """Read ``"latest:0.5,uniform:0.5"``, or one name.

        Raises:
            ConfigError: It names another way, or shares that are no positive numbers.
        """
        shares: dict[str, float] = {}
        for part in text.split(","):
            kind, colon, share = part.strip().partition(":")
            try:
                value = float(share) if colon else 1.0
            except ValueError:
                value = 0.0
            if kind not in _KINDS or kind in shares or not 0 < value < float("inf"):
                raise ConfigError(
                    f"choose={text!r}: give {', '.join(_KINDS)}, or shares, as in latest:0.5,uniform:0.5"
                )
            shares[kind] = value
        total = sum(shares.values())
        return cls({kind: share / total for kind, share in shares.items()})

    def pick(self, opponents: Sequence[Opponent], rng: np.random.Generator) -> Opponent:
        """One of at least one opponent."""
        kind = rng.choice(list(self.shares), p=list(self.shares.values()))
        if kind == "latest":
            return opponents[-1]
        if kind == "uniform":
            return opponents[int(rng.integers(len(opponents)))]
        weights = [(1 - one.win_rate) ** 2 + _LEAST for one in opponents]
        total = sum(weights)
        return opponents[int(rng.choice(len(opponents), p=[weight / total for weight in weights]))]


def standings_in(run: Path) -> Standings | None:
    """Those of a run's directory; None: it has none. Blocks.

    Raises:
        RunBroken: They cannot be read.
    """
    return read_json_if_there(run / OPPONENTS / STANDINGS, Standings)


def thinned(steps: Sequence[int], keep: int) -> list[int]:
    """Which of the steps stay, ascending: the newest, the oldest, and between them about evenly many.

    Of those between, the one goes whose neighbors are closest to each other: so the past stays covered.
    """
    kept = sorted(steps)
    while len(kept) > keep:
        if keep == 1:
            return kept[-1:]
        gaps = [kept[place + 1] - kept[place - 1] for place in range(1, len(kept) - 1)]
        del kept[1 + gaps.index(min(gaps))]
    return kept
