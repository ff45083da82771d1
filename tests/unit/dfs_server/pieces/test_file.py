"""The file of a piece: its bytes, worked out by hand, and every kind of damage."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from dfs_server.pieces.file import CorruptPieceError, PieceHeader, piece_bytes, read_header
from dfs_server.protocol.pieces import MAX_PIECE_BYTES, block_digests

SEGMENT = bytes(range(16))
DATA = b"x" * 70_000


def header_of(data: bytes) -> PieceHeader:
    return PieceHeader(SEGMENT, 2, len(data), block_digests(data))


def read(path: Path, content: bytes) -> PieceHeader:
    path.write_bytes(content)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return read_header(descriptor, path)
    finally:
        os.close(descriptor)


def test_the_layout() -> None:
    encoded = header_of(DATA).encode()
    fields = b"DFSPIECE" + struct.pack(">HHI", 1, 2, 70_000) + SEGMENT
    digests = blake3(b"x" * 65_536).digest() + blake3(b"x" * 4_464).digest()
    assert encoded == fields + blake3(fields + digests).digest() + digests
    assert header_of(DATA).data_offset == len(encoded) == 128


@pytest.mark.parametrize("length", [0, 1, 65_535, 65_536, 65_537, MAX_PIECE_BYTES])
def test_what_is_written_is_read(tmp_path: Path, length: int) -> None:
    data = bytes(length)
    header = header_of(data)
    assert read(tmp_path / "p", header.encode() + data) == header
    assert piece_bytes(len(header.encode()) + length) == length


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: b"",
        lambda file: file[:63],
        lambda file: file[:-1],
        lambda file: file + b"x",
        lambda file: b"X" + file[1:],
        lambda file: file[:9] + b"\x02" + file[10:],
        lambda file: file[:12] + b"\xff\xff\xff\xff" + file[16:],
        lambda file: file[:20] + b"X" + file[21:],
        lambda file: file[:40] + b"X" + file[41:],
        lambda file: file[:100] + b"X" + file[101:],
    ],
)
def test_a_damaged_file_is_noticed(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(CorruptPieceError):
        read(tmp_path / "p", damage(header_of(DATA).encode() + DATA))


def test_sizes_of_files_that_are_no_pieces_do_no_harm() -> None:
    assert [piece_bytes(size) for size in (0, 63, 64, 65, 96)] == [0, 0, 0, 0, 0]
