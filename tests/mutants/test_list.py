"""Do the lists of mutants fit the source and the tests? ``make mutants`` runs them."""

from __future__ import annotations

import msgspec
import pytest
from mutant_lists import areas, errors_of, read

EVERY = [each for area in areas() for each in read(area)]


def test_each_mutant_fits_the_source_and_its_killers_exist() -> None:
    assert {name: wrong for name, mutant in EVERY if (wrong := list(errors_of(mutant)))} == {}


def test_no_mutant_stands_twice() -> None:
    faults = [(mutant.file, mutant.old, mutant.new) for _, mutant in EVERY]
    assert [fault for fault in set(faults) if faults.count(fault) > 1] == []


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"file": "nowhere.py"}, "No such file"),
        ({"old": "occurs nowhere"}, "0 times"),
        ({"old": "import"}, "times instead of once"),
        ({"new": "a syntax error"}, "invalid syntax"),
        ({"why": "no sentence"}, "sentence"),
        ({"killers": []}, "no test"),
        ({"killers": ["tests/test_queues.py::test_that_is_gone"]}, "does not exist"),
        ({"killers": ["tests/test_gone.py::test_one"]}, "does not exist"),
    ],
)
def test_an_entry_that_no_longer_fits_is_found(changes: dict[str, object], error: str) -> None:
    fits = next(each for each in EVERY if each.name == "queues:1").mutant
    (found,) = errors_of(msgspec.structs.replace(fits, **changes))
    assert error in found
