"""Behavior cloning: the agent, its acting copy and its settings."""
