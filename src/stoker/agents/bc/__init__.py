"""Behavior cloning: the agent, its acting copy and its settings."""

__all__: list[str] = []
