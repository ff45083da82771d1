"""Writes a namespace: the acceptor's decisions, copies of the map, and the handling of damage.

Whatever a step of the acceptor must make durable (a promise, a vote, a missing batch that has arrived) is a record in
the redo log, and only then is the reply given. That an already accepted batch is chosen can be learnt again, and is not
written at all. Chosen batches are gathered in the overlay. A *flush* writes everything to SQLite's tables in one
transaction and begins a new epoch of the redo log: when either is full, when nothing more has arrived for a moment, and
before anything that needs the tables to be current. Only a flush trims the log. No keys are interpreted here.

Invariants:
- SQLite's file holds the state of one moment, and the redo log everything promised and accepted since then: whatever
  was answered is in one of them, durably.
- The log's rows and their effects on the other tables are written in one transaction, so no batch is trimmed that is
  not in the tables.
- The transaction is durable before a record of its epoch overwrites one of the previous epoch.

A damaged log is cut, a damaged map waits to be replaced by a copy; a server that finds its memory damaged when it
starts begins as if its disk were new (`recovery`).

Threads: everything may be called from any thread; the database's lock guards `state`, and everything that is written.
`state` and `overlay` are replaced only once their contents are durable, so reading them needs no lock.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from dfs_server.pieces.tables import PieceTables
from dfs_server.protocol import batches
from dfs_server.protocol.messages import Done, Error, Reply
from dfs_server.protocol.status import Status
from dfs_server.store import acceptor, log_table, map_table, recovery, redo_log
from dfs_server.store.acceptor import AcceptorState, Apply, ParsedBatch, SavePromise, SaveTail, Step
from dfs_server.store.copy_turn import NOBODY, CopyTurn
from dfs_server.store.damage import DamagedLogError, DamagedMapError, DamageError, DamageNotes
from dfs_server.store.database import Database
from dfs_server.store.log_hold import LogHold
from dfs_server.store.log_table import LogTable
from dfs_server.store.map_table import MapTable
from dfs_server.store.overlay import Overlay, WaitingBatch
from dfs_server.store.redo_log import NO_EPOCH, Kind, Record, RedoLog
from dfs_server.store.row_scan import RowScan

log = logging.getLogger(__name__)

MAX_ROUND: Final = 2**63 - 1
"""The limit of SQLite's integers. It must be checked when a record is written, since the record has to reach the
tables."""
_NO_SUCH_COPY: Final = Error(Status.BAD_REQUEST, "no copy of the map with this id is under way")
_COPYING: Final = Error(Status.COPYING, "another client copies the map to this server")


class NamespaceWriter:
    """Writes to `database`, and the pieces of batches to `pieces`. `server` is this server's name, as in inline pieces'
    homes. `is_tight`: whether only the reserve is left on the disk."""

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
        """The damage found here."""
        self._redo_path = database.path.with_name(redo_log.FILE_NAME)
        self._redo_log: RedoLog | None = None  # opened when something is written
        found = recovery.load(database, server, self._redo_path, self.damage)
        self._row, self.overlay = found.row, found.overlay
        self.state = acceptor.started(found.state, monotonic())
        """The acceptor's state; replaced as a whole."""
        self._log = LogTable(database.writer)
        self._map = MapTable()
        self._seen: object = None  # belongs to the thread that calls `flush_if_idle`
        self._copy_turn = NOBODY  # guarded by the database's lock
        self._log_hold = LogHold()  # replaced as a whole; a hint
        if found.damage:
            self.damage.note(found.damage, is_mended=False)  # before the flush: afterwards nothing would show it
        if found.is_replayed:
            # A server may have been killed before fdatasync, or after one that failed: then the last record was read
            # from memory and is not on disk. It must not be vouched for until it is.
            self._flush()

    def close(self) -> None:
        """Leave everything in SQLite's file, and no redo log."""
        with self._database.lock:
            if self._row.epoch != NO_EPOCH:
                try:
                    self._flush(NO_EPOCH)
                    self._redo_path.unlink()
                except (sqlite3.Error, OSError) as error:
                    log.warning("%s: the last accepted batches stay in the redo log: %s", self._database.path, error)
            self._leave_redo_log()

    def keep_log_after(self, slot: int) -> None:
        """A client reads on from this slot: keep the batches after it for a while."""
        self._log_hold = self._log_hold.named(slot, self._monotonic())

    # -------------------------------------------------------------- the acceptor's effects

    def step(self, decide: Callable[[AcceptorState], Step]) -> Reply:
        """Reply with the acceptor's decision, once its effects are written."""
        with self._database.lock:
            step = decide(self.state)
            if step.effects:
                self._carry_out(step)
            self.state = step.state
            return step.reply

    def position(self, recall: bytes) -> Reply:
        """The reply to `GetPosition`, which does not wait for the disk unless a lease must be recalled. Everything in
        `state` is durable; a vote that is being written has not been answered, so no client relies on it."""
        state = self.state
        step = acceptor.position(state, recall, self._monotonic())
        if step.state is state:
            return step.reply
        return self.step(lambda state: acceptor.position(state, recall, self._monotonic()))

    def _carry_out(self, step: Step) -> None:
        """Write what must be durable, then gather what is chosen."""
        if step.state.promised.round > MAX_ROUND:
            raise OverflowError(f"a ballot's round is at most {MAX_ROUND}")
        records: list[Record] = []
        for effect in step.effects:
            match effect:
                case SaveTail(tail):
                    records.append(Record(Kind.VOTE, tail.ballot, tail.slot, tail.parsed))
                case Apply(slot, parsed, is_logged=False):
                    records.append(Record(Kind.CHOSEN, self.state.promised, slot, parsed))
                case SavePromise(ballot) if len(step.effects) == 1:
                    records.append(Record(Kind.PROMISE, ballot))
        if records:
            self._append(records)
        now_ns = self._database.clock()
        for effect in step.effects:
            if isinstance(effect, Apply):
                self.overlay.add(effect.slot, self.state.promised, effect.parsed, self._server, now_ns)

    def _append(self, records: Sequence[Record]) -> None:
        if self._redo_log is None or self._redo_log.is_full or self.overlay.is_full:
            self._flush()
        assert self._redo_log is not None
        try:
            self._redo_log.append(records)
        except BaseException:
            self._leave_redo_log()
            raise

    def _leave_redo_log(self) -> None:
        """It is unknown which epoch, or which record, is the last one on disk. So nothing more is written to this file:
        the next write must flush first, which begins another epoch."""
        if self._redo_log is not None:
            self._redo_log.close()
            self._redo_log = None

    # -------------------------------------------------------------- from the redo log to the tables

    def flush(self) -> None:
        """Write what waits to the tables, durably. If nothing waits, this costs nothing."""
        if not self.overlay.is_empty:
            with self._database.lock:
                self._flush()

    def flush_if_idle(self) -> None:
        """Flush if nothing has arrived since the last call."""
        state, redo = self.state, self._redo_log
        seen = state.applied, state.promised, state.tail.parsed.digest if state.tail is not None else b""
        waits = not self.overlay.is_empty or (redo is not None and not redo.is_empty)
        if waits and seen == self._seen:
            with self._database.lock:
                self._flush()
        self._seen = seen

    def _flush(self, epoch: bytes | None = None) -> None:
        """Begin a new epoch, or end the last one."""
        overlay, state = self.overlay, self.state
        if self._redo_log is None and epoch is None:
            redo_log.create(self._redo_path, is_new=self._row.epoch == NO_EPOCH)
        next_epoch = redo_log.epoch_after(self._row.epoch) if epoch is None else epoch
        row = self._row.with_state(state)._replace(epoch=next_epoch)
        try:
            with self._changing() as db:
                waiting = overlay.batches(0)[1]
                if (tail := state.tail) is not None:
                    waiting.append(WaitingBatch(tail.slot, tail.ballot, tail.parsed.digest, tail.parsed.encoded))
                self._log.write(db, waiting)
                self._pieces.apply(db, overlay.pieces(), overlay.drops())
                row = row.with_sum_changed(self._map.change(db, overlay.changes()))
                held = self._log_hold.keeps_after(self._monotonic())
                self._log.trim(db, state.applied, self._is_tight, held)
                row.write(db)
        except BaseException:
            self._leave_redo_log()  # the failed transaction may still be there after a power cut, and with it its epoch
            raise
        self._row = row
        self.overlay = Overlay(state.applied, row.read_from)
        if epoch is None:
            self._redo_log = self._redo_log or RedoLog(self._redo_path, row.epoch)
            self._redo_log.begin(row.epoch)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """A durable transaction that changes the map or the log."""
        try:
            with self._database.transaction(durable=True) as db:
                yield db
        except BaseException:
            self._map.scan = None  # it may have been updated for changes that were not made
            with contextlib.suppress(sqlite3.Error):
                self._log.count_again(self._database.writer)
            raise

    # -------------------------------------------------------------- damage

    def scan(self) -> RowScan:
        """A walk through all rows of the map and the log. Pass its findings to `found`."""
        return RowScan(self._database, self._map, lambda: self._row)

    def found(self, error: DamageError) -> None:
        """Handle damage that was found."""
        with self._database.lock:
            if isinstance(error, DamagedMapError):
                self.damage.note(str(error), is_mended=False)
                return
            with self._changing() as db:
                if isinstance(error, DamagedLogError):
                    self._log.cut(db, min(error.slot, self._row.applied))
                self._row.write(db)  # the state in memory is right
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
            self._copy_turn = NOBODY  # whatever the outcome
            (found,) = self._database.writer.execute("SELECT count(*) FROM map_copy").fetchone()
            if found != count:
                return Error(Status.BAD_REQUEST, f"the copy has {found} items and should have {count}")
            slot, digest, applied = self._row.copy_slot, self._row.copy_digest, self.state.applied
            if self.state.tail is not None and slot > applied:  # the batch may have been chosen: its pieces stay
                self.overlay.add_pieces(self.state.tail.parsed.batch, self._server, self._database.clock())
            self._flush()  # pieces and drops stay
            if slot > applied:
                self._put_copy(acceptor.copied(self.state, slot, digest), (), read_until)
            elif self.damage.map:
                since = self._batches_since(slot, digest)
                if since is None:
                    return Error(Status.TRIMMED, f"the log no longer reaches back to slot {slot}, which the copy is of")
                self._put_copy(self.state, since, read_until)
            return self.state.position()

    def _copy_goes_on(self) -> None:
        """The copy has made progress: it keeps its turn, and the part of the log that a damaged map will need on top of
        it is kept."""
        self._copy_turn = CopyTurn(self._row.copy, self._monotonic())
        if self.damage.map:
            self.keep_log_after(self._row.copy_slot)

    def _batches_since(self, slot: int, digest: bytes) -> list[ParsedBatch] | None:
        """The batches that are applied here and not in a copy as of `slot`; None if they are not all available.
        Everything applied is in the tables."""
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
        """Replace the map with the copy, plus the changes of these batches, whose pieces are already here."""
        row = self._row._replace(read_from=read_until, copy=b"").with_state(state)
        changes = Overlay(0, 0)
        for slot, parsed in enumerate(since):
            changes.add(slot, state.promised, parsed, self._server, 0)
        with self._changing() as db:
            row = row._replace(map_sum=self._map.replace(db))
            row = row.with_sum_changed(self._map.change(db, changes.changes()))
            if state.applied > self.state.applied:
                self._log.cut(db, state.applied)
            row.write(db)
            self.damage.map_is_replaced(db)
        self._row, self.overlay, self.state = row, Overlay(state.applied, read_until), state
        self.damage.read_again()
