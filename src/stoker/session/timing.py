"""The states of a session's parts, by the indices with which their clocks enter them."""

from __future__ import annotations

from typing import Final

LEARNER_STATES: Final = (
    "waiting", "handover", "delivering", "saving", "observing", "learning", "publishing", "staging",
)  # fmt: skip
"""Waiting for events; on the way between its thread and the event loop; handing results to callers and to the
writer, which has no room while the disk is slow; waiting until the checkpoint before is on disk; taking
events; in ``agent.learn``; copying weights for the actors; copying the state for a checkpoint."""
WAITING, HANDOVER, DELIVERING, SAVING, OBSERVING, LEARNING, PUBLISHING, STAGING = range(len(LEARNER_STATES))

INFERENCE_STATES: Final = ("idle", "gathering", "computing", "offloaded")
"""Nobody waits for an action; actors wait until all that are ready have asked; a forward pass on the event
loop; one in its own thread."""
IDLE, GATHERING, COMPUTING, OFFLOADED = range(len(INFERENCE_STATES))
