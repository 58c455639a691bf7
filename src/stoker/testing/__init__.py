"""Fakes and contract suites for stoker's users and for its own tests."""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.testing.agent_promises import check_agent as check_agent
    from stoker.testing.contract import (
        Check as Check,
        ContractViolation as ContractViolation,
        run_checks as run_checks,
    )
    from stoker.testing.env_promises import check_env as check_env
    from stoker.testing.fakes import (
        AsyncChainEnv as AsyncChainEnv,
        ChainEnv as ChainEnv,
        CrashingEnv as CrashingEnv,
        FakeAgent as FakeAgent,
        SlowEnv as SlowEnv,
    )
    from stoker.testing.joint_promises import check_joint_env as check_joint_env
    from stoker.testing.recorder_promises import check_recorder as check_recorder
    from stoker.testing.replay_promises import check_replay as check_replay
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
