"""Soft actor-critic: the agent, its acting copy and its settings."""
