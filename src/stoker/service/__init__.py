"""A training as a service: remote actors in any language send numbered records, and get actions back."""

__all__: list[str] = []
