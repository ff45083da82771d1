"""The digests of a piece, on two levels, so that a part of a piece can be checked without the rest.

A piece is divided into blocks of 64 KiB (the last one may be shorter). Level one: the BLAKE3 digest of each block.
Level two: the BLAKE3 digest of the level-one digests, joined. Extents store only level two (32 bytes); a server keeps
level one next to the piece and sends it along, and the client checks it against level two.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from blake3 import blake3

from dfs_server.protocol.batches import DIGEST_BYTES

BLOCK_BYTES: Final = 64 * 1024
MAX_PIECE_BYTES: Final = 1024 * 1024
MAX_PIECE_BLOCKS: Final = MAX_PIECE_BYTES // BLOCK_BYTES
PIECE_NUMBERS: Final = (1, 2, 3, 4)

Buffer = bytes | bytearray | memoryview


def block_count(length: int) -> int:
    """The number of blocks of a piece of `length` bytes: none if it is empty."""
    return -(-length // BLOCK_BYTES)


def blocks_of(data: Buffer) -> Iterator[memoryview]:
    """The blocks of a piece (or of a run of whole blocks of one), without copying."""
    view = memoryview(data)
    for start in range(0, len(view), BLOCK_BYTES):
        yield view[start : start + BLOCK_BYTES]


def block_digest(block: Buffer) -> bytes:
    """Level one: the digest of one block."""
    return blake3(block).digest()


def block_digests(data: Buffer) -> bytes:
    """Level one: the digests of the blocks of `data`, joined; 32 bytes each."""
    if memoryview(data).nbytes <= BLOCK_BYTES:
        return blake3(data).digest() if data else b""
    return b"".join(blake3(block).digest() for block in blocks_of(data))


def piece_digest(digests: bytes) -> bytes:
    """Level two: the digest of the joined level-one digests."""
    return blake3(digests).digest()


def blocks_match(data: Buffer, digests: bytes, first_block: int = 0) -> bool:
    """Whether `data`, the blocks of a piece from `first_block` on, has these level-one digests (of the whole piece)."""
    start = first_block * DIGEST_BYTES
    found = block_digests(data)
    return found == digests[start : start + len(found)]
