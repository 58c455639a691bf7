"""Implicit Q-learning: the agent and its settings."""
