"""A correct proposer for tests: it appends batches to one server's store, and reads what it has written.

    proposer = StoreProposer(NamespaceStore(folder, "DFS1"))
    proposer.commit((b"key", b"value"), deletes=(b"other",))    # proposed and accepted: slot 1
    proposer.choose()                                           # and applied

`KillableStore` is one with its store, which can be killed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from dfs_server.protocol import batches
from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.batches import Batch
from dfs_server.protocol.messages import (
    Accept,
    AcceptedAt,
    Chosen,
    Error,
    GetPosition,
    Items,
    Position,
    ReadKeys,
    ReadRange,
    Values,
)
from dfs_server.store.store import NamespaceStore

AUTHOR: Final = b"client01"
BALLOT: Final = Ballot(3, AUTHOR)


class StoreProposer:
    """See the module."""

    def __init__(self, store: NamespaceStore, ballot: Ballot = BALLOT) -> None:
        self.store = store
        self.ballot = ballot
        self.encoded: list[bytes] = []
        """All batches, from slot 1 on. After a test has removed the last one, the next takes its slot."""

    @property
    def slot(self) -> int:
        """The last batch's slot."""
        return len(self.encoded)

    @property
    def digest(self) -> bytes:
        """The last batch's digest."""
        return self.digest_of(self.slot)

    def digest_of(self, slot: int) -> bytes:
        return batches.digest(self.encoded[slot - 1]) if slot else b""

    def batch(self, **contents: Any) -> bytes:
        """Make the next batch without proposing it."""
        batch = Batch(batches.FORMAT, self.digest, AUTHOR, self.slot + 1, 0, **contents)
        self.encoded.append(batches.encode(batch))
        return self.encoded[-1]

    def commit(
        self, *puts: tuple[bytes, bytes], ballot: Ballot | None = None, lease: bool = False, **contents: Any
    ) -> bytes:
        """Propose the next batch, which the store must accept; it also shows the store that the one before is
        chosen."""
        encoded = self.batch(puts=puts, **contents)
        request = Accept(ballot or self.ballot, self.slot, encoded, lease=lease)
        assert self.store.handle(request) == AcceptedAt(self.slot)
        return encoded

    def choose(self) -> None:
        """Tell the store that the last batch is chosen."""
        position = self.store.handle(Chosen(self.slot, self.digest))
        assert isinstance(position, Position)
        assert position.applied == self.slot

    def position(self) -> Position:
        position = self.store.handle(GetPosition())
        assert isinstance(position, Position)
        return position

    def read(self, *keys: bytes) -> tuple[bytes | None, ...] | Error:
        reply = self.store.handle(ReadKeys(self.slot, self.digest, keys))
        assert isinstance(reply, Values | Error), reply
        return reply.values if isinstance(reply, Values) else reply

    def page(self, start: bytes = b"\0", end: bytes = b"\xff", limit: int = 10_000) -> Items | Error:
        """Return part of the map; without arguments, all of it."""
        reply = self.store.handle(ReadRange(self.slot, self.digest, start, end, limit))
        assert isinstance(reply, Items | Error), reply
        return reply


class KillableStore(StoreProposer):
    """A store of its own in `folder`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(NamespaceStore(folder, "DFS1"))
        self.folder = folder

    def kill(self) -> None:
        """Stop it without a flush, as kill -9 does, and start it again."""
        self.stop_writing()
        self.restart()

    def stop_writing(self) -> None:
        """Keep it from flushing, even when it is closed: what is not in SQLite's file yet stays in the redo log."""
        self.store._writer.close = lambda: None  # type: ignore[method-assign]

    def restart(self) -> None:
        """Start it again; unless it was killed, it is stopped properly first."""
        self.store.close()
        self.store = NamespaceStore(self.folder, "DFS1")
