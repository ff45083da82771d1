"""What an acceptor has promised and accepted since its tables were last written: a file to which records are appended.

An accept is one record here and one fdatasync, before it is answered. Many of them reach SQLite's file at once
(`NamespaceWriter.flush`), which records a new *epoch* in the same transaction; records carry the epoch in which they
were written, so from then on everything in this file is void, and it is rewritten from its beginning. The file is
filled with zeros up to its end: overwriting costs the disk less than growing. Epochs are counted, so records of a later
epoch than the one in SQLite's file show that SQLite has lost a flush.

    epoch (8 bytes), length of the head and of the batch (4 each, big-endian), checksum (8)
    head: MessagePack of kind, slot, round, client, digest of the batch
    batch: as received

An incomplete record with nothing after it was never answered: the power failed while it was being written. One that is
followed by a complete record of the same epoch was answered, and is damaged.

Knows no rules of the log: `recovery` replays the records. Threads: all under the database's lock.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from dfs_server.protocol import batches
from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.batches import BadBatchError
from dfs_server.shared import durable
from dfs_server.store.acceptor import ParsedBatch

FILE_NAME: Final = "namespace.redo"
NO_EPOCH: Final = b""
"""There is no file: the server was stopped cleanly."""
EPOCH_BYTES: Final = 8
MAX_BYTES: Final = 2 * 1024 * 1024
"""Size from which a file counts as full."""
GROW_BYTES: Final = 256 * 1024
"""Number of bytes by which the file grows."""
_COUNT_BYTES: Final = 4
"""The first bytes of an epoch are its number, which wraps around; the others are random."""
_COUNT: Final = 256**_COUNT_BYTES
_FRAME: Final = struct.Struct(f">{EPOCH_BYTES}sII8s")


class Kind(IntEnum):
    """The kind of decision."""

    PROMISE = 1
    VOTE = 2
    CHOSEN = 3


class Record(NamedTuple):
    """A promise of `ballot`; a vote for a batch at `slot` under it; or a batch that is known to be chosen there."""

    kind: Kind
    ballot: Ballot
    slot: int = 0
    parsed: ParsedBatch | None = None


class Found(NamedTuple):
    """A record in the file, in order, and whether an answered record is missing before it."""

    record: Record
    is_after_damage: bool


class RedoLog:
    """The file at `path`, open for writing; created by `create`. Its existing records are void."""

    def __init__(self, path: Path, epoch: bytes) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self._size = os.fstat(self._file).st_size
        self._end = 0
        self._epoch = epoch

    def begin(self, epoch: bytes) -> None:
        """Begin a new epoch: everything in the file is void, since SQLite's file durably has it, and this epoch."""
        self._epoch, self._end = epoch, 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing was written since the epoch began."""
        return not self._end

    @property
    def is_full(self) -> bool:
        """Whether it is time to flush."""
        return self._end >= MAX_BYTES

    def append(self, records: Iterable[Record]) -> None:
        """Append these records durably. Raises OSError: then the log must not be used any more."""
        data = b"".join([_encoded(self._epoch, record) for record in records])
        while self._size < self._end + len(data):
            durable.write_all_at(self._file, bytes(GROW_BYTES), self._size)
            self._size += GROW_BYTES
        durable.write_all_at(self._file, data, self._end)
        os.fdatasync(self._file)
        self._end += len(data)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def create(path: Path, *, is_new: bool) -> None:
    """Create the file, durably in its folder; empty if there should not be one yet: then epochs are counted anew, and a
    power cut may have brought back an old file."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if is_new and os.fstat(file).st_size:
            os.ftruncate(file, 0)
            os.fsync(file)
    finally:
        os.close(file)
    durable.fsync_folder(path.parent)


def epoch_after(epoch: bytes) -> bytes:
    """The next epoch, which can be recognised as later."""
    return ((_count(epoch) + 1) % _COUNT).to_bytes(_COUNT_BYTES, "big") + os.urandom(EPOCH_BYTES - _COUNT_BYTES)


def is_ahead_of(path: Path, epoch: bytes) -> bool:
    """Whether the file begins with a record of a later epoch. An epoch begins only once SQLite's file durably has it,
    so SQLite's file was damaged, or is an older copy. Raises OSError, but not if the file does not exist."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return False
    first = data[:EPOCH_BYTES]
    return (
        first != epoch and (_count(first) - _count(epoch)) % _COUNT < _COUNT // 2 and _decoded(data, 0)[1] is not None
    )


def _count(epoch: bytes) -> int:
    return int.from_bytes(epoch[:_COUNT_BYTES], "big")


def read(path: Path, epoch: bytes) -> Iterator[Found]:
    """The records of this epoch. Raises OSError, also if the file does not exist."""
    data = path.read_bytes()
    position, is_after_damage = 0, False
    while (start := data.find(epoch, position)) >= 0:
        end, record = _decoded(data, start)
        if record is None:
            position, is_after_damage = start + 1, True
            continue
        yield Found(record, is_after_damage or start > position)
        position, is_after_damage = end, False


def read_whatever_epoch(path: Path) -> Iterator[Found]:
    """The most recently written records, which may be void; none if the file does not exist."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        epoch = file.read(EPOCH_BYTES)
        if len(epoch) == EPOCH_BYTES and any(epoch):
            yield from read(path, epoch)


def _encoded(epoch: bytes, record: Record) -> bytes:
    parsed, ballot = record.parsed, record.ballot
    digest, batch = (parsed.digest, parsed.encoded) if parsed is not None else (b"", b"")
    head = msgspec.msgpack.encode((record.kind, record.slot, ballot.round, ballot.client, digest))
    return b"".join((_FRAME.pack(epoch, len(head), len(batch), _checksum(epoch, head, len(batch))), head, batch))


def _decoded(data: bytes, start: int) -> tuple[int, Record | None]:
    """The record that begins there, and its end; None if it is not what was written."""
    if start + _FRAME.size > len(data):
        return start, None
    epoch, head_bytes, batch_bytes, checksum = _FRAME.unpack_from(data, start)
    batch_start = start + _FRAME.size + head_bytes
    end = batch_start + batch_bytes
    head, batch = data[start + _FRAME.size : batch_start], data[batch_start:end]
    if end > len(data) or _checksum(epoch, head, batch_bytes) != checksum:
        return start, None
    kind, slot, round_, client, digest = msgspec.msgpack.decode(head)
    if digest and batches.digest(batch) != digest:
        return start, None
    try:
        parsed = ParsedBatch(batch, batches.decode(batch), digest) if digest else None
    except BadBatchError:  # it was written by a newer program
        return start, None
    return end, Record(Kind(kind), Ballot(round_, client), slot, parsed)


def _checksum(epoch: bytes, head: bytes, batch_bytes: int) -> bytes:
    return blake2b(b"%s%d:%s" % (epoch, batch_bytes, head), digest_size=8).digest()
