"""Upgrades a namespace's file from an older format to the next, before `schema.SCHEMA` adds the new tables.

All in the caller's one transaction. Data that an older format did not protect is taken to be right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from sqlite3 import Connection
from typing import Final

from dfs_server.protocol.ballots import Ballot
from dfs_server.store import checksums, map_table, state_row
from dfs_server.store.state_row import StateRow


def _to_2(db: Connection, now_s: int) -> None:
    """The age of the small pieces of format 1 is unknown: treat them as if they had just arrived."""
    db.execute(f"ALTER TABLE small_pieces ADD COLUMN stored_s INTEGER NOT NULL DEFAULT {now_s}")


def _to_3(db: Connection, _now_s: int) -> None:
    """Add checksums to everything that had none. A copy of the map that was under way is begun again by its sender."""
    db.create_function("item_checksum", 2, checksums.of_item, deterministic=True)
    db.execute("ALTER TABLE map ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0")
    db.execute("UPDATE map SET checksum = item_checksum(key, value)")
    db.execute("DROP TABLE map_copy")
    found = db.execute("SELECT round, client, applied, digest, read_from FROM state").fetchone()
    row = StateRow(*found)._replace(map_sum=map_table.sum_of(db))
    query = "SELECT round, client, digest FROM log WHERE slot = ?"
    for round_, client, digest in db.execute(query, (row.applied + 1,)).fetchall():
        row = row._replace(tail=state_row.mark_of(row.applied + 1, Ballot(round_, client), digest))
    for column in ("map_sum INTEGER NOT NULL DEFAULT 0", "tail BLOB NOT NULL DEFAULT x''"):
        db.execute(f"ALTER TABLE state ADD COLUMN {column}")
    db.execute("ALTER TABLE state ADD COLUMN checksum BLOB NOT NULL DEFAULT x''")
    fields = row[: len(_FIELDS_OF_3)]
    columns = ", ".join((*_FIELDS_OF_3, "checksum"))
    db.execute(
        f"INSERT OR REPLACE INTO state (id, {columns}) VALUES (1{', ?' * (len(fields) + 1)})",
        (*fields, checksums.of_fields(fields)),
    )


def _to_4(db: Connection, _now_s: int) -> None:
    """There is no redo log yet. A row that is not what was written stays so, to be found damaged (`recovery`): data
    that was never written must not get a checksum."""
    found = db.execute(f"SELECT {', '.join(_FIELDS_OF_3)}, checksum FROM state WHERE id = 1").fetchone()
    db.execute("ALTER TABLE state ADD COLUMN epoch BLOB NOT NULL DEFAULT x''")
    if found is not None and checksums.of_fields(fields := tuple(found[:-1])) == found[-1]:
        StateRow(*fields).write(db)


_FIELDS_OF_3: Final = (
    "round",
    "client",
    "applied",
    "digest",
    "read_from",
    "copy",
    "copy_slot",
    "copy_digest",
    "map_sum",
    "tail",
)
"""The fields covered by the checksum of a row of format 3."""
UPGRADES: Final[Mapping[int, Callable[[Connection, int], None]]] = {1: _to_2, 2: _to_3, 3: _to_4}
"""By the older format; the time in seconds since 1970."""
