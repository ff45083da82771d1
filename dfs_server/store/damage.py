"""What was found to be damaged in a namespace's SQLite file, and whether it is mended: notes, in a table of that file.

A damaged *map* has to be copied anew from another server, and is not read until that is done. Everything else is mended
at once by whoever finds it; that it happened is told to people for a month. Knows no rows but its own.

Threads: `note` and `map_is_replaced` under the database's lock; the attributes are replaced as a whole.
"""

from __future__ import annotations

import logging
from sqlite3 import Connection
from typing import Final, NamedTuple

from dfs_server.store.database import Database

TOLD_S: Final = 30 * 24 * 3600
"""For so long it is told that something was damaged once it is mended."""
KEEP: Final = 10
"""So many notes are kept."""

log = logging.getLogger(__name__)


class DamageError(Exception):
    """A row is not what was written. The text says which, for people."""


class DamagedMapError(DamageError):
    """Of the map."""


class DamagedStateError(DamageError):
    """The row of what the acceptor must not forget."""


class DamagedLogError(DamageError):
    """The batch at `slot`, which is applied."""

    def __init__(self, slot: int) -> None:
        super().__init__(f"the batch at slot {slot} of the log was damaged or missing")
        self.slot = slot


class _Note(NamedTuple):
    what: str
    mended_s: int
    """0: it is not."""


class DamageNotes:
    """The notes in the file of `database`, latest first."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._read()

    def note(self, what: str, *, is_mended: bool) -> None:
        """Something was found, and mended at once; or else it is the map, which must be copied anew."""
        if not is_mended and self.map:
            return
        now_s = self._now_s()
        with self._database.transaction(durable=True) as db:
            row = (now_s, what, now_s if is_mended else 0)
            db.execute("INSERT INTO damage (found_s, what, mended_s) VALUES (?, ?, ?)", row)
            db.execute("DELETE FROM damage WHERE mended_s > 0 AND id <= (SELECT max(id) FROM damage) - ?", (KEEP,))
        self._read()
        log.error(
            "%s: %s. %s If this happens again, replace this server's disk.",
            self._database.path,
            what,
            "That is mended." if is_mended else "It is not read until a mount has copied it anew from another server.",
        )

    def map_is_replaced(self, db: Connection) -> None:
        """A copy is in the place of the map, by this transaction; when that is over, `read_again`."""
        db.execute("UPDATE damage SET mended_s = ? WHERE mended_s = 0", (self._now_s(),))

    def read_again(self) -> None:
        """The transaction is over."""
        if was := self.map:
            self._read()
            log.info("%s: the map was copied anew (%s)", self._database.path, was)

    def text(self) -> str:
        """What people should know; empty if nothing."""
        since_s = self._now_s() - TOLD_S
        told = [note for note in self._notes if not note.mended_s or note.mended_s > since_s]
        return "; ".join(f"{what} (mended)" if mended_s else what for what, mended_s in told)

    def _read(self) -> None:
        rows = self._database.writer.execute("SELECT what, mended_s FROM damage ORDER BY id DESC")
        self._notes = [_Note(*row) for row in rows]
        self.map: str = next((note.what for note in self._notes if not note.mended_s), "")
        """What is wrong with the map; empty if nothing is known to be."""

    def _now_s(self) -> int:
        return max(1, self._database.clock() // 10**9)
