"""Damage in SQLite's file that SQLite does not notice: never answered, reported, and repaired as far as one server
can."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.store_proposer import BALLOT, KillableStore

from dfs_server.protocol import batches
from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.batches import Batch, InlinePiece
from dfs_server.protocol.messages import (
    Batches,
    BeginCopy,
    Changes,
    CopyItems,
    Done,
    EndCopy,
    Error,
    GetBatches,
    GetChanges,
    Items,
    Position,
    Promise,
    Promised,
    ReadRange,
)
from dfs_server.protocol.status import Status
from dfs_server.store.damage import DamagedMapError, DamageError

SEGMENT = b"s" * 16


class Server(KillableStore):
    """A server with a way to damage its file."""

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


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server with five batches, four applied and one accepted, and the map a = 1, b = 2, c = 3."""
    server = Server(tmp_path / "alice")
    server.commit((b"a", b"1"), (b"gone", b"?"))
    server.commit((b"b", b"?"), (b"c", b"3"))
    server.commit((b"b", b"2"))
    server.commit(deletes=(b"gone", b"never there"))
    server.choose()
    server.commit((b"late", b"x"))
    yield server
    server.store.close()


ROWS = {
    "a value": "UPDATE map SET value = x'32' WHERE key = x'61'",
    "a value that is none": "UPDATE map SET value = 7 WHERE key = x'61'",
    "a value that is text": "UPDATE map SET value = CAST(x'ff' AS TEXT) WHERE key = x'61'",
    "a key": "UPDATE map SET key = x'6161' WHERE key = x'61'",
    "a checksum": "UPDATE map SET checksum = checksum + 1 WHERE key = x'61'",
}


@pytest.mark.parametrize("statement", ROWS.values(), ids=ROWS.keys())
def test_a_damaged_row_of_the_map_is_never_answered(server: Server, statement: str) -> None:
    server.choose()
    server.spoil(statement)
    reply = server.items()
    assert isinstance(reply, Error)
    assert reply.status == Status.DAMAGED
    assert server.position().wants_copy
    # If one row is bad, others may be missing: nothing of this map is answered, not even after a restart.
    server.kill()
    refused = server.read(b"b")
    assert isinstance(refused, Error)
    assert refused.status == Status.DAMAGED
    assert server.store.damage.text() == "a row of the map is not what was written"


def test_a_damaged_value_that_is_asked_for_by_its_key(server: Server) -> None:
    server.spoil(ROWS["a value"])
    reply = server.read(b"a")
    assert isinstance(reply, Error)
    assert reply.status == Status.DAMAGED


def test_a_damaged_map_does_not_keep_the_log_from_going_on(server: Server) -> None:
    server.spoil(ROWS["a value"])
    assert isinstance(server.items(), Error)
    server.commit((b"d", b"4"))
    server.choose()
    assert isinstance(server.store.handle(GetBatches(0)), Batches)
    promised = server.store.handle(Promise(Ballot(9, b"client")))
    assert isinstance(promised, Promised)
    assert promised.applied == server.slot == 6


@pytest.mark.parametrize("checksum", ["1.5", "9e999", "x'01'", "CAST(x'ff' AS TEXT)"])
def test_a_checksum_that_is_not_an_integer_does_not_stop_the_log(server: Server, checksum: str) -> None:
    """One flipped bit turns an integer in SQLite's file into a real number; the sum would become one too, and damage
    the state."""
    server.choose()
    server.spoil(f"UPDATE map SET checksum = {checksum} WHERE key = x'61'")
    server.commit((b"a", b"new"))
    server.choose()
    server.store.flush()
    before = server.position()
    server.kill()
    assert server.position() == before
    assert server.store.damage.text() == ""
    with pytest.raises(DamagedMapError):
        server.scan()


@pytest.mark.parametrize("slot", [4, 5, 7])
def test_a_copy_takes_the_damaged_maps_place(server: Server, slot: int) -> None:
    """The copy may be of an earlier slot, in which case the log has the rest, of the same slot, or, as usual, of a
    later one."""
    server.choose()  # 5: `late`
    server.spoil("DELETE FROM map WHERE key = x'62'")
    with pytest.raises(DamageError):
        server.scan()
    server.store.found(DamagedMapError("rows are missing"))
    as_of_4 = ((b"a", b"1"), (b"b", b"2"), (b"c", b"3"))
    items = as_of_4 if slot == 4 else (*as_of_4, (b"late", b"x"))
    reply = server.copy(slot, *items, digest=b"7" * 32 if slot == 7 else None)
    assert isinstance(reply, Position)
    assert (reply.applied, reply.wants_copy) == (max(slot, 5), False)
    assert server.items() == (*as_of_4, (b"late", b"x"))
    assert server.store.damage.text() == "rows are missing (mended)"
    server.scan()
    server.kill()
    server.scan()
    assert server.items() == (*as_of_4, (b"late", b"x"))
    assert server.store.small_piece(SEGMENT, 1) is not None


