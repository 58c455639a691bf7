"""The table in the output of a notebook's cell. Needs no widgets."""

from __future__ import annotations

import io
import sys
from importlib import import_module
from typing import Any

from rich.console import Console

from stoker.trainer.views.panel import draw
from stoker.trainer.views.readings import Reading

__all__ = ["NotebookView", "in_notebook"]

_WIDTH, _HEIGHT = 88, 45
_HTML = '<pre style="line-height: 1.25; white-space: pre; overflow-x: auto">{code}</pre>'


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, which displays HTML."""
    ipython = sys.modules.get("IPython")
    shell: Any = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


class NotebookView:
    """The table, replaced in place; in a saved notebook the last one remains.

    Args:
        title: what is trained on what.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._handle: Any = None

    def show(self, reading: Reading, *, last: bool = False) -> None:
        """Replace what is displayed."""
        console = Console(file=io.StringIO(), record=True, width=_WIDTH, force_jupyter=False)
        console.print(draw(reading, self._title, width=_WIDTH, height=_HEIGHT))
        html = console.export_html(inline_styles=True, code_format=_HTML, clear=False)
        shown = {"text/plain": console.export_text(), "text/html": html}
        if self._handle is None:
            display: Any = import_module("IPython.display").display
            self._handle = display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)

    def close(self) -> None:
        """Nothing to put back."""
