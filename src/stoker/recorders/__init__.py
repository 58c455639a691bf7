"""Where the numbers of a training go besides the run directory."""

__all__: list[str] = []
