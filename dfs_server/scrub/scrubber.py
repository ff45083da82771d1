"""The scrub of one namespace: slowly checks every piece and SQLite's file, and moves bad pieces to quarantine.

A piece is bad if its bytes do not match the digests they came with, or if the disk cannot read them. Then it is no
longer here (`HavePieces` says so), and a client recreates it from its twin. A file of another format is left alone.

`scrub` has the schedule. The progress is stored in `ROOT/<user>/scrub.json`, which is written now and then: after a
crash some pieces are checked twice.

Threads: `run` belongs to the scrub's thread; `look_at` and `progress` may be used from any. Another thread checks
whether the server stops while SQLite checks its file.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from dfs_server.pieces.file import CorruptPieceError, OtherFormatError
from dfs_server.pieces.holdings import Holdings
from dfs_server.pieces.open_piece import OpenPiece
from dfs_server.protocol.pieces import BLOCK_BYTES, block_digests, blocks_match
from dfs_server.scrub import schedule as scrub
from dfs_server.scrub.schedule import Progress
from dfs_server.shared import durable
from dfs_server.store.damage import DamageError
from dfs_server.store.store import NamespaceStore

LIST_STEP: Final = 1000
SAVE_EVERY: Final = 256
"""Number of pieces that are checked between two saves of the progress."""
READ_BYTES: Final = 4 * BLOCK_BYTES
SMALL_COST_BYTES: Final = 4096
"""Minimum cost of checking a piece, however small it is."""
DATABASE_CHECK: Final = "PRAGMA integrity_check(10)"
GLANCE_S: Final = 0.1
"""Interval of the checks whether the server stops, while SQLite checks its file."""

log = logging.getLogger(__name__)

_UNREADABLE: Final = frozenset({errno.EIO, errno.EBADMSG, errno.EUCLEAN})
_WRONG_BYTES: Final = "its bytes do not have their digests"

Rest = Callable[[float], bool]
"""Wait for this many seconds; True if the server stops."""


class Scrubber:
    """The scrub of the namespace in `folder`, whose SQLite file is `store`'s."""

    def __init__(
        self,
        folder: Path,
        holdings: Holdings,
        store: NamespaceStore,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._file = folder / "scrub.json"
        self._holdings = holdings
        self._store = store
        self._clock = clock
        self.progress = self._saved()
        """Replaced as a whole after each piece."""
        self._unconfirmed = ""
        """SQLite's last error that its own check did not confirm."""

    def run(self, period_s: float, bytes_per_s: float, rest: Rest) -> bool:
        """Run a whole pass, or the rest of one, if it is due; returns whether a pass has ended. Raises OSError for
        errors that are not a piece's fault."""
        if not self.progress.is_due(self._now_s(), period_s):
            return False
        if not self.progress.is_under_way:
            self.progress = self.progress.begun(self._now_s(), self._holdings.totals()[0])
            self._save()
        try:
            failure: sqlite3.DatabaseError | None = None
            try:
                if self._look_at_pieces(bytes_per_s, rest):
                    return False
            except sqlite3.DatabaseError as error:
                failure = error  # SQLite's own check may say more
            if (database := self._look_at_database(rest)) is None:
                return False
            if not database and self._look_at_rows(bytes_per_s, rest):
                return False
            if failure is not None and not database:
                self._tell_unconfirmed(failure)
                return False
            self._unconfirmed = ""
            self.progress = self.progress.ended(self._now_s(), database)
            self._holdings.forget_old_findings()
        finally:
            self._save()
        log.info("the scrub of %s has looked at %d pieces", self._folder, self.progress.checked)
        return True

    # -------------------------------------------------------------- pieces

    def _look_at_pieces(self, bytes_per_s: float, rest: Rest) -> bool:
        """Check all remaining pieces; returns whether the server stops."""
        more = True
        while more:
            found, more = self._holdings.listed(self.progress.position, LIST_STEP)
            for piece in found:
                self.look_at(piece.segment, piece.number)
                self._look_at_small(piece.segment, piece.number)
                self.progress = self.progress.looked_at(piece.segment, piece.number)
                if self.progress.checked % SAVE_EVERY == 0:
                    self._save()
                if rest(scrub.pause_s(max(piece.length, SMALL_COST_BYTES), bytes_per_s)):
                    return True
        return False

    def look_at(self, segment: bytes, number: int) -> None:
        """Check a large piece, and move it to quarantine if it is bad. From any thread. Raises OSError for errors that
        are not its fault."""
        if (inode := self._holdings.files.inode(segment, number)) is None:
            return
        try:
            with self._holdings.files.open(segment, number) or contextlib.nullcontext() as piece:
                if piece is None or _is_good(piece):
                    return
            why = _WRONG_BYTES
        except OtherFormatError as error:
            log.warning("%s; it is left alone", error)
            return
        except CorruptPieceError as error:
            why = str(error)
        except OSError as error:
            if error.errno not in _UNREADABLE:
                raise
            why = f"the disk cannot read it: {error.strerror}"
        self._report(segment, number, why, lambda: self._holdings.quarantine_large(segment, number, inode))

    def _look_at_small(self, segment: bytes, number: int) -> None:
        stored = self._holdings.tables.get(segment, number)
        if stored is None or block_digests(stored.data) == stored.digests:
            return
        self._report(segment, number, _WRONG_BYTES, lambda: self._holdings.quarantine_small(segment, number, stored))

    def _report(self, segment: bytes, number: int, why: str, take: Callable[[], Path | None]) -> None:
        name = f"piece P{number} of segment {segment.hex()} of user {self._folder.name}"
        try:
            if (place := take()) is None:
                return  # it was replaced in the meantime
        except OSError as error:
            log.warning("%s is bad (%s), and cannot be moved to quarantine: %s", name, why, error.strerror or error)
            return
        log.error(
            "%s is bad (%s); it is in quarantine as %s. Mounts recreate it from its other copy; 'dfc heal' does so "
            "immediately. "
            "If this happens again, replace this server's disk.",
            name,
            why,
            place,
        )

    # -------------------------------------------------------------- SQLite's file

    def _look_at_database(self, rest: Rest) -> str | None:
        """What is wrong with SQLite's file: empty if nothing; None if the server stops."""
        try:
            with contextlib.closing(self._store.connect()) as db, _interrupted_if(rest, db):
                rows = db.execute(DATABASE_CHECK).fetchall()
        except sqlite3.DatabaseError as error:
            rows = [(str(error),)]
        if rest(0.0):
            return None
        wrong = "; ".join(str(row[0]) for row in rows if row[0] != "ok")
        if wrong:
            log.error(
                "%s is damaged (%s). Stop this server, move the user's folder %s away and start the server: it is "
                "rebuilt from the others. If this happens again, replace this server's disk.",
                self._folder / "namespace.db",
                wrong,
                self._folder,
            )
        return wrong

    def _tell_unconfirmed(self, failure: sqlite3.DatabaseError) -> None:
        """Log it once: the scrub is retried every minute."""
        if str(failure) != self._unconfirmed:
            self._unconfirmed = str(failure)
            log.warning(
                "%s: %s; SQLite's own check finds nothing wrong. The scrub is tried again every minute, and this is "
                "not reported again until something changes.",
                self._folder / "namespace.db",
                failure,
            )

    def _look_at_rows(self, bytes_per_s: float, rest: Rest) -> bool:
        """Check every row of the map and the log; returns whether the server stops. The store repairs what is bad."""
        try:
            for size in self._store.scan().steps():
                if rest(scrub.pause_s(size, bytes_per_s)):
                    return True
        except DamageError as error:
            self._store.found(error)
        return False

    # -------------------------------------------------------------- how far it is

    def _now_s(self) -> int:
        return int(self._clock())

    def _saved(self) -> Progress:
        try:
            data = self._file.read_bytes()
        except OSError:
            return Progress()
        if (progress := scrub.decode(data)) is not None:
            return progress
        log.warning("%s is not valid: the scrub starts over, which loses nothing", self._file)
        return Progress()

    def _save(self) -> None:
        try:
            durable.write_file(self._file, scrub.encode(self.progress))
        except OSError as error:
            log.warning("%s: the scrub's progress cannot be saved: %s", self._file, error.strerror or error)


@contextlib.contextmanager
def _interrupted_if(rest: Rest, db: sqlite3.Connection) -> Iterator[None]:
    """Makes `db`'s operation end within a moment when the server stops. SQLite scans a whole table in one instruction,
    so a progress handler would come too late; it is interrupted from another thread."""
    is_over = threading.Event()

    def look_up() -> None:
        while not is_over.wait(GLANCE_S):
            if rest(0.0):
                db.interrupt()

    looker = threading.Thread(target=look_up, name="scrub-stop", daemon=True)
    looker.start()
    try:
        yield
    finally:
        is_over.set()
        looker.join()


def _is_good(piece: OpenPiece) -> bool:
    """Whether the piece on disk matches its digests. The page cache is dropped first, since it says nothing about the
    disk."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(piece.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    for offset in range(0, piece.length, READ_BYTES):
        data = piece.read(offset, READ_BYTES)
        if len(data) < min(READ_BYTES, piece.length - offset):
            return False
        if not blocks_match(data, piece.digests, offset // BLOCK_BYTES):
            return False
    return True
