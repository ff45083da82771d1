"""A withdrawn operation changes nothing from then on; its thread can do something else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.clock import Clock
from support.fake_log import FakeLog, SharedLog, family_of
from support.withdrawing import withdraw_this_thread

from dfsfuse.common import withdrawal
from dfsfuse.namespace.map.log_map import LogMap
from dfsfuse.namespace.map.transactions import Transaction


@pytest.fixture(autouse=True)
def nothing_is_withdrawn() -> Iterator[None]:
    yield
    withdrawal.forget()
    withdrawal.over()


def test_it_gives_up_until_it_does_something_else() -> None:
    withdrawal.check()
    assert withdraw_this_thread()
    with pytest.raises(InterruptedError):
        withdrawal.check()
    with pytest.raises(InterruptedError):
        withdrawal.pass_point()
    withdrawal.forget()
    withdrawal.check()
    withdrawal.pass_point()


def test_it_is_too_late_past_the_point() -> None:
    withdrawal.pass_point()
    assert not withdraw_this_thread()
    withdrawal.check()
    withdrawal.over()
    assert withdraw_this_thread()


def test_a_change_that_was_not_sent_is_not_made_behind_what_others_did() -> None:
    """Their change came first, so this one would have to be made again."""
    shared, clock = SharedLog({b"a": b"0"}), Clock()
    log = FakeLog(shared, clock)
    store = LogMap(log, family_of, clock, clock.sleep)  # type: ignore[arg-type]

    def others_come_first() -> None:
        shared.put(a="theirs")
        withdraw_this_thread()

    def change(tx: Transaction) -> None:
        tx.get(b"a")
        tx.put(b"a", b"mine")

    log.before_commit.append(others_come_first)
    with pytest.raises(InterruptedError):
        store.transact(change, durable=False)
    assert shared.map == {b"a": b"theirs"}


def test_a_change_that_is_on_its_way_and_a_save_are_made() -> None:
    shared, clock = SharedLog(), Clock()
    log = FakeLog(shared, clock)
    store = LogMap(log, family_of, clock, clock.sleep)  # type: ignore[arg-type]
    log.before_commit.append(lambda: withdraw_this_thread() or None)
    store.transact(lambda tx: tx.put(b"a", b"1"), durable=False)
    store.transact(lambda tx: tx.put(b"b", b"2"))
    assert shared.map == {b"a": b"1", b"b": b"2"}
