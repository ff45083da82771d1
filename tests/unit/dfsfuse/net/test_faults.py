"""What servers did wrong is remembered, shortly."""

from __future__ import annotations

from itertools import count

from dfsfuse.net.faults import MAX_TEXT, Faults


def test_the_last_one_is_told_and_how_many_there_were() -> None:
    faults = Faults(count(100).__next__)
    assert faults.by_server() == {}
    faults.note(3, "sent wrong bytes")
    faults.note(3, "sent digests of another piece")
    faults.note(1, "x" * 10_000)
    assert faults.by_server() == {3: (2, 101, "sent digests of another piece"), 1: (1, 102, "x" * MAX_TEXT)}
