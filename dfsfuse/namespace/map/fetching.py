"""What the cached map lacks is asked for: keys, ranges, and what is worth knowing together with them.

A family (a folder's entries, a file's regions) that is not larger than a page is fetched whole when one of its keys is
asked for. Of a larger one, the keys from the one that is asked for on: a large folder is worked through in order; if
keys are missed again and again, all of it. Of a family that others have changed a little, what they have changed.

Pure procedures (`steps`), for one that uses the log. What is learnt on the way (`absorb`), and what was answered and is
not committed yet (`journal`), which is laid over what servers tell, are the owner's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final

from dfsfuse.log.key_portions import Portions, TooMuchAtOnceError
from dfsfuse.log.state import News
from dfsfuse.namespace.map.cache import MapCache, laid_over, prefix_end
from dfsfuse.namespace.map.journal import Journal
from dfsfuse.namespace.map.steps import FetchKeys, FetchRange, Procedure
from dfsfuse.namespace.map.views import CachedView

FAMILY_PAGE: Final = 256
"""A family that is not larger is fetched whole when one of its keys is asked for."""
SCAN_PAGE: Final = 5000
WHOLE_AFTER: Final = 16
"""After so many misses in a larger family it is fetched whole, if that takes no more than a quarter as many pages; else
tried again after four times as many."""
WHOLE_AGAIN: Final = 4
READ_KEYS: Final = 1024
"""Number of keys asked for at once: all inodes of a folder of a thousand names. Where their values are too much for one
reply, half as many are."""
KEYS_AHEAD: Final = 256
UNKNOWN_SHARE: Final = 4
"""A large family of which more than one key in so many is unknown is read anew from one end to the other."""


class Fetcher:
    """See the module. `cache` and `journal` give the owner's."""

    def __init__(
        self,
        family_of: Callable[[bytes], bytes | None],
        cache: Callable[[], MapCache],
        absorb: Callable[[], Procedure[News]],
        journal: Callable[[], Journal],
    ) -> None:
        self._family_of = family_of
        self._cache = cache
        self._absorb = absorb
        self._journal = journal
        self._large_family = b""
        """The last family that was seen to be larger than a page; how often a key of it was not known; and with how
        many such misses it is worth it to ask for all of it."""
        self._misses, self._whole_after = 0, WHOLE_AFTER

    def fetch(self, view: CachedView) -> Procedure[None]:
        """Bring what the view lacks into the cache, at the known point."""
        if view.missing_range is not None:
            yield from self._fetch_range(*view.missing_range)
            return
        keys = view.missing
        if len(keys) == 1 and (family := self._family_of(keys[0])) is not None:
            yield from self._fetch_with_family(keys[0], family)
            return
        yield from self._fetch_keys(keys)

    def _fetch_keys(self, keys: Sequence[bytes]) -> Procedure[None]:
        portions = Portions(keys, READ_KEYS)
        while portion := portions.next():
            try:
                reply = yield FetchKeys(portion)
            except TooMuchAtOnceError:
                if not portions.too_much(portion):
                    raise
                continue
            yield from self._absorb()
            self._insert(portion, reply.values)
            portions.taken(portion)

    def _insert(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        waiting = self._journal().outcome()
        self._cache().fetched(keys, [waiting.get(key, value) for key, value in zip(keys, values, strict=True)])

    def _newest(self, items: Sequence[tuple[bytes, bytes]], start: bytes, end: bytes) -> list[tuple[bytes, bytes]]:
        return laid_over(list(items), self._journal().outcome(), start, end)

    def _fetch_with_family(self, key: bytes, family: bytes) -> Procedure[None]:
        """A key, with its whole family; of a large one, with those that come after it, which are asked for next when a
        large folder is worked through. Of a family that others have changed a little, what they changed."""
        end = prefix_end(family)
        if unknown := self._cache().unknown_in(family, end):
            yield from self._fetch_keys(unknown[bisect_left(unknown, key) :][:KEYS_AHEAD])
            return
        if family != self._large_family:
            self._misses, self._whole_after = 0, WHOLE_AFTER
            page = yield FetchRange(family, end, FAMILY_PAGE)
            yield from self._absorb()
            if not page.more:
                self._cache().fetched_range(family, end, self._newest(page.items, family, end))
                return
            self._large_family = family
        self._misses += 1
        if self._misses >= self._whole_after:  # then to know it all may be cheaper: it takes few pages, or is given up
            self._whole_after *= WHOLE_AGAIN
            if (yield from self._fetch_range(family, end, pages=self._misses // WHOLE_AGAIN)):
                return
        after = yield FetchRange(key, end, FAMILY_PAGE)
        yield from self._absorb()
        found = {key: None, **dict(after.items)}
        self._insert(list(found), list(found.values()))

    def _fetch_range(self, start: bytes, end: bytes, pages: int | None = None) -> Procedure[bool]:
        """False if it is not to be had: it has more pages. What others change meanwhile is unknown afterwards."""
        unknown, known = self._cache().unknown_in(start, end), self._cache().count(start)
        # What has one page is read at one moment, for sure; and a page has as much as twenty requests for single keys.
        if unknown and known > SCAN_PAGE and known > UNKNOWN_SHARE * len(unknown):
            yield from self._fetch_keys(unknown)
            return True
        items: list[tuple[bytes, bytes]] = []
        changed: list[bytes] = []
        at = start
        while True:
            page = yield FetchRange(at, end, SCAN_PAGE)
            news = yield from self._absorb()
            if items and news.forget:
                return False  # the pages are of different states: the operation runs again, and asks again
            if items:
                changed += [key for change in news.changes for key in change.keys if start <= key < end]
            items.extend(page.items)
            if not page.more:
                break
            if len(items) // SCAN_PAGE == pages:
                return False
            at = page.items[-1][0] + b"\0"
        self._cache().fetched_range(start, end, self._newest(items, start, end))
        self._cache().changed_elsewhere(changed)
        return True
