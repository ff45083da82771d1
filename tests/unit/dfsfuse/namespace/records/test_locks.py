"""The table of locks compared with a model that tracks each byte, and POSIX's rules on ranges."""

from __future__ import annotations

import errno

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfsfuse.namespace.records import locks
from dfsfuse.namespace.records.locks import END_OF_ALL, LOCKS_MAX, Lock

BYTES = 12
HOLDERS = [(b"one", 1, False), (b"one", 2, False), (b"two", 1, False), (b"two", 1, True)]


def lock(holder: locks.Holder, start: int, end: int, *, exclusive: bool = True) -> Lock:
    session, owner, is_flock = holder
    return Lock(session, owner, is_flock, exclusive, start, end)


ranges = st.tuples(st.integers(0, BYTES - 1), st.integers(0, BYTES - 1)).map(lambda pair: (min(pair), max(pair)))
steps = st.lists(st.tuples(st.sampled_from(HOLDERS), ranges, st.sampled_from(["share", "exclude", "end"])), max_size=40)


class Model:
    """The holder of each byte, and the kind of its lock."""

    def __init__(self) -> None:
        self.bytes: dict[tuple[int, locks.Holder], bool] = {}

    def free_for(self, wanted: Lock) -> bool:
        return not any(
            holder != wanted.holder
            and holder[2] == wanted.is_flock
            and wanted.start <= at <= wanted.end
            and (exclusive or wanted.is_exclusive)
            for (at, holder), exclusive in self.bytes.items()
        )


def check(table: locks.Locks, model: Model) -> None:
    shown = {(at, one.holder): one.is_exclusive for one in table for at in range(one.start, one.end + 1)}
    assert shown == model.bytes
    assert len(shown) == sum(one.end - one.start + 1 for one in table), "no byte may be locked twice by one holder"
    for one in table:
        for other in table:
            assert one is other or not one.excludes(other)
            if one is not other and one.holder == other.holder and one.is_exclusive == other.is_exclusive:
                assert one.end + 1 != other.start, "equal neighbours must be merged"


@settings(max_examples=300)
@given(steps)
def test_the_table_is_what_each_byte_says(todo: list[tuple[locks.Holder, tuple[int, int], str]]) -> None:
    table: locks.Locks = ()
    model = Model()
    for holder, (start, end), what in todo:
        wanted = lock(holder, start, end, exclusive=what == "exclude")
        if what == "end":
            table = locks.without(table, holder, start, end)
            for at in range(start, end + 1):
                model.bytes.pop((at, holder), None)
        else:
            obstacle = locks.in_the_way(table, wanted)
            assert (obstacle is None) == model.free_for(wanted)
            if obstacle is not None:
                assert obstacle in table
                assert obstacle.overlaps(start, end)
                continue
            table = locks.with_lock(table, wanted)
            model.bytes.update({(at, holder): wanted.is_exclusive for at in range(start, end + 1)})
        check(table, model)
        assert locks.decode(locks.encode(table)) == table


@settings(max_examples=200)
@given(steps, st.sampled_from(HOLDERS), ranges, st.booleans())
def test_a_lock_can_be_taken_back(
    todo: list[tuple[locks.Holder, tuple[int, int], str]],
    holder: locks.Holder,
    where: tuple[int, int],
    exclusive: bool,
) -> None:
    table: locks.Locks = ()
    for who, (start, end), what in todo:
        wanted = lock(who, start, end, exclusive=what == "exclude")
        if locks.in_the_way(table, wanted) is None:
            table = locks.with_lock(table, wanted)
    wanted = lock(holder, *where, exclusive=exclusive)
    if locks.in_the_way(table, wanted) is not None:
        return
    before = locks.held_by(table, holder, *where)
    again = locks.without(locks.with_lock(table, wanted), holder, *where)
    for one in before:
        again = locks.with_lock(again, one)
    assert set(again) == set(table)


def test_a_lock_in_the_middle_splits_and_joins() -> None:
    one = HOLDERS[0]
    table = locks.with_lock((), lock(one, 0, 99))
    table = locks.with_lock(table, lock(one, 40, 59, exclusive=False))
    assert sorted((x.start, x.end, x.is_exclusive) for x in table) == [(0, 39, True), (40, 59, False), (60, 99, True)]
    assert locks.with_lock(table, lock(one, 40, 59)) == (lock(one, 0, 99),)
    assert locks.without(table, one) == ()


def test_the_last_byte_of_all() -> None:
    table = locks.with_lock((), lock(HOLDERS[0], 5, END_OF_ALL))
    table = locks.without(table, HOLDERS[0], END_OF_ALL, END_OF_ALL)
    assert [(x.start, x.end) for x in table] == [(5, END_OF_ALL - 1)]
    assert locks.with_lock(table, lock(HOLDERS[0], END_OF_ALL, END_OF_ALL)) == (lock(HOLDERS[0], 5, END_OF_ALL),)


def test_the_owner_may_be_any_number_of_the_kernel() -> None:
    table = (lock((b"\xff" * 8, 2**64 - 1, True), 0, END_OF_ALL),)
    assert locks.decode(locks.encode(table)) == table


def test_too_many_are_refused() -> None:
    with pytest.raises(OSError, match="more than") as caught:
        locks.encode(tuple(lock(HOLDERS[0], 2 * at, 2 * at) for at in range(LOCKS_MAX + 1)))
    assert caught.value.errno == errno.ENOLCK


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x92\x01", msgspec.msgpack.encode([99, []]), b"\x91" * 5000])
def test_what_is_no_record_is_an_error(data: bytes) -> None:
    with pytest.raises(OSError, match="record") as caught:
        locks.decode(data)
    assert caught.value.errno == errno.EIO
    assert locks.decode(None) == ()