def test_a_copy_that_cannot_be_completed_is_refused(server: Server) -> None:
    server.spoil(ROWS["a value"])
    assert isinstance(server.items(), Error)
    server.spoil("DELETE FROM log WHERE slot <= 3")
    reply = server.copy(2, (b"a", b"1"))
    assert isinstance(reply, Error)
    assert reply.status == Status.TRIMMED
    assert server.position().wants_copy
    assert "batch" not in server.store.damage.text()  # only the map is damaged


def test_the_log_is_kept_back_to_the_copy_while_that_goes_on(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfs_server.store.log_table.KEEP_BATCHES", 5)
    monkeypatch.setattr("dfs_server.store.log_table.TRIM_STEP", 2)
    monkeypatch.setattr("dfs_server.store.overlay.MAX_BATCHES", 1)
    server.spoil(ROWS["a value"])
    assert isinstance(server.items(), Error)
    assert server.store.handle(BeginCopy(b"copy", 2, server.digest_of(2))) == Done()
    for number in range(20):
        assert server.store.handle(CopyItems(b"copy", ((b"copied", b"%d" % number),))) == Done()
        server.commit((b"new", b"%d" % number))
    server.choose()
    position = server.store.handle(EndCopy(b"copy", 1, 2))
    assert isinstance(position, Position)
    assert not position.wants_copy
    assert server.items() == ((b"b", b"2"), (b"copied", b"19"), (b"late", b"x"), (b"new", b"19"))


def test_a_copy_of_another_history_is_refused(server: Server) -> None:
    server.spoil(ROWS["a value"])
    assert isinstance(server.items(), Error)
    reply = server.copy(3, (b"a", b"1"), digest=b"another" + bytes(25))
    assert isinstance(reply, Error)
    assert server.position().wants_copy


def test_a_sound_map_is_not_replaced_by_an_older_copy(server: Server) -> None:
    assert isinstance(server.copy(2, (b"a", b"old")), Position)
    server.choose()
    assert server.read(b"a", b"b") == (b"1", b"2")


BATCHES = {
    "a batch": "UPDATE log SET batch = CAST(substr(batch, 1, 40) || x'ff' || substr(batch, 42) AS BLOB) WHERE slot = 2",
    "a batch cut off": "UPDATE log SET batch = substr(batch, 1, 9) WHERE slot = 2",
    "a digest": "UPDATE log SET digest = x'00' WHERE slot = 2",
    "a lost batch": "DELETE FROM log WHERE slot = 2",
    "a slot": "UPDATE log SET slot = -3 WHERE slot = 2",
}


@pytest.mark.parametrize("statement", BATCHES.values(), ids=BATCHES.keys())
@pytest.mark.parametrize("ask", [GetBatches(0), GetChanges(0, 0, b"")], ids=["batches", "changes"])
def test_a_damaged_batch_is_never_passed_on(server: Server, statement: str, ask: GetBatches | GetChanges) -> None:
    server.spoil(statement)
    reply = server.store.handle(ask)
    assert isinstance(reply, Error)
    assert reply.status == Status.DAMAGED
    # From then on it counts as trimmed, and what follows it is good.
    reply = server.store.handle(ask)
    assert isinstance(reply, Error)
    assert reply.status == Status.TRIMMED
    rest = server.store.handle(GetChanges(2, 4, server.digest_of(4)))
    assert isinstance(rest, Changes)
    assert [change.slot for change in rest.changes] == [3, 4]
    assert server.store.damage.text() == "the batch at slot 2 of the log was damaged or missing (mended)"
    assert not server.position().wants_copy
    server.scan()
    assert server.items() == ((b"a", b"1"), (b"b", b"2"), (b"c", b"3"), (b"late", b"x"))


STATES = {
    "the promise": "UPDATE state SET round = 1",
    "the position": "UPDATE state SET applied = 3",
    "the digest": "UPDATE state SET digest = x'00'",
    "the sum": "UPDATE state SET map_sum = map_sum + 1",
    "another type": "UPDATE state SET digest = 'text'",
    "text that is none": "UPDATE state SET digest = CAST(x'ffee' AS TEXT)",
    "a lost row": "DELETE FROM state",
    "a row before it": "UPDATE state SET id = 0",
}


@pytest.mark.parametrize("statement", STATES.values(), ids=STATES.keys())
def test_a_server_with_damaged_state_starts_over(server: Server, statement: str) -> None:
    server.spoil(statement)
    server.kill()
    position = server.position()
    assert (position.applied, position.promised.round, position.tail_digest) == (0, 0, b"")
    assert not position.wants_copy  # like a server with a new disk, it gets the batches or a copy
    assert server.store.handle(ReadRange(0, b"", b"\0", b"\xff", 9)) == Items(0, (), more=False)
    assert server.store.handle(GetBatches(0)) == Batches(1, (), 0)
    assert "started over (mended)" in server.store.damage.text()
    assert server.store.small_piece(SEGMENT, 1) is not None
    server.scan()


@pytest.mark.parametrize("statement", STATES.values(), ids=STATES.keys())
def test_a_state_that_is_damaged_while_the_server_runs_is_written_anew(server: Server, statement: str) -> None:
    server.spoil(statement)
    with pytest.raises(DamageError) as found:
        server.scan()
    server.store.found(found.value)
    server.scan()
    before = server.position()
    server.kill()
    assert server.position() == before
    assert server.read(b"a") == (b"1",)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE log SET round = 2 WHERE slot = 5",
        "UPDATE log SET client = x'00' WHERE slot = 5",
        "UPDATE log SET batch = x'00' WHERE slot = 5",
        "UPDATE log SET digest = x'00' WHERE slot = 5",
        "UPDATE log SET digest = CAST(x'ffee' AS TEXT) WHERE slot = 5",
        "UPDATE log SET slot = 6 WHERE slot = 5",
        "DELETE FROM log WHERE slot = 5",
    ],
)
def test_a_damaged_vote_is_forgotten_and_nothing_else(server: Server, statement: str) -> None:
    server.spoil(statement)
    server.kill()
    position = server.position()
    assert (position.applied, position.promised, position.tail_digest) == (4, BALLOT, b"")
    assert server.store.damage.text() == "the last batch that it had accepted was damaged (mended)"
    server.encoded.pop()
    server.commit((b"late", b"y"))
    server.choose()
    server.kill()
    assert server.read(b"a", b"late") == (b"1", b"y")


