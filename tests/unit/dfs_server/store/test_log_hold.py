"""A copy holds the log from the slot where it began, and requests that name later slots do not change that."""

from __future__ import annotations

from dfs_server.store.log_hold import HOLD_S, LogHold


def test_at_first_nothing_is_held() -> None:
    assert LogHold().keeps_after(0.0) is None


def test_each_page_of_a_copy_holds_the_log_anew() -> None:
    hold = LogHold()
    now = 100.0
    for _ in range(20):
        now += HOLD_S - 1.0
        hold = hold.named(7, now)
        assert hold.keeps_after(now + HOLD_S - 0.1) == 7
    assert hold.keeps_after(now + 2 * HOLD_S) is None


def test_reading_the_newest_slot_neither_ends_nor_extends_a_hold() -> None:
    hold = LogHold().named(7, 0.0)
    for tenth in range(1, 300):
        hold = hold.named(90, tenth / 10)
        expected = 7 if tenth / 10 < 2 * HOLD_S else 90
        assert hold.keeps_after(tenth / 10) == expected


def test_a_hold_begins_though_another_one_ends() -> None:
    """One client asked for the very first batch, and then a copy of slot 7 began."""
    hold = LogHold().named(0, 0.0).named(7, HOLD_S - 0.1).named(7, 2 * HOLD_S - 0.1)
    assert hold.keeps_after(2 * HOLD_S - 0.1) == 0
    assert hold.keeps_after(2 * HOLD_S) == 7
