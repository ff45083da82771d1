"""The namespace's store on a real disk: after reopening, everything that was answered is there, and nothing else."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.store_proposer import AUTHOR, BALLOT, StoreProposer

from dfs_server.protocol import batches, messages
from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.batches import Batch, InlinePiece
from dfs_server.protocol.frames import AFTER_AUTHENTICATION
from dfs_server.protocol.message import MAX_AT_ONCE
from dfs_server.protocol.messages import (
    Accept,
    AcceptedAt,
    Batches,
    BeginCopy,
    Behind,
    Changes,
    Chosen,
    CopyItems,
    Done,
    EndCopy,
    Error,
    GetBatches,
    GetChanges,
    GetPosition,
    Items,
    Learn,
    Position,
    Promise,
    Promised,
    ReadKeys,
    ReadRange,
    Refused,
    Reply,
    Values,
)
from dfs_server.protocol.status import Status
from dfs_server.store.copy_turn import COPY_RESTS_S
from dfs_server.store.database import FolderFormatError
from dfs_server.store.log_table import KEEP_BATCHES, TRIM_STEP
from dfs_server.store.reader import VALUES_BYTES
from dfs_server.store.store import NamespaceStore

SEGMENT = b"s" * 16


class Clock:
    now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[NamespaceStore]:
    store = NamespaceStore(tmp_path / "alice", "DFS1", grace_s=10.0, clock=clock)
    yield store
    store.close()


def reopened(store: NamespaceStore, tmp_path: Path) -> NamespaceStore:
    store.close()
    return NamespaceStore(tmp_path / "alice", "DFS1")


def test_vows_survive_reopening(store: NamespaceStore, tmp_path: Path) -> None:
    writer = StoreProposer(store)
    writer.commit((b"k", b"1"))
    last = writer.commit((b"k", b"2"))
    store.handle(Promise(Ballot(9, AUTHOR)))
    again = reopened(store, tmp_path)
    reply = again.handle(Promise(Ballot(10, AUTHOR)))
    assert isinstance(reply, Promised)
    assert reply.applied == 1
    assert reply.tail is not None
    assert reply.tail.batch == last
    assert again.handle(Accept(Ballot(9, AUTHOR), 2, last)) == Refused(Ballot(10, AUTHOR))
    again.close()


def test_the_reader_says_what_is_chosen(store: NamespaceStore) -> None:
    writer = StoreProposer(store)
    writer.commit((b"k", b"1"))
    assert store.handle(ReadKeys(1, b"?" * 32, (b"k",))) == Behind(0)
    assert writer.read(b"k", b"none") == (b"1", None)


def test_puts_and_deletes(store: NamespaceStore) -> None:
    writer = StoreProposer(store)
    writer.commit((b"a", b"1"), (b"b", b"2"), (b"c", b"3"))
    writer.commit((b"a", b"4"), deletes=(b"b", b"never"))
    assert writer.read(b"a", b"b", b"c") == (b"4", None, b"3")


def test_ranges_come_in_order_and_in_pages(store: NamespaceStore) -> None:
    writer = StoreProposer(store)
    keys = [b"d/%03d" % n for n in range(10)]
    writer.commit(*((key, key) for key in reversed(keys)))
    page = store.handle(ReadRange(1, writer.digest, b"d/", b"d0", 4))
    assert isinstance(page, Items)
    assert [key for key, _ in page.items] == keys[:4]
    assert page.more
    rest = store.handle(ReadRange(1, writer.digest, keys[3] + b"\0", b"d0", 100))
    assert isinstance(rest, Items)
    assert [key for key, _ in rest.items] == keys[4:]
    assert not rest.more


def test_values_that_are_more_than_fits_are_not_gathered(store: NamespaceStore) -> None:
    writer = StoreProposer(store)
    writer.commit((b"large", bytes(1_000_000)), (b"small", b"x"))
    assert writer.read(*[b"large"] * 4, b"small")[-1] == b"x"
    refused = store.handle(ReadKeys(writer.slot, writer.digest, (b"large",) * 1000))
    assert isinstance(refused, Error)
    assert refused.status == Status.TOO_MUCH


def test_what_is_not_refused_fits_in_a_frame(store: NamespaceStore) -> None:
    """Even the largest allowed number of values with the largest allowed total size fits."""
    writer = StoreProposer(store)
    size = VALUES_BYTES // MAX_AT_ONCE
    writer.commit((b"k", bytes(size)), (b"rest", bytes(VALUES_BYTES % MAX_AT_ONCE + size)))
    reply = store.handle(ReadKeys(writer.slot, writer.digest, (b"k",) * (MAX_AT_ONCE - 1) + (b"rest",)))
    assert isinstance(reply, Values)
    assert sum(len(value or b"") for value in reply.values) == VALUES_BYTES
    assert len(messages.encode(reply)) <= AFTER_AUTHENTICATION.body_bytes


def test_small_pieces_are_kept_where_they_are_at_home(store: NamespaceStore) -> None:
    writer = StoreProposer(store)
    pieces = (
        InlinePiece(SEGMENT, 1, ("DFS1", "DFS4"), b"one"),
        InlinePiece(SEGMENT, 2, ("DFS2", "DFS3"), b"two"),
    )
    writer.commit(pieces=pieces)
    for _ in range(2):  # first accepted (it may be chosen, and readers may know that), then applied
        stored = store.small_piece(SEGMENT, 1)
        assert stored is not None
        assert stored.data == b"one"
        assert store.small_piece(SEGMENT, 2) is None
        assert store.have_small([(SEGMENT, 1), (SEGMENT, 2)]) == {(SEGMENT, 1)}
        store.handle(Chosen(1, writer.digest))
    assert store.pieces.totals() == (1, 3)


def test_totals_of_small_pieces_go_with_what_comes_and_goes(store: NamespaceStore, tmp_path: Path) -> None:
    writer = StoreProposer(store)
    one = InlinePiece(SEGMENT, 1, ("DFS1",), b"one")
    other = InlinePiece(b"t" * 16, 2, ("DFS1",), b"other")
    for contents in ({"pieces": (one,)}, {"pieces": (one, other)}, {}):  # one comes twice; the last is only accepted
        writer.commit(**contents)
    assert store.pieces.totals() == (2, 8)
    store.pieces.forget([SEGMENT])
    assert store.pieces.totals() == (1, 5)
    again = reopened(store, tmp_path)
    assert again.pieces.totals() == (1, 5)
    again.close()


def test_dropped_segments_wait_for_their_grace_period(store: NamespaceStore, clock: Clock) -> None:
    writer = StoreProposer(store)
    writer.commit(pieces=(InlinePiece(SEGMENT, 1, ("DFS1",), b"one"),))
    writer.commit(drops=(SEGMENT,))
    store.handle(Chosen(2, writer.digest))
    clock.now_ns = int(9.9e9)
    assert store.pieces.expired() == []
    assert store.small_piece(SEGMENT, 1) is not None
    clock.now_ns = int(10.1e9)
    assert store.pieces.expired() == [SEGMENT]
    store.pieces.forget([SEGMENT])
    assert store.small_piece(SEGMENT, 1) is None
    assert store.pieces.expired() == []


def test_changes_name_keys_without_values(store: NamespaceStore) -> None:
    writer = StoreProposer(store)
    writer.commit((b"a", b"1"))
    writer.commit(deletes=(b"a",))
    reply = store.handle(GetChanges(1, 2, writer.digest))
    assert isinstance(reply, Changes)
    assert [(change.slot, change.keys, change.digest) for change in reply.changes] == [(2, (b"a",), writer.digest)]


def test_a_server_that_missed_batches_learns_them(store: NamespaceStore, tmp_path: Path) -> None:
    writer = StoreProposer(store)
    for n in range(5):
        writer.commit((b"k%d" % n, b"v"))
    store.handle(Chosen(5, writer.digest))
    behind = NamespaceStore(tmp_path / "behind", "DFS2")
    got = store.handle(GetBatches(0))
    assert isinstance(got, Batches)
    assert got.batches == tuple(writer.encoded)
    reply = behind.handle(Learn(got.first, got.batches))
    assert isinstance(reply, Position)
    assert (reply.applied, reply.digest) == (5, writer.digest)
    behind.close()


def test_a_copy_replaces_the_map_and_is_not_read_before_it_is_right(store: NamespaceStore, tmp_path: Path) -> None:
    writer = StoreProposer(store)
    for n in range(4):
        writer.commit((b"k", b"%d" % n))
    store.handle(Chosen(4, writer.digest))
    second = batches.digest(writer.encoded[1])
    copy = NamespaceStore(tmp_path / "copy", "DFS2")
    # The pages were read at slots 2 to 3, so the copy of slot 2 contains a change of slot 3.
    assert copy.handle(BeginCopy(b"id", 2, second)) == Done()
    assert copy.handle(CopyItems(b"id", ((b"k", b"2"),))) == Done()
    reply = copy.handle(EndCopy(b"id", 1, 3))
    assert isinstance(reply, Position)
    assert reply.applied == 2
    assert copy.handle(ReadKeys(2, second, (b"k",))) == Behind(2)
    copy.handle(Learn(3, tuple(writer.encoded[2:])))
    assert copy.handle(ReadKeys(4, writer.digest, (b"k",))) == Values(4, (b"3",))
    copy.close()


def status_of(reply: Reply) -> int:
    return reply.status if isinstance(reply, Error) else 0


def test_two_copies_at_once_do_not_mix(tmp_path: Path) -> None:
    now = [0.0]
    store = NamespaceStore(tmp_path / "copied", "DFS2", monotonic=lambda: now[0])
    store.handle(BeginCopy(b"one", 5, b"d" * 32))
    store.handle(CopyItems(b"one", ((b"k", b"1"),)))
    now[0] += COPY_RESTS_S
    assert store.handle(BeginCopy(b"two", 5, b"d" * 32)) == Done()
    for request in (CopyItems(b"one", ((b"l", b"2"),)), EndCopy(b"one", 2, 5), EndCopy(b"two", 1, 5)):
        assert status_of(store.handle(request)) == Status.BAD_REQUEST
    assert store.handle(GetPosition()) == Position(0, b"", Ballot(0, b""))
    store.close()


def test_a_copy_that_makes_progress_is_not_ended_by_another(tmp_path: Path) -> None:
    """Otherwise two clients that copy a large map would end each other's copies again and again."""
    now = [0.0]
    store = NamespaceStore(tmp_path / "copied", "DFS2", monotonic=lambda: now[0])
    store.handle(BeginCopy(b"one", 5, b"d" * 32))
    for number in range(4):
        now[0] += COPY_RESTS_S - 0.1
        assert status_of(store.handle(BeginCopy(b"two", 5, b"d" * 32))) == Status.COPYING
        assert store.handle(CopyItems(b"one", ((b"k%d" % number, b"v"),))) == Done()
    assert isinstance(store.handle(EndCopy(b"one", 4, 5)), Position)
    assert store.handle(BeginCopy(b"two", 6, b"e" * 32)) == Done(), "the first copy is finished"
    store.close()


