"""The scrub of a folder: bit rot is found and quarantined, good pieces stay, and it continues after a restart."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.wall_clock import WallClock

from dfs_server.pieces.holdings import Holdings
from dfs_server.pieces.open_piece import OpenPiece
from dfs_server.protocol.pieces import BLOCK_BYTES, MAX_PIECE_BYTES, block_digests
from dfs_server.scrub.schedule import DAY_S
from dfs_server.scrub.scrubber import Scrubber
from dfs_server.store.store import NamespaceStore

PERIOD_S = 30 * DAY_S
SEGMENTS = [bytes([number]) * 16 for number in (1, 2, 100, 255)]
DATA = bytes(range(256)) * 300 + b"end"  # two blocks


class Resting:
    """Records pauses instead of waiting; at pause number `stop_at` the server stops."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.pauses_s: list[float] = []
        self._stop_at = stop_at

    def __call__(self, pause_s: float) -> bool:
        if pause_s:
            self.pauses_s.append(pause_s)
        return self._stop_at is not None and len(self.pauses_s) >= self._stop_at


@pytest.fixture
def store(tmp_path: Path) -> Iterator[NamespaceStore]:
    with closing(NamespaceStore(tmp_path, "DFS1")) as store:
        yield store


@pytest.fixture
def holdings(tmp_path: Path, store: NamespaceStore, clock: WallClock) -> Holdings:
    """Four large pieces and four small ones."""
    holdings = Holdings(tmp_path, store, clock.s)
    for segment in SEGMENTS:
        put(holdings, segment, 1)
    holdings.put_small([(segment, 2, b"small" * 20) for segment in SEGMENTS])
    return holdings


@pytest.fixture
def make_scrubber(
    tmp_path: Path, store: NamespaceStore, holdings: Holdings, clock: WallClock
) -> Callable[[], Scrubber]:
    return lambda: Scrubber(tmp_path, holdings, store, clock.s)


def put(holdings: Holdings, segment: bytes, number: int) -> None:
    with holdings.files.put(segment, number, block_digests(DATA), len(DATA), replace=True) as upload:
        upload.write(DATA)
        upload.commit()


def path_of(folder: Path, segment: bytes) -> Path:
    return folder / "pieces" / segment.hex()[:2] / f"{segment.hex()}.1"


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def everything(holdings: Holdings) -> set[tuple[bytes, int]]:
    return {piece[:2] for piece in holdings.listed(None, 100)[0]}


def test_what_is_good_stays(
    make_scrubber: Callable[[], Scrubber], holdings: Holdings, clock: WallClock, caplog: pytest.LogCaptureFixture
) -> None:
    scrubber, rest = make_scrubber(), Resting()
    assert scrubber.run(PERIOD_S, 1e6, rest)
    assert len(everything(holdings)) == 8
    assert (scrubber.progress.checked, scrubber.progress.pieces) == (8, 8)
    assert (scrubber.progress.passed_s, scrubber.progress.database) == (clock.now_s, "")
    assert sum(rest.pauses_s) == pytest.approx(4 * (len(DATA) + 4096) / 1e6)
    assert caplog.text == ""
    assert not scrubber.run(PERIOD_S, 1e6, rest)
    clock.now_s += PERIOD_S
    assert scrubber.run(PERIOD_S, 1e6, rest)


@pytest.mark.parametrize("offset", [3, 13, 20, 40, 70, 64 + 64, 64 + 64 + BLOCK_BYTES + 5, -1])
def test_any_flipped_bit_of_a_file_is_found(
    make_scrubber: Callable[[], Scrubber],
    holdings: Holdings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    offset: int,
) -> None:
    bad = SEGMENTS[2]
    flip(path_of(tmp_path, bad), offset)
    content = path_of(tmp_path, bad).read_bytes()
    assert make_scrubber().run(PERIOD_S, 1e9, Resting())
    assert not path_of(tmp_path, bad).exists()
    assert len(everything(holdings)) == 7
    assert holdings.have([(bad, 1), (bad, 2)]) == {(bad, 2)}
    (kept,) = (tmp_path / "quarantine").iterdir()
    assert kept.read_bytes() == content
    assert f"piece P1 of segment {bad.hex()}" in caplog.text
    assert "'dfc heal'" in caplog.text
    put(holdings, bad, 1)
    assert len(everything(holdings)) == 8


