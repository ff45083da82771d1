"""The table `log`: the chosen batches, of which the oldest are deleted, and the tail.

A batch is checked when it is read, by its digest and by its position: slots follow each other without a gap. A damaged
or missing batch is useless, and so are those before it: the log is cut there, as if it had been trimmed up to that
slot, and a client that needs more asks another server or copies the map.

Threads: `LogTable` under the database's lock; `read` with any connection.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from sqlite3 import Connection
from typing import Final, NamedTuple

from dfs_server.protocol import batches
from dfs_server.store.damage import DamagedLogError
from dfs_server.store.overlay import WaitingBatch

KEEP_BATCHES: Final = 20_000
KEEP_LOG_BYTES: Final = 128 * 1024 * 1024
KEEP_TIGHT_BYTES: Final = 4 * 1024 * 1024
"""Number of bytes of the log that are kept when only the reserve is left on the disk: the rest of the file is then
reused."""
KEEP_HELD_BYTES: Final = 1024 * 1024 * 1024
"""Maximum number of bytes of the log that are kept for clients that read on from an early slot (`log_hold`)."""
TRIM_STEP: Final = 1000


class LogRow(NamedTuple):
    """A chosen batch."""

    slot: int
    digest: bytes
    batch: bytes


class LogTable:
    """The size of the log, and what is deleted from it."""

    def __init__(self, db: Connection) -> None:
        self._first = self._bytes = 0
        self.count_again(db)

    def count_again(self, db: Connection) -> None:
        """Count again: a transaction that changed the log has failed."""
        query = "SELECT coalesce(min(slot), 0), coalesce(sum(length(batch)), 0) FROM log"
        self._first, self._bytes = db.execute(query).fetchone()

    def write(self, db: Connection, logged: Sequence[WaitingBatch]) -> None:
        """Write batches at their slots, in order, each replacing any other. No batch comes after the last of them."""
        if not logged:
            return
        # A tail was written by the previous flush, and is written again as what it has become.
        query = "SELECT coalesce(sum(length(batch)), 0) FROM log WHERE slot >= ?"
        (replaced_bytes,) = db.execute(query, (logged[0].slot,)).fetchone()
        db.executemany(
            "INSERT OR REPLACE INTO log (slot, round, client, digest, batch) VALUES (?, ?, ?, ?, ?)",
            [(slot, ballot.round, ballot.client, digest, encoded) for slot, ballot, digest, encoded in logged],
        )
        self._bytes += sum(len(batch.encoded) for batch in logged) - replaced_bytes
        self._first = self._first or logged[0].slot

    def trim(self, db: Connection, applied: int, is_tight: Callable[[], bool], keep_after: int | None = None) -> None:
        """Delete the oldest chosen batches when there are too many; clients that miss them copy the map. Those after
        `keep_after` stay while there is space."""
        too_many = applied - self._first > KEEP_BATCHES + TRIM_STEP
        if not too_many and self._bytes <= KEEP_TIGHT_BYTES:
            return
        if not too_many and self._bytes <= KEEP_LOG_BYTES and not is_tight():
            return
        until = min(self._first + TRIM_STEP, applied) - 1
        if keep_after is not None and until > keep_after and self._bytes <= KEEP_HELD_BYTES and not is_tight():
            return
        self.cut(db, until)

    def cut(self, db: Connection, until: int) -> None:
        """Delete the batches up to this slot."""
        query = "SELECT coalesce(sum(length(batch)), 0) FROM log WHERE slot <= ?"
        (size,) = db.execute(query, (until,)).fetchone()
        db.execute("DELETE FROM log WHERE slot <= ?", (until,))
        self._first = until + 1
        self._bytes -= size


def read(db: Connection, after: int, until: int) -> Generator[LogRow, None, None]:
    """The batches after one slot up to another that is applied, each checked. Raises `DamagedLogError`."""
    query = "SELECT slot, digest, batch FROM log WHERE slot > ? AND slot <= ? ORDER BY slot"
    for slot, digest, batch in db.execute(query, (after, until)):
        after += 1
        if slot != after or not isinstance(batch, bytes) or batches.digest(batch) != digest:
            raise DamagedLogError(after)
        yield LogRow(slot, digest, batch)
    if after < until:
        raise DamagedLogError(after + 1)


def is_trimmed(db: Connection, after: int) -> bool:
    """Whether the log begins only after the next slot."""
    return db.execute("SELECT 1 FROM log WHERE slot = ?", (after + 1,)).fetchone() is None
