"""A repeated line is logged once, with the number of repetitions that were suppressed."""

from __future__ import annotations

from dfsfuse.mount.repetition import MAX_LINES, QUIET_S, Repetition


def test_a_line_is_told_once_and_then_counted() -> None:
    repetition = Repetition()
    assert repetition.worth_logging("read: P1 is missing", 100.0) == "read: P1 is missing"
    for number in range(5):
        assert repetition.worth_logging("read: P1 is missing", 100.1 + number) is None
    assert repetition.worth_logging("read: P2 is missing", 101.0) == "read: P2 is missing"
    again = repetition.worth_logging("read: P1 is missing", 100.0 + QUIET_S)
    assert again == "read: P1 is missing (and 5 more times since it was last logged)"


def test_its_memory_is_bounded() -> None:
    repetition = Repetition()
    for number in range(3 * MAX_LINES):
        assert repetition.worth_logging(f"line {number}", 100.0) == f"line {number}"
    assert len(repetition._told) <= MAX_LINES
