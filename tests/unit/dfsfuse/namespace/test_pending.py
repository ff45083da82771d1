"""The queue of answered changes: order, portions, merging, and what is told of those that are lost."""

from __future__ import annotations

from dfs_server.protocol.messages import Change
from dfsfuse.cluster.log_state import Contents, News
from dfsfuse.errors import LostError, UnavailableError
from dfsfuse.namespace.map_cache import MapCache, Unknown
from dfsfuse.namespace.pending import FULL_BYTES, FULL_CHANGES, PORTION_BYTES, Pending, PendingChange
from dfsfuse.namespace.views import CachedView


def add(
    pending: Pending,
    key: bytes,
    value: bytes | None = b"v",
    *,
    reads: bytes = b"",
    is_awaited: bool = False,
) -> PendingChange:
    cache = MapCache(lambda _key: None)
    cache.fetched([reads], [b"read"])
    view = CachedView(cache)
    if reads:
        view.get(reads)
    if value is None:
        view.delete(key)
    else:
        view.put(key, value)
    return pending.add(view.contents(), view, is_awaited=is_awaited)


def test_portions_are_of_bounded_size_and_in_order() -> None:
    pending = Pending()
    changes = [add(pending, b"%d" % number, bytes(PORTION_BYTES // 3)) for number in range(5)]
    assert pending.portion() == changes[:2]
    pending.committed(changes[:2])
    assert [change.done for change in changes] == [True, True, False, False, False]
    assert list(pending) == changes[2:]
    assert pending.last is changes[-1]


def test_one_that_is_larger_than_a_portion_goes_alone() -> None:
    pending = Pending()
    large = add(pending, b"large", bytes(PORTION_BYTES + 1))
    add(pending, b"small")
    assert pending.portion() == [large]


def test_merged_they_do_what_they_did_one_after_the_other() -> None:
    pending = Pending()
    add(pending, b"a", b"1")
    add(pending, b"b", b"2")
    add(pending, b"a", None)
    add(pending, b"b", b"3")
    assert Pending.merged(pending.portion()) == Contents(puts=((b"b", b"3"),), deletes=(b"a",))


def test_what_was_known_before_those_that_wait() -> None:
    pending = Pending()
    cache = MapCache(lambda _key: None)
    cache.fetched([b"a"], [b"0"])
    changes = []
    for value in (b"1", b"2"):
        view = CachedView(cache)
        view.put(b"a", value)
        view.put(b"blind", value)
        changes.append(pending.add(view.contents(), view, is_awaited=False))
        cache.changed_here([(b"a", value), (b"blind", value)], [])
    before = pending.before()
    assert before[b"a"] == b"0" and isinstance(before[b"blind"], Unknown)
    pending.committed(changes[:1])
    assert pending.before() == {b"a": b"1", b"blind": b"1"}


def test_a_single_change_is_its_own_batch() -> None:
    pending = Pending()
    change = add(pending, b"a")
    assert Pending.merged(pending.portion()) is change.contents


def test_full_by_bytes_or_by_number() -> None:
    pending = Pending()
    for number in range(FULL_CHANGES + 1):
        assert not pending.is_full
        add(pending, b"%d" % number)
    assert pending.is_full
    pending.committed(list(pending))
    assert not pending.is_full
    while not pending.is_full:
        add(pending, b"k", bytes(PORTION_BYTES))
    assert len(pending) <= FULL_BYTES // PORTION_BYTES + 1


def test_touched_is_what_any_of_them_has_read() -> None:
    pending = Pending()
    add(pending, b"a", reads=b"r")
    add(pending, b"b")
    assert pending.touched_by(News([Change(1, b"", b"rival", 1, (b"r",))]))
    assert not pending.touched_by(News([Change(1, b"", b"rival", 1, (b"a", b"b"))]))


def test_what_is_lost_is_told_to_who_waits_and_once_for_those_whom_nobody_waited_for() -> None:
    pending = Pending()
    awaited = add(pending, b"a", is_awaited=True)
    failure = UnavailableError("no quorum")
    assert pending.lose(failure) == 1
    assert awaited.done and awaited.failure is failure
    assert pending.losses.take() is None
    other = add(pending, b"b")
    assert pending.lose(failure) == 1
    assert other.done and not len(pending) and not pending.is_full
    told = pending.losses.take()
    assert isinstance(told, LostError), "whoever hears of it does not take it for a refusal, and try again"
    assert "no quorum" in str(told)
    assert pending.losses.take() is None
