"""What a server remembers of a namespace when it starts, and what it does if that is damaged.

SQLite's file has a state that was complete when it was written; the redo log has what was promised and accepted since
then, which is replayed with the acceptor's own rules. If a record is damaged, those after it still say what was
promised, accepted and chosen; but the batch in the damaged record never reaches the map. So the map is damaged: it is
not read until it has been copied anew.

If the state's row is bad, missing, or older than the redo log (SQLite skips damaged parts of its own log, and
everything after them), or if the redo log is missing, a server cannot know what it promised and accepted. So it forgets
all of that, and the map, and begins as if its disk were new; small pieces stay, as far as they exist.
docs/consistency.md says why one server may do so. If only the vote in SQLite's file is bad, only that is forgotten. No
threads: nothing else uses the file yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from dfs_server.pieces.tables import PieceTables
from dfs_server.protocol import batches
from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.batches import BadBatchError
from dfs_server.store import acceptor, redo_log, state_row
from dfs_server.store.acceptor import AcceptorState, Apply, ParsedBatch, Step, Tail
from dfs_server.store.damage import DamageNotes
from dfs_server.store.database import Database
from dfs_server.store.map_table import MapTable
from dfs_server.store.overlay import Overlay
from dfs_server.store.redo_log import NO_EPOCH, Found, Kind, Record
from dfs_server.store.state_row import StateRow

LOST_ALL: Final = "the record of its promises and votes was damaged, so it started over"
LOST_VOTE: Final = "the last batch that it had accepted was damaged"
LOST_BATCH: Final = "a batch before slot {slot} was damaged before it reached the map"


class Recovered(NamedTuple):
    """What was recovered."""

    row: StateRow
    state: AcceptorState
    overlay: Overlay
    """What is applied and not in the tables, as far as it is not damaged."""
    is_replayed: bool
    """Whether any of this came from the redo log."""
    damage: str
    """What is wrong with the map; empty if nothing."""


def load(database: Database, server: str, redo_path: Path, damage: DamageNotes) -> Recovered:
    """Load the state from this server's files."""
    row = state_row.read(database.writer)
    if row is not None and row.epoch != NO_EPOCH and redo_log.is_ahead_of(redo_path, row.epoch):
        row = None
    found = _records(redo_path, row.epoch) if row is not None else None
    if row is None or found is None:
        row, found = _begin_anew(database, server, redo_path, damage), ()
    tail = _tail(database, row)
    if state_row.mark(tail) != row.tail or (tail is None and _has_rows_after(database, row)):
        row, tail = row._replace(tail=b""), None
        with database.transaction(durable=True) as db:
            db.execute("DELETE FROM log WHERE slot > ?", (row.applied,))
            row.write(db)
        damage.note(LOST_VOTE, is_mended=True)
    state = AcceptorState(Ballot(row.round, row.client), row.applied, row.digest, tail)
    overlay, wrong = Overlay(row.applied, row.read_from), ""
    for record, is_after_damage in found:
        fitting = _made_fit(state, record)
        if is_after_damage or fitting is not state:
            wrong = wrong or LOST_BATCH.format(slot=record.slot or state.applied + 1)
        # it may have been chosen, and these pieces may be the only ones
        if fitting is not state and state.tail is not None:
            overlay.add_pieces(state.tail.parsed.batch, server, database.clock())
        for step in _replayed(fitting, record):
            for effect in step.effects:
                if isinstance(effect, Apply):
                    overlay.add(effect.slot, state.promised, effect.parsed, server, database.clock())
            state = step.state
    return Recovered(row, state, overlay, bool(found), wrong)


def _records(path: Path, epoch: bytes) -> Sequence[Found] | None:
    """The records since the tables were written; None if there should be some and the file is missing."""
    if epoch == NO_EPOCH:
        return ()
    try:
        return list(redo_log.read(path, epoch))
    except FileNotFoundError:
        return None


def _replayed(state: AcceptorState, record: Record) -> Iterator[Step]:
    """Repeat the decision in the record. Leases are not remembered, so the time does not matter."""
    if record.parsed is None:
        yield acceptor.promise(state, record.ballot, 0.0)
        return
    yield (known := acceptor.chosen(state, record.slot - 1, record.parsed.batch.previous))
    if record.kind is Kind.VOTE:
        yield acceptor.accept(known.state, record.ballot, record.slot, record.parsed, 0.0)
    else:
        # Its ballot is the one promised when it arrived: the record of that promise may be a damaged one.
        yield (promised := acceptor.promise(known.state, record.ballot, 0.0))
        yield acceptor.learn(promised.state, record.slot, [record.parsed])


def _made_fit(state: AcceptorState, record: Record) -> AcceptorState:
    """The state in which the record can have been written. A batch at slot s says which one was chosen at s - 1; so a
    missing earlier batch is known to be chosen, but its contents are unknown."""
    if record.parsed is None:
        return state
    before, previous = record.slot - 1, record.parsed.batch.previous
    tail = state.tail
    is_next = (state.applied, state.digest) == (before, previous)
    if is_next or (tail is not None and (tail.slot, tail.parsed.digest) == (before, previous)):
        return state
    return acceptor.copied(state, before, previous)


def _begin_anew(database: Database, server: str, redo_path: Path, damage: DamageNotes) -> StateRow:
    row = StateRow()
    pieces = Overlay(0, 0)
    for record, _ in redo_log.read_whatever_epoch(redo_path):
        if record.parsed is not None:
            pieces.add_pieces(record.parsed.batch, server, database.clock())
    # The pieces of the log's last batch may be nowhere else: it was a vote when the tables were written.
    last = database.writer.execute("SELECT batch, digest FROM log ORDER BY slot DESC LIMIT 1").fetchone()
    if last is not None and (parsed := _parsed(*last)) is not None:
        pieces.add_pieces(parsed.batch, server, database.clock())
    with database.transaction(durable=True) as db:
        PieceTables.apply(db, pieces.pieces(), {})
        MapTable().clear(db)
        db.execute("DELETE FROM log")
        damage.map_is_replaced(db)
        row.write(db)
    damage.read_again()
    damage.note(LOST_ALL, is_mended=True)
    return row


def _tail(database: Database, row: StateRow) -> Tail | None:
    """The vote, if it matches the row."""
    slot = row.applied + 1
    query = "SELECT round, client, digest, batch FROM log WHERE slot = ?"
    found = database.writer.execute(query, (slot,)).fetchone()
    if found is None:
        return None
    round_, client, digest, batch = found
    if state_row.mark_of(slot, Ballot(round_, client), digest) != row.tail:
        return None
    parsed = _parsed(batch, digest)
    return None if parsed is None else Tail(slot, Ballot(round_, client), parsed)


def _parsed(encoded: object, digest: object) -> ParsedBatch | None:
    """A batch of the log, if it is what was written."""
    if not isinstance(encoded, bytes) or batches.digest(encoded) != digest:
        return None
    try:
        return ParsedBatch.of(encoded)
    except BadBatchError:  # it was written by a newer program
        return None


def _has_rows_after(database: Database, row: StateRow) -> bool:
    return database.writer.execute("SELECT 1 FROM log WHERE slot > ?", (row.applied,)).fetchone() is not None
