"""What a service says of itself: ``GET /v1/spec``, which is also in the welcome of a stream."""

from __future__ import annotations

from typing import Any

import msgspec

from stoker import __version__
from stoker.agents.protocol import HasPolicyModule, HasReplay
from stoker.protocol import Spec, SpecLimits, spaces_digest
from stoker.protocol.messages import TrainingState
from stoker.service.hosting import Hosted


def spec_of(hosted: Hosted) -> Spec:
    """What a client must know before its first record."""
    session, described = hosted.session, hosted.described
    run: Any = getattr(session, "run", None)
    features = ["spaces-from-client"] * hosted.are_spaces_from_client
    if run is not None:
        features.append("durable")
    agent, learns = getattr(session, "agent", None), getattr(session, "learns", True)
    if isinstance(agent, HasReplay):
        features.append("off-policy")
    if isinstance(agent, HasPolicyModule) or not learns:
        features.append("policy")
    return Spec(
        version=__version__,
        training=_training(hosted),
        mode="training" if learns else "inference",
        limits=msgspec.convert(hosted.limits, SpecLimits, from_attributes=True),
        spaces=described,
        spaces_digest=None if described is None else spaces_digest(described),
        action_mask=None if hosted.service is None else hosted.service.codec.mask_length,
        features=features,
        run=None if run is None else run.metadata.name,
        run_id=None if run is None else run.metadata.run_id,
        policy_version=getattr(session, "policy_version", None),
    )


def _training(hosted: Hosted) -> TrainingState:
    if hosted.service is not None:
        return hosted.service.training
    return "opening" if hosted.failure is None else "failing"
