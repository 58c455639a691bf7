"""What is played: one awaitable face over plain, slow and async environments, and how episodes are seeded."""

from stoker.envs.affinity import CLOSE_GRACE_S
from stoker.envs.gym import make_gym
from stoker.envs.kinds import AutoEnv, AwaitedEnv, InlineEnv, ThreadedEnv
from stoker.envs.protocol import AsyncEnv, PlayedEnv, ResetResult, Stepping, StepResult
from stoker.envs.seeding import episode_seed
from stoker.envs.stacking import stack_frames, stacked
from stoker.envs.stepping import make_played, played

__all__ = [
    "CLOSE_GRACE_S",
    "AsyncEnv",
    "AutoEnv",
    "AwaitedEnv",
    "InlineEnv",
    "PlayedEnv",
    "ResetResult",
    "StepResult",
    "Stepping",
    "ThreadedEnv",
    "episode_seed",
    "make_gym",
    "make_played",
    "played",
    "stack_frames",
    "stacked",
]
