"""Figures of matplotlib in the house style: made, labeled, saved. matplotlib is imported when one is made."""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stoker.errors import ConfigError, StokerError
from stoker.importing import required

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SUFFIXES = (".png", ".svg", ".pdf")
# Okabe and Ito's colors, which stay apart for color-blind eyes, without the yellow that is faint on white.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)))
_INK, FAINT, _EDGE, _GRID = "#1F2328", "#656D76", "#C4C9CF", "#E7E9EC"
_AXIS_NAME: dict[str, Any] = {"color": _INK, "fontsize": 9.5, "labelpad": 7}
_TITLE: dict[str, Any] = {"size": 12.5, "weight": "bold"}
_WIDTH = 9.0
_CHARACTERS = 118
"""How many characters of the legend fit beside each other."""
_LONGEST = 70
"""Of a longer name the middle is left out."""


class Look(NamedTuple):
    """How a curve is told from the others: by its color, and beyond seven curves by its dashes, too."""

    color: str
    dashes: Any


def looks() -> Iterator[Look]:
    """A look for each of any number of curves."""
    return itertools.cycle(Look(color, dashes) for dashes in _DASHES for color in _COLORS)


def new_figure(title: str, *, x: str, above: str, below: str) -> tuple[Figure, Any, Any]:
    """A figure with two axes, one above the other.

    Args:
        title: what to write above the axes.
        x: the name of their common x axis.
        above: that of the upper y axis.
        below: that of the lower one.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    figure: Any = _empty(title, 5.8)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2.9, 1))
    for axes, name in ((upper, above), (lower, below)):
        _style(axes)
        axes.set_ylabel(name, **_AXIS_NAME)
    upper.tick_params(axis="x", length=0)
    lower.yaxis.get_major_locator().set_params(nbins=4)
    lower.set_xlabel(x, **_AXIS_NAME)
    return figure, upper, lower


def new_panels(title: str, names: Sequence[str], *, x: str, y: str) -> tuple[Figure, list[Any]]:
    """A figure with one small picture for each name, each with axes of its own.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    n_columns = min(len(names), 2 if len(names) in (2, 4) else 3)
    n_rows = -(-len(names) // n_columns)
    figure: Any = _empty(title, 0.9 + 2.9 * n_rows)
    every: list[Any] = figure.subplots(n_rows, n_columns, squeeze=False).ravel().tolist()
    for axes in every[len(names) :]:
        axes.remove()
    for place, (axes, name) in enumerate(zip(every, names, strict=False)):
        _style(axes)
        axes.set_title(_text(name), loc="left", color=_INK, fontsize=10)
        axes.xaxis.get_major_locator().set_params(nbins=6)
        if place % n_columns == 0:
            axes.set_ylabel(y, **_AXIS_NAME)
        if place + n_columns >= len(names):
            axes.set_xlabel(x, **_AXIS_NAME)
    return figure, every[: len(names)]


def _empty(title: str, height: float) -> Figure:
    """A figure without axes; a notebook displays it, whether or not pyplot is imported."""
    figures = required("matplotlib.figure", "plot", "matplotlib")
    figure: Any = figures.Figure(figsize=(_WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
    figure._repr_png_ = partial(_png, figure)
    if title:
        figure.suptitle(_text(title), x=0.012, ha="left", color=_INK, **_TITLE)
    return figure


def _style(axes: Any) -> None:
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_EDGE)
    axes.tick_params(colors=FAINT, labelsize=9, length=0, pad=5)
    axes.tick_params(axis="x", length=3, color=_EDGE)
    axes.xaxis.set_major_formatter(_tick)
    axes.yaxis.set_major_formatter(_tick)
    axes.margins(x=0.01)


def legend(figure: Any, names: Sequence[str], lines: Sequence[Any]) -> None:
    """The names of the curves, above the axes, where they hide nothing; the title is moved above them."""
    if not lines:
        return
    longest = max(min(len(name), _LONGEST) for name in names)
    title = figure.get_suptitle()
    if title:
        figure.suptitle("")  # it would lie on the legend
    drawn = figure.legend(
        lines,
        list(map(_text, names)),
        title=title or None,
        title_fontproperties=_TITLE,
        alignment="left",
        loc="outside upper left",
        ncols=max(1, min(len(names), _CHARACTERS // (longest + 7))),
        frameon=False,
        fontsize=9,
        labelcolor=_INK,
        handlelength=1.6,
        handletextpad=0.6,
        columnspacing=1.6,
    )
    drawn.get_title().set_color(_INK)


def caption(figure: Any, text: str) -> None:
    """What the signs mean, in small letters at the bottom."""
    figure.supxlabel(text, x=0.985, ha="right", fontsize=8, color=FAINT)


def checked_target(path: Path) -> Path:
    """The path, if a figure can be saved under that name.

    Raises:
        ConfigError: The name has another suffix.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise ConfigError(f"{path}: the name of a figure's file must end with {', '.join(_SUFFIXES)}")
    return path


def save_figure(figure: Any, path: Path) -> None:
    """Save a figure under a name that ``checked_target`` has accepted. Blocks.

    Raises:
        StokerError: The file cannot be written.
    """
    try:
        _write(figure, path, dpi=150)
    except OSError as error:
        raise StokerError(f"cannot write {path}: {error.strerror or error}") from error


def _png(figure: Any) -> bytes:
    data = io.BytesIO()
    _write(figure, data, format="png", dpi=100)
    return data.getvalue()


def _write(figure: Any, target: Any, **how: Any) -> None:
    with warnings.catch_warnings():
        # A name in letters that the font lacks is drawn with boxes; a line for each letter helps nobody.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(target, **how)


def _text(name: str) -> str:
    """A name from outside as it is drawn: no formula, no control characters, not longer than the figure."""
    if len(name) > _LONGEST:
        name = f"{name[: _LONGEST // 2]}…{name[-_LONGEST // 2 :]}"
    shown = "".join(letter if letter.isprintable() else "?" for letter in name)
    return shown.replace("$", r"\$")


def _tick(value: float, _: int) -> str:
    """A number at an axis: 0.25, 500, 2.5k, 1M."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.6g}{unit}".replace("-", "\N{MINUS SIGN}")
    return f"{value:.6g}".replace("-", "\N{MINUS SIGN}")
