"""Writing a namespace: what the acceptor decides, copies of the map, and what is done about damage.

The effects of a step go into one transaction, and only then is the reply given. A reply that others rely on (a promise,
a vote, a batch that was missed and is here now) waits for the disk (`synchronous=FULL`); that the batch which is here
already is chosen can be learnt again and does not wait. Nothing here interprets a key.

A damaged log is cut, a damaged map waits for a copy to be put in its place; a server that finds its memory damaged when
it starts begins as if its disk were new (`recovery`).

Threads: everything may be called from any thread; the database's lock guards `state`, and all that is written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Final

from dfs_server import acceptor, log_table, map_table, recovery
from dfs_server.acceptor import AcceptorState, Apply, ParsedBatch, SavePromise, SaveTail, Step, Tail
from dfs_server.copy_turn import NOBODY, CopyTurn
from dfs_server.damage import DamagedLogError, DamagedMapError, DamageError, DamageNotes
from dfs_server.database import Database
from dfs_server.log_hold import LogHold
from dfs_server.log_table import LogTable
from dfs_server.map_table import MapTable
from dfs_server.piece_tables import PieceTables
from dfs_server.protocol import batches
from dfs_server.protocol.messages import Done, Error, Reply
from dfs_server.protocol.status import Status
from dfs_server.row_scan import RowScan

_NO_SUCH_COPY: Final = Error(Status.BAD_REQUEST, "no copy of the map with this id is under way")
_COPYING: Final = Error(Status.COPYING, "another client copies the map to this server")


class NamespaceWriter:
    """Writes to `database`, and to its `pieces` what batches bring. `server` is this server's name, as in inline
    pieces' homes. `is_tight`: whether only the reserve is left on the disk."""

    def __init__(
        self,
        database: Database,
        server: str,
        pieces: PieceTables,
        *,
        monotonic: Callable[[], float],
        is_tight: Callable[[], bool],
    ) -> None:
        self._database = database
        self._server = server
        self._pieces = pieces
        self._monotonic = monotonic
        self._is_tight = is_tight
        self.damage = DamageNotes(database)
        """What was found to be damaged here."""
        self._row, state = recovery.load(database, self.damage)
        self.state = acceptor.started(state, monotonic())
        """What the acceptor knows; replaced as a whole."""
        self._log = LogTable(database.writer)
        self._map = MapTable()
        self._copy_turn = NOBODY  # guarded by the database's lock
        self._log_hold = LogHold()  # replaced as a whole; a hint

    def keep_log_after(self, slot: int) -> None:
        """Somebody reads on from this slot: what comes after it is not to be forgotten for a while."""
        self._log_hold = self._log_hold.named(slot, self._monotonic())

    # -------------------------------------------------------------- the acceptor's effects

    def step(self, decide: Callable[[AcceptorState], Step]) -> Reply:
        """The reply to what the acceptor decides, once its effects are written."""
        with self._database.lock:
            step = decide(self.state)
            if step.effects:
                self._carry_out(step)
            self.state = step.state
            return step.reply

    def _carry_out(self, step: Step) -> None:
        row = self._row.with_state(step.state)
        try:
            with self._database.transaction(durable=step.must_be_durable) as db:
                for effect in step.effects:
                    match effect:
                        case SavePromise():
                            pass  # it is in the row
                        case SaveTail(Tail(slot, ballot, parsed)):
                            self._log.write(db, slot, ballot, parsed)
                        case Apply(slot, parsed, is_logged):
                            if not is_logged:
                                self._log.write(db, slot, self.state.promised, parsed)
                            row = row.with_sum_changed(self._apply(db, parsed))
                held = self._log_hold.keeps_after(self._monotonic())
                self._log.trim(db, step.state.applied, self._is_tight, held)
                row.write(db)
        except BaseException:
            self._map.scan = None  # it may have been told of changes that were not made
            raise
        self._row = row

    def _apply(self, db: sqlite3.Connection, parsed: ParsedBatch) -> int:
        batch = parsed.batch
        ours = [(piece.segment, piece.number, piece.data) for piece in batch.pieces if self._server in piece.homes]
        self._pieces.apply(db, ours, batch.drops)
        return self._map.change(db, batch.puts, batch.deletes)

    # -------------------------------------------------------------- damage

    def scan(self) -> RowScan:
        """A walk through all rows of the map and the log. What it finds is for `found`."""
        return RowScan(self._database, self._map, lambda: self._row)

    def found(self, error: DamageError) -> None:
        """Somebody has found this."""
        with self._database.lock:
            if isinstance(error, DamagedMapError):
                self.damage.note(str(error), is_mended=False)
                return
            with self._database.transaction(durable=True) as db:
                if isinstance(error, DamagedLogError):
                    self._log.cut(db, min(error.slot, self.state.applied))
                self._row.write(db)  # what is in memory is right
            self.damage.note(str(error), is_mended=True)

    # -------------------------------------------------------------- copying the map

    def begin_copy(self, copy: bytes, slot: int, digest: bytes) -> Reply:
        """The reply to `BeginCopy`."""
        with self._database.lock:
            if not self._copy_turn.may_begin(copy, self._monotonic()):
                return _COPYING
            row = self._row._replace(copy=copy, copy_slot=slot, copy_digest=digest)
            with self._database.transaction(durable=False) as db:
                db.execute("DELETE FROM map_copy")
                row.write(db)
            self._row = row
            self._copy_goes_on()
        return Done()

    def copy_items(self, copy: bytes, items: Sequence[tuple[bytes, bytes]]) -> Reply:
        """The reply to `CopyItems`."""
        if any(not 0 < len(key) <= batches.MAX_KEY_BYTES for key, _ in items):
            return Error(Status.BAD_REQUEST, f"a key must have 1 to {batches.MAX_KEY_BYTES} bytes")
        with self._database.lock:
            if not copy or self._row.copy != copy:
                return _NO_SUCH_COPY
            with self._database.transaction(durable=False) as db:
                map_table.add_to_copy(db, items)
            self._copy_goes_on()
        return Done()

    def end_copy(self, copy: bytes, count: int, read_until: int) -> Reply:
        """The reply to `EndCopy`. Raises `DamageError`."""
        with self._database.lock:
            if not copy or self._row.copy != copy:
                return _NO_SUCH_COPY
            self._copy_turn = NOBODY  # whatever comes of it
            (found,) = self._database.writer.execute("SELECT count(*) FROM map_copy").fetchone()
            if found != count:
                return Error(Status.BAD_REQUEST, f"the copy has {found} items and should have {count}")
            slot, digest, applied = self._row.copy_slot, self._row.copy_digest, self.state.applied
            if slot > applied:
                self._put_copy(acceptor.copied(self.state, slot, digest), (), read_until)
            elif self.damage.map:
                since = self._batches_since(slot, digest)
                if since is None:
                    return Error(Status.TRIMMED, f"the log no longer reaches back to slot {slot}, which the copy is of")
                self._put_copy(self.state, since, read_until)
            return self.state.position()

    def _copy_goes_on(self) -> None:
        """The copy has moved: it has its turn, and what a damaged map needs of the log on top of it is kept."""
        self._copy_turn = CopyTurn(self._row.copy, self._monotonic())
        if self.damage.map:
            self.keep_log_after(self._row.copy_slot)

    def _batches_since(self, slot: int, digest: bytes) -> list[ParsedBatch] | None:
        """The batches that are applied here and not in a copy as of `slot`; None if they are not all here."""
        if slot < self.state.applied and log_table.is_trimmed(self._database.writer, slot):
            return None
        since: list[ParsedBatch] = []
        for row in log_table.read(self._database.writer, slot, self.state.applied):
            parsed = ParsedBatch.of(row.batch)
            if parsed.batch.previous != digest:
                return None
            since.append(parsed)
            digest = parsed.digest
        return since if digest == self.state.digest else None

    def _put_copy(self, state: AcceptorState, since: Sequence[ParsedBatch], read_until: int) -> None:
        """The copy takes the map's place, with the changes of these batches, whose pieces are here already."""
        row = self._row._replace(read_from=read_until, copy=b"").with_state(state)
        with self._database.transaction(durable=True) as db:
            row = row._replace(map_sum=self._map.replace(db))
            for parsed in since:
                row = row.with_sum_changed(self._map.change(db, parsed.batch.puts, parsed.batch.deletes))
            if state.applied > self.state.applied:
                self._log.cut(db, state.applied)
            row.write(db)
            self.damage.map_is_replaced(db)
        self._row, self.state = row, state
        self.damage.read_again()
