"""Twin delayed deep deterministic policy gradients: the agent, its acting copy and its settings."""
