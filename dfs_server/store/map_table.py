"""The table `map`: a namespace's items, each with its checksum, and what these add up to.

Whoever changes items is told by how much the sum changes, to write it in the same transaction. While a scan is under
way it is told too: it goes through the items in the order of their keys while batches go on, and at the end must have
the sum. Interprets no key.

Threads: all under the database's lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from sqlite3 import Connection
from typing import Final

from dfs_server.store import checksums

_AT_ONCE: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""So many keys are looked up with one statement: few statements, which SQLite need not compile each time."""


class Scan:
    """A walk through the items, in steps: what is at or before `key` has been added up."""

    def __init__(self) -> None:
        self.key = b""
        self.sum = 0

    def passed(self, key: bytes, found: Iterable[int]) -> None:
        """The items up to this key, with these checksums."""
        self.key, self.sum = key, checksums.total(found, self.sum)

    def changed(self, old: Mapping[bytes, int], new: Mapping[bytes, int]) -> None:
        """Items came, went, or changed: those behind are counted already."""
        self.sum = checksums.total((new[key] for key in new if key <= self.key), self.sum)
        self.sum = checksums.total((-old[key] for key in old if key <= self.key), self.sum)


class MapTable:
    """The table's rows, in whatever transaction the caller has."""

    def __init__(self) -> None:
        self.scan: Scan | None = None
        """The scan under way. Whoever cannot say what changed ends it."""

    def change(self, db: Connection, changes: Mapping[bytes, bytes | None]) -> int:
        """Give these keys these values, or take them out (None); by how much the sum changes."""
        keys = sorted(changes)  # neighbours are on one page
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
        """Put the copy in `map_copy` in the place of all items; its sum."""
        self.scan = None
        db.execute("DELETE FROM map")
        db.execute("INSERT INTO map (key, value, checksum) SELECT key, value, checksum FROM map_copy")
        db.execute("DELETE FROM map_copy")
        return sum_of(db)

    def clear(self, db: Connection) -> None:
        """Forget all items, and what has come of a copy."""
        self.scan = None
        db.execute("DELETE FROM map")
        db.execute("DELETE FROM map_copy")


def sum_of(db: Connection) -> int:
    """What the checksums of all items add up to, counted anew."""
    return checksums.total(checksum for (checksum,) in db.execute("SELECT checksum FROM map"))


def add_to_copy(db: Connection, items: Iterable[tuple[bytes, bytes]]) -> None:
    """Further items of the copy that is being received."""
    db.executemany(
        "INSERT OR REPLACE INTO map_copy (key, value, checksum) VALUES (?, ?, ?)",
        [(key, value, checksums.of_item(key, value)) for key, value in items],
    )


def _found(db: Connection, keys: Sequence[bytes]) -> Iterator[tuple[bytes, int]]:
    """(key, checksum) of those of the items that are here. A checksum that damage has made something else of counts as
    none: the batch goes on, and the sum tells the next scan."""
    start = 0
    while start < len(keys):
        part = keys[start : start + _AT_ONCE[-1]]
        start += len(part)
        room = next(size for size in _AT_ONCE if size >= len(part))
        marks = ",".join("?" * room)
        filled = [*part, *[b""] * (room - len(part))]  # no key is empty
        for key, checksum in db.execute(f"SELECT key, checksum FROM map WHERE key IN ({marks})", filled):
            yield key, checksum if isinstance(checksum, int) else 0
