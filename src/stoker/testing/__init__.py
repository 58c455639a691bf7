"""Fakes and contract suites for stoker's users and for its own tests."""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.testing.agent_promises import agent_contract, check_agent
    from stoker.testing.contract import Check, ContractViolation, run_checks
    from stoker.testing.env_promises import check_env, env_contract
    from stoker.testing.fakes import AsyncChainEnv, ChainEnv, CrashingEnv, FakeAgent, SlowEnv
    from stoker.testing.recorder_promises import check_recorder, recorder_contract
    from stoker.testing.replay_promises import check_replay, replay_contract
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "stoker.testing.agent_promises": "agent_contract check_agent",
            "stoker.testing.contract": "Check ContractViolation run_checks",
            "stoker.testing.env_promises": "check_env env_contract",
            "stoker.testing.fakes": "AsyncChainEnv ChainEnv CrashingEnv FakeAgent SlowEnv",
            "stoker.testing.recorder_promises": "check_recorder recorder_contract",
            "stoker.testing.replay_promises": "check_replay replay_contract",
        },
    )

__all__ = [
    "AsyncChainEnv",
    "ChainEnv",
    "Check",
    "ContractViolation",
    "CrashingEnv",
    "FakeAgent",
    "SlowEnv",
    "agent_contract",
    "check_agent",
    "check_env",
    "check_recorder",
    "check_replay",
    "env_contract",
    "recorder_contract",
    "replay_contract",
    "run_checks",
]
