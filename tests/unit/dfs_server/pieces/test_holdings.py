"""All pieces of a user together: listed in order, dropped and restored, deleted when due, quarantined."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest
from support.store_proposer import StoreProposer
from support.wall_clock import WallClock

from dfs_server.pieces.holdings import Holdings
from dfs_server.pieces.store import BadPieceError
from dfs_server.protocol.batches import InlinePiece
from dfs_server.protocol.pieces import block_digests
from dfs_server.store.store import NamespaceStore

A, B, C, D = (bytes([number]) * 16 for number in (1, 1 + 16, 200, 255))
GRACE_S = 100
DAY_S = 86_400


@pytest.fixture
def store(tmp_path: Path, clock: WallClock) -> Iterator[NamespaceStore]:
    with closing(NamespaceStore(tmp_path, "DFS1", grace_s=GRACE_S, clock=clock.ns)) as store:
        yield store


@pytest.fixture
def holdings(tmp_path: Path, store: NamespaceStore, clock: WallClock) -> Holdings:
    return Holdings(tmp_path, store, clock.s)


def put_large(holdings: Holdings, clock: WallClock, segment: bytes, number: int, data: bytes = b"large") -> None:
    """Put a large piece as a client does, with the test's time."""
    with holdings.files.put(segment, number, block_digests(data), len(data), replace=True) as upload:
        upload.write(data)
        upload.commit()
    os.utime(file_of(holdings, segment, number), (clock.now_s, clock.now_s))


def file_of(holdings: Holdings, segment: bytes, number: int) -> Path:
    found = holdings.files._path(segment, number)
    assert found.is_file()
    return found


def quarantine(holdings: Holdings, segment: bytes) -> None:
    assert holdings.quarantine_large(segment, 1, file_of(holdings, segment, 1).stat().st_ino) is not None


def commit(store: NamespaceStore, *, drops: tuple[bytes, ...] = (), pieces: tuple[InlinePiece, ...] = ()) -> None:
    """The first batch of the log, chosen and applied."""
    proposer = StoreProposer(store)
    proposer.commit(drops=drops, pieces=pieces)
    proposer.choose()


def names(holdings: Holdings) -> list[tuple[bytes, int]]:
    return [piece[:2] for piece in holdings.listed(None, 1000)[0]]


class TestListing:
    def test_large_and_small_ones_in_one_order(
        self, holdings: Holdings, store: NamespaceStore, clock: WallClock
    ) -> None:
        put_large(holdings, clock, C, 1, b"12345")
        put_large(holdings, clock, A, 4)
        clock.now_s += 7
        holdings.put_small([(B, 2, b"xy"), (A, 1, b"")])
        commit(store, pieces=(InlinePiece(D, 3, ("DFS1",), b"abc"), InlinePiece(D, 4, ("DFS2",), b"abc")))
        early, late = clock.now_s - 7, clock.now_s
        expected = [(A, 1, 0, late), (A, 4, 5, early), (B, 2, 2, late), (C, 1, 5, early), (D, 3, 3, late)]
        assert holdings.listed(None, 1000) == (expected, False)

    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
    def test_page_by_page(self, holdings: Holdings, clock: WallClock, limit: int) -> None:
        for number in (1, 2, 3, 4):
            put_large(holdings, clock, A, number)
            put_large(holdings, clock, D, number)
        holdings.put_small([(segment, number, b"s") for segment in (B, C) for number in (1, 2, 3, 4)])
        found: list[tuple[bytes, int]] = []
        after, more = None, True
        while more:
            page, more = holdings.listed(after, limit)
            assert len(page) <= limit
            found += [piece[:2] for piece in page]
            after = found[-1]
        assert found == [(segment, number) for segment in (A, B, C, D) for number in (1, 2, 3, 4)]

    def test_a_piece_that_is_here_twice_is_told_once(self, holdings: Holdings, clock: WallClock) -> None:
        put_large(holdings, clock, A, 1)
        holdings.put_small([(A, 1, b"small")])
        assert names(holdings) == [(A, 1)]

    def test_other_files_are_none_of_its_business(self, holdings: Holdings, clock: WallClock, tmp_path: Path) -> None:
        put_large(holdings, clock, A, 1)
        for name in ("notes.txt", A.hex(), f"{A.hex()}.5", f"x{A.hex()}.2", f"{A.hex()}.1.bak"):
            (tmp_path / "pieces" / "01" / name).write_bytes(b"?")
        assert names(holdings) == [(A, 1)]

    def test_after_what_is_no_piece(self, holdings: Holdings) -> None:
        with pytest.raises(BadPieceError):
            holdings.listed((b"short", 1), 10)


