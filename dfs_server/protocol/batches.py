"""Batches: the content of one slot of a namespace's log.

A batch is a list of changes to the namespace's ordered key-value map, all of them absolute (puts and deletes), so that
applying a batch again over a later state converges (see docs/consistency.md, "Copying the map"). It also contains the
pieces of small segments whole, and names the segments that nothing refers to any more. Keys and values are opaque to a
server.

Each batch names the digest of the batch before it. A log is thus a hash chain: "slot 7 with digest d was chosen"
determines everything about slots 1 to 7, and a server with a different history is detected at the next accept.
"""

from __future__ import annotations

from typing import Final

import msgspec
from blake3 import blake3

FORMAT: Final = 1
DIGEST_BYTES: Final = 32
SEGMENT_ID_BYTES: Final = 16
NO_BATCH: Final = b""
"""The digest before the first batch."""

MAX_BATCH_BYTES: Final = 2 * 1024 * 1024
MAX_KEY_BYTES: Final = 1024


class InlinePiece(msgspec.Struct, frozen=True, array_like=True):
    """A piece of a small segment, carried in the log itself.

    `homes` are names of servers; a server that applies the batch stores the piece if its own name is among them.
    """

    segment: bytes
    number: int
    homes: tuple[str, ...]
    data: bytes


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """The changes of one slot. `seal` is reserved for a MAC by the client; it is empty today."""

    format: int
    previous: bytes
    author: bytes
    sequence: int
    time_ns: int
    puts: tuple[tuple[bytes, bytes], ...] = ()
    deletes: tuple[bytes, ...] = ()
    drops: tuple[bytes, ...] = ()
    pieces: tuple[InlinePiece, ...] = ()
    seal: bytes = b""

    def changed_keys(self) -> list[bytes]:
        """Every key that the batch changes."""
        return [key for key, _ in self.puts] + list(self.deletes)


class BadBatchError(ValueError):
    """These bytes are not a batch of this format, or break one of its limits."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Batch)


def encode(batch: Batch) -> bytes:
    """The batch as bytes. Raises `BadBatchError` if it is over `MAX_BATCH_BYTES`."""
    data = _encoder.encode(batch)
    if len(data) > MAX_BATCH_BYTES:
        raise BadBatchError(f"a batch of {len(data)} bytes; at most {MAX_BATCH_BYTES} are allowed")
    return data


def decode(data: bytes) -> Batch:
    """Decode a batch, which may come from anyone. Raises `BadBatchError`."""
    if len(data) > MAX_BATCH_BYTES:
        raise BadBatchError(f"a batch of {len(data)} bytes; at most {MAX_BATCH_BYTES} are allowed")
    try:
        batch = _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadBatchError(f"not a batch: {error}") from error
    _check(batch)
    return batch


def _check(batch: Batch) -> None:
    if batch.format != FORMAT:
        raise BadBatchError(f"batch format {batch.format}; this program knows format {FORMAT}")
    if len(batch.previous) not in (0, DIGEST_BYTES):
        raise BadBatchError(f"the digest of the previous batch has {len(batch.previous)} bytes")
    for key in batch.changed_keys():
        if not 0 < len(key) <= MAX_KEY_BYTES:
            raise BadBatchError(f"a key must have 1 to {MAX_KEY_BYTES} bytes")
    for segment in batch.drops:
        if len(segment) != SEGMENT_ID_BYTES:
            raise BadBatchError(f"a dropped segment's id must have {SEGMENT_ID_BYTES} bytes")
    for piece in batch.pieces:
        if len(piece.segment) != SEGMENT_ID_BYTES or piece.number not in (1, 2, 3, 4):
            raise BadBatchError("an inline piece without a proper segment id and number")


def digest(encoded: bytes) -> bytes:
    """The identity of an encoded batch: BLAKE3, 32 bytes."""
    return blake3(encoded).digest()
