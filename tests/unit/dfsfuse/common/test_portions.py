"""Items are cut into portions: none is lost, no portion is too large, and the order stays."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dfsfuse.common.portions import by_bytes, by_count

SIZES = st.lists(st.integers(0, 12), max_size=20)


@given(SIZES, st.integers(1, 5))
def test_by_count(items: list[int], count: int) -> None:
    portions = list(by_count(iter(items), count))
    assert [item for portion in portions for item in portion] == items
    assert all(len(portion) == count for portion in portions[:-1])
    assert all(1 <= len(portion) <= count for portion in portions)


@given(SIZES, st.integers(1, 20), st.integers(1, 5))
def test_by_bytes(items: list[int], most_bytes: int, count: int) -> None:
    portions = list(by_bytes(items, most_bytes, int, count))
    assert [item for portion in portions for item in portion] == items
    assert all(len(portion) == 1 or (sum(portion) <= most_bytes and len(portion) <= count) for portion in portions)
    for portion, following in pairwise(portions):
        assert len(portion) == count or sum(portion) + following[0] > most_bytes, "the portion had room for one more"