class TestPuttingSmallOnes:
    def test_they_take_the_place_of_what_is_here_and_totals_stay_right(self, holdings: Holdings) -> None:
        holdings.put_small([(A, 1, b"bad"), (A, 2, b"other")])
        holdings.put_small([(A, 1, b"good piece")])
        stored = holdings.tables.get(A, 1)
        assert stored is not None
        assert (stored.data, stored.digests) == (b"good piece", block_digests(b"good piece"))
        assert holdings.totals() == (2, 15)

    @pytest.mark.parametrize(
        "pieces",
        [
            [(A[:15], 1, b"x")],
            [(A, 5, b"x")],
            [(A, 1, bytes(32 * 1024 + 1))],
            [(bytes([number]) * 16, 1, bytes(32 * 1024)) for number in range(33)],
            [(A, 1, b"x"), (A, 1, b"y")],
        ],
    )
    def test_what_is_not_taken_leaves_nothing(self, holdings: Holdings, pieces: list[tuple[bytes, int, bytes]]) -> None:
        with pytest.raises(BadPieceError):
            holdings.put_small([(D, 1, b"first"), *pieces])
        assert holdings.totals() == (0, 0)


class TestDropping:
    def test_after_the_grace_period_they_are_gone(self, holdings: Holdings, clock: WallClock) -> None:
        put_large(holdings, clock, A, 1)
        put_large(holdings, clock, A, 2)
        holdings.put_small([(B, 1, b"small"), (B, 2, b"kept")])
        assert holdings.drop([(A, 1), (B, 1), (C, 1)], 0) == [True, True, False]
        assert holdings.have([(A, 1), (A, 2), (B, 1), (B, 2)]) == {(A, 2), (B, 2)}
        assert names(holdings) == [(A, 2), (B, 2)]
        clock.now_s += GRACE_S - 1
        assert holdings.delete_dropped() == (0, 0)
        assert file_of(holdings, A, 1)  # clients that still read it can go on
        assert holdings.tables.get(B, 1) is not None
        clock.now_s += 1
        assert holdings.delete_dropped() == (0, 2)
        assert (holdings.files.held(A, 1), holdings.tables.get(B, 1)) == (None, None)
        assert names(holdings) == [(A, 2), (B, 2)]
        assert holdings.totals() == (2, 9)
        assert holdings.delete_dropped() == (0, 0)

    def test_the_deletion_is_durable_or_after_a_power_cut_the_drop_would_apply_to_one_put_since(
        self, holdings: Holdings, store: NamespaceStore, clock: WallClock
    ) -> None:
        put_large(holdings, clock, A, 1)
        holdings.drop([(A, 1)], 0)
        clock.now_s += GRACE_S
        with store._database.transaction(durable=False):
            pass
        assert holdings.delete_dropped() == (0, 1)
        # Putting a large piece now writes nothing to SQLite's file, which records no drop of it.
        (synchronous,) = store._database.writer.execute("PRAGMA synchronous").fetchone()
        assert synchronous == 2  # FULL: this connection's last transaction has waited for the disk

    def test_only_those_that_are_old_enough(self, holdings: Holdings, clock: WallClock) -> None:
        put_large(holdings, clock, A, 1)
        holdings.put_small([(B, 1, b"small")])
        clock.now_s += DAY_S - 1
        assert holdings.drop([(A, 1), (B, 1)], DAY_S) == [False, False]
        put_large(holdings, clock, A, 1)  # putting it again makes it young
        clock.now_s += 1
        assert holdings.drop([(A, 1), (B, 1)], DAY_S) == [False, True]
        clock.now_s += GRACE_S
        assert holdings.delete_dropped() == (0, 1)
        assert names(holdings) == [(A, 1)]

    def test_putting_it_again_takes_it_back(self, holdings: Holdings, store: NamespaceStore, clock: WallClock) -> None:
        put_large(holdings, clock, A, 1)
        holdings.put_small([(B, 1, b"small")])
        assert holdings.drop([(A, 1), (B, 1)], 0) == [True, True]
        put_large(holdings, clock, A, 1)
        holdings.put_small([(B, 1, b"small")])
        assert holdings.have([(A, 1), (B, 1)]) == {(A, 1), (B, 1)}
        clock.now_s += GRACE_S + 1
        assert holdings.delete_dropped() == (0, 0)
        assert names(holdings) == [(A, 1), (B, 1)]

    def test_a_drop_is_remembered_when_the_server_starts_again(
        self, holdings: Holdings, store: NamespaceStore, clock: WallClock, tmp_path: Path
    ) -> None:
        put_large(holdings, clock, A, 1)
        holdings.drop([(A, 1)], 0)
        store.close()
        with closing(NamespaceStore(tmp_path, "DFS1", grace_s=GRACE_S, clock=clock.ns)) as again:
            reopened = Holdings(tmp_path, again, clock.s)
            assert reopened.have([(A, 1)]) == set()
            put_large(reopened, clock, A, 1)
            clock.now_s += GRACE_S + 1
            assert reopened.delete_dropped() == (0, 0)
            assert reopened.have([(A, 1)]) == {(A, 1)}

    def test_a_segment_that_a_batch_drops_is_not_listed_and_takes_its_marks_along(
        self, holdings: Holdings, store: NamespaceStore, clock: WallClock
    ) -> None:
        put_large(holdings, clock, A, 1)
        put_large(holdings, clock, B, 1)
        holdings.drop([(A, 1)], 0)
        commit(store, drops=(A,))
        assert names(holdings) == [(B, 1)]
        clock.now_s += GRACE_S
        assert holdings.delete_dropped() == (1, 0)
        put_large(holdings, clock, A, 1)
        assert names(holdings) == [(A, 1), (B, 1)]

    @pytest.mark.parametrize(("piece", "age_s"), [((A[:3], 1), 0), ((A, 0), 0), ((A, 1), -1)])
    def test_what_is_no_proper_wish(self, holdings: Holdings, piece: tuple[bytes, int], age_s: int) -> None:
        with pytest.raises(BadPieceError):
            holdings.drop([piece], age_s)


