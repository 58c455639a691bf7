"""Soft actor-critic: the agent, its acting copy and its settings."""

__all__: list[str] = []
