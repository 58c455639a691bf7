"""Conservative Q-learning for discrete actions: the agent and its settings. It acts as DQN does."""
