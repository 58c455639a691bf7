"""Advantage-weighted actor-critic: the agent and its settings."""

__all__: list[str] = []
