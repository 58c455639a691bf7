"""Answers that several viewers ask for are made once, and not kept for ever."""

from __future__ import annotations

from stoker.dashboard.responses import Bodies


def test_an_answer_is_made_once_while_there_is_room() -> None:
    made: list[str] = []

    def make(tag: str) -> bytes:
        made.append(tag)
        return tag.encode() * 10

    bodies = Bodies(most_bytes=25)
    for tag in ("a", "b", "a", "c", "b", "a"):
        assert bodies.get(tag, lambda tag=tag: make(tag)) == tag.encode() * 10
    assert made == ["a", "b", "c", "a"]
