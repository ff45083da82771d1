"""When a scrub is due and how far it has got, without a disk."""

from __future__ import annotations

import pytest

from dfs_server.scrub import schedule as scrub
from dfs_server.scrub.schedule import DAY_S, Progress

NOW = 1_700_000_000
PERIOD_S = 30 * DAY_S
SEGMENT = bytes(range(16))


def test_the_first_pass_is_due_at_once_and_the_next_one_a_period_after_it_began() -> None:
    new = Progress()
    assert new.is_due(NOW, PERIOD_S)
    passed = new.begun(NOW, 10).ended(NOW + 5000, "")
    assert not passed.is_due(NOW + 5000, PERIOD_S)
    assert not passed.is_due(NOW + PERIOD_S - 1, PERIOD_S)
    assert passed.is_due(NOW + PERIOD_S, PERIOD_S)
    assert passed.passed_s == NOW + 5000


def test_a_pass_that_is_under_way_goes_on_where_it_was() -> None:
    progress = Progress().begun(NOW, 10).looked_at(SEGMENT, 2)
    assert progress.is_due(NOW + 1, PERIOD_S)
    again = progress.begun(NOW + 100, 11)
    assert again == progress
    assert (again.position, again.checked, again.pieces) == ((SEGMENT, 2), 1, 10)


def test_a_new_pass_begins_at_the_beginning() -> None:
    passed = Progress().begun(NOW, 10).looked_at(SEGMENT, 2).ended(NOW + 1, "wrong")
    again = passed.begun(NOW + PERIOD_S, 12)
    assert (again.position, again.checked, again.pieces, again.passed_s) == (None, 0, 12, NOW + 1)
    assert again.database == "wrong"


def test_a_clock_that_was_set_back_is_no_reason_to_wait() -> None:
    assert Progress().begun(NOW, 0).ended(NOW, "").is_due(NOW - 1, PERIOD_S)


def test_no_more_is_read_than_so_many_bytes_a_second() -> None:
    assert scrub.pause_s(2_000_000, 8e6) == 0.25


def test_it_is_remembered() -> None:
    progress = Progress().begun(NOW, 10).looked_at(SEGMENT, 2)
    assert scrub.decode(scrub.encode(progress)) == progress


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no json",
        b"[]",
        b'{"format": 2, "began_s": 5}',
        b'{"after": ["no hex", 1], "is_under_way": true}',
        b'{"after": ["00", 1], "is_under_way": true}',
        b'{"after": ["00000000000000000000000000000000", 5], "is_under_way": true}',
        b'{"after": ["00000000000000000000000000000000", 99999999999999999999], "is_under_way": true}',
        b'{"after": 7}',
        b'{"began_s": "late"}',
    ],
)
def test_what_is_no_note_of_ours_is_not_believed(data: bytes) -> None:
    assert scrub.decode(data) is None
