"""The table `map`: a namespace's items, each with its checksum, and the sum of the checksums.

Functions that change items return the change of the sum, to be written in the same transaction. A scan in progress is
updated too: it walks through the items in the order of their keys while batches go on, and must have the same sum at
the end. Interprets no keys.

Threads: all under the database's lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from sqlite3 import Connection
from typing import Final

from dfs_server.store import checksums

_AT_ONCE: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Numbers of keys that one statement looks up: few different statements, which SQLite need not compile each time."""


class Scan:
    """A walk through the items, in steps: everything up to `key` has been added up."""

    def __init__(self) -> None:
        self.key = b""
        self.sum = 0

    def passed(self, key: bytes, found: Iterable[int]) -> None:
        """Add the items up to this key, with these checksums."""
        self.key, self.sum = key, checksums.total(found, self.sum)

    def changed(self, old: Mapping[bytes, int], new: Mapping[bytes, int]) -> None:
        """Items were added, removed or changed: adjust for those already counted."""
        self.sum = checksums.total((new[key] for key in new if key <= self.key), self.sum)
        self.sum = checksums.total((-old[key] for key in old if key <= self.key), self.sum)


class MapTable:
    """The table's rows, in the caller's transaction."""

    def __init__(self) -> None:
        self.scan: Scan | None = None
        """The scan in progress. Code that cannot say what changed ends it."""

    def change(self, db: Connection, changes: Mapping[bytes, bytes | None]) -> int:
        """Set the keys to these values, or delete them (None); returns the change of the sum."""
        keys = sorted(changes)  # neighbouring keys are on one page
        old = dict(_found(db, keys))
        rows: list[tuple[bytes, bytes, int]] = []
        for key in keys:
            if (value := changes[key]) is not None:
                rows.append((key, value, checksums.of_item(key, value)))
        new = {key: checksum for key, _, checksum in rows}
        if self.scan is not None:
            self.scan.changed(old, new)
        db.executemany("INSERT OR REPLACE INTO map (key, value, checksum) VALUES (?, ?, ?)", rows)
        db.executemany("DELETE FROM map WHERE key = ?", [(key,) for key in keys if key not in new])
        return sum(new.values()) - sum(old.values())

    def replace(self, db: Connection) -> int:
        """Replace all items with the copy in `map_copy`; returns its sum."""
        self.scan = None
        db.execute("DELETE FROM map")
        db.execute("INSERT INTO map (key, value, checksum) SELECT key, value, checksum FROM map_copy")
        db.execute("DELETE FROM map_copy")
        return sum_of(db)

    def clear(self, db: Connection) -> None:
        """Delete all items, and the received part of a copy."""
        self.scan = None
        db.execute("DELETE FROM map")
        db.execute("DELETE FROM map_copy")


def sum_of(db: Connection) -> int:
    """The sum of the checksums of all items, counted anew."""
    return checksums.total(checksum for (checksum,) in db.execute("SELECT checksum FROM map"))


def add_to_copy(db: Connection, items: Iterable[tuple[bytes, bytes]]) -> None:
    """Add further items to the copy that is being received."""
    db.executemany(
        "INSERT OR REPLACE INTO map_copy (key, value, checksum) VALUES (?, ?, ?)",
        [(key, value, checksums.of_item(key, value)) for key, value in items],
    )


def _found(db: Connection, keys: Sequence[bytes]) -> Iterator[tuple[bytes, int]]:
    """(key, checksum) of those items that exist. A checksum that damage has turned into something else counts as zero:
    the batch goes on, and the next scan notices the wrong sum."""
    start = 0
    while start < len(keys):
        part = keys[start : start + _AT_ONCE[-1]]
        start += len(part)
        room = next(size for size in _AT_ONCE if size >= len(part))
        marks = ",".join("?" * room)
        filled = [*part, *[b""] * (room - len(part))]  # no key is empty
        for key, checksum in db.execute(f"SELECT key, checksum FROM map WHERE key IN ({marks})", filled):
            yield key, checksum if isinstance(checksum, int) else 0
