"""The page over a runs directory, and its API: read-only, live, and mountable in other applications."""

__all__: list[str] = []
