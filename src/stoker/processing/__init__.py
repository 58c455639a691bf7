"""From an actor's steps to what an agent learns from: n-step transitions, scales of what is seen and got.

Per actor, so that interleaved actors never mix, and right at an episode's end for either reason.
"""

from stoker.processing.moments import RunningMoments
from stoker.processing.n_step import NStepWindows
from stoker.processing.rewards import RewardScaler
from stoker.processing.steps import StepProcessor

__all__ = ["NStepWindows", "RewardScaler", "RunningMoments", "StepProcessor"]
