"""What a server remembers of a namespace when it starts, and what it does if that is damaged.

The row of its state is bad, or gone: it cannot know what it promised and accepted, so it forgets all of it, and the
map, and begins as if its disk were new; small pieces stay. docs/consistency.md says why one server may. Only the vote
is bad: that alone is forgotten. No threads: nobody else has the file yet.
"""

from __future__ import annotations

from typing import Final

from dfs_server import state_row
from dfs_server.acceptor import AcceptorState, ParsedBatch, Tail
from dfs_server.damage import DamageNotes
from dfs_server.database import Database
from dfs_server.map_table import MapTable
from dfs_server.protocol import batches
from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.batches import BadBatchError
from dfs_server.state_row import StateRow

LOST_ALL: Final = "what it had promised and accepted was damaged, so that it began anew"
LOST_VOTE: Final = "the batch that it had accepted last was damaged"


def load(database: Database, damage: DamageNotes) -> tuple[StateRow, AcceptorState]:
    """The row, and what the acceptor knows."""
    row = state_row.read(database.writer)
    if row is None:
        row = StateRow()
        with database.transaction(durable=True) as db:
            MapTable().clear(db)
            db.execute("DELETE FROM log")
            damage.map_is_replaced(db)
            row.write(db)
        damage.read_again()
        damage.note(LOST_ALL, is_mended=True)
    tail = _tail(database, row)
    if state_row.mark(tail) != row.tail or (tail is None and _has_rows_after(database, row)):
        row, tail = row._replace(tail=b""), None
        with database.transaction(durable=True) as db:
            db.execute("DELETE FROM log WHERE slot > ?", (row.applied,))
            row.write(db)
        damage.note(LOST_VOTE, is_mended=True)
    return row, AcceptorState(Ballot(row.round, row.client), row.applied, row.digest, tail)


def _tail(database: Database, row: StateRow) -> Tail | None:
    """The vote, if it is what the row says."""
    slot = row.applied + 1
    query = "SELECT round, client, digest, batch FROM log WHERE slot = ?"
    found = database.writer.execute(query, (slot,)).fetchone()
    if found is None:
        return None
    round_, client, digest, batch = found
    if state_row.mark_of(slot, Ballot(round_, client), digest) != row.tail or not isinstance(batch, bytes):
        return None
    if batches.digest(batch) != digest:
        return None
    try:
        return Tail(slot, Ballot(round_, client), ParsedBatch.of(batch))
    except BadBatchError:  # it was written by a program that knew better
        return None


def _has_rows_after(database: Database, row: StateRow) -> bool:
    return database.writer.execute("SELECT 1 FROM log WHERE slot > ?", (row.applied,)).fetchone() is not None
