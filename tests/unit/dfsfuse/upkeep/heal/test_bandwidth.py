"""The token bucket, with a clock of its own."""

from __future__ import annotations

import pytest

from dfsfuse.upkeep.heal.bandwidth import Bucket

MB = 1_000_000


def moved_in(seconds: float, bucket: Bucket, size: int) -> int:
    """Return how many bytes are moved if each move is instant and waits as long as the bucket says."""
    now, moved = 1000.0, 0
    while (now := now + bucket.take(size, now)) <= 1000 + seconds:
        moved += size
    return moved


@pytest.mark.parametrize("size", [1000, MB, 5 * MB])
def test_what_flows_is_the_rate_whatever_the_portions(size: int) -> None:
    moved = moved_in(100, Bucket(10 * MB), size)
    assert 100 * 10 * MB <= moved <= 101 * 10 * MB + size


def test_what_is_not_used_is_saved_up_for_a_second_only() -> None:
    bucket = Bucket(10 * MB)
    assert bucket.take(MB, 0.0) == 0
    assert bucket.take(10 * MB, 500.0) == 0
    assert bucket.take(10 * MB, 500.0) == 0
    assert bucket.take(1, 500.0) == pytest.approx(1.0)


def test_where_little_flows_it_flows_in_small_portions() -> None:
    assert Bucket(None).portion_bytes(8 * MB) == Bucket(100 * MB).portion_bytes(8 * MB) == 8 * MB
    assert Bucket(MB).portion_bytes(8 * MB) == MB // 2


def test_without_a_limit_nothing_waits() -> None:
    assert Bucket(None).take(10**12, 0.0) == Bucket(None).take(10**12, 0.0) == 0


def test_a_rate_that_would_never_end() -> None:
    with pytest.raises(ValueError, match="never end"):
        Bucket(0)
