"""Fakes and contract suites for stoker's users and for its own tests."""

from stoker.testing.agents import FakeAgent
from stoker.testing.envs import AsyncChainEnv, ChainEnv, CrashingEnv, SlowEnv

__all__ = ["AsyncChainEnv", "ChainEnv", "CrashingEnv", "FakeAgent", "SlowEnv"]
