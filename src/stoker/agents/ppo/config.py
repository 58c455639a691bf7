"""The settings of PPO. Free of torch, so that they can be read, checked and printed without it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from stoker.agents.config import AgentConfig, Schedule
from stoker.settings import Count, Fraction, NonNegative, Positive


class PPOConfig(AgentConfig, frozen=True, kw_only=True):
    """How a PPO agent learns."""

    rollout_steps: Count = 2_048
    """Transitions in a rollout, over all actors; each full rollout is one update."""

    n_epochs: Count = 10
    """Passes over the rollout in one update."""

    gae_lambda: Fraction = 0.95
    """Lambda of the generalized advantage: 0 looks one step ahead, 1 to the end of the rollout."""

    clip_range: Positive = 0.2
    """Largest relative change of an action's probability; beyond it, the gradient is cut off."""

    clip_range_schedule: Schedule = "constant"
    """Whether clip_range is constant or decays linearly to 0 over schedule_steps."""

    value_clip_range: Positive | None = None
    """Largest change of a value; beyond it, the gradient is cut off. None: no limit."""

    normalize_advantages: bool = True
    """Normalize the advantages of each batch to mean 0 and standard deviation 1."""

    ent_coef: NonNegative = 0.0
    """Weight of the entropy bonus: larger values keep the policy random for longer."""

    vf_coef: NonNegative = 0.5
    """Weight of the value loss."""

    max_grad_norm: Positive | None = 0.5
    """Largest norm of the gradient over all weights; larger ones are scaled down. None: unchanged."""

    target_kl: Positive | None = None
    """End an update early once the KL divergence exceeds 1.5 times this; none: never."""

    activation: Literal["tanh", "relu"] = "tanh"
    """Activation function of an mlp."""

    log_std_init: Annotated[float, Meta(ge=-20, le=20)] | None = None
    """Initial log standard deviation of continuous actions; it is learned. none: 0, or -2 for that of each
    feature with state_dependent_exploration."""

    state_dependent_exploration: bool = False
    """Explore smoothly: the noise of continuous actions is a function of the state (gSDE), drawn from time to
    time."""

    sde_sample_freq: Count = 4
    """Steps for which an actor keeps its noise, within an episode, with state_dependent_exploration."""

    adam_eps: Positive = 1e-5
    """Adam's epsilon."""

    def clip_range_at(self, total_steps: int) -> float:
        """The clip range after that many environment steps, which alone decide it."""
        return self.clip_range * self._share_left(self.clip_range_schedule, total_steps)
