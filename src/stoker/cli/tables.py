"""Tables on standard output: in color and of the terminal's width, or plain and as wide as they are."""

from __future__ import annotations

from rich.console import Console, RenderableType

__all__ = ["output", "say"]

_UNBOUNDED = 10_000


def output() -> Console:
    """Standard output; where it is no terminal, no line is too long."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_UNBOUNDED)


def say(what: RenderableType = "") -> None:
    """Print something that rich can draw; without a terminal no line ends in spaces."""
    console = output()
    if console.is_terminal:
        console.print(what)
        return
    with console.capture() as drawn:
        console.print(what)
    for line in drawn.get().splitlines():
        print(line.rstrip())
