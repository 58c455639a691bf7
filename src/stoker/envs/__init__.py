"""Environments: one awaitable interface to plain, slow and async ones, and the seeds of episodes."""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.envs.gym import make_gym as make_gym
    from stoker.envs.joint import (
        CheckedJointEnv as CheckedJointEnv,
        JointEnv as JointEnv,
        JointStep as JointStep,
        Outcome as Outcome,
        shared_spaces as shared_spaces,
    )
    from stoker.envs.masks import ActionMaskObservation as ActionMaskObservation
    from stoker.envs.pettingzoo import joint_env as joint_env, make_pettingzoo as make_pettingzoo
    from stoker.envs.protocol import (
        AsyncEnv as AsyncEnv,
        ResetResult as ResetResult,
        Stepping as Stepping,
        StepResult as StepResult,
    )
    from stoker.envs.seeding import episode_seed as episode_seed
    from stoker.envs.stacking import stack_frames as stack_frames
    from stoker.envs.stepping import (
        CLOSE_GRACE_S as CLOSE_GRACE_S,
        PlayedEnv as PlayedEnv,
        make_played as make_played,
        played as played,
    )
    from stoker.envs.wrapping import EnvWrapper as EnvWrapper
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