def test_a_flipped_bit_far_inside_a_large_piece(
    make_scrubber: Callable[[], Scrubber], holdings: Holdings, tmp_path: Path
) -> None:
    large = bytes(MAX_PIECE_BYTES)
    with holdings.files.put(SEGMENTS[0], 1, block_digests(large), len(large), replace=True) as upload:
        upload.write(large)
        upload.commit()
    assert make_scrubber().run(PERIOD_S, 1e9, Resting())
    assert len(holdings.quarantine) == 0
    flip(path_of(tmp_path, SEGMENTS[0]), 700_000)
    assert make_scrubber().run(0.0, 1e9, Resting())
    assert [bad[1:] for bad in holdings.quarantine.latest(9)] == [(SEGMENTS[0], 1)]


@pytest.mark.parametrize("length", [0, 30, 64 + 64, 64 + 64 + BLOCK_BYTES])
def test_a_cut_file_is_found(
    make_scrubber: Callable[[], Scrubber], holdings: Holdings, tmp_path: Path, length: int
) -> None:
    os.truncate(path_of(tmp_path, SEGMENTS[0]), length)
    assert make_scrubber().run(PERIOD_S, 1e9, Resting())
    assert [bad[1:] for bad in holdings.quarantine.latest(9)] == [(SEGMENTS[0], 1)]


def test_the_file_of_another_piece_is_found(
    make_scrubber: Callable[[], Scrubber], holdings: Holdings, tmp_path: Path
) -> None:
    path_of(tmp_path, SEGMENTS[1]).write_bytes(path_of(tmp_path, SEGMENTS[0]).read_bytes())
    assert make_scrubber().run(PERIOD_S, 1e9, Resting())
    assert [bad[1:] for bad in holdings.quarantine.latest(9)] == [(SEGMENTS[1], 1)]


@pytest.mark.parametrize("code", [errno.EIO, errno.EBADMSG])
def test_a_piece_that_the_disk_cannot_read(
    make_scrubber: Callable[[], Scrubber],
    holdings: Holdings,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
) -> None:
    real_read = OpenPiece.read

    def failing_read(piece: OpenPiece, offset: int, size: int) -> bytes:
        if piece._header.segment == SEGMENTS[3]:
            raise OSError(code, os.strerror(code))
        return real_read(piece, offset, size)

    monkeypatch.setattr(OpenPiece, "read", failing_read)
    assert make_scrubber().run(PERIOD_S, 1e9, Resting())
    assert [bad[1:] for bad in holdings.quarantine.latest(9)] == [(SEGMENTS[3], 1)]


