"""Deep Q-learning: the agent, its acting copy and its settings."""
