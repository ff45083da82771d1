"""The piece store: what was put can be read, an unfinished upload leaves nothing, and names cannot lead elsewhere."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from dfs_server.pieces.file import CorruptPieceError
from dfs_server.pieces.store import BadPieceError, DigestMismatchError, PieceStore
from dfs_server.protocol.pieces import BLOCK_BYTES, MAX_PIECE_BYTES, block_digests

SEGMENT = bytes.fromhex("3f" + "a1" * 15)
OTHER = bytes.fromhex("40" + "b2" * 15)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "pieces"


@pytest.fixture
def store(folder: Path) -> PieceStore:
    return PieceStore(folder)


def pattern(length: int) -> bytes:
    return bytes(i * 7 % 251 for i in range(length % 1000)) + b"z" * (length - length % 1000)


def put(store: PieceStore, data: bytes, segment: bytes = SEGMENT, number: int = 1) -> None:
    with store.put(segment, number, block_digests(data), len(data)) as upload:
        for start in range(0, len(data), 2 * BLOCK_BYTES):
            upload.write(data[start : start + 2 * BLOCK_BYTES])
        upload.commit()


def get(store: PieceStore, segment: bytes = SEGMENT, number: int = 1) -> bytes | None:
    piece = store.open(segment, number)
    if piece is None:
        return None
    with piece:
        return piece.read(0, piece.length)


def leftovers(folder: Path) -> list[Path]:
    return list((folder / "tmp").iterdir())


@pytest.mark.parametrize("length", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 300_001, MAX_PIECE_BYTES])
def test_put_then_read(store: PieceStore, folder: Path, length: int) -> None:
    data = pattern(length)
    put(store, data)
    assert get(store) == data
    assert (folder / "3f" / f"{SEGMENT.hex()}.1").is_file()
    assert leftovers(folder) == []
    reopened = store.open(SEGMENT, 1)
    assert reopened is not None
    with reopened as piece:
        assert piece.length == length
        assert piece.digests == block_digests(data)
        assert piece.read(1, 5) == data[1:6]
        assert piece.read(length + 5, 5) == b""
        assert os.pread(piece.fileno(), length, piece.data_offset) == data


def test_what_is_not_here(store: PieceStore) -> None:
    put(store, b"x", number=2)
    assert store.open(SEGMENT, 1) is None
    asked = [(SEGMENT, 1), (SEGMENT, 2), (OTHER, 2)]
    assert store.have(asked) == {(SEGMENT, 2)}


def test_it_is_all_there_when_the_store_is_opened_again(store: PieceStore, folder: Path) -> None:
    put(store, b"data")
    again = PieceStore(folder)
    assert get(again) == b"data"
    assert again.totals() == (1, 4)


def test_an_abandoned_upload_leaves_nothing(store: PieceStore, folder: Path) -> None:
    data = pattern(3 * BLOCK_BYTES)
    with store.put(SEGMENT, 1, block_digests(data), len(data)) as upload:
        upload.write(data[:BLOCK_BYTES])
        assert len(leftovers(folder)) == 1
    assert leftovers(folder) == []
    assert get(store) is None


def test_an_incomplete_upload_cannot_be_committed(store: PieceStore, folder: Path) -> None:
    data = pattern(3 * BLOCK_BYTES)
    with store.put(SEGMENT, 1, block_digests(data), len(data)) as upload:
        upload.write(data[:BLOCK_BYTES])
        with pytest.raises(BadPieceError):
            upload.commit()
    assert (leftovers(folder), get(store)) == ([], None)


@pytest.mark.parametrize("bad_block", [0, 1, 2])
def test_a_block_that_does_not_match_its_digest(store: PieceStore, folder: Path, bad_block: int) -> None:
    data = bytearray(pattern(2 * BLOCK_BYTES + 10))
    digests = block_digests(data)
    data[bad_block * BLOCK_BYTES + 5] ^= 1
    with pytest.raises(DigestMismatchError), store.put(SEGMENT, 1, digests, len(data)) as upload:
        for start in range(0, len(data), BLOCK_BYTES):
            upload.write(data[start : start + BLOCK_BYTES])
    assert (leftovers(folder), get(store)) == ([], None)


def test_more_than_was_promised_or_odd_blocks(store: PieceStore) -> None:
    data = pattern(2 * BLOCK_BYTES)
    with store.put(SEGMENT, 1, block_digests(data), len(data)) as upload:
        with pytest.raises(BadPieceError):
            upload.write(data + b"x")
        with pytest.raises(DigestMismatchError):
            upload.write(data[:10])
    with store.put(SEGMENT, 1, block_digests(b"ab"), 2) as upload:
        upload.write(b"ab")
        with pytest.raises(BadPieceError):
            upload.write(b"c")


@pytest.mark.parametrize(
    ("segment", "number", "digest_bytes", "length"),
    [
        (b"", 1, 32, 1),
        (b"../../etc/passwd", 5, 32, 1),
        (SEGMENT + b"x", 1, 32, 1),
        (SEGMENT, 0, 32, 1),
        (SEGMENT, 5, 32, 1),
        (SEGMENT, -1, 32, 1),
        (SEGMENT, 10**30, 32, 1),
        (SEGMENT, 1, 0, 1),
        (SEGMENT, 1, 31, 1),
        (SEGMENT, 1, 64, 1),
        (SEGMENT, 1, 32, 0),
        (SEGMENT, 1, 0, -1),
        (SEGMENT, 1, 17 * 32, MAX_PIECE_BYTES + 1),
    ],
)
def test_what_is_no_piece_is_refused(
    store: PieceStore, folder: Path, segment: bytes, number: int, digest_bytes: int, length: int
) -> None:
    with pytest.raises(BadPieceError):
        store.put(segment, number, bytes(digest_bytes), length)
    assert leftovers(folder) == []


def test_an_id_is_only_ever_hex_in_a_name(store: PieceStore, folder: Path) -> None:
    segment = b"/../../../../etc"
    put(store, b"data", segment=segment)
    assert (folder / "2f" / "2f2e2e2f2e2e2f2e2e2f2e2e2f657463.1").is_file()
    for bad in (b"..", b"a" * 17):
        with pytest.raises(BadPieceError):
            store.open(bad, 1)
        with pytest.raises(BadPieceError):
            store.have([(bad, 1)])
        with pytest.raises(BadPieceError):
            store.delete(bad)


def test_putting_again_is_no_error_and_heals(store: PieceStore, folder: Path) -> None:
    data = pattern(BLOCK_BYTES + 5)
    put(store, data)
    path = folder / "3f" / f"{SEGMENT.hex()}.1"
    rotten = bytearray(path.read_bytes())
    rotten[-1] ^= 1
    path.write_bytes(rotten)
    put(store, data)
    assert get(store) == data
    path.write_bytes(b"short")
    with pytest.raises(CorruptPieceError):
        store.open(SEGMENT, 1)
    put(store, data)
    assert get(store) == data
    assert store.totals() == (1, len(data))


def test_a_piece_never_changes(store: PieceStore) -> None:
    put(store, b"first")
    with pytest.raises(DigestMismatchError, match="never change"):
        put(store, b"other")
    assert get(store) == b"first"


def test_a_file_of_another_piece_is_not_taken_for_this_one(store: PieceStore, folder: Path) -> None:
    put(store, b"first")
    path = folder / "3f" / f"{SEGMENT.hex()}.1"
    path.rename(path.with_name(f"{SEGMENT.hex()}.2"))
    with pytest.raises(CorruptPieceError, match="another piece"):
        store.open(SEGMENT, 2)


def test_delete_takes_all_four_and_nothing_else(store: PieceStore) -> None:
    for number in (1, 2, 4):
        put(store, b"abc", number=number)
    put(store, b"other", segment=OTHER)
    store.delete(SEGMENT)
    store.delete(SEGMENT)
    assert [get(store, number=number) for number in (1, 2, 3, 4)] == [None] * 4
    assert get(store, OTHER) == b"other"


def test_a_piece_that_is_being_read_can_be_deleted(store: PieceStore) -> None:
    put(store, b"abc")
    piece = store.open(SEGMENT, 1)
    assert piece is not None
    with piece:
        store.delete(SEGMENT)
        assert piece.read(0, 3) == b"abc"


def test_totals_are_kept_up_to_date_whenever_they_were_first_asked(folder: Path) -> None:
    data = pattern(3 * BLOCK_BYTES + 1)
    for ask_first in (True, False):
        store = PieceStore(folder)
        if ask_first:
            assert store.totals() == (0, 0)
        put(store, data)
        put(store, data)
        put(store, b"", segment=OTHER, number=4)
        assert store.totals() == (2, len(data))
        store.delete(SEGMENT)
        assert store.totals() == (1, 0)
        store.delete(OTHER)
        assert store.totals() == (0, 0)


def test_a_crash_leaves_only_what_the_next_start_sweeps(store: PieceStore, folder: Path) -> None:
    data = pattern(2 * BLOCK_BYTES)
    upload = store.put(SEGMENT, 1, block_digests(data), len(data))
    upload.write(data[:BLOCK_BYTES])
    assert len(leftovers(folder)) == 1
    again = PieceStore(folder)  # as after kill -9: the upload was not closed
    assert leftovers(folder) == []
    assert get(again) is None
    assert again.totals() == (0, 0)
    upload.close()


def test_a_full_disk_leaves_nothing(store: PieceStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        put(store, b"abc")
    assert leftovers(folder) == []
    monkeypatch.undo()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        put(store, b"abc")
    assert leftovers(folder) == []
    monkeypatch.undo()
    assert get(store) is None
    put(store, b"abc")
    assert get(store) == b"abc"


def test_the_recipe_file_then_name_then_folder(
    store: PieceStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    real_fsync, real_rename = os.fsync, Path.rename

    def fsync(descriptor: int) -> None:
        target = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        steps.append("fsync " + ("file" if "/tmp/" in target.removeprefix(str(folder)) else Path(target).name))
        real_fsync(descriptor)

    def rename(self: Path, target: Path) -> Path:
        steps.append("rename")
        return real_rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    put(store, b"abc")
    assert steps == ["fsync file", "rename", "fsync 3f"]