def test_a_copy_that_failed_makes_room_for_the_next_one(store: NamespaceStore) -> None:
    store.handle(BeginCopy(b"one", 5, b"d" * 32))
    assert status_of(store.handle(EndCopy(b"one", 7, 5))) == Status.BAD_REQUEST
    assert store.handle(BeginCopy(b"two", 5, b"d" * 32)) == Done()


def test_a_trimmed_log_says_so(store: NamespaceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfs_server.store.log_table.KEEP_BATCHES", 20)
    monkeypatch.setattr("dfs_server.store.log_table.TRIM_STEP", 5)
    monkeypatch.setattr("dfs_server.store.overlay.MAX_BATCHES", 4)
    writer = StoreProposer(store)
    for _ in range(40):
        writer.commit((b"k", b"v"))
    for request in (GetBatches(0), GetChanges(0, writer.slot, writer.digest)):
        reply = store.handle(request)
        assert isinstance(reply, Error)
        assert reply.status == Status.TRIMMED
    kept = store.handle(GetBatches(35))
    assert isinstance(kept, Batches)
    assert kept.batches == tuple(writer.encoded[35:])
    assert KEEP_BATCHES > 100 * 5
    assert TRIM_STEP < KEEP_BATCHES


@pytest.mark.parametrize(("slot", "is_kept"), [(0, False), (1, True)])
def test_reading_the_map_at_a_slot_holds_the_log_and_reading_its_current_state_does_not(
    store: NamespaceStore, monkeypatch: pytest.MonkeyPatch, slot: int, is_kept: bool
) -> None:
    """A copy names the slot where it began. A sweep reads each server's current map: at slot 0 or later."""
    monkeypatch.setattr("dfs_server.store.log_table.KEEP_BATCHES", 5)
    monkeypatch.setattr("dfs_server.store.log_table.TRIM_STEP", 2)
    monkeypatch.setattr("dfs_server.store.overlay.MAX_BATCHES", 2)
    writer = StoreProposer(store)
    writer.commit((b"k", b"v"))
    first = writer.digest
    for _ in range(20):
        writer.commit((b"k", b"v"))
        assert isinstance(store.handle(ReadRange(slot, first if slot else b"", b"\0", b"\xff", 9)), Items)
    assert isinstance(store.handle(GetBatches(1)), Batches) == is_kept


def test_on_a_full_disk_the_log_is_short_and_its_room_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfs_server.store.log_table.TRIM_STEP", 5)
    monkeypatch.setattr("dfs_server.store.log_table.KEEP_TIGHT_BYTES", 200_000)
    monkeypatch.setattr("dfs_server.store.redo_log.MAX_BYTES", 40_000)
    tight = False
    with closing(NamespaceStore(tmp_path, "DFS1", is_tight=lambda: tight)) as store:
        writer = StoreProposer(store)

        def sizes(count: int) -> tuple[int, int]:
            """Write `count` more batches, and return (bytes of the log, pages of the file)."""
            for _ in range(count):
                writer.commit((b"k", bytes(20_000)))
            db = store._database.writer
            (log_bytes,) = db.execute("SELECT sum(length(batch)) FROM log").fetchone()
            return log_bytes, db.execute("PRAGMA page_count").fetchone()[0]

        log_bytes, pages = sizes(60)
        assert log_bytes > 1_000_000
        tight = True
        assert sizes(50)[0] < 300_000
        assert sizes(100)[1] <= pages + 50
        reply = store.handle(GetBatches(0))
        assert isinstance(reply, Error)
        assert reply.status == Status.TRIMMED


def test_not_a_batch_is_an_error_and_changes_nothing(store: NamespaceStore) -> None:
    for request in (Accept(BALLOT, 1, b"rubbish"), Learn(1, (b"rubbish",))):
        reply = store.handle(request)
        assert isinstance(reply, Error)
        assert reply.status == Status.BAD_REQUEST
    assert store.handle(GetPosition()) == Position(0, b"", Ballot(0, b""))


def test_a_flush_that_fails_changes_nothing(store: NamespaceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfs_server.store.overlay.MAX_BATCHES", 1)
    writer = StoreProposer(store)
    writer.commit((b"k", b"1"))
    writer.commit((b"k", bytes(1_000_000)))
    before = store.handle(GetPosition())
    (pages,) = store._database.writer.execute("PRAGMA page_count").fetchone()
    store._database.writer.execute(f"PRAGMA max_page_count = {pages}")
    third = batches.encode(Batch(1, writer.digest, b"c", 3, 0, puts=((b"k", b"3"),)))
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError, match="full"):
            store.handle(Accept(BALLOT, 3, third))
        assert store.handle(GetPosition()) == before
    store._database.writer.execute("PRAGMA max_page_count = 1000000")
    assert store.handle(Accept(BALLOT, 3, third)) == AcceptedAt(3)


def test_another_format_is_refused(store: NamespaceStore, tmp_path: Path) -> None:
    store.close()
    with sqlite3.connect(tmp_path / "alice" / "namespace.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(FolderFormatError, match="format 99"):
        NamespaceStore(tmp_path / "alice", "DFS1")


@pytest.mark.parametrize("place", ["DFS2/alice", "DFS1/bob"])
def test_a_copied_folder_is_refused_and_left_as_it_is(tmp_path: Path, place: str) -> None:
    original = tmp_path / "DFS1" / "alice"
    with closing(NamespaceStore(original, "DFS1")) as store:
        StoreProposer(store).commit((b"k", b"1"))
    copy = tmp_path / place
    shutil.copytree(original, copy)
    for _ in range(2):
        with pytest.raises(
            FolderFormatError, match=r"is what server DFS1 holds for user alice, not server DFS\d for user"
        ):
            NamespaceStore(copy, copy.parent.name)
    with closing(NamespaceStore(original, "DFS1")) as store:
        assert store.handle(GetPosition()) != Position(0, b"", Ballot(0, b""))
