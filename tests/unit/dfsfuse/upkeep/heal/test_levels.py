"""Healing waits until the servers' maps are at the same slot, and no longer than it was told to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.fake_cluster import FakeCluster
from support.grid import Fault, Grid

from dfsfuse.errors import StoppedError
from dfsfuse.upkeep.heal.levels import STEP_S, wait_until_level

FOR_S = 20.0


class Waiter:
    """Calls `meanwhile` at each pause, and has a clock of its own."""

    def __init__(self, *applied: int) -> None:
        self.grid = Grid()
        self.cluster = FakeCluster(self.grid)
        for number, slot in enumerate(applied, start=1):
            self.grid[number].applied = slot
        self.now = 0.0
        self.meanwhile: Callable[[], None] = lambda: None
        self.stops = False

    def wait(self, seconds: float) -> bool:
        if seconds:
            assert seconds == STEP_S
            self.now += seconds
            self.meanwhile()
        return self.stops

    def lagging(self, *, is_whole: bool = False) -> set[int]:
        return set(wait_until_level(self.cluster, self.wait, lambda: self.now, FOR_S, is_whole=is_whole))


def test_servers_that_are_level_are_not_waited_for() -> None:
    waiter = Waiter(9, 9, 8, 9)  # the last batch is applied with the next
    assert waiter.lagging(is_whole=True) == set()
    assert waiter.now == 0


def test_one_that_is_behind_is_waited_for_and_what_is_written_meanwhile_is_not() -> None:
    waiter = Waiter(9, 9, 0, 9)

    def goes_on() -> None:
        waiter.grid[1].applied += 10
        if waiter.now >= 3:
            waiter.grid[3].applied = 8
            waiter.grid[2].applied = waiter.grid[4].applied = 9

    waiter.meanwhile = goes_on
    assert waiter.lagging() == set()
    assert waiter.now == 3


def test_one_that_stays_behind_is_named_after_a_while_and_a_silent_one_is_not() -> None:
    waiter = Waiter(9, 9, 3, 0)
    waiter.grid[4].fault = Fault.DOWN
    waiter.cluster.notice_down(4)
    assert waiter.lagging() == {3}
    assert waiter.now == FOR_S


def test_a_damaged_map_is_waited_for_only_where_that_is_wanted() -> None:
    waiter = Waiter(9, 9, 9, 9)
    waiter.grid[2].wants_copy = True
    assert waiter.lagging() == set()
    assert waiter.now == 0

    def copied() -> None:
        waiter.grid[2].wants_copy = waiter.now < 2

    waiter.meanwhile = copied
    assert waiter.lagging(is_whole=True) == set()
    assert waiter.now == 2


def test_it_stops_when_it_is_told_to() -> None:
    waiter = Waiter(9, 0, 9, 9)
    waiter.stops = True
    with pytest.raises(StoppedError):
        waiter.lagging()
