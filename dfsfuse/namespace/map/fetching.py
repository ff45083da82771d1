"""Fetches what the cached map lacks: keys, ranges, and what is worth knowing together with them.

A family (a folder's entries, a file's regions) that is not larger than a page is fetched whole when one of its keys is
asked for. Of a larger one, a page from that key on, since large folders are usually worked through in order; and all of
it, if keys are missed again and again. Of a complete family that others have changed a little, what they have changed.
With any other key come its companions, if it has any at that time (`Companions`). With names come the inodes that
they refer to (`ReadRange.join`): that of the name that is asked for, or those of a whole page.

Pure procedures (`steps`). How servers are asked is up to the caller (`Ask`): with the log, or beside it. Keys that
change in the cache while a server is being asked, or between two pages, are not taken from the answer. Pending changes
(`journal`) are laid over it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from dfsfuse.log.key_portions import Portions, TooMuchAtOnceError
from dfsfuse.namespace.map.cache import Changes, Unknown, laid_over, prefix_end
from dfsfuse.namespace.map.state import MapState
from dfsfuse.namespace.map.steps import FetchKeys, FetchRange, Procedure
from dfsfuse.namespace.map.views import CachedView

FAMILY_PAGE: Final = 256
"""A family of at most this size is fetched whole when one of its keys is asked for."""
SCAN_PAGE: Final = 5000
WHOLE_AFTER: Final = 16
"""After this many misses in a larger family it is fetched whole, if that takes at most a quarter as many pages; or
else it is tried again after four times as many misses."""
WHOLE_AGAIN: Final = 4
READ_KEYS: Final = 1024
"""Number of keys asked for at once: all inodes of a folder of a thousand names. Where their values are too much for one
reply, half as many are."""
KEYS_AHEAD: Final = 256
UNKNOWN_SHARE: Final = 4
"""A large family is read again from one end to the other once more than one key in this many is unknown."""


Ask = Callable[[FetchKeys | FetchRange, Changes], Procedure[Any]]
"""How a server is asked. Returns its reply, which holds except for keys that have changed since the watch was begun.
May raise."""


class Companions(Protocol):
    """Which keys are worth fetching together."""

    def of(self, key: bytes) -> Sequence[bytes]:
        """Return the keys that are worth fetching now with this one, which is missing; it is among them. Often none."""
        ...

    def came_along(self, key: bytes) -> None:
        """Record that this key was wanted, and came along with another one."""
        ...


class NoCompanions:
    """Each key is fetched alone."""

    def of(self, key: bytes) -> Sequence[bytes]:  # noqa: ARG002
        """See `Companions.of`."""
        return ()

    def came_along(self, key: bytes) -> None:
        """See `Companions.came_along`."""


class Fetcher:
    """See the module."""

    def __init__(
        self,
        family_of: Callable[[bytes], bytes | None],
        state: MapState,
        companions: Companions,
        join_of: Callable[[bytes], bytes],
    ) -> None:
        """`join_of`: the prefix of the keys that the items of a family name (`ReadRange.join`), or nothing."""
        self._family_of = family_of
        self._state = state
        self._companions = companions
        self._join_of = join_of
        self._large_family = b""
        """The last family seen to be larger than a page; how often a key of it was unknown; and after how many such
        misses it is worthwhile to ask for all of it."""
        self._misses, self._whole_after = 0, WHOLE_AFTER

    def fetch(self, view: CachedView, ask: Ask) -> Procedure[None]:
        """Bring what the view lacks into the cache."""
        if view.missing_range is not None:
            yield from self._fetch_range(*view.missing_range, ask)
            return
        keys = view.missing
        if len(keys) == 1:
            if (family := self._family_of(keys[0])) is not None:
                yield from self._fetch_with_family(keys[0], family, ask)
                return
            others = [key for key in self._companions.of(keys[0]) if isinstance(self._state.cache.get(key), Unknown)]
            keys = others or keys
        yield from self._fetch_keys(keys, ask)

    def _fetch_keys(self, keys: Sequence[bytes], ask: Ask) -> Procedure[None]:
        portions = Portions(keys, READ_KEYS)
        while portion := portions.next():
            with self._state.cache.watched() as since:
                try:
                    reply = yield from ask(FetchKeys(portion), since)
                except TooMuchAtOnceError:
                    if not portions.too_much(portion):
                        raise
                    continue
                self._insert(portion, reply.values, since)
            portions.taken(portion)

    def _insert(self, keys: Sequence[bytes], values: Sequence[bytes | None], since: Changes) -> None:
        waiting = self._state.journal.outcome()
        newest = [waiting.get(key, value) for key, value in zip(keys, values, strict=True)]
        self._state.cache.fetched(keys, newest, since)

    def _insert_range(self, start: bytes, end: bytes, items: Sequence[tuple[bytes, bytes]], since: Changes) -> None:
        newest = laid_over(list(items), self._state.journal.outcome(), start, end)
        self._state.cache.fetched_range(start, end, newest, since)

    def _insert_joined(self, items: Sequence[tuple[bytes, bytes]], since: Changes) -> None:
        if items:
            self._insert([key for key, _ in items], [value for _, value in items], since)

    def _insert_named(self, items: Sequence[tuple[bytes, bytes]], since: Changes) -> None:
        """Insert what the key that is asked for names."""
        self._insert_joined(items, since)
        for key, _ in items:
            self._companions.came_along(key)

    def _fetch_with_family(self, key: bytes, family: bytes, ask: Ask) -> Procedure[None]:
        """A key, with its whole family; of a large one, with those that come after it, which are asked for next when a
        large folder is worked through. Of a family that others have changed a little, what they changed."""
        end, join = prefix_end(family), self._join_of(family)
        if unknown := self._state.cache.unknown_in(family, end):
            yield from self._fetch_keys(unknown[bisect_left(unknown, key) :][:KEYS_AHEAD], ask)
            return
        if family != self._large_family:
            self._misses, self._whole_after = 0, WHOLE_AFTER
            with self._state.cache.watched() as since:
                page = yield from ask(FetchRange(family, end, FAMILY_PAGE, join, key), since)
                if not page.more:
                    self._insert_range(family, end, page.items, since)
                    self._insert_named(page.joined, since)
                    return
            self._large_family = family
        self._misses += 1
        if self._misses >= self._whole_after:  # then knowing it all may be cheaper: it takes few pages, or is given up
            self._whole_after *= WHOLE_AGAIN
            if (yield from self._fetch_range(family, end, ask, pages=self._misses // WHOLE_AGAIN)):
                return
        with self._state.cache.watched() as since:
            after = yield from ask(FetchRange(key, end, FAMILY_PAGE, join, key), since)
            found = {key: None, **dict(after.items)}
            self._insert(list(found), list(found.values()), since)
            self._insert_named(after.joined, since)

    def _fetch_range(self, start: bytes, end: bytes, ask: Ask, pages: int | None = None) -> Procedure[bool]:
        """Return False if that was given up: it has more than `pages`, or its pages are of different states. Keys that
        other clients change meanwhile are unknown afterwards."""
        unknown, known = self._state.cache.unknown_in(start, end), self._state.cache.count(start)
        # A range of one page is certainly read at one moment; and a page costs as much as twenty single keys.
        if unknown and known > SCAN_PAGE and known > UNKNOWN_SHARE * len(unknown):
            yield from self._fetch_keys(unknown, ask)
            return True
        # If the family was known before, most of what it names is known too.
        join = self._join_of(start) if pages is None and not known else b""
        items: list[tuple[bytes, bytes]] = []
        at = start
        with self._state.cache.watched() as since:
            while True:
                page = yield from ask(FetchRange(at, end, SCAN_PAGE, join), since)
                if since.all:
                    return False  # the pages are of different states: the operation runs again, and asks again
                items.extend(page.items)
                self._insert_joined(page.joined, since)
                if not page.more:
                    break
                if len(items) // SCAN_PAGE == pages:
                    return False
                at = page.items[-1][0] + b"\0"
            self._insert_range(start, end, items, since)
        return True
