"""Advantage-weighted actor-critic: the agent and its settings."""
