"""Proximal policy optimization: the agent, its acting copy and its settings."""
