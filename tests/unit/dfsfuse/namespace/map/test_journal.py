"""Answered changes that wait for their commit: order, portions, merging, rivals, doubt, and the reporting of losses."""

from __future__ import annotations

from dfs_server.protocol.messages import Change
from dfsfuse.errors import LostError, MaybeDoneError, UnavailableError
from dfsfuse.log.state import Contents, News
from dfsfuse.namespace.map.cache import MapCache, Unknown
from dfsfuse.namespace.map.journal import FULL_BYTES, FULL_CHANGES, PORTION_BYTES, Doubt, Journal, PendingChange
from dfsfuse.namespace.map.views import CachedView


def add(
    journal: Journal,
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
    return journal.add(view.contents(), view, is_awaited=is_awaited)


def test_portions_are_of_bounded_size_and_in_order() -> None:
    journal = Journal()
    changes = [add(journal, b"%d" % number, bytes(PORTION_BYTES // 3)) for number in range(5)]
    assert journal.portion() == changes[:2]
    journal.committed(changes[:2])
    assert [change.done for change in changes] == [True, True, False, False, False]
    assert list(journal) == changes[2:]
    assert journal.last is changes[-1]


def test_one_that_is_larger_than_a_portion_goes_alone() -> None:
    journal = Journal()
    large = add(journal, b"large", bytes(PORTION_BYTES + 1))
    add(journal, b"small")
    assert journal.portion() == [large]


def test_merged_they_do_what_they_did_one_after_the_other() -> None:
    journal = Journal()
    add(journal, b"a", b"1")
    add(journal, b"b", b"2")
    add(journal, b"a", None)
    add(journal, b"b", b"3")
    assert Journal.merged(journal.portion()) == Contents(puts=((b"b", b"3"),), deletes=(b"a",))


def test_what_was_known_before_those_that_wait() -> None:
    journal = Journal()
    cache = MapCache(lambda _key: None)
    cache.fetched([b"a"], [b"0"])
    changes = []
    for value in (b"1", b"2"):
        view = CachedView(cache)
        view.put(b"a", value)
        view.put(b"blind", value)
        changes.append(journal.add(view.contents(), view, is_awaited=False))
        cache.changed_here([(b"a", value), (b"blind", value)], [])
    before = journal.before()
    assert before[b"a"] == b"0" and isinstance(before[b"blind"], Unknown)
    journal.committed(changes[:1])
    assert journal.before() == {b"a": b"1", b"blind": b"1"}


def test_a_single_change_is_its_own_batch() -> None:
    journal = Journal()
    change = add(journal, b"a")
    assert Journal.merged(journal.portion()) is change.contents


def test_full_by_bytes_or_by_number() -> None:
    journal = Journal()
    for number in range(FULL_CHANGES + 1):
        assert not journal.is_full
        add(journal, b"%d" % number)
    assert journal.is_full
    journal.committed(list(journal))
    assert not journal.is_full
    while not journal.is_full:
        add(journal, b"k", bytes(PORTION_BYTES))
    assert len(journal) <= FULL_BYTES // PORTION_BYTES + 1


def test_a_portion_in_doubt_leaves_as_soon_as_it_is_known_to_be_made() -> None:
    journal = Journal()
    sent, later = add(journal, b"a", b"1"), add(journal, b"b")
    journal.is_in_doubt(7)
    journal.doubt = Doubt(MaybeDoneError("no answer"), 7, 0, [sent])
    journal.is_chosen(6)
    assert list(journal) == [sent, later]
    journal.is_chosen(7)
    assert (list(journal), journal.doubt, sent.done, sent.failure) == ([later], None, True, None)
    assert journal.was_made(7)
    journal.is_chosen(7)
    assert list(journal) == [later]


def test_touched_is_what_any_of_them_has_read() -> None:
    journal = Journal()
    add(journal, b"a", reads=b"r")
    add(journal, b"b")
    assert journal.is_overtaken_by(News([Change(1, b"", b"rival", 1, (b"r",))]))
    assert not journal.is_overtaken_by(News([Change(1, b"", b"rival", 1, (b"a", b"b"))]))


def test_a_loss_is_reported_to_each_waiter_and_once_for_changes_without_a_waiter() -> None:
    journal = Journal()
    awaited = add(journal, b"a", is_awaited=True)
    failure = UnavailableError("no quorum")
    assert journal.lose(failure) == 1
    assert awaited.done and awaited.failure is failure
    assert journal.losses.take() is None
    other = add(journal, b"b")
    assert journal.lose(failure) == 1
    assert other.done and not len(journal) and not journal.is_full
    told = journal.losses.take()
    assert isinstance(told, LostError), "the caller must not take it for a refusal, and try again"
    assert "no quorum" in str(told)
    assert journal.losses.take() is None
