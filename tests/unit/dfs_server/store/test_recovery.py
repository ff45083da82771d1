"""What a killed server remembers: everything it has answered, from SQLite's file and the redo log together."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.store_proposer import BALLOT, KillableStore

from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.batches import InlinePiece
from dfs_server.protocol.messages import (
    Accept,
    AcceptedAt,
    Batches,
    BeginCopy,
    Changes,
    Chosen,
    CopyItems,
    Done,
    EndCopy,
    Error,
    GetBatches,
    GetChanges,
    Items,
    Learn,
    Position,
    Promise,
    Promised,
    ReadKeys,
    Values,
)
from dfs_server.protocol.status import Status
from dfs_server.store import redo_log
from dfs_server.store.store import NamespaceStore


class Server(KillableStore):
    """A server whose redo log can be damaged. Each batch carries a piece of a different segment."""

    def batch(self, **contents: Any) -> bytes:
        slot = self.slot + 1
        return super().batch(pieces=(InlinePiece(segment(slot), 1, ("DFS1",), b"piece %d" % slot),), **contents)

    def map(self) -> dict[bytes, bytes] | Error:
        reply = self.page()
        return dict(reply.items) if isinstance(reply, Items) else reply

    def spoil_record(self, number: int) -> None:
        """Flip a bit in the middle of a record of the redo log."""
        path = self.folder / redo_log.FILE_NAME
        data = bytearray(path.read_bytes())
        at = -1
        for _ in range(number + 1):
            at = data.index(data[: redo_log.EPOCH_BYTES], at + 1)
        data[at + 30] ^= 1
        path.write_bytes(data)


def segment(slot: int) -> bytes:
    return bytes([slot]) * 16


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "alice")
    yield server
    server.store.close()


def test_what_was_answered_since_the_tables_were_written_is_there(server: Server) -> None:
    server.commit((b"a", b"1"), (b"b", b"1"))
    server.commit((b"a", b"2"), deletes=(b"b",))
    server.store.flush()
    server.commit((b"c", b"3"))
    server.commit((b"a", b"4"))
    assert isinstance(server.store.handle(Promise(Ballot(8, b"client01"))), Promised)
    for _ in range(2):
        server.kill()
        position = server.position()
        assert (position.applied, position.tail_digest) == (3, server.digest)
        assert position.promised == Ballot(8, b"client01")
        assert server.store.handle(ReadKeys(3, b"", (b"a", b"b", b"c"))) == Values(3, (b"2", None, b"3"))
        assert server.store.handle(GetBatches(0)) == Batches(1, tuple(server.encoded[:3]), 3)
        assert [server.store.small_piece(segment(slot), 1) is not None for slot in (1, 2, 3, 4, 5)] == [True] * 4 + [
            False
        ]
    assert server.map() == {b"a": b"4", b"c": b"3"}
    assert server.store.pieces.totals()[0] == 4
    assert server.store.damage.text() == ""


def test_the_changes_are_told_from_any_slot_on_wherever_they_are(server: Server) -> None:
    for number in range(9):
        server.commit((b"k%d" % number, b"v"))
        if number == 4:
            server.store.flush()
    for after in range(9):
        reply = server.store.handle(GetChanges(after, 9, server.digest))
        assert isinstance(reply, Changes)
        assert [change.keys for change in reply.changes] == [(b"k%d" % number,) for number in range(after, 9)]
        assert server.store.handle(GetBatches(after)) == Batches(after + 1, tuple(server.encoded[after:]), 9)


def test_what_was_learnt_is_there_too_and_what_is_only_known_to_be_chosen_may_be_forgotten(server: Server) -> None:
    server.commit((b"a", b"1"))
    server.store.handle(Chosen(1, server.digest))  # writes nothing
    server.batch(puts=((b"a", b"2"),))
    server.batch(puts=((b"a", b"3"),))
    learnt = server.store.handle(Learn(2, tuple(server.encoded[1:])))
    assert isinstance(learnt, Position)
    assert learnt.applied == 3
    server.commit((b"b", b"4"))
    server.store.handle(Chosen(4, server.digest))
    server.kill()
    position = server.position()
    assert (position.applied, position.tail_digest) == (3, server.digest)
    assert server.map() == {b"a": b"3", b"b": b"4"}


def test_a_vote_in_the_place_of_another_one_is_the_one_that_counts(server: Server) -> None:
    server.commit((b"a", b"1"))
    server.commit((b"a", b"never chosen"))
    server.encoded.pop()
    server.commit((b"a", b"2"), ballot=Ballot(4, b"client02"))
    server.kill()
    assert server.position().promised == Ballot(4, b"client02")
    assert server.map() == {b"a": b"2"}


def test_stopped_in_good_order_it_leaves_all_in_one_file(server: Server) -> None:
    server.commit((b"a", b"1"))
    server.commit((b"a", b"2"))
    assert (server.folder / redo_log.FILE_NAME).exists()
    server.store.close()
    assert not (server.folder / redo_log.FILE_NAME).exists()
    server.restart()
    assert server.position().tail_digest == server.digest
    assert server.map() == {b"a": b"2"}


@pytest.mark.parametrize("number", [1, 2])
def test_a_damaged_record_costs_the_map_and_no_promise_and_no_vote(server: Server, number: int) -> None:
    """Record 0 is a promise; records 1 to 4 are votes for slots 1 to 4."""
    server.store.handle(Promise(BALLOT))
    for slot in range(1, 5):
        server.commit((b"k%d" % slot, b"v"))
    server.spoil_record(number)
    server.kill()
    for _ in range(2):
        position = server.position()
        assert (position.applied, position.tail_digest, position.promised) == (3, server.digest, BALLOT)
        assert position.wants_copy
        refused = server.map()
        assert isinstance(refused, Error)
        assert refused.status == Status.DAMAGED
        assert "was damaged before it reached the map" in server.store.damage.text()
        assert [server.store.small_piece(segment(slot), 1) is not None for slot in (1, 2, 3, 4)] == [
            slot != number for slot in (1, 2, 3, 4)
        ]
        passed_on = server.store.handle(GetBatches(0))
        assert isinstance(passed_on, Error)
        server.kill()
    server.commit((b"new", b"v"))
    assert server.store.handle(GetBatches(3)) == Batches(4, (server.encoded[3],), 4)


def test_a_damaged_record_at_the_end_was_never_answered_for_all_that_can_be_told(server: Server) -> None:
    server.store.handle(Promise(BALLOT))
    server.commit((b"a", b"1"))
    server.commit((b"a", b"2"))
    server.spoil_record(2)
    server.kill()
    server.encoded.pop()
    assert (server.position().applied, server.position().tail_digest) == (0, server.digest)
    assert server.map() == {b"a": b"1"}


def test_without_its_redo_log_it_begins_anew(server: Server) -> None:
    server.commit((b"a", b"1"))
    server.commit((b"a", b"2"))
    server.store.flush()
    server.commit((b"a", b"3"))
    (server.folder / redo_log.FILE_NAME).unlink()
    server.kill()
    assert server.position() == Position(0, b"", Ballot(0, b""))
    assert "started over (mended)" in server.store.damage.text()
    assert server.store.small_piece(segment(1), 1) is not None


def test_with_a_damaged_state_the_pieces_in_the_redo_log_stay(server: Server) -> None:
    server.commit()
    server.commit()
    server.store.flush()  # the second becomes a vote in the log's table, and its record is overwritten
    server.commit()
    with closing(sqlite3.connect(server.folder / "namespace.db")) as db:
        db.execute("UPDATE state SET round = 99")
        db.commit()
    server.kill()
    assert server.position() == Position(0, b"", Ballot(0, b""))
    assert all(server.store.small_piece(segment(slot), 1) is not None for slot in (1, 2, 3))


def test_what_cannot_reach_the_tables_is_refused_before_it_is_in_the_redo_log(server: Server) -> None:
    server.commit((b"a", b"1"))
    before = server.position()
    encoded = server.batch(puts=((b"a", b"2"),))
    for request in (Promise(Ballot(2**63, b"client01")), Accept(Ballot(2**64 - 1, b"client01"), 2, encoded)):
        with pytest.raises(OverflowError):
            server.store.handle(request)
    assert server.position() == before
    assert server.store.handle(Accept(Ballot(2**63 - 1, b"client01"), 2, encoded)) == AcceptedAt(2)
    server.store.flush()
    server.kill()
    assert server.position().promised == Ballot(2**63 - 1, b"client01")


def test_after_a_flush_that_failed_nothing_is_written_to_its_epoch(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flush may be in SQLite's file after a power cut all the same, and then the redo log of the old epoch is
    void."""
    server.commit((b"a", b"1"))
    server.commit((b"a", b"2"))
    path = server.folder / redo_log.FILE_NAME
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr("dfs_server.store.state_row.StateRow.write", fail)
        with pytest.raises(sqlite3.OperationalError):
            server.store.flush()
        third = server.batch(puts=((b"a", b"3"),))
        with pytest.raises(sqlite3.OperationalError):
            server.store.handle(Accept(BALLOT, 3, third))
    assert path.read_bytes() == before
    assert server.store.handle(Accept(BALLOT, 3, third)) == AcceptedAt(3)
    assert path.read_bytes()[: redo_log.EPOCH_BYTES] != before[: redo_log.EPOCH_BYTES]
    server.kill()
    assert server.map() == {b"a": b"3"}


