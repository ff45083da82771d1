"""When silence means that servers are slow, and when that one is gone."""

from __future__ import annotations

import pytest

from dfsfuse.net.health.slowness import LATE_S, SLOW_S, TOGETHER_S, are_slow, is_waited_for, stood_still_s

NOW = 1000.0
SILENT = NOW - TOGETHER_S
HEARD = NOW - TOGETHER_S / 2


@pytest.mark.parametrize(
    ("owed_since", "slow"),
    [
        ({}, False),
        ({1: SILENT}, False),
        ({1: SILENT, 2: SILENT - 100}, False),
        ({1: SILENT, 2: SILENT, 3: HEARD}, False),
        ({1: SILENT, 2: SILENT, 3: HEARD, 4: HEARD}, False),
        ({1: SILENT, 2: SILENT, 3: SILENT}, True),
        ({1: SILENT, 2: HEARD, 3: SILENT, 4: SILENT}, True),
        ({1: SILENT, 2: SILENT, 3: SILENT, 4: SILENT - 100}, True),
    ],
)
def test_one_or_two_that_are_silent_hang_and_three_are_slow_together(owed_since: dict[int, float], slow: bool) -> None:
    assert are_slow(owed_since, NOW) == slow


def test_nothing_is_waited_for_forever() -> None:
    assert is_waited_for(NOW - SLOW_S + 1, NOW)
    assert not is_waited_for(NOW - SLOW_S, NOW)


@pytest.mark.parametrize(
    ("looked_at", "due_at", "now", "still_s"),
    [
        (0.0, 3.0, 3.0, 0.0),
        (0.0, 3.0, 3.0 + LATE_S, 0.0),
        (0.0, 3.0, 10.0, 7.0),
        (5.0, 3.0, 10.0, 5.0),
        (0.0, 3.0, 1.0, 0.0),
    ],
)
def test_a_process_that_wakes_late_did_not_run(looked_at: float, due_at: float, now: float, still_s: float) -> None:
    assert stood_still_s(looked_at, due_at, now) == still_s