class TestQuarantine:
    def test_a_bad_large_piece_is_kept_out_of_the_way(
        self, holdings: Holdings, clock: WallClock, tmp_path: Path
    ) -> None:
        put_large(holdings, clock, A, 1, b"rotten")
        file = file_of(holdings, A, 1)
        content, inode = file.read_bytes(), file.stat().st_ino
        place = holdings.quarantine_large(A, 1, inode)
        assert place == tmp_path / "quarantine" / f"{A.hex()}.1.{clock.now_s}"
        assert place.read_bytes() == content
        assert (holdings.have([(A, 1)]), holdings.totals()) == (set(), (0, 0))
        assert [bad[:] for bad in holdings.quarantine.latest(10)] == [(clock.now_s, A, 1)]

    def test_one_that_was_replaced_meanwhile_stays(self, holdings: Holdings, clock: WallClock) -> None:
        put_large(holdings, clock, A, 1, b"rotten")
        inode = file_of(holdings, A, 1).stat().st_ino
        with file_of(holdings, A, 1).open("rb"):  # keeps its inode number from being used again
            put_large(holdings, clock, A, 1, b"good")
            assert holdings.quarantine_large(A, 1, inode) is None
        assert holdings.have([(A, 1)]) == {(A, 1)}
        assert len(holdings.quarantine) == 0

    def test_a_bad_small_piece(self, holdings: Holdings, clock: WallClock) -> None:
        holdings.put_small([(A, 1, b"rotten")])
        stored = holdings.tables.get(A, 1)
        assert stored is not None
        place = holdings.quarantine_small(A, 1, stored)
        assert place is not None
        assert place.read_bytes() == b"rotten"
        assert (holdings.have([(A, 1)]), holdings.totals()) == (set(), (0, 0))

    def test_what_lies_there_is_known_when_the_server_starts_again(
        self, holdings: Holdings, store: NamespaceStore, clock: WallClock, tmp_path: Path
    ) -> None:
        put_large(holdings, clock, A, 1)
        quarantine(holdings, A)
        (tmp_path / "quarantine" / "notes").write_text("not ours")
        assert [bad[1:] for bad in Holdings(tmp_path, store, clock.s).quarantine.latest(10)] == [(A, 1)]

    def test_it_goes_when_its_segment_is_dropped(
        self, holdings: Holdings, store: NamespaceStore, clock: WallClock, tmp_path: Path
    ) -> None:
        for segment in (A, B):
            put_large(holdings, clock, segment, 1)
            quarantine(holdings, segment)
        commit(store, drops=(A,))
        clock.now_s += GRACE_S
        holdings.delete_dropped()
        assert [path.name[:32] for path in (tmp_path / "quarantine").iterdir()] == [B.hex()]
        assert [bad.segment for bad in holdings.quarantine.latest(10)] == [B]

    def test_an_old_one_goes_only_if_a_good_one_is_in_its_place(
        self, holdings: Holdings, clock: WallClock, tmp_path: Path
    ) -> None:
        for segment in (A, B):
            put_large(holdings, clock, segment, 1)
            quarantine(holdings, segment)
        put_large(holdings, clock, A, 1)
        clock.now_s += 30 * DAY_S
        holdings.forget_old_findings()
        assert len(holdings.quarantine) == 2
        clock.now_s += 1
        holdings.forget_old_findings()
        assert [bad.segment for bad in holdings.quarantine.latest(10)] == [B]
        assert [path.name[:32] for path in (tmp_path / "quarantine").iterdir()] == [B.hex()]


