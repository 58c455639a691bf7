"""stoker: an async, event-driven coordinator for reinforcement-learning training."""
