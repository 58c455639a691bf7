"""The watch over a cluster's head warns once while that does not answer."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

import pytest

from stoker.distributed.head import HeadWatch, head_answers


def test_it_asks_one_question_at_a_time_and_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[Callable[[bool], None]] = []
    watch = HeadWatch("head:6379", asked.append, 100.0)

    def at(seconds: float, *, is_there: bool | None = None) -> list[str]:
        """Tick then, have the question answered, and return what was said."""
        caplog.clear()
        watch.tick(100.0 + seconds)
        if is_there is not None:
            asked.pop()(is_there)
        assert len(asked) <= 1
        return [record.getMessage() for record in caplog.records]

    with caplog.at_level(logging.WARNING, "stoker.distributed"):
        assert at(4.5) == []
        assert asked == []
        assert at(5, is_there=True) == []
        assert at(10, is_there=False) == []
        assert at(15) == []
        (gone,) = at(20, is_there=False)
        assert "head:6379 has not answered for 15 s" in gone
        assert at(25, is_there=False) == []
        assert at(30, is_there=True) == ["the head of the cluster at head:6379 answers again"]
        assert at(35, is_there=False) == []
        assert len(at(40, is_there=False)) == 1


def test_a_port_that_nobody_listens_at_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert not head_answers(f"127.0.0.1:{port}", 5.0)
