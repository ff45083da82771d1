"""What the cached map lacks is asked for: keys, ranges, and what is worth knowing together with them.

A family (a folder's entries, a file's regions) that is not larger than a page is fetched whole when one of its keys is
asked for. Of a larger one, the keys from the one that is asked for on: a large folder is worked through in order; if
keys are missed again and again, all of it. Of a family that others have changed a little, what they have changed.

Does the asking, over the log; what is learnt on the way (`absorb`) and putting what was found into the cache (`insert`)
are the owner's. Threads: none of its own; one at a time, since the log is used.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final

from dfsfuse.cluster.key_portions import read_in_portions
from dfsfuse.cluster.log_state import News
from dfsfuse.cluster.quorum_log import QuorumLog
from dfsfuse.namespace.map_cache import MapCache, prefix_end
from dfsfuse.namespace.views import CachedView

FAMILY_PAGE: Final = 256
"""A family that is not larger is fetched whole when one of its keys is asked for."""
SCAN_PAGE: Final = 5000
WHOLE_AFTER: Final = 16
"""After so many misses in a larger family it is fetched whole, if that takes no more than a quarter as many pages; else
tried again after four times as many."""
WHOLE_AGAIN: Final = 4
READ_KEYS: Final = 256
UNKNOWN_SHARE: Final = 4
"""A large family of which more than one key in so many is unknown is read anew from one end to the other."""


class Fetcher:
    """See the module. `cache` gives the owner's cache."""

    def __init__(
        self,
        quorum_log: QuorumLog,
        family_of: Callable[[bytes], bytes | None],
        cache: Callable[[], MapCache],
        absorb: Callable[[], News],
        insert: Callable[[Callable[[], None]], None],
    ) -> None:
        self._log = quorum_log
        self._family_of = family_of
        self._cache = cache
        self._absorb = absorb
        self._insert = insert
        self._large_family = b""
        """The last family that was seen to be larger than a page; how often a key of it was not known; and with how
        many such misses it is worth it to ask for all of it."""
        self._misses, self._whole_after = 0, WHOLE_AFTER

    def fetch(self, view: CachedView) -> None:
        """Bring what the view lacks into the cache, at the known point."""
        if view.missing_range is not None:
            self._fetch_range(*view.missing_range)
            return
        keys = view.missing
        if len(keys) == 1 and (family := self._family_of(keys[0])) is not None:
            self._fetch_with_family(keys[0], family)
            return
        self._fetch_keys(keys)

    def _fetch_keys(self, keys: Sequence[bytes]) -> None:
        for part, reply in read_in_portions(self._log.read_keys, keys, READ_KEYS):
            self._absorb()
            self._insert(lambda part=part, values=reply.values: self._cache().fetched(part, values))  # type: ignore[misc]

    def _fetch_with_family(self, key: bytes, family: bytes) -> None:
        """A key, with its whole family; of a large one, with those that come after it, which are asked for next when a
        large folder is worked through. Of a family that others have changed a little, what they changed."""
        end = prefix_end(family)
        if unknown := self._cache().unknown_in(family, end):
            self._fetch_keys(unknown[bisect_left(unknown, key) :][:READ_KEYS])
            return
        if family != self._large_family:
            self._misses, self._whole_after = 0, WHOLE_AFTER
            page = self._log.read_range(family, end, FAMILY_PAGE)
            self._absorb()
            if not page.more:
                self._insert(lambda: self._cache().fetched_family(family, page.items))
                return
            self._large_family = family
        self._misses += 1
        if self._misses >= self._whole_after:  # then to know it all may be cheaper: it takes few pages, or is given up
            self._whole_after *= WHOLE_AGAIN
            if self._fetch_range(family, end, pages=self._misses // WHOLE_AGAIN):
                return
        after = self._log.read_range(key, end, FAMILY_PAGE)
        self._absorb()
        found = {key: None, **dict(after.items)}
        self._insert(lambda: self._cache().fetched(list(found), list(found.values())))

    def _fetch_range(self, start: bytes, end: bytes, pages: int | None = None) -> bool:
        """False if it is not to be had: it has more pages. What others change meanwhile is unknown afterwards."""
        unknown, known = self._cache().unknown_in(start, end), self._cache().count(start)
        # What has one page is read at one moment, for sure; and a page has as much as twenty requests for single keys.
        if unknown and known > SCAN_PAGE and known > UNKNOWN_SHARE * len(unknown):
            self._fetch_keys(unknown)
            return True
        items: list[tuple[bytes, bytes]] = []
        changed: list[bytes] = []
        at = start
        while True:
            page = self._log.read_range(at, end, SCAN_PAGE)
            news = self._absorb()
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

        def into_cache() -> None:
            self._cache().fetched_range(start, end, items)
            self._cache().changed_elsewhere(changed)

        self._insert(into_cache)
        return True
