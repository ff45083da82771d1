"""The format of a namespace's file: an older one is brought up to date, a newer one refused, neither is misread."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dfs_server.database import Database, FolderFormatError, Owner
from dfs_server.holdings import Holdings
from dfs_server.namespace_store import NamespaceStore
from dfs_server.protocol.messages import GetPosition, Position
from dfs_server.protocol.pieces import block_digests
from dfs_server.schema import FORMAT

SEGMENT = bytes(range(16))

FORMAT_1 = """
CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), round INTEGER NOT NULL, client BLOB NOT NULL,
    applied INTEGER NOT NULL, digest BLOB NOT NULL, read_from INTEGER NOT NULL, copy BLOB NOT NULL,
    copy_slot INTEGER NOT NULL, copy_digest BLOB NOT NULL);
INSERT INTO state VALUES (1, 5, x'aa', 7, x'bb', 0, x'', 0, x'');
CREATE TABLE log (slot INTEGER PRIMARY KEY, round INTEGER NOT NULL, client BLOB NOT NULL, digest BLOB NOT NULL,
    batch BLOB NOT NULL);
CREATE TABLE map (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
INSERT INTO map VALUES (x'01', x'02');
CREATE TABLE map_copy (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE small_pieces (segment BLOB NOT NULL, number INTEGER NOT NULL, digests BLOB NOT NULL, data BLOB NOT NULL,
    UNIQUE (segment, number));
CREATE TABLE small_totals (pieces INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO small_totals VALUES (1, 3);
CREATE TABLE drops (segment BLOB PRIMARY KEY, dropped_ns INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA user_version = 1;
"""


def write_format_1(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "namespace.db")) as db:
        db.executescript(FORMAT_1)
        db.execute("INSERT INTO small_pieces VALUES (?, 2, ?, ?)", (SEGMENT, block_digests(b"old"), b"old"))
        db.commit()


def test_format_1_is_brought_up_to_date(tmp_path: Path) -> None:
    write_format_1(tmp_path)
    with closing(NamespaceStore(tmp_path, "DFS1", clock=lambda: 1_700_000_000 * 10**9)) as store:
        position = store.handle(GetPosition())
        assert isinstance(position, Position)
        assert (position.applied, position.promised.round) == (7, 5)
        assert store.small_piece(SEGMENT, 2) == (block_digests(b"old"), b"old")
        holdings = Holdings(tmp_path, store)
        # Since when it is there nobody knows: it is young, so that nobody sweeps it.
        assert holdings.listed(None, 10) == ([(SEGMENT, 2, 3, 1_700_000_000)], False)
        holdings.put_small([(SEGMENT, 3, b"new")])
        assert store.pieces.totals() == (2, 6)
    with closing(sqlite3.connect(tmp_path / "namespace.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (FORMAT,)
    with closing(NamespaceStore(tmp_path, "DFS1", clock=lambda: 1_800_000_000 * 10**9)) as store:
        assert [piece.stored_s for piece in Holdings(tmp_path, store).listed(None, 10)[0]] == [1_700_000_000] * 2


@pytest.mark.parametrize("version", [FORMAT + 1, 99, -1])
def test_a_newer_format_is_refused_and_left_as_it_is(tmp_path: Path, version: int) -> None:
    with closing(sqlite3.connect(tmp_path / "namespace.db")) as db:
        db.execute(f"PRAGMA user_version = {version}")
        db.execute("CREATE TABLE unheard_of (x)")
        db.commit()
    with pytest.raises(FolderFormatError, match=f"format {version}, which a newer dfs-server wrote"):
        Database(tmp_path / "namespace.db", Owner("DFS1", "alice"))
    with closing(sqlite3.connect(tmp_path / "namespace.db")) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("unheard_of",)]


def test_an_upgrade_that_fails_changes_nothing(tmp_path: Path) -> None:
    write_format_1(tmp_path)
    with closing(sqlite3.connect(tmp_path / "namespace.db")) as db:
        db.execute("CREATE VIEW piece_drops AS SELECT 1")  # in the way of a new table's index
        db.commit()
    with pytest.raises(sqlite3.Error):
        Database(tmp_path / "namespace.db", Owner("DFS1", "alice"))
    with closing(sqlite3.connect(tmp_path / "namespace.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert "stored_s" not in [row[1] for row in db.execute("PRAGMA table_info(small_pieces)")]
