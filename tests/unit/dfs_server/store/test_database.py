"""The format of a namespace's file: an older one is upgraded, a newer one refused, and neither is misread."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from support.servers import REPOSITORY

from dfs_server.pieces.holdings import Holdings
from dfs_server.protocol import batches
from dfs_server.protocol.batches import Batch
from dfs_server.protocol.messages import GetPosition, Items, Position, ReadKeys, ReadRange, Values
from dfs_server.protocol.pieces import block_digests
from dfs_server.store.database import Database, FolderFormatError, Owner
from dfs_server.store.schema import FORMAT
from dfs_server.store.store import NamespaceStore

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


FORMAT_2 = (
    FORMAT_1.replace("data BLOB NOT NULL,", "data BLOB NOT NULL, stored_s INTEGER NOT NULL DEFAULT 0,").replace(
        "user_version = 1", "user_version = 2"
    )
    + """
CREATE TABLE owner (id INTEGER PRIMARY KEY CHECK (id = 1), server TEXT NOT NULL, user TEXT NOT NULL);
CREATE TABLE piece_drops (segment BLOB NOT NULL, number INTEGER NOT NULL, dropped_ns INTEGER NOT NULL,
    PRIMARY KEY (segment, number)) WITHOUT ROWID;
INSERT INTO map_copy VALUES (x'03', x'04');
UPDATE state SET copy = x'cc', copy_slot = 9;
"""
)
TAIL = batches.encode(Batch(batches.FORMAT, b"d" * 32, b"client", 8, 0, ((b"k", b"tail"),)))

UPGRADE = """
import os, signal, sys
from pathlib import Path
from dfs_server.store import database, upgrades
from dfs_server.store.database import Database, Owner
from dfs_server.store.state_row import StateRow
where, folder = sys.argv[1], Path(sys.argv[2])
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
if where == "before the row":
    StateRow.write = lambda *_: die()
elif where == "before the commit":
    class Dying(tuple):
        def __iter__(self):
            yield from tuple.__iter__(self)
            die()
    database.SCHEMA = Dying(database.SCHEMA)
Database(folder / "namespace.db", Owner("DFS1", folder.name), lambda: 0)
die()  # after the commit, without closing
"""


def write_format_2(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "namespace.db")) as db:
        db.executescript("PRAGMA journal_mode = WAL;" + FORMAT_2)
        db.execute("INSERT INTO owner VALUES (1, 'DFS1', ?)", (folder.name,))
        db.execute("UPDATE state SET digest = ?", (b"d" * 32,))
        db.execute("INSERT INTO log VALUES (8, 5, x'aa', ?, ?)", (batches.digest(TAIL), TAIL))
        db.executemany("INSERT INTO map VALUES (?, ?)", [(b"k%d" % number, b"v" * number) for number in range(300)])
        db.commit()


def assert_is_whole(folder: Path) -> None:
    """Check that all content of the file in format 2 is there, and has checksums."""
    with closing(NamespaceStore(folder, "DFS1")) as store:
        position = store.handle(GetPosition())
        assert isinstance(position, Position)
        assert (position.applied, position.digest, position.promised.round) == (7, b"d" * 32, 5)
        assert position.tail_digest == batches.digest(TAIL)
        assert store.handle(ReadKeys(7, b"d" * 32, (b"\1", b"k7", b"k300"))) == Values(7, (b"\2", b"v" * 7, None))
        everything = store.handle(ReadRange(7, b"d" * 32, b"\0", b"\xff", 1000))
        assert isinstance(everything, Items)
        assert len(everything.items) == 301
        for _ in store.scan().steps():
            pass
        assert store.handle(ReadKeys(8, batches.digest(TAIL), (b"k",))) == Values(8, (b"tail",))
        assert store.damage.text() == ""


def test_format_2_gets_checksums(tmp_path: Path) -> None:
    write_format_2(tmp_path)
    assert_is_whole(tmp_path)
    with closing(sqlite3.connect(tmp_path / "namespace.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (FORMAT,)
        assert db.execute("SELECT count(*) FROM map WHERE checksum = 0").fetchone() == (0,)


@pytest.mark.parametrize(
    ("where", "version"), [("before the row", 2), ("before the commit", 2), ("after the commit", FORMAT)]
)
def test_an_upgrade_that_is_killed_leaves_the_old_or_the_new_format(tmp_path: Path, where: str, version: int) -> None:
    write_format_2(tmp_path)
    killed = subprocess.run(
        [sys.executable, "-c", UPGRADE, where, str(tmp_path)], timeout=60, check=False, cwd=REPOSITORY
    )
    assert killed.returncode == -signal.SIGKILL
    with closing(sqlite3.connect(tmp_path / "namespace.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (version,)
    assert_is_whole(tmp_path)


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
        # Its age is not known; it counts as young, so that it is not swept.
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
