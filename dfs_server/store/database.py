"""A namespace's SQLite file: the one connection that writes, transactions, and the format of the tables.

There are two kinds of transaction: changes that others rely on wait for the disk (`synchronous=FULL`), repeatable ones
do not. A file of an older format is upgraded when it is opened, in one transaction; one of a newer format, or of
another server or user, is refused. Knows the tables' names only from `schema`.

Threads: `lock` guards the writing connection, and everything that its holders change together with the file.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from dfs_server.store import state_row
from dfs_server.store.schema import FORMAT, PRAGMAS, SCHEMA, WRITERS_PAGES
from dfs_server.store.upgrades import UPGRADES


class FolderFormatError(Exception):
    """This folder was written by another version, or is not a namespace's folder."""


class Owner(NamedTuple):
    """The server and user that the file belongs to."""

    server: str
    user: str


class Database:
    """The file at `path`, created if necessary. `clock` in ns. Raises `FolderFormatError`, sqlite3 errors."""

    def __init__(self, path: Path, owner: Owner, clock: Callable[[], int] = time.time_ns) -> None:
        self.path = path
        self.clock = clock
        self.lock = threading.RLock()
        self.writer = self.connect()
        self.writer.execute(WRITERS_PAGES)
        self.writer.text_factory = _any_text
        self._waits_for_disk: bool | None = None  # whether the connection waits for the disk, if known
        try:
            self._prepare(owner)
        except BaseException:
            self.writer.close()
            raise

    def close(self) -> None:
        """Close the writing connection. Everything acknowledged is already durable."""
        with self.lock:
            self.writer.close()

    def connect(self) -> sqlite3.Connection:
        """Another connection, for reading; it belongs to the caller."""
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=10.0)
        try:
            for pragma in PRAGMAS:
                db.execute(pragma)
        except BaseException:
            db.close()
            raise
        return db

    @contextmanager
    def transaction(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        """One transaction of the writing connection; the caller holds the lock. `durable`: on disk when this ends.

        A transaction that is not durable reaches the disk with the next one that is: the WAL is written in order.
        """
        db = self.writer
        if durable != self._waits_for_disk:
            db.execute("PRAGMA synchronous = FULL" if durable else "PRAGMA synchronous = NORMAL")
            self._waits_for_disk = durable
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _prepare(self, owner: Owner) -> None:
        (version,) = self.writer.execute("PRAGMA user_version").fetchone()
        if not 0 <= version <= FORMAT:
            raise FolderFormatError(
                f"{self.path} has format {version}, which a newer dfs-server wrote; this program knows format {FORMAT}"
            )
        with self.transaction(durable=True) as db:
            for older in range(version, FORMAT) if version else ():
                UPGRADES[older](db, self.clock() // 10**9)
            for statement in SCHEMA:
                db.execute(statement)
            if not version:
                state_row.StateRow().write(db)
            db.execute("INSERT OR IGNORE INTO owner VALUES (1, ?, ?)", owner)
            found = Owner(*db.execute("SELECT server, user FROM owner").fetchone())
        if found != owner:
            raise FolderFormatError(
                f"{self.path} is what server {found.server} holds for user {found.user}, not server {owner.server} for "
                f"user {owner.user}: it was copied or renamed. Put it back where it was; what belongs here comes back "
                f"from the other servers"
            )


def _any_text(raw: bytes) -> str:
    """A connection's text_factory: makes readable what damage has turned from bytes into text, so that it is found to
    be damaged."""
    return raw.decode(errors="replace")
