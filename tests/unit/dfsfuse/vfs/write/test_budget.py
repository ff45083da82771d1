"""The limit on unsaved data."""

from __future__ import annotations

import threading

from dfsfuse.vfs.write.budget import Budget


def test_within_the_limit_nothing_waits() -> None:
    budget = Budget(100)
    assert budget.reserve(60, 0)
    assert budget.reserve(40, 0)
    assert not budget.reserve(1, 0)
    budget.release(1)
    assert budget.reserve(1, 0)
    assert budget.held_bytes == 100


def test_a_single_large_write_passes_when_nothing_is_held() -> None:
    budget = Budget(100)
    assert budget.reserve(1000, 0)
    assert not budget.reserve(1, 0)


def test_without_an_upload_that_makes_room_it_says_so_at_once() -> None:
    budget = Budget(100)
    budget.reserve(100, 0)
    assert not budget.reserve(1, timeout_s=3600)


def test_it_waits_for_an_upload_under_way() -> None:
    budget = Budget(100)
    budget.reserve(100, 0)
    budget.upload_begins()
    got: list[bool] = []
    waiter = threading.Thread(target=lambda: got.append(budget.reserve(50, timeout_s=30)))
    waiter.start()
    budget.release(100)
    budget.upload_ends()
    waiter.join(30)
    assert got == [True]


def test_it_gives_up_when_time_is_up() -> None:
    now = iter(range(100))
    budget = Budget(100, monotonic=lambda: float(next(now)))
    budget.reserve(100, 0)
    budget.upload_begins()
    assert not budget.reserve(1, timeout_s=0.5)