def test_a_long_request_lets_others_in_between(holdings: Holdings, store: NamespaceStore, clock: WallClock) -> None:
    """Reading a small piece or putting a large one does not wait until thousands of others have been looked up."""
    pieces = [(number.to_bytes(16, "big"), 1) for number in range(1000)]
    put_large(holdings, clock, *pieces[0])
    reading, putting = Turns(store.pieces._read_lock), Turns(holdings.files.lock)
    store.pieces._read_lock = reading  # type: ignore[assignment]
    holdings.files.lock = putting  # type: ignore[assignment]
    assert holdings.have(pieces) == {pieces[0]}
    assert reading.count >= 4
    assert holdings.drop(pieces, 0) == [True] + [False] * 999
    assert putting.count >= 4


class Turns:
    """A lock that counts how often it was taken."""

    def __init__(self, lock: AbstractContextManager[object]) -> None:
        self._lock = lock
        self.count = 0

    def __enter__(self) -> None:
        self.count += 1
        self._lock.__enter__()

    def __exit__(self, *_: object) -> None:
        self._lock.__exit__(None, None, None)


def test_what_a_batch_dropped_counts_before_it_is_in_the_tables(store: NamespaceStore) -> None:
    commit(store, drops=(B,))
    assert not store._writer.overlay.is_empty
    assert store.pieces.dropped([(A, 1), (B, 1)]) == {(B, 1)}


def test_a_small_piece_that_waits_can_be_dropped(holdings: Holdings, store: NamespaceStore) -> None:
    commit(store, pieces=(InlinePiece(A, 1, ("DFS1",), b"small"),))
    assert not store._writer.overlay.is_empty
    assert holdings.drop([(A, 1)], 0) == [True]
