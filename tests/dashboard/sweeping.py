"""What a page must have for everybody: contrast, names for what can be operated, an order of the focus.

Each function looks at the page as it is shown, and returns one text for each fault. The contrast is that of
WCAG 2.1, 1.4.3: 4.5 for text, 3 for large text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

_SOURCE = Path(__file__).with_name("sweeping.js").read_text(encoding="utf-8")


def low_contrast(page: Any) -> list[str]:
    """Texts that are too faint."""
    return _asked(page, "lowContrast")


def nameless(page: Any) -> list[str]:
    """What a screen reader cannot tell."""
    return _asked(page, "nameless")


def overflowing(page: Any) -> list[str]:
    """What makes the page scroll sideways."""
    return _asked(page, "overflowing")


def markup_of_runs(page: Any) -> list[str]:
    """Markup that the page itself never makes."""
    return _asked(page, "markup")


def unreachable(page: Any, most: int) -> list[str]:
    """Go through the page with the tab key: is each place marked, and is the order that of the page?"""
    faults: list[str] = []
    seen: list[dict[str, Any]] = []
    page.evaluate("() => { document.activeElement?.blur(); scrollTo(0, 0) }")
    for _ in range(most):
        page.keyboard.press("Tab")
        found = _asked(page, "focus")
        if found is None:
            break
        if seen and found["key"] == seen[-1]["key"]:
            faults.append(f"the focus stays on {found['text']!r}")
        if not found["isMarked"]:
            faults.append(f"{found['text']!r} does not show that it has the focus")
        before = seen[-1] if seen else found
        if not found["isShown"]:
            faults.append(f"the focus is on {found['text']!r}, which is not seen")
        is_above = found["top"] < before["top"] - 60 and found["left"] <= before["left"]
        if found["view"] == before["view"] and is_above:
            faults.append(f"from {before['text']!r} the focus goes up to {found['text']!r}")
        seen.append(found)
    if len(seen) < min(most, 5):
        last = seen[-1]["text"] if seen else "the beginning"
        faults.append(f"behind {last!r}, the {len(seen)}th place, the tab key leads nowhere")
    return faults


def _asked(page: Any, function: str) -> Any:
    return page.evaluate(f"{_SOURCE.strip()}.{function}()")
