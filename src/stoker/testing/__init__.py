"""Fakes and contract suites for stoker's users and for its own tests."""

from typing import TYPE_CHECKING

from stoker._lazy import lazy_exports

if TYPE_CHECKING:
    from stoker.testing.agent_promises import agent_contract, check_agent
    from stoker.testing.agents import FakeAgent
    from stoker.testing.contract import Check, ContractViolation, run_checks
    from stoker.testing.env_promises import check_env, env_contract
    from stoker.testing.envs import AsyncChainEnv, ChainEnv, CrashingEnv, SlowEnv
    from stoker.testing.recorder_promises import check_recorder, recorder_contract
    from stoker.testing.replay_promises import check_replay, replay_contract
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "AsyncChainEnv": "stoker.testing.envs",
            "ChainEnv": "stoker.testing.envs",
            "Check": "stoker.testing.contract",
            "ContractViolation": "stoker.testing.contract",
            "CrashingEnv": "stoker.testing.envs",
            "FakeAgent": "stoker.testing.agents",
            "SlowEnv": "stoker.testing.envs",
            "agent_contract": "stoker.testing.agent_promises",
            "check_agent": "stoker.testing.agent_promises",
            "check_env": "stoker.testing.env_promises",
            "check_recorder": "stoker.testing.recorder_promises",
            "check_replay": "stoker.testing.replay_promises",
            "env_contract": "stoker.testing.env_promises",
            "recorder_contract": "stoker.testing.recorder_promises",
            "replay_contract": "stoker.testing.replay_promises",
            "run_checks": "stoker.testing.contract",
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
