"""One run's view of the map: what it has read, and what it wants changed. Implements `View` and `Transaction`.

Reads only the cache: what that does not have is recorded in `missing` or `missing_range`, and the run is aborted with
`MissingError`, to be repeated once it was fetched. Pure: it runs under the owner's lock, and knows no log.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from dfs_server.protocol.batches import InlinePiece
from dfsfuse.errors import TooLargeError
from dfsfuse.log.state import Contents, News
from dfsfuse.namespace.map.cache import MapCache, Unknown, laid_over

MAX_CONTENTS_BYTES: Final = 1_900_000
"""A batch may have 2 MiB; this leaves ample room for everything besides keys, values and data."""


class MissingError(Exception):
    """The cache lacks something that the run needs."""


class CachedView:
    """See the module."""

    def __init__(self, cache: MapCache) -> None:
        self._cache = cache
        self.keys: set[bytes] = set()
        self.ranges: list[tuple[bytes, bytes]] = []
        self.missing: list[bytes] = []
        self.missing_range: tuple[bytes, bytes] | None = None
        self._changes: dict[bytes, bytes | None] = {}
        self._drops: dict[bytes, None] = {}
        self._pieces: list[InlinePiece] = []
        self.size_bytes = 0
        """Roughly how many bytes the changes take in a batch, once `contents` was called."""

    # -------------------------------------------------------------- reads

    def get(self, key: bytes) -> bytes | None:
        """See `View.get`."""
        if key in self._changes:
            return self._changes[key]
        found = self._cache.get(key)
        if isinstance(found, Unknown):
            self.missing = [key]
            raise MissingError
        self.keys.add(key)
        return found

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `View.get_many`."""
        if self._changes:
            unchanged = [key for key in keys if key not in self._changes]
            if len(unchanged) < len(keys):
                self.get_many(unchanged)
                return [self.get(key) for key in keys]
        found: list[bytes | None] = []
        for key in keys:
            value = self._cache.get(key)
            if isinstance(value, Unknown):
                self.missing = [key for key in keys if isinstance(self._cache.get(key), Unknown)]
                raise MissingError
            found.append(value)
        self.keys.update(keys)
        return found

    def scan(self, start: bytes, end: bytes) -> list[tuple[bytes, bytes]]:
        """See `View.scan`."""
        found = self._cache.scan(start, end)
        if isinstance(found, Unknown):
            self.missing_range = (start, end)
            raise MissingError
        self.ranges.append((start, end))
        return laid_over(found, self._changes, start, end)

    # -------------------------------------------------------------- changes

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

    # -------------------------------------------------------------- for the owner

    def lacks_something(self) -> bool:
        """Return whether the run was aborted because the cache lacked something that it needs."""
        return bool(self.missing) or self.missing_range is not None

    def changes_anything(self) -> bool:
        """Return whether there is something to commit."""
        return bool(self._changes or self._drops or self._pieces)

    def contents(self) -> Contents:
        """Return the changes as a batch's contents, once they are complete. Raises TooLargeError."""
        puts: list[tuple[bytes, bytes]] = []
        deletes: list[bytes] = []
        size = 20 * len(self._drops)
        for key, value in self._changes.items():
            if value is None:
                deletes.append(key)
                size += len(key) + 8
            else:
                puts.append((key, value))
                size += len(key) + len(value) + 8
        for piece in self._pieces:
            size += len(piece.data) + 64
        self.size_bytes = size
        if size > MAX_CONTENTS_BYTES:
            raise TooLargeError(f"a change of {size} bytes at once; at most {MAX_CONTENTS_BYTES} are possible")
        return Contents(tuple(puts), tuple(deletes), tuple(self._drops), tuple(self._pieces))

    def replaced(self) -> dict[bytes, bytes | Unknown | None]:
        """Return what the cache currently has for the keys that are to be changed."""
        return {key: self._cache.get(key) for key in self._changes}

    def touched_by(self, news: News) -> bool:
        """Return whether others changed something that this view has read."""
        return self.is_touched((key for change in news.changes for key in change.keys), all_of_it=news.forget)

    def is_touched(self, keys: Iterable[bytes], *, all_of_it: bool) -> bool:
        """Return whether this view has read one of these keys, or (`all_of_it`) anything."""
        if all_of_it:
            return bool(self.keys or self.ranges)
        return any(key in self.keys or any(start <= key < end for start, end in self.ranges) for key in keys)
