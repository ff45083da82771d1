"""Which unsaved files are due, and when. The clock is passed in."""

from __future__ import annotations

from dfsfuse.vfs.write.schedule import FEW_FILES, LATE_FACTOR, MOMENTS, RETRY_MAX_S, RETRY_S, Schedule

ALL = 100


def test_a_file_is_due_when_its_oldest_data_has_the_age_and_until_it_is_saved() -> None:
    schedule = Schedule(1.0)
    assert schedule.next_s() is None
    schedule.add(7, 10.0)
    schedule.add(8, 10.5)
    assert (schedule.next_s(), schedule.due(10.9, ALL)) == (11.0, [])
    assert schedule.due(11.0, ALL) == [7]
    assert schedule.due(11.0, ALL) == [7]
    schedule.saved(7)
    assert (schedule.next_s(), schedule.oldest_s()) == (11.5, 10.5)
    schedule.saved(8)
    assert (schedule.next_s(), schedule.oldest_s(), len(schedule)) == (None, None, 0)


def test_what_was_written_since_the_save_counts_from_then() -> None:
    schedule = Schedule(1.0)
    schedule.add(7, 10.0)
    schedule.add(7, 12.0)
    assert schedule.due(12.5, ALL) == []
    assert schedule.next_s() == 13.0


def test_what_is_asked_for_is_due_at_once_after_what_has_the_age() -> None:
    schedule = Schedule(1.0)
    schedule.add(1, 10.0)
    schedule.add(2, 10.9)
    schedule.add(3, 10.8)
    schedule.ask(2)
    schedule.ask(3)
    assert schedule.next_s() == float("-inf")
    assert schedule.due(11.0, ALL) == [1, 2, 3]
    assert schedule.due(11.0, ALL) == [1]


def test_a_group_has_a_limit_and_what_is_left_follows() -> None:
    schedule = Schedule(1.0)
    for ino in range(10):
        schedule.add(ino, float(ino))
        schedule.ask(ino)
    seen: list[int] = []
    while due := schedule.due(5.0, 3):
        assert len(due) <= 3
        seen += due
        for ino in due:
            schedule.saved(ino)
    assert sorted(seen) == list(range(10))


def test_what_was_asked_for_is_answered_though_it_was_saved_meanwhile() -> None:
    schedule = Schedule(1.0)
    schedule.add(1, 10.0)
    schedule.ask(1)
    schedule.saved(1)
    assert schedule.due(10.0, ALL) == [1]
    assert schedule.next_s() is None


def test_servers_that_are_away_are_asked_less_and_less_often_and_then_at_once_again() -> None:
    schedule, now_s, waits = Schedule(1.0), 100.0, []
    schedule.add(1, 50.0)
    for _ in range(6):
        assert schedule.due(now_s, ALL) == [1]
        schedule.failed(now_s)
        assert schedule.is_failing
        next_s = schedule.next_s()
        assert next_s is not None
        assert schedule.due(next_s - 0.01, ALL) == []
        waits.append(next_s - now_s)
        now_s = next_s
    assert waits == [RETRY_S, 2 * RETRY_S, 4 * RETRY_S, RETRY_MAX_S, RETRY_MAX_S, RETRY_MAX_S]
    schedule.succeeded()
    assert not schedule.is_failing
    assert schedule.due(now_s - 1, ALL) == [1]


def test_a_file_that_cannot_be_saved_delays_no_other() -> None:
    schedule = Schedule(1.0)
    schedule.add(1, 10.0)
    schedule.add(2, 10.1)
    schedule.postpone(1, 11.0)
    assert schedule.due(11.5, ALL) == [2]
    assert schedule.oldest_s() == 10.1
    assert schedule.due(11.0 + RETRY_S, ALL) == [2, 1]
    schedule.postpone(1, 12.0)
    assert schedule.due(12.0 + RETRY_S, ALL) == [2]
    schedule.saved(2)
    assert schedule.next_s() == 12.0 + 2 * RETRY_S
    schedule.saved(1)
    assert schedule.next_s() is None


def test_writers_of_a_file_wait_when_it_is_late_and_can_be_saved() -> None:
    schedule = Schedule(2.0)
    assert not schedule.is_late(1000.0, 1)
    schedule.add(1, 10.0)
    late_s = 10.0 + 2.0 * LATE_FACTOR
    assert not schedule.is_late(late_s, 1)
    assert schedule.is_late(late_s + 0.01, 1)
    schedule.postpone(1, 12.0)
    assert not schedule.is_late(1000.0, 1)
    schedule.saved(1)
    schedule.add(1, 10.0)
    schedule.failed(12.0)
    assert not schedule.is_late(1000.0, 1)


def test_others_wait_when_the_oldest_of_many_is_late() -> None:
    schedule = Schedule(2.0)
    for ino in range(FEW_FILES):
        schedule.add(ino, 10.0 + ino)
    late_s = 10.0 + 2.0 * LATE_FACTOR
    for other in (None, 99):
        assert not schedule.is_late(1000.0, other)
    schedule.add(FEW_FILES, 999.0)
    for other in (None, 99):
        assert not schedule.is_late(late_s, other)
        assert schedule.is_late(late_s + 0.01, other)
    schedule.failed(12.0)
    assert not schedule.is_late(1000.0)


def test_files_that_were_written_at_different_moments_are_due_together() -> None:
    schedule = Schedule(1.0)
    for ino in range(1000):
        schedule.add(ino, 10.0 + ino / 1000)
    moments, now_s = list[float](), 10.0
    while (next_s := schedule.next_s()) is not None:
        assert next_s > now_s
        now_s = next_s
        moments.append(now_s)
        due = schedule.due(now_s, 1000)
        assert due
        for ino in due:
            assert 1.0 <= now_s - (10.0 + ino / 1000) <= 1.0 + 1.0 / MOMENTS
            schedule.saved(ino)
    assert len(moments) <= MOMENTS + 1
