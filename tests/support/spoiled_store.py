"""A server's store whose file on disk is changed behind its back, and kinds of damage to it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any, Final

from support.store_proposer import KillableStore

from dfs_server.protocol.batches import InlinePiece
from dfs_server.protocol.messages import BeginCopy, CopyItems, Done, EndCopy, Error, Items, Position

SEGMENT: Final = b"s" * 16
ROWS: Final = {
    "a value": "UPDATE map SET value = x'32' WHERE key = x'61'",
    "a value that is none": "UPDATE map SET value = 7 WHERE key = x'61'",
    "a value that is text": "UPDATE map SET value = CAST(x'ff' AS TEXT) WHERE key = x'61'",
    "a key": "UPDATE map SET key = x'6161' WHERE key = x'61'",
    "a checksum": "UPDATE map SET checksum = checksum + 1 WHERE key = x'61'",
}
"""Statements that damage a row of the map, by what they damage."""


class SpoiledStore(KillableStore):
    """A store with a way to damage its file."""

    def commit(self, *puts: tuple[bytes, bytes], **contents: Any) -> bytes:
        """Commit a batch that carries a small piece."""
        return super().commit(*puts, pieces=(InlinePiece(SEGMENT, 1, ("DFS1",), b"small"),), **contents)

    def items(self) -> tuple[tuple[bytes, bytes], ...] | Error:
        reply = self.page()
        return reply.items if isinstance(reply, Items) else reply

    def spoil(self, statement: str) -> None:
        """Change the file behind the server's back, after flushing everything that was accepted."""
        with self.store._database.lock:
            self.store._writer._flush()
        with closing(sqlite3.connect(self.folder / "namespace.db")) as db:
            db.execute("PRAGMA ignore_check_constraints = ON")
            assert db.execute(statement).rowcount > 0
            db.commit()

    def scan(self) -> None:
        for _ in self.store.scan().steps():
            pass

    def copy(self, slot: int, *items: tuple[bytes, bytes], digest: bytes | None = None) -> Position | Error:
        """Give the server a copy of the map at this slot, by default of this log."""
        begin = BeginCopy(b"copy", slot, self.digest_of(slot) if digest is None else digest)
        assert self.store.handle(begin) == Done()
        assert self.store.handle(CopyItems(b"copy", items)) == Done()
        reply = self.store.handle(EndCopy(b"copy", len(items), slot))
        assert isinstance(reply, Position | Error)
        return reply
