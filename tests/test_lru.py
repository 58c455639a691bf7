"""The bounded dict: the most recently put keys stay, in the order in which they were put."""

from __future__ import annotations

from hypothesis import given, strategies as st

from stoker.lru import LRUDict


@given(st.lists(st.integers(0, 9)), st.integers(1, 5))
def test_the_most_recently_put_keys_stay(keys: list[int], max_size: int) -> None:
    kept: LRUDict[int, int] = LRUDict(max_size)
    for number, key in enumerate(keys):
        kept.put(key, number)
        kept.get(keys[0])  # a read does not make a key recent
    latest = {key: number for number, key in enumerate(keys)}
    assert list(kept.items()) == sorted(latest.items(), key=lambda item: item[1])[-max_size:]
