"""How a training looks while it goes on: in a terminal, in a notebook, in plain lines. Free of torch."""

__all__: list[str] = []
