"""Which regions are read ahead."""

from __future__ import annotations

from dfsfuse.data.extents import REGION_BYTES
from dfsfuse.vfs.read.read_ahead import ReadAhead

STEP = 128 * 1024


def test_a_sequential_run_fetches_each_region_once_and_two_ahead() -> None:
    ahead = ReadAhead()
    given = [region for at in range(0, 4 * REGION_BYTES, STEP) for region in ahead.regions(at, STEP)]
    assert given == [0, 1, 2, 3, 4, 5]


def test_the_first_read_fetches_nothing_ahead() -> None:
    assert not ReadAhead().regions(0, STEP)


def test_reads_a_little_out_of_order_are_sequential_still() -> None:
    ahead = ReadAhead()
    ahead.regions(0, STEP)
    assert ahead.regions(2 * STEP, STEP)
    assert not ahead.regions(STEP, STEP)
    assert list(ahead.regions(REGION_BYTES, STEP)) == []
    assert list(ahead.regions(REGION_BYTES + STEP, STEP)) == []
    assert list(ahead.regions(REGION_BYTES + 2 * STEP, STEP)) == [1, 2, 3]


def test_random_reads_fetch_nothing() -> None:
    ahead = ReadAhead()
    for offset in (0, 50 * REGION_BYTES, 3 * REGION_BYTES, 90 * REGION_BYTES):
        assert not ahead.regions(offset, 4096)


def test_of_random_reads_one_may_go_on_by_chance() -> None:
    ahead = ReadAhead()
    for offset in (7 * REGION_BYTES, 50 * REGION_BYTES, 50 * REGION_BYTES + 8192, 3 * REGION_BYTES):
        assert not ahead.regions(offset, 4096)


def test_a_reader_that_begins_in_the_middle_is_taken_as_sequential_one_read_later() -> None:
    ahead = ReadAhead()
    found = [list(ahead.regions(9 * REGION_BYTES + at, STEP)) for at in range(0, 4 * STEP, STEP)]
    assert found == [[], [], [9, 10, 11], []]