def test_a_failure_that_is_not_the_pieces_fault_is_tried_again(
    make_scrubber: Callable[[], Scrubber], holdings: Holdings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_descriptor(segment: bytes, number: int) -> OpenPiece | None:
        raise OSError(errno.EMFILE, "Too many open files")

    scrubber = make_scrubber()
    with monkeypatch.context() as patched:
        patched.setattr(holdings.files, "open", no_descriptor)
        with pytest.raises(OSError, match="Too many"):
            scrubber.run(PERIOD_S, 1e9, Resting())
    assert len(holdings.quarantine) == 0
    assert scrubber.run(PERIOD_S, 1e9, Resting())


def test_a_file_of_another_format_is_left_alone(
    make_scrubber: Callable[[], Scrubber], holdings: Holdings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = path_of(tmp_path, SEGMENTS[0])
    content = bytearray(path.read_bytes())
    content[8:10] = (2).to_bytes(2, "big")
    path.write_bytes(content)
    assert make_scrubber().run(PERIOD_S, 1e9, Resting())
    assert path.read_bytes() == content
    assert "format 2" in caplog.text


@pytest.mark.parametrize("data", [b"rotten" * 16 + b"1234", b""])
def test_a_bad_small_piece(
    make_scrubber: Callable[[], Scrubber], store: NamespaceStore, holdings: Holdings, tmp_path: Path, data: bytes
) -> None:
    with store._database.lock, store._database.transaction(durable=True) as db:
        db.execute("UPDATE small_pieces SET data = ? WHERE segment = ?", (data, SEGMENTS[1]))
    assert make_scrubber().run(PERIOD_S, 1e9, Resting())
    assert everything(holdings) == {(s, n) for s in SEGMENTS for n in (1, 2)} - {(SEGMENTS[1], 2)}
    (kept,) = (tmp_path / "quarantine").iterdir()
    assert kept.read_bytes() == data


def test_it_goes_on_where_it_was_when_the_server_starts_again(
    make_scrubber: Callable[[], Scrubber], holdings: Holdings, tmp_path: Path
) -> None:
    first = make_scrubber()
    assert not first.run(PERIOD_S, 1e9, Resting(stop_at=5))
    assert first.progress.checked == 5
    flip(path_of(tmp_path, SEGMENTS[0]), -1)  # checked already, so the next pass finds it
    flip(path_of(tmp_path, SEGMENTS[3]), -1)
    again, rest = make_scrubber(), Resting()
    assert again.run(PERIOD_S, 1e9, rest)
    assert len(rest.pauses_s) == 3
    assert again.progress.checked == 8
    assert [bad[1:] for bad in holdings.quarantine.latest(9)] == [(SEGMENTS[3], 1)]


def test_a_full_disk_does_not_keep_it_from_looking(
    make_scrubber: Callable[[], Scrubber], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("dfs_server.shared.durable.write_file", full)
    assert make_scrubber().run(PERIOD_S, 1e9, Resting())
    assert "No space left" in caplog.text


def test_an_impossible_note_of_how_far_it_was_is_said_once_and_begins_anew(
    make_scrubber: Callable[[], Scrubber], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "scrub.json").write_text('{"after": ["00", 77], "is_under_way": true}')
    scrubber = make_scrubber()
    assert scrubber.run(PERIOD_S, 1e9, Resting())
    assert scrubber.progress.checked == 8
    (said,) = caplog.messages
    assert "scrub.json" in said
    assert "starts over" in said


class TestSqlite:
    @staticmethod
    def break_a_page(folder: Path) -> None:
        """Corrupt a page in a part that only SQLite reads."""
        path = folder / "namespace.db"
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'map'").fetchone()
            (size,) = db.execute("PRAGMA page_size").fetchone()
        with path.open("r+b") as file:
            file.seek((page - 1) * size)
            file.write(b"\xff" * 64)

    def test_a_damaged_file_is_told_with_what_to_do(
        self, make_scrubber: Callable[[], Scrubber], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        scrubber = make_scrubber()
        self.break_a_page(tmp_path)
        assert scrubber.run(PERIOD_S, 1e9, Resting())
        assert scrubber.progress.database
        assert "Stop this server, move" in caplog.text
        assert make_scrubber().progress.database == scrubber.progress.database

    def test_one_that_cannot_even_list_its_small_pieces(
        self,
        make_scrubber: Callable[[], Scrubber],
        holdings: Holdings,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        said = "database disk image is malformed"

        def malformed(*_: object) -> None:
            raise sqlite3.DatabaseError(said)

        scrubber = make_scrubber()
        monkeypatch.setattr(holdings.tables, "listed", malformed)
        for _ in range(3):  # SQLite's check finds nothing, so it is tried again, and logged once
            assert not scrubber.run(PERIOD_S, 1e9, Resting())
        assert len(caplog.messages) == 1
        assert said in caplog.text
        said = "another one"
        assert not scrubber.run(PERIOD_S, 1e9, Resting())
        assert len(caplog.messages) == 2
        self.break_a_page(tmp_path)
        assert scrubber.run(PERIOD_S, 1e9, Resting())
        assert scrubber.progress.database

    def test_the_check_ends_at_once_when_the_server_stops(
        self,
        make_scrubber: Callable[[], Scrubber],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
        monkeypatch.setattr("dfs_server.scrub.scrubber.DATABASE_CHECK", endless)
        scrubber = make_scrubber()
        assert not scrubber.run(PERIOD_S, 1e9, lambda pause_s: pause_s == 0.0)
        assert scrubber.progress.is_under_way
        assert scrubber.progress.checked == 8
        assert caplog.text == ""