def test_an_append_that_fails_leaves_nothing_that_counts(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.commit((b"a", b"1"))
    before = server.position()

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("os.fdatasync", fail)
        encoded = server.batch(puts=((b"a", b"2"),))
        with pytest.raises(OSError, match="Input/output"):
            server.store.handle(Accept(BALLOT, 2, encoded))
    assert server.position() == before
    server.encoded.pop()
    server.commit((b"a", b"3"), ballot=Ballot(5, b"client02"))  # another batch is chosen instead
    server.kill()
    assert server.map() == {b"a": b"3"}


def test_a_damaged_promise_is_in_the_records_after_it(server: Server) -> None:
    server.commit((b"a", b"1"))
    server.store.handle(Promise(Ballot(9, b"client01")))
    server.store.handle(Chosen(1, server.digest))
    server.batch(puts=((b"a", b"2"),))
    server.store.handle(Learn(2, (server.encoded[-1],)))
    server.spoil_record(1)
    server.kill()
    assert server.position().promised == Ballot(9, b"client01")
    assert (server.position().applied, server.position().wants_copy) == (2, True)


def test_what_was_read_from_the_redo_log_is_written_to_the_disk_before_it_is_answered_for(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is killed while it waits for the disk, or after an error of the disk: the record is in the page cache
    only."""

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("os.fdatasync", fail)
        encoded = server.batch(puts=((b"a", b"1"),))
        with pytest.raises(OSError, match="Input/output"):
            server.store.handle(Accept(BALLOT, 1, encoded))
    server.kill()
    assert server.store.handle(Accept(BALLOT, 1, encoded)) == AcceptedAt(1)
    (server.folder / redo_log.FILE_NAME).write_bytes(b"")  # what a power cut would leave of it
    server.kill()
    assert (server.position().promised, server.position().tail_digest) == (BALLOT, server.digest)


def test_a_vote_that_a_copy_of_the_map_covers_leaves_its_pieces(server: Server) -> None:
    server.commit((b"a", b"1"))
    server.batch()
    copied = server.digest
    assert server.store.handle(BeginCopy(b"copy", 2, copied)) == Done()
    assert server.store.handle(CopyItems(b"copy", ((b"a", b"1"),))) == Done()
    assert isinstance(server.store.handle(EndCopy(b"copy", 1, 2)), Position)
    assert server.position().applied == 2
    assert server.store.small_piece(segment(1), 1) is not None


def test_a_read_of_the_log_leaves_no_snapshot_to_the_next_one(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        server.commit((b"k%d" % number, b"v"))
    server.store.flush()
    monkeypatch.setattr("dfs_server.store.reader.REPLY_BYTES", 1)  # the first row is not the last
    reader = server.store._reader
    with reader._logged(0) as (rows, _):
        assert rows is not None
        next(iter(rows))
    server.commit((b"a", b"new"))
    server.commit((b"a", b"newer"))
    server.store.flush()
    assert reader.values(5, (b"a",)) == Values(5, (b"new",))
    assert reader.batches(4) == Batches(5, (server.encoded[4],), 5)


def test_the_bytes_of_the_log_are_counted_right_however_often_it_is_flushed(server: Server) -> None:
    """A flush writes a vote, and the next flush writes the same batch again as chosen."""
    for number in range(5):
        server.commit((b"k", bytes(100 * number)))
        for _ in range(2):
            server.store.flush_if_idle()
    assert server.store._writer._log._bytes == sum(map(len, server.encoded))


def test_a_file_of_sqlite_that_is_older_than_the_redo_log_is_not_believed(server: Server) -> None:
    """SQLite skips damaged frames of its own log and all that follow; or an old file was restored from a backup."""
    server.commit((b"a", b"1"))
    server.store.flush()
    with closing(sqlite3.connect(server.folder / "namespace.db")) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        older = (server.folder / "namespace.db").read_bytes()
    for _ in range(2):
        server.commit((b"a", b"2"))
        server.store._writer._flush()
    server.commit((b"a", b"3"), ballot=Ballot(8, b"client01"))
    server.stop_writing()
    server.store.close()
    (server.folder / "namespace.db").write_bytes(older)
    server.store = NamespaceStore(server.folder, "DFS1")
    assert server.position() == Position(0, b"", Ballot(0, b""))
    assert "started over (mended)" in server.store.damage.text()
    assert server.store.small_piece(segment(4), 1) is not None
    server.encoded.clear()
    server.commit((b"a", b"1"), ballot=Ballot(9, b"client01"))
    server.kill()
    assert server.position().promised == Ballot(9, b"client01")


def test_a_redo_log_that_comes_back_after_a_power_cut_counts_for_nothing(server: Server) -> None:
    """The log was removed when the server stopped, without an fsync of the folder."""
    for number in range(3):
        server.commit((b"a", b"%d" % number))
        server.store._writer._flush()
    server.commit((b"a", b"3"))
    path = server.folder / redo_log.FILE_NAME
    removed = path.read_bytes()
    server.store.close()
    path.write_bytes(removed)
    server.store = NamespaceStore(server.folder, "DFS1")
    before = server.position()
    server.store._writer._flush()
    server.kill()
    assert server.position() == before
    assert server.map() == {b"a": b"3"}
    assert server.store.damage.text() == ""