@pytest.mark.parametrize(
    "statement",
    [
        *ROWS.values(),
        "DELETE FROM map WHERE key = x'62'",
        "INSERT INTO map VALUES (x'ee', x'00', 7)",
        "UPDATE map SET key = 5 WHERE key = x'62'",
    ],
)
def test_a_scan_finds_damage_in_what_is_never_read(server: Server, statement: str) -> None:
    server.scan()
    server.spoil(statement)
    with pytest.raises(DamagedMapError):
        server.scan()


def test_a_scan_goes_through_maps_of_several_steps_while_batches_go_on(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfs_server.store.row_scan.STEP_ROWS", 10)
    monkeypatch.setattr("dfs_server.store.overlay.MAX_BATCHES", 2)
    server.commit(*((b"k%03d" % number, b"old") for number in range(100)))
    server.choose()
    server.store.flush()
    steps = 0
    for _ in server.store.scan().steps():
        steps += 1
        # Changes, deletes and adds keys behind the walk, at it, and ahead of it.
        server.commit(
            (b"k%03d" % (steps * 7), b"new"),
            (b"k%03d" % (99 - steps), b"new"),
            (b"n%d" % steps, b"new"),
            deletes=(b"k%03d" % (steps * 3),),
        )
        server.choose()
    assert steps > 10
    server.scan()


def test_a_scan_notices_a_lost_row_though_batches_go_on(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfs_server.store.row_scan.STEP_ROWS", 10)
    server.commit(*((b"k%03d" % number, b"old") for number in range(50)))
    server.choose()
    monkeypatch.setattr("dfs_server.store.overlay.MAX_BATCHES", 2)
    server.spoil("DELETE FROM map WHERE key = CAST('k030' AS BLOB)")

    def walk() -> None:
        for step, _ in enumerate(server.store.scan().steps()):
            server.commit((b"k%03d" % step, b"new"))
            server.choose()

    with pytest.raises(DamagedMapError, match="missing"):
        walk()


def test_a_transaction_that_fails_ends_the_scan_and_leaves_the_sum(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfs_server.store.row_scan.STEP_ROWS", 1)
    server.choose()
    server.store.flush()
    server.commit((b"a", b"changed behind the walk"))
    server.choose()
    walk = server.store.scan().steps()
    next(walk), next(walk), next(walk)  # the log, a, b

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("dfs_server.store.state_row.StateRow.write", full)
        with pytest.raises(sqlite3.OperationalError):
            server.store.flush()
    for _ in walk:
        pass
    server.store.flush()
    server.scan()


def test_a_log_whose_batches_do_not_follow_each_other_is_cut_by_the_scan(server: Server) -> None:
    server.store.flush()
    with closing(sqlite3.connect(server.folder / "namespace.db")) as db:
        encoded = batches.encode(Batch(batches.FORMAT, b"9" * 32, b"client", 3, 0, ((b"b", b"evil"),)))
        db.execute("UPDATE log SET batch = ?, digest = ? WHERE slot = 3", (encoded, batches.digest(encoded)))
        db.commit()
    with pytest.raises(DamageError, match="slot 3") as found:
        server.scan()
    server.store.found(found.value)
    server.scan()
    reply = server.store.handle(GetBatches(2))
    assert isinstance(reply, Error)
    assert reply.status == Status.TRIMMED


def test_notes_are_few(server: Server) -> None:
    for number in range(50):
        with server.store._database.lock:
            server.store.damage.note(f"number {number}", is_mended=True)
    assert server.store.damage.text().startswith("number 49 (mended); number 48 (mended)")
    assert "number 30" not in server.store.damage.text()
