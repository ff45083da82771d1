"""Open files of pieces: a read always sees the file that has the name now, and their number is bounded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.wall_clock import WallClock

from dfs_server.pieces.file import CorruptPieceError
from dfs_server.pieces.holdings import Holdings
from dfs_server.pieces.open_piece import OpenPiece
from dfs_server.pieces.open_pieces import OpenPieces
from dfs_server.pieces.store import PieceStore
from dfs_server.protocol.pieces import block_digests
from dfs_server.scrub.scrubber import Scrubber
from dfs_server.store.store import NamespaceStore

A, B, C = (bytes([number]) * 16 for number in (1, 2, 3))
OLD, NEW = b"old bytes" * 10_000, b"NEW BYTES" * 10_000
GRACE_S = 100


@pytest.fixture
def open_pieces() -> Iterator[OpenPieces]:
    with closing(OpenPieces(2)) as pieces:
        yield pieces


@pytest.fixture
def holdings(tmp_path: Path, clock: WallClock, open_pieces: OpenPieces) -> Iterator[Holdings]:
    with closing(NamespaceStore(tmp_path, "DFS1", grace_s=GRACE_S, clock=clock.ns)) as store:
        yield Holdings(tmp_path, store, clock.s, open_pieces)


@pytest.fixture
def files(holdings: Holdings) -> PieceStore:
    return holdings.files


@pytest.fixture
def scrubber(tmp_path: Path, holdings: Holdings, clock: WallClock) -> Scrubber:
    return Scrubber(tmp_path, holdings, holdings._store, clock.s)


def put(files: PieceStore, segment: bytes, data: bytes = OLD) -> Path:
    with files.put(segment, 1, block_digests(data), len(data), replace=True) as upload:
        upload.write(data)
        upload.commit()
    return files._path(segment, 1)


def read(files: PieceStore, segment: bytes) -> bytes | None:
    """Read the piece as a client does."""
    piece = files.take(segment, 1)
    if piece is None:
        return None
    with piece:
        data = piece.read(0, piece.length)
        assert block_digests(data) == piece.digests
        return data


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def descriptor_of(files: PieceStore, segment: bytes) -> int:
    """Return the descriptor by which the piece is read."""
    piece = files.take(segment, 1)
    assert piece is not None
    with piece:
        return piece.fileno()


def test_a_piece_is_opened_once_for_several_requests(files: PieceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[bytes] = []
    really_open = files.open

    def counting_open(segment: bytes, number: int) -> OpenPiece | None:
        opened.append(segment)
        return really_open(segment, number)

    monkeypatch.setattr(files, "open", counting_open)
    put(files, A)
    put(files, B, NEW)
    for _ in range(3):
        assert (read(files, A), read(files, B)) == (OLD, NEW)
    assert opened == [A, B]


def test_two_at_a_time_have_a_file_each(files: PieceStore, open_pieces: OpenPieces) -> None:
    put(files, A)
    one, other = files.take(A, 1), files.take(A, 1)
    assert one is not None
    assert other is not None
    assert one.fileno() != other.fileno()
    with one, other:
        assert one.read(0, 10) == other.read(0, 10)
    assert open_pieces.count() == 1
    assert sorted([is_open(one.fileno()), is_open(other.fileno())]) == [False, True]


def replace(files: PieceStore, holdings: Holdings, clock: WallClock, scrubber: Scrubber) -> None:
    put(files, A, NEW)


def drop_and_delete(files: PieceStore, holdings: Holdings, clock: WallClock, scrubber: Scrubber) -> None:
    """Drop the copy, as healing does with one that it no longer needs; it is deleted after the grace period."""
    os.utime(files._path(A, 1), (clock.now_s, clock.now_s))
    assert holdings.drop([(A, 1)], 0) == [True]
    assert read(files, A) == OLD, "it can still be read until then"
    clock.now_s += GRACE_S
    assert holdings.delete_dropped() == (0, 1)


def put_in_quarantine(files: PieceStore, holdings: Holdings, clock: WallClock, scrubber: Scrubber) -> None:
    """Let the scrub find bit rot in one block; readers of other blocks do not see it."""
    with files._path(A, 1).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")
    scrubber.look_at(A, 1)
    assert len(holdings.quarantine) == 1


GONE_OR_NEW: list[tuple[Callable[[PieceStore, Holdings, WallClock, Scrubber], None], bytes | None]] = [
    (replace, NEW),
    (drop_and_delete, None),
    (put_in_quarantine, None),
]


@pytest.mark.parametrize(("change", "found"), GONE_OR_NEW)
@pytest.mark.parametrize("is_read_meanwhile", [False, True])
def test_what_the_server_itself_changes(
    holdings: Holdings,
    clock: WallClock,
    scrubber: Scrubber,
    open_pieces: OpenPieces,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[PieceStore, Holdings, WallClock, Scrubber], None],
    found: bytes | None,
    is_read_meanwhile: bool,
) -> None:
    """The file is closed at once, which frees its room, and without relying on fstat(2) to notice the change."""
    monkeypatch.setattr(OpenPiece, "is_as_it_was", lambda _: True)
    files = holdings.files
    put(files, A)
    descriptor = descriptor_of(files, A)
    assert is_open(descriptor)
    if is_read_meanwhile:
        piece = files.take(A, 1)
        assert piece is not None
        assert piece.fileno() == descriptor
        with piece:
            change(files, holdings, clock, scrubber)
            assert piece.read(0, 9) == OLD[:9], "a read in progress can finish"
    else:
        change(files, holdings, clock, scrubber)
    assert not any(is_of_a_gone_file(descriptor) for descriptor in Path("/proc/self/fd").iterdir())
    assert read(files, A) == found


def is_of_a_gone_file(descriptor: Path) -> bool:
    """Whether the descriptor is of a file of the piece that has no name any more or is in quarantine."""
    try:
        target = str(descriptor.readlink())
    except OSError:
        return False
    return A.hex() in target and (target.endswith("(deleted)") or "quarantine" in target)


def cut(path: Path) -> None:
    os.truncate(path, 1000)


def write_into_its_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(70)
        file.write(b"damaged")


def test_a_file_that_was_removed_by_hand_is_not_here(files: PieceStore) -> None:
    """An administrator or a file system check may remove a file: it is noticed as if the file were opened anew."""
    path = put(files, A)
    descriptor = descriptor_of(files, A)
    path.unlink()
    assert files.take(A, 1) is None
    assert not is_open(descriptor)


def test_a_file_that_somebody_else_replaces_is_read(files: PieceStore) -> None:
    path = put(files, A)
    assert read(files, A) == OLD
    other = path.with_name("other")
    other.write_bytes(put(files, B, NEW).read_bytes())
    other.rename(path)
    with pytest.raises(CorruptPieceError, match="of another piece"):
        files.take(A, 1)


@pytest.mark.parametrize(
    ("change", "says"), [(cut, "does not have the length"), (write_into_its_header, "the header is damaged")]
)
def test_a_header_is_checked_again_when_the_file_has_changed(
    files: PieceStore, change: Callable[[Path], None], says: str
) -> None:
    path = put(files, A)
    descriptor = descriptor_of(files, A)
    before = path.stat().st_ctime_ns
    while path.stat().st_ctime_ns == before:  # on most kernels the time changes only with the next tick of the clock
        change(path)
    with pytest.raises(CorruptPieceError, match=says):
        files.take(A, 1)
    assert not is_open(descriptor)


def test_the_files_that_are_open_are_bounded(files: PieceStore, open_pieces: OpenPieces) -> None:
    descriptors = {}
    for segment in (A, B, C):
        put(files, segment)
    for segment in (A, B, A, C):  # B is the least recently used
        descriptors[segment] = descriptor_of(files, segment)
    assert open_pieces.count() == 2
    assert {segment: is_open(descriptor) for segment, descriptor in descriptors.items()} == {A: True, B: False, C: True}


def test_nothing_is_kept_after_the_end(files: PieceStore, open_pieces: OpenPieces) -> None:
    put(files, A)
    put(files, B)
    idle = descriptor_of(files, A)
    piece = files.take(B, 1)
    assert piece is not None
    with piece:
        open_pieces.close()
        assert not is_open(idle)
        assert piece.read(0, 3) == b"old"
    assert not is_open(piece.fileno())
    assert open_pieces.count() == 0


def test_without_room_nothing_is_kept(tmp_path: Path) -> None:
    files = PieceStore(tmp_path / "pieces")
    put(files, A)
    assert not is_open(descriptor_of(files, A))
