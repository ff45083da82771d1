"""The view of one run: what it reads, its own changes, missing keys; and whether others changed what it has read."""

from __future__ import annotations

import pytest

from dfs_server.protocol.batches import InlinePiece
from dfs_server.protocol.messages import Change
from dfsfuse.errors import TooLargeError
from dfsfuse.log.state import Contents, News
from dfsfuse.namespace.map.cache import MapCache
from dfsfuse.namespace.map.views import MAX_CONTENTS_BYTES, CachedView, MissingError


@pytest.fixture
def view() -> CachedView:
    cache = MapCache(lambda key: b"d/" if key.startswith(b"d/") else None)
    cache.fetched([b"a", b"b"], [b"1", None])
    cache.fetched_family(b"d/", [(b"d/x", b"X"), (b"d/y", b"Y")])
    return CachedView(cache)


def news(*keys: bytes) -> News:
    return News([Change(1, b"", b"rival", 1, keys)])


def test_what_is_missing_is_named(view: CachedView) -> None:
    with pytest.raises(MissingError):
        view.get(b"z")
    assert view.missing == [b"z"]
    with pytest.raises(MissingError):
        view.get_many([b"a", b"y", b"z"])
    assert view.missing == [b"y", b"z"]
    with pytest.raises(MissingError):
        view.scan(b"a", b"c")
    assert view.missing_range == (b"a", b"c")


def test_own_changes_are_seen_everywhere(view: CachedView) -> None:
    view.put(b"z", b"new")
    view.delete(b"a")
    view.put(b"d/xx", b"XX")
    view.delete(b"d/y")
    assert view.get_many([b"z", b"a", b"d/xx", b"d/y"]) == [b"new", None, b"XX", None]
    assert view.scan(b"d/", b"d0") == [(b"d/x", b"X"), (b"d/xx", b"XX")]
    assert view.contents() == Contents(puts=((b"z", b"new"), (b"d/xx", b"XX")), deletes=(b"a", b"d/y"))


def test_the_last_change_of_a_key_counts(view: CachedView) -> None:
    view.delete(b"a")
    view.put(b"a", b"2")
    view.put(b"b", b"3")
    view.delete(b"b")
    assert view.contents() == Contents(puts=((b"a", b"2"),), deletes=(b"b",))


def test_a_drop_or_a_piece_is_a_change_too(view: CachedView) -> None:
    assert not view.changes_anything()
    view.drop(b"s" * 16)
    view.drop(b"s" * 16)
    assert view.changes_anything()
    assert view.contents().drops == (b"s" * 16,)
    piece = InlinePiece(b"t" * 16, 1, ("DFS1", "DFS2"), b"data")
    view.carry([piece])
    assert view.contents().pieces == (piece,)


def test_only_what_was_read_can_be_touched(view: CachedView) -> None:
    view.get(b"a")
    view.put(b"b", b"blindly")
    assert view.touched_by(news(b"x", b"a"))
    assert not view.touched_by(news(b"b", b"d/new"))
    view.scan(b"d/", b"d0")
    assert view.touched_by(news(b"d/new"))
    assert not view.touched_by(news(b"d0"))


def test_if_anything_may_have_changed_all_that_was_read_is_touched(view: CachedView) -> None:
    assert not view.touched_by(News(forget=True))
    view.get(b"a")
    assert view.touched_by(News(forget=True))


def test_too_much_at_once_is_refused(view: CachedView) -> None:
    view.put(b"k", bytes(MAX_CONTENTS_BYTES))
    with pytest.raises(TooLargeError):
        view.contents()
    assert view.size_bytes > MAX_CONTENTS_BYTES
