"""Implicit Q-learning: the agent and its settings."""

__all__: list[str] = []
