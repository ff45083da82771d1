"""Transactions over the quorum log: optimistic concurrency, with the read set validated by key.

Every state that `work` sees is that of one slot, the log's known point: what is cached is true of it, and what is
fetched is either of it, or of a later slot; then the changes in between are learnt first, and if they touch what `work`
has read, it starts again. When its changes are proposed and somebody else's batch came first, the same check decides
between proposing again at the next slot and running `work` again.

A transaction that changes nothing, or that raises (no such file, ...), has decided something all the same: its read set
is checked against the newest state before it returns.

Threads: one lock, held while an operation reads, decides and commits. Data never moves under it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from dfs_server.protocol.batches import InlinePiece
from dfsfuse.cluster.log_protocol import Contents, News
from dfsfuse.cluster.quorum_log import QuorumLog
from dfsfuse.errors import TooLargeError, UnavailableError
from dfsfuse.namespace.map_cache import UNKNOWN, MapCache, Unknown, prefix_end
from dfsfuse.namespace.transactions import Transaction, View

T = TypeVar("T")

FAMILY_PAGE: Final = 256
"""A family that is not larger is fetched whole when one of its keys is asked for."""
SCAN_PAGE: Final = 5000
READ_KEYS: Final = 1000
MAX_CONTENTS_BYTES: Final = 1_900_000
RERUNS: Final = 200
RUNS_FOR_S: Final = 10.0


class _StateMovedError(Exception):
    """What was read is of an older slot than what is being read now."""


class LogMap:
    """The namespace's map, over its log. Implements `MapStore`."""

    def __init__(
        self,
        log: QuorumLog,
        family_of: Callable[[bytes], bytes | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._family_of = family_of
        self._clock = clock
        self._lock = threading.Lock()
        self._cache = MapCache(family_of)
        self._fresh_at = float("-inf")
        """When the cached state was last known to be the newest one."""

    def read(self, work: Callable[[View], T], *, max_age_s: float = 0.0) -> T:
        """See `MapStore.read`."""
        with self._lock:
            begun = self._clock()
            for view in self._views(begun):
                if self._fresh_at <= begun - max_age_s:
                    self._catch_up()
                try:
                    return work(view)
                except _StateMovedError:
                    continue
        raise AssertionError("unreachable: _views raises when it gives up")

    def transact(self, work: Callable[[Transaction], T]) -> T:
        """See `MapStore.transact`."""
        with self._lock:
            begun = self._clock()
            if self._fresh_at == float("-inf"):
                self._catch_up()
            for view in self._views(begun):
                try:
                    result, refusal = work(view), None
                except _StateMovedError:
                    continue
                except OSError as error:
                    refusal = error
                if refusal is None and view.changes_anything():
                    if self._commit(view):
                        return result
                elif self._still_true(view, begun):
                    if refusal is not None:
                        raise refusal
                    return result
        raise AssertionError("unreachable: _views raises when it gives up")

    def writable(self) -> bool:
        """See `MapStore.writable`."""
        return self._log.writable()

    def close(self) -> None:
        """See `MapStore.close`."""
        self._log.close()

    # -------------------------------------------------------------- one run of an operation

    def _views(self, begun: float) -> Iterable[_CachedView]:
        """A fresh view for each run, while there is time."""
        for _ in range(RERUNS):
            yield _CachedView(self)
            if self._clock() - begun > RUNS_FOR_S:
                break
        raise UnavailableError("other clients change the same files without pause: try again")

    def _catch_up(self) -> None:
        begun = self._clock()
        self._log.catch_up()
        self._take_news()
        self._fresh_at = begun

    def _take_news(self) -> News:
        news = self._log.take_news()
        if news.forget:
            self._cache.forget()
        else:
            for change in news.changes:
                self._cache.changed_elsewhere(change.keys)
        return news

    def _still_true(self, view: _CachedView, begun: float) -> bool:
        """Whether what the view has read is the newest state at some moment since `begun`."""
        if self._fresh_at > begun:
            return True
        now = self._clock()
        self._log.catch_up()
        news = self._take_news()
        self._fresh_at = now
        return not view.touched_by(news)

    def _commit(self, view: _CachedView) -> bool:
        contents = view.contents()
        conflict = False

        def conflicts(news: News) -> bool:
            nonlocal conflict
            conflict = view.touched_by(news)
            return conflict

        begun = self._clock()
        try:
            done = self._log.commit(contents, conflicts)
        finally:
            news = self._take_news()
        if done:
            self._fresh_at = begun
            if not news.changes and not news.forget:
                self._cache.changed_here(contents.puts, contents.deletes)
            else:
                self._cache.changed_elsewhere([key for key, _ in contents.puts])
                self._cache.changed_elsewhere(contents.deletes)
        return done

    # -------------------------------------------------------------- what a view reads

    def fetch(self, view: _CachedView, keys: Sequence[bytes]) -> None:
        """Bring these keys into the cache, at the known slot."""
        if len(keys) == 1 and (family := self._family_of(keys[0])) is not None:
            page = self._log.read_range(family, prefix_end(family), FAMILY_PAGE)
            self._check(view)
            if not page.more:
                self._cache.fetched_family(family, page.items)
                return
        for first in range(0, len(keys), READ_KEYS):
            part = tuple(keys[first : first + READ_KEYS])
            values = self._log.read_keys(part)
            self._check(view)
            self._cache.fetched(part, values.values)

    def fetch_range(self, view: _CachedView, start: bytes, end: bytes) -> list[tuple[bytes, bytes]]:
        """All items of a range, at the known slot; a family is kept."""
        view.ranges.append((start, end))
        items: list[tuple[bytes, bytes]] = []
        at = start
        while True:
            page = self._log.read_range(at, end, SCAN_PAGE)
            self._check(view)
            items.extend(page.items)
            if not page.more:
                break
            at = page.items[-1][0] + b"\0"
        if self._family_of(start + b"x") == start and end == prefix_end(start):
            self._cache.fetched_family(start, items)
        return items

    def _check(self, view: _CachedView) -> None:
        """The state may have moved on to a later slot: does that touch what the view has read?"""
        if view.touched_by(self._take_news()):
            raise _StateMovedError

    def cached(self, key: bytes) -> bytes | Unknown | None:
        """What the cache has."""
        return self._cache.get(key)

    def cached_range(self, start: bytes, end: bytes) -> list[tuple[bytes, bytes]] | Unknown:
        """What the cache has of a range that is a family."""
        return self._cache.scan(start) if end == prefix_end(start) else UNKNOWN


class _CachedView:
    """One run's view: what it has read, and what it wants changed. Implements `Transaction`."""

    def __init__(self, owner: LogMap) -> None:
        self._owner = owner
        self.keys: set[bytes] = set()
        self.ranges: list[tuple[bytes, bytes]] = []
        self._changes: dict[bytes, bytes | None] = {}
        self._drops: dict[bytes, None] = {}
        self._pieces: list[InlinePiece] = []

    # -- reads

    def get(self, key: bytes) -> bytes | None:
        """See `View.get`."""
        return self.get_many((key,))[0]

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `View.get_many`."""
        wanted = [key for key in keys if key not in self._changes]
        missing = [key for key in wanted if isinstance(self._owner.cached(key), Unknown)]
        if missing:
            self._owner.fetch(self, missing)
        self.keys.update(wanted)
        return [self._value(key) for key in keys]

    def _value(self, key: bytes) -> bytes | None:
        if key in self._changes:
            return self._changes[key]
        found = self._owner.cached(key)
        if isinstance(found, Unknown):
            raise _StateMovedError  # it was fetched and forgotten again: the cache was full, or the state moved
        return found

    def scan(self, start: bytes, end: bytes) -> list[tuple[bytes, bytes]]:
        """See `View.scan`."""
        found = self._owner.cached_range(start, end)
        if isinstance(found, Unknown):
            found = self._owner.fetch_range(self, start, end)
        else:
            self.ranges.append((start, end))
        changed = {key: value for key, value in self._changes.items() if start <= key < end}
        if not changed:
            return found
        merged = {**dict(found), **changed}
        return sorted((key, value) for key, value in merged.items() if value is not None)

    # -- changes

    def put(self, key: bytes, value: bytes) -> None:
        """See `Transaction.put`."""
        self._changes[key] = value

    def delete(self, key: bytes) -> None:
        """See `Transaction.delete`."""
        self._changes[key] = None

    def drop(self, segment: bytes) -> None:
        """See `Transaction.drop`."""
        self._drops[segment] = None

    def carry(self, pieces: Iterable[InlinePiece]) -> None:
        """See `Transaction.carry`."""
        self._pieces.extend(pieces)

    # -- for the owner

    def changes_anything(self) -> bool:
        """Whether there is something to commit."""
        return bool(self._changes or self._drops or self._pieces)

    def contents(self) -> Contents:
        """The changes as a batch's contents. Raises TooLargeError."""
        contents = Contents(
            tuple((key, value) for key, value in self._changes.items() if value is not None),
            tuple(key for key, value in self._changes.items() if value is None),
            tuple(self._drops),
            tuple(self._pieces),
        )
        size = sum(len(key) + len(value) for key, value in contents.puts) + sum(map(len, contents.deletes))
        size += sum(len(piece.data) + 64 for piece in contents.pieces) + 20 * len(contents.drops)
        if size > MAX_CONTENTS_BYTES:
            raise TooLargeError(
                f"a change of {size} bytes at once; at most {MAX_CONTENTS_BYTES} are possible"
            )
        return contents

    def touched_by(self, news: News) -> bool:
        """Whether others changed something that this view has read."""
        if news.forget:
            return bool(self.keys or self.ranges)
        return any(
            key in self.keys or any(start <= key < end for start, end in self.ranges)
            for change in news.changes
            for key in change.keys
        )
