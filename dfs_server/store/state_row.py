"""The one row of the table `state`: what the acceptor must never forget, the map's sum, and the copy under way.

It is always written as a whole, with its checksum, in the transaction that changes any of it, and reflects the same
moment as all other tables: what was promised and accepted since then is in the redo log, in the records of its `epoch`.
The tail (the vote) is a row of the log; its mark is in here, so that it can neither change nor vanish unnoticed. Knows
one table. No threads.
"""

from __future__ import annotations

from sqlite3 import Connection
from typing import Final, NamedTuple, Self

from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.batches import NO_BATCH
from dfs_server.store import checksums
from dfs_server.store.acceptor import AcceptorState, Tail


class StateRow(NamedTuple):
    """The columns, in order; the checksum comes after them."""

    round: int = 0
    """The ballot promised: its round and its client."""
    client: bytes = b""
    applied: int = 0
    """The last slot applied to the map, and its batch's digest."""
    digest: bytes = NO_BATCH
    read_from: int = 0
    """Below this slot the map is a mixture: an incomplete copy."""
    copy: bytes = b""
    """The id of the copy under way in `map_copy`, if any; and the slot and digest that it is a copy of."""
    copy_slot: int = 0
    copy_digest: bytes = b""
    map_sum: int = 0
    """The sum of the checksums of the map's items."""
    tail: bytes = b""
    """`mark` of the tail; empty if there is none."""
    epoch: bytes = b""
    """The epoch of the redo log's records that came after this row was written; empty if there is no redo log."""

    def with_state(self, state: AcceptorState) -> Self:
        """The row with the acceptor's current state."""
        promised = state.promised
        return self._replace(
            round=promised.round,
            client=promised.client,
            applied=state.applied,
            digest=state.digest,
            tail=mark(state.tail),
        )

    def with_sum_changed(self, by: int) -> Self:
        """The row after items have changed."""
        return self._replace(map_sum=checksums.total((by,), self.map_sum))

    def write(self, db: Connection) -> None:
        """Write it, replacing the existing row."""
        db.execute(_WRITE, (*self, checksums.of_fields(self)))


_COLUMNS: Final = ", ".join((*StateRow._fields, "checksum"))
_WRITE: Final = f"INSERT OR REPLACE INTO state (id, {_COLUMNS}) VALUES (1{', ?' * (len(StateRow._fields) + 1)})"
_READ: Final = f"SELECT {_COLUMNS} FROM state WHERE id = 1"


def read(db: Connection) -> StateRow | None:
    """The row; None if it is missing, or is not what was written."""
    found = db.execute(_READ).fetchone()
    if found is None:
        return None
    row = StateRow(*found[:-1])
    return row if checksums.of_fields(row) == found[-1] else None


def mark(tail: Tail | None) -> bytes:
    """A value that distinguishes this vote from any other; empty if there is none."""
    return mark_of(tail.slot, tail.ballot, tail.parsed.digest) if tail is not None else b""


def mark_of(slot: int, ballot: Ballot, digest: bytes) -> bytes:
    """The `mark` of a tail with this batch."""
    return checksums.of_fields((slot, ballot.round, ballot.client, digest))
