"""The file of a large piece: a header that identifies the piece and allows checking it, then the piece.

    offset  bytes  field of a piece's file (integers big-endian)
         0      8  magic, b"DFSPIECE"
         8      2  format version, 1
        10      2  number, 1 to 4
        12      4  length of the piece
        16     16  the segment's id
        32     32  BLAKE3 of the 32 bytes above and of the level-one digests
        64   32*n  level-one digests, one for each block of 64 KiB
      64+32n    .  the piece

Knows bytes and open files, but no folders. No threads, no state.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

from blake3 import blake3

from dfs_server.protocol.batches import DIGEST_BYTES
from dfs_server.protocol.pieces import BLOCK_BYTES, MAX_PIECE_BYTES, block_count

MAGIC: Final = b"DFSPIECE"
FORMAT: Final = 1
_FIELDS: Final = struct.Struct(">8sHHI16s")
HEADER_BYTES: Final = _FIELDS.size + DIGEST_BYTES


class CorruptPieceError(Exception):
    """A piece's file on disk is too short, or its header is damaged."""


class OtherFormatError(CorruptPieceError):
    """The file has, or seems to have, another format: another version of this program wrote it."""


class PieceHeader(NamedTuple):
    """The header of a piece's file."""

    segment: bytes
    number: int
    length: int
    digests: bytes

    @property
    def data_offset(self) -> int:
        """The offset in the file at which the piece begins."""
        return HEADER_BYTES + len(self.digests)

    def encode(self) -> bytes:
        """The part of the file before the piece."""
        fields = _FIELDS.pack(MAGIC, FORMAT, self.number, self.length, self.segment)
        return fields + blake3(fields + self.digests).digest() + self.digests


def read_header(descriptor: int, path: Path) -> PieceHeader:
    """The header of a piece's file, checked against the file's length. Raises `CorruptPieceError`."""
    start = os.pread(descriptor, HEADER_BYTES, 0)
    if len(start) < HEADER_BYTES:
        raise CorruptPieceError(f"{path}: the file has {len(start)} bytes, less than a header")
    magic, version, number, length, segment = _FIELDS.unpack_from(start)
    if magic != MAGIC:
        raise CorruptPieceError(f"{path}: not a piece's file")
    if version != FORMAT:
        raise OtherFormatError(f"{path}: a piece's file of format {version}; this program knows format {FORMAT}")
    if length > MAX_PIECE_BYTES:
        raise CorruptPieceError(f"{path}: the header says {length} bytes; a piece has at most {MAX_PIECE_BYTES}")
    digests = os.pread(descriptor, DIGEST_BYTES * block_count(length), HEADER_BYTES)
    header = PieceHeader(segment, number, length, digests)
    if blake3(start[: _FIELDS.size] + digests).digest() != start[_FIELDS.size :]:
        raise CorruptPieceError(f"{path}: the header is damaged")
    if os.fstat(descriptor).st_size != header.data_offset + length:
        raise CorruptPieceError(f"{path}: the file does not have the length that its header says")
    return header


def piece_bytes(file_bytes: int) -> int:
    """The length of the piece in a file of this size, without reading the header."""
    body = max(0, file_bytes - HEADER_BYTES)
    blocks = -(-body // (BLOCK_BYTES + DIGEST_BYTES))
    return max(0, body - blocks * DIGEST_BYTES)
