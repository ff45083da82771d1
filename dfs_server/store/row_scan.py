"""A walk through every row of a namespace's log and map, for the scrub: finds damage in rows that are never read, and
lost rows.

It goes in steps, so that batches go on in between. The log comes first: each batch has its digest, follows the one
before it, and none is missing. Then the map: each item has its checksum, and at the end everything seen, including what
batches changed in the meantime behind the walk, must have the sum that was maintained from the beginning.

Threads: a walk belongs to one thread. A step of the map holds the database's lock while it reads some hundred rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from sqlite3 import Connection
from typing import Final

from dfs_server.store import checksums, log_table, state_row
from dfs_server.store.acceptor import ParsedBatch
from dfs_server.store.damage import DamagedLogError, DamagedMapError, DamagedStateError
from dfs_server.store.database import Database
from dfs_server.store.map_table import MapTable, Scan
from dfs_server.store.reader import BAD_ROW, no_text
from dfs_server.store.state_row import StateRow

STEP_ROWS: Final = 500
STEP_BYTES: Final = 1024 * 1024
LOST_ROWS: Final = "rows of the map are missing or unexpected"


class RowScan:
    """The walk. `row` returns the row of the state as it should be; it is called under the database's lock."""

    def __init__(self, database: Database, map_: MapTable, row: Callable[[], StateRow]) -> None:
        self._database = database
        self._map = map_
        self._row = row

    def steps(self) -> Iterator[int]:
        """Yields the number of bytes checked after each step. Raises `DamageError`, sqlite3 errors."""
        with contextlib.closing(self._database.connect()) as db:
            db.text_factory = no_text
            if state_row.read(db) is None:
                raise DamagedStateError("the state of the log was damaged or missing")
            yield from self._log(db)
            yield from self._items(db)

    def _log(self, db: Connection) -> Iterator[int]:
        with self._database.lock:
            until, digest = self._row().applied, self._row().digest
        after, previous = 0, None
        while after < until:
            db.execute("BEGIN")
            try:
                size = 0
                (first,) = db.execute("SELECT min(slot) FROM log").fetchone()
                if first is None or first > until:
                    return  # all of it is trimmed
                if first - 1 > after:
                    after, previous = first - 1, None  # the log begins there by now
                for row in log_table.read(db, after, until):
                    size += len(row.batch)
                    if previous not in (None, ParsedBatch.of(row.batch).batch.previous):
                        raise DamagedLogError(row.slot)
                    after, previous = row.slot, row.digest
                    if size >= STEP_BYTES:
                        break
            finally:
                db.execute("COMMIT")
            yield size
        if previous not in (None, digest):
            raise DamagedLogError(until)

    def _items(self, db: Connection) -> Iterator[int]:
        scan = Scan()
        with self._database.lock:
            self._map.scan = scan
        try:
            while True:
                with self._database.lock:
                    if self._map.scan is not scan:
                        return  # the map was replaced in the meantime
                    query = "SELECT key, value, checksum FROM map WHERE key > ? ORDER BY key LIMIT ?"
                    rows = db.execute(query, (scan.key, STEP_ROWS)).fetchall()
                    if not all(isinstance(key, bytes) and isinstance(one, int) for key, _, one in rows):
                        raise DamagedMapError(BAD_ROW)
                    if rows:
                        scan.passed(rows[-1][0], (checksum for _, _, checksum in rows))
                    is_over = len(rows) < STEP_ROWS
                    if is_over and scan.sum != self._row().map_sum:
                        raise DamagedMapError(LOST_ROWS)
                if not all(checksums.fits(*row) for row in rows):
                    raise DamagedMapError(BAD_ROW)
                yield sum(len(key) + len(value) for key, value, _ in rows)
                if is_over:
                    return
        finally:
            with self._database.lock:
                if self._map.scan is scan:
                    self._map.scan = None
