"""The tables of `namespace.db`. docs/disk-format.md explains them; a change requires a new `FORMAT` with an upgrade."""

from __future__ import annotations

from typing import Final

FORMAT: Final = 4
"""Stored in the file as SQLite's user_version."""

PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA cache_size = -1024",
    "PRAGMA journal_size_limit = 16777216",
    "PRAGMA wal_autocheckpoint = 2000",
    "PRAGMA temp_store = MEMORY",
)
"""For each connection. What it reads is in the system's memory too, so it needs few pages of its own (KiB)."""
WRITERS_PAGES: Final = "PRAGMA cache_size = -4096"
"""For the connection that writes: a flush changes hundreds of pages, and what does not fit is written twice."""

SCHEMA: Final = (
    # What the acceptor must never forget. One row, created with the file and never again (`state_row`).
    """CREATE TABLE IF NOT EXISTS state (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        round INTEGER NOT NULL,      -- the ballot promised
        client BLOB NOT NULL,
        applied INTEGER NOT NULL,    -- the last slot applied to the map, and its batch's digest
        digest BLOB NOT NULL,
        read_from INTEGER NOT NULL,  -- below this slot the map is a mixture (a copy being completed)
        copy BLOB NOT NULL,          -- the id of the copy under way in map_copy, if any, and what it is a copy of
        copy_slot INTEGER NOT NULL,
        copy_digest BLOB NOT NULL,
        map_sum INTEGER NOT NULL,    -- what the checksums of the map's items add up to
        tail BLOB NOT NULL,          -- tells the row of the log at applied + 1 from any other; empty if there is none
        epoch BLOB NOT NULL,         -- of the redo log's records that came since; empty if there is no redo log
        checksum BLOB NOT NULL       -- of this row
    )""",
    # The owner of the file: it must not be used on another server, or for another user. One row.
    """CREATE TABLE IF NOT EXISTS owner (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        server TEXT NOT NULL,
        user TEXT NOT NULL
    )""",
    # The batches: chosen ones up to `applied`, and at applied + 1 the one accepted but not known to be chosen.
    """CREATE TABLE IF NOT EXISTS log (
        slot INTEGER PRIMARY KEY,
        round INTEGER NOT NULL,      -- the ballot it was accepted under
        client BLOB NOT NULL,
        digest BLOB NOT NULL,
        batch BLOB NOT NULL
    )""",
    # The items, each with its checksum.
    """CREATE TABLE IF NOT EXISTS map (
        key BLOB PRIMARY KEY, value BLOB NOT NULL, checksum INTEGER NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS map_copy (
        key BLOB PRIMARY KEY, value BLOB NOT NULL, checksum INTEGER NOT NULL
    ) WITHOUT ROWID""",
    # Damage found in this file, and when it was repaired; 0: the map still has to be copied anew.
    """CREATE TABLE IF NOT EXISTS damage (
        id INTEGER PRIMARY KEY,
        found_s INTEGER NOT NULL,
        what TEXT NOT NULL,
        mended_s INTEGER NOT NULL
    )""",
    # Pieces of small segments, which came inside a batch or were put by healing.
    """CREATE TABLE IF NOT EXISTS small_pieces (
        segment BLOB NOT NULL,
        number INTEGER NOT NULL,
        digests BLOB NOT NULL,       -- level-one digests, made when it came
        data BLOB NOT NULL,
        stored_s INTEGER NOT NULL,   -- when it came, by this server's clock
        UNIQUE (segment, number)
    )""",
    # The number of small pieces, and of their bytes: counting them anew would read the whole table.
    "CREATE TABLE IF NOT EXISTS small_totals (pieces INTEGER NOT NULL, bytes INTEGER NOT NULL)",
    """INSERT INTO small_totals
        SELECT (SELECT count(*) FROM small_pieces), (SELECT coalesce(sum(length(data)), 0) FROM small_pieces)
        WHERE NOT EXISTS (SELECT 1 FROM small_totals)""",
    """CREATE TRIGGER IF NOT EXISTS small_piece_comes AFTER INSERT ON small_pieces BEGIN
        UPDATE small_totals SET pieces = pieces + 1, bytes = bytes + length(new.data);
    END""",
    """CREATE TRIGGER IF NOT EXISTS small_piece_goes AFTER DELETE ON small_pieces BEGIN
        UPDATE small_totals SET pieces = pieces - 1, bytes = bytes - length(old.data);
    END""",
    # Segments that nothing refers to any more, until their grace period is over.
    "CREATE TABLE IF NOT EXISTS drops (segment BLOB PRIMARY KEY, dropped_ns INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS drops_by_age ON drops (dropped_ns)",
    # Single pieces, large or small, that this server should no longer hold, until their grace period is over.
    """CREATE TABLE IF NOT EXISTS piece_drops (
        segment BLOB NOT NULL,
        number INTEGER NOT NULL,
        dropped_ns INTEGER NOT NULL,
        PRIMARY KEY (segment, number)
    ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS piece_drops_by_age ON piece_drops (dropped_ns)",
    f"PRAGMA user_version = {FORMAT}",
)
