"""Normalized scores (Fu et al. 2020, section 5): 0 is a random policy, 100 an expert. Never made up."""

from __future__ import annotations

import re

_PUBLISHED = {
    "hopper": (-20.272305, 3234.3),
    "halfcheetah": (-280.178953, 12135.0),
    "walker2d": (1.629008, 4592.3),
}
"""The scores of a random policy and of an expert in D4RL's ``infos.py``, by environment."""

_ENV = re.compile(r"(hopper|halfcheetah|walker2d)-v[2-4]", re.IGNORECASE)
"""What D4RL's data of these environments were recorded in, and the versions that behave as that one does."""


def reference_scores(env_id: str) -> tuple[float, float] | None:
    """The scores of a random policy and of an expert that were published for an environment, or None."""
    found = _ENV.fullmatch(env_id)
    return None if found is None else _PUBLISHED[found[1].lower()]


def normalized_score(score: float, references: tuple[float, float]) -> float:
    """The score on the scale from 0, a random policy, to 100, an expert."""
    low, high = references
    return 100 * (score - low) / (high - low)
