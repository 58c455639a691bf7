"""From an actor's steps to what an agent learns from: n-step transitions, scaled observations and rewards."""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.processing.moments import RunningMoments as RunningMoments
    from stoker.processing.rewards import RewardScaler as RewardScaler
    from stoker.processing.steps import StepProcessor as StepProcessor
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
