"""Warnings and errors that stoker logs: who hears them, and that a program prints what it printed before."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from stoker.cli.main import ended
from stoker.errors import ActorFailed, ConfigError
from stoker.notices import KNOWN, Notice, hear, hear_no_more, traceback_of

logger = logging.getLogger("stoker.anywhere")


@contextmanager
def heard() -> Iterator[list[Notice]]:
    notices: list[Notice] = []
    hear(notices.append)
    try:
        yield notices
    finally:
        hear_no_more(notices.append)


def failed_step() -> ValueError:
    with pytest.raises(ValueError, match="diverged") as caught:
        raise ValueError("diverged")
    return caught.value


def failed_call() -> Exception:
    """An error of code that a function of stoker calls."""
    with pytest.raises(ValueError, match="diverged") as caught:
        ended(lambda: int("diverged"))
    return caught.value


def test_warnings_and_errors_are_heard_by_all_until_they_hear_no_more() -> None:
    with heard() as first:
        with heard() as second:
            logger.warning("%d rows", 3)
            logger.info("nothing")
            logger.error("known already", extra=KNOWN)
        logger.critical("all")
    logger.warning("too late")
    assert second == [Notice("warning", "stoker.anywhere", "3 rows", None)]
    assert first == [*second, Notice("error", "stoker.anywhere", "all", None)]
    hear_no_more(first.append)
    assert not [one for one in logging.getLogger("stoker").handlers if "notices" in type(one).__module__]


def test_an_error_comes_with_its_traceback() -> None:
    with heard() as notices:
        logger.warning("a step failed", exc_info=failed_step())
    [notice] = notices
    assert notice.traceback is not None
    assert 'raise ValueError("diverged")' in notice.traceback
    assert notice.traceback.endswith("ValueError: diverged")


def test_a_traceback_is_that_of_the_first_cause_unless_stoker_raised_it() -> None:
    failure = ActorFailed(3, 2, 60.0, failed_step())
    assert str(traceback_of(failure)).endswith("ValueError: diverged")
    frames = [line for line in str(traceback_of(failed_call())).splitlines() if line.startswith("  File")]
    assert len(frames) == 1
    assert __file__ in frames[0]
    assert traceback_of(ConfigError("gamma=2: give at most 1")) is None


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("", "full\n"),
        ("logging.basicConfig(format='mine: %(message)s')", "mine: full\n"),
        ("logging.getLogger('stoker.disk').addHandler(logging.NullHandler())", ""),
    ],
)
def test_what_a_program_prints_stays_the_same(before: str, expected: str) -> None:
    program = f"""
import logging
from stoker.notices import hear
{before}
hear(id)
hear(id)
logging.getLogger("stoker.disk").warning("full")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == expected


def test_a_forked_child_hears_only_for_itself() -> None:
    program = """
import logging, os
from stoker.notices import hear
logger = logging.getLogger("stoker")
logger.addHandler(logging.NullHandler())
def say(who):
    hear(lambda notice: os.write(1, f"{who} heard {notice.text};".encode()))
say("parent")
if os.fork():
    os.wait()
    logger.warning("parent")
else:
    logger.warning("nothing")
    say("child")
    logger.warning("child")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("child heard child;parent heard parent;", "")
