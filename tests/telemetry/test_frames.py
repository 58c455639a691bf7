"""Looking at another thread's frame."""

from __future__ import annotations

import gc
import sys
import threading

import pytest

from stoker.telemetry.frames import frame_of


def test_no_garbage_is_collected_while_frames_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    collected_inside: list[bool] = []
    is_inside = False
    real = sys._current_frames

    def current_frames() -> object:
        nonlocal is_inside
        is_inside = True
        try:
            return [real() for _ in range(20)][-1]
        finally:
            is_inside = False

    def note(*_: object) -> None:
        collected_inside.append(is_inside)

    monkeypatch.setattr(sys, "_current_frames", current_frames)
    before = gc.get_threshold()
    gc.callbacks.append(note)
    gc.set_threshold(1)
    try:
        for _ in range(20):
            assert frame_of(threading.get_ident()) is not None
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(note)
    assert collected_inside
    assert not any(collected_inside)
    assert gc.isenabled()
    assert frame_of(0) is None
