"""Records of damage found in a namespace's SQLite file, and whether it has been repaired, in a table of that file.

A damaged *map* has to be copied anew from another server, and is not read until that is done. Everything else is
repaired immediately by the code that finds it; it is reported to people for a month. Knows only its own rows.

Threads: `note` and `map_is_replaced` under the database's lock; the attributes are replaced as a whole.
"""

from __future__ import annotations

import logging
from sqlite3 import Connection
from typing import Final, NamedTuple

from dfs_server.store.database import Database

TOLD_S: Final = 30 * 24 * 3600
"""How long damage is reported once it has been repaired."""
KEEP: Final = 10
"""Number of records that are kept."""

log = logging.getLogger(__name__)


class DamageError(Exception):
    """A row is not what was written. The text says which, for people."""


class DamagedMapError(DamageError):
    """A row of the map is damaged."""


class DamagedStateError(DamageError):
    """The row of what the acceptor must not forget is damaged."""


class DamagedLogError(DamageError):
    """The batch at `slot`, which is applied, is damaged."""

    def __init__(self, slot: int) -> None:
        super().__init__(f"the batch at slot {slot} of the log was damaged or missing")
        self.slot = slot


class _Note(NamedTuple):
    what: str
    mended_s: int
    """0: not repaired."""


class DamageNotes:
    """The records in the file of `database`, latest first."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._read()

    def note(self, what: str, *, is_mended: bool) -> None:
        """Record that damage was found, and repaired immediately; or that it is in the map, which must be copied
        anew."""
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
            "It has been repaired."
            if is_mended
            else "It is not read until a mount has copied it anew from another server.",
        )

    def map_is_replaced(self, db: Connection) -> None:
        """Record that a copy replaces the map in this transaction; after the transaction call `read_again`."""
        db.execute("UPDATE damage SET mended_s = ? WHERE mended_s = 0", (self._now_s(),))

    def read_again(self) -> None:
        """Read the records again after the transaction."""
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
