"""Implicit quantile networks: the agent, its acting copy and its settings."""
