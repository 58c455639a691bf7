"""Episodes come back from files as they went in, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from given_episodes import SPACES, episodes, fields, info

from stoker.data import open_dataset, write_dataset
from stoker.nested import difference

FORMATS = ["npz"]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", SPACES)
def test_episodes_come_back_to_the_bit(tmp_path: Path, name: str, kind: Any) -> None:
    given = episodes(name)
    path = tmp_path / "data" / f"all.{kind}"
    seen: list[int] = []
    written = write_dataset(
        iter(given), info(name, env_id="Some-v0", ref_max_score=9.5), path, kind, watch=seen.append
    )
    assert (written.path, written.n_episodes, written.n_steps, seen) == (path, 3, 14, [14])
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    with open_dataset(path) as dataset:
        for _ in range(2):
            assert difference(fields([*dataset.episodes()]), fields(given)) is None
        found = dataset.info
    assert (found.observation_space, found.action_space) == SPACES[name]
    assert (found.env_id, found.n_episodes, found.n_steps, found.ref_max_score) == ("Some-v0", 3, 14, 9.5)
    assert (found.format, found.spaces_are_inferred, found.source) == (kind, False, str(path))
