"""Stores large pieces as files: put once, durably; read whole or in ranges; never changed.

    pieces/3f/3f...c2.1     a piece: the first byte of the segment's id, the id, the piece's number (see `piece_file`)
    pieces/tmp/             uploads under way; swept when the store is opened, so a crash leaves nothing

Names consist only of the hex of a checked id and a checked number: nothing that a peer sends can lead out of the
folder. A piece is on the disk (fsynced, renamed, folder fsynced) before `commit` returns. Knows files, but no sockets,
log or users.

Threads: everything may be called from any thread; an `Upload` or `OpenPiece` belongs to one. `lock` guards `_totals`
and makes a rename or removal one step together with counting it, with closing the cached open file, and with what the
store's owner records about it (see `holdings`).
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Final, NamedTuple, Self

from dfs_server.pieces.file import CorruptPieceError, PieceHeader, piece_bytes, read_header
from dfs_server.pieces.open_piece import OpenPiece, state_of
from dfs_server.pieces.open_pieces import OpenPieces
from dfs_server.protocol.batches import DIGEST_BYTES, SEGMENT_ID_BYTES
from dfs_server.protocol.pieces import (
    BLOCK_BYTES,
    MAX_PIECE_BYTES,
    PIECE_NUMBERS,
    Buffer,
    block_count,
    block_digests,
)
from dfs_server.shared import durable

_FILE_NAME: Final = re.compile(r"([0-9a-f]{32})\.([1-4])")

log = logging.getLogger(__name__)


class BadPieceError(ValueError):
    """The request does not describe a valid piece: a wrong id, number, length or number of digests."""


class DigestMismatchError(Exception):
    """The bytes do not match the digests that came with them, or are not those that this piece already has."""


class HeldPiece(NamedTuple):
    """A piece that is here, large or small, and since when (seconds since 1970)."""

    segment: bytes
    number: int
    length: int
    stored_s: int


def check_piece(segment: bytes, number: int) -> None:
    """Raises `BadPieceError` unless this can be the name of a piece."""
    if len(segment) != SEGMENT_ID_BYTES or number not in PIECE_NUMBERS:
        raise BadPieceError(f"not a piece: a segment id of {len(segment)} bytes, number {number}")


class PieceStore:
    """The large pieces below `folder`, which is created if necessary. `on_install` is called, under `lock`, with each
    new piece, before it is acknowledged. `open_pieces` caches the open files of pieces that are read (`take`)."""

    def __init__(
        self,
        folder: Path,
        on_install: Callable[[bytes, int], None] | None = None,
        open_pieces: OpenPieces | None = None,
    ) -> None:
        self._folder = folder
        self._on_install = on_install
        self._open_pieces = OpenPieces(0) if open_pieces is None else open_pieces
        self._temporary = folder / "tmp"
        durable.make_folder(folder)
        durable.make_folder(self._temporary)
        self._make_folders()
        for leftover in self._temporary.iterdir():
            leftover.unlink()
        self.lock = threading.RLock()
        self._totals: dict[str, tuple[int, int]] = {}
        self._uploads = 0

    def put(self, segment: bytes, number: int, digests: bytes, length: int, *, replace: bool = False) -> Upload:
        """Begin to store a piece. Raises `BadPieceError`, or OSError for the disk.

        Pieces are immutable: an existing one may be put again with the same digests (and is written again, which heals
        it if its bytes have rotted); with different digests this raises `DigestMismatchError`, unless it is to
        `replace` the existing one.
        """
        check_piece(segment, number)
        if not 0 <= length <= MAX_PIECE_BYTES:
            raise BadPieceError(f"a piece of {length} bytes; at most {MAX_PIECE_BYTES} are allowed")
        if len(digests) != DIGEST_BYTES * block_count(length):
            raise BadPieceError(f"{len(digests)} bytes of digests for a piece of {length} bytes")
        if not replace:
            self._refuse_other_content(segment, number, digests)
        with self.lock:
            self._uploads += 1
            temporary = self._temporary / f"{segment.hex()}.{number}.{self._uploads}"
        return Upload(self, temporary, PieceHeader(segment, number, length, digests))

    def take(self, segment: bytes, number: int) -> OpenPiece | None:
        """Like `open`, but the file may still be open from an earlier request, which has checked the header."""
        return self._open_pieces.take(self._name(segment, number), lambda: self.open(segment, number))

    def open(self, segment: bytes, number: int) -> OpenPiece | None:
        """The piece for reading, or None. Raises `BadPieceError`, `CorruptPieceError`, or OSError for the disk."""
        path = self._path(segment, number)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            state = state_of(descriptor)
            header = read_header(descriptor, path)
            if (header.segment, header.number) != (segment, number):
                raise CorruptPieceError(f"{path}: the file is of another piece")
        except BaseException:
            os.close(descriptor)
            raise
        return OpenPiece(descriptor, header, state)

    def have(self, pieces: Sequence[tuple[bytes, int]]) -> set[tuple[bytes, int]]:
        """Those of the (segment, number) that are here. No data is read to determine this."""
        return {piece for piece in pieces if os.path.exists(self._name(*piece))}  # noqa: PTH110 - 10,000 at a time

    def held(self, segment: bytes, number: int) -> HeldPiece | None:
        """This piece's length and since when it is here, or None. Its file is not opened."""
        try:
            status = self._path(segment, number).stat()
        except FileNotFoundError:
            return None
        return HeldPiece(segment, number, piece_bytes(status.st_size), int(status.st_mtime))

    def listed(self, after: tuple[bytes, int] | None) -> Iterator[HeldPiece]:
        """The pieces in order, starting with the first one after `after`. Pieces that are added or removed meanwhile
        may be missed."""
        segment, number = after or (b"", 0)
        for first_byte in range(segment[0] if segment else 0, 256):
            names = (_parsed(name) for name in os.listdir(self._folder / f"{first_byte:02x}"))  # noqa: PTH208
            for piece in sorted(name for name in names if name is not None and name > (segment, number)):
                if (found := self.held(*piece)) is not None:
                    yield found

    def delete(self, segment: bytes, numbers: Sequence[int] = PIECE_NUMBERS) -> None:
        """Remove these pieces of a segment. It is not an error if there are none. Not durable by itself."""
        for number in numbers:
            self._take_out(segment, number, Path.unlink)

    def inode(self, segment: bytes, number: int) -> int | None:
        """The inode number of this piece's file, which changes when the piece is put again; or None."""
        try:
            return self._path(segment, number).stat().st_ino
        except FileNotFoundError:
            return None

    def move_out(self, segment: bytes, number: int, inode: int, move: Callable[[Path], object]) -> bool:
        """Have `move` take away the file of a piece, if it is (still) the one with this inode; returns whether it
        was."""
        with self.lock:
            return self.inode(segment, number) == inode and self._take_out(segment, number, move)

    def _take_out(self, segment: bytes, number: int, take: Callable[[Path], object]) -> bool:
        path = self._path(segment, number)
        with self.lock:
            try:
                size = piece_bytes(path.stat().st_size)
                take(path)
            except FileNotFoundError:
                return False
            finally:  # even if it failed halfway
                self._open_pieces.forget(str(path))
            self._count(path.parent.name, -1, -size)
            return True

    def totals(self) -> tuple[int, int]:
        """(count, bytes) of the pieces. Each folder is scanned once, when this is first called."""
        for first_byte in range(256):
            name = f"{first_byte:02x}"
            with self.lock:
                if name not in self._totals:
                    self._totals[name] = _look_through(self._folder / name)
        with self.lock:
            return sum(count for count, _ in self._totals.values()), sum(size for _, size in self._totals.values())

    def _make_folders(self) -> None:
        """Create all 256 at once: a folder created with its first piece might not be durable when its second piece
        is."""
        for first_byte in range(256):
            (self._folder / f"{first_byte:02x}").mkdir(mode=0o700, exist_ok=True)
        durable.fsync_folder(self._folder)

    def _path(self, segment: bytes, number: int) -> Path:
        return Path(self._name(segment, number))

    def _name(self, segment: bytes, number: int) -> str:
        check_piece(segment, number)
        name = segment.hex()
        return f"{self._folder}/{name[:2]}/{name}.{number}"

    def _refuse_other_content(self, segment: bytes, number: int, digests: bytes) -> None:
        try:
            with self.open(segment, number) or nullcontext() as present:
                if present is not None and present.digests != digests:
                    raise DigestMismatchError("this piece already exists with different digests; pieces never change")
        except CorruptPieceError as error:
            log.warning("%s; the piece is written anew", error)

    def _install(self, temporary: Path, header: PieceHeader) -> None:
        """Give a finished upload its name, durably."""
        path = self._path(header.segment, header.number)
        with self.lock:
            try:
                replaced: int | None = piece_bytes(path.stat().st_size)
            except FileNotFoundError:
                replaced = None
            temporary.rename(path)
            self._open_pieces.forget(str(path))
            if replaced is None:
                self._count(path.parent.name, 1, header.length)
            else:
                self._count(path.parent.name, 0, header.length - replaced)
            if self._on_install is not None:
                self._on_install(header.segment, header.number)
        durable.fsync_folder(path.parent)

    def _count(self, folder_name: str, pieces: int, size: int) -> None:
        if folder_name in self._totals:
            old_pieces, old_size = self._totals[folder_name]
            self._totals[folder_name] = (old_pieces + pieces, old_size + size)


class Upload:
    """A piece that is being uploaded. A context manager: if it is left without `commit`, nothing remains."""

    def __init__(self, store: PieceStore, temporary: Path, header: PieceHeader) -> None:
        self._store = store
        self._temporary = temporary
        self._header = header
        self._written = 0
        self._descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._open = True
        try:
            durable.write_all(self._descriptor, header.encode())
        except BaseException:
            self.close()
            raise

    def write(self, data: Buffer) -> None:
        """Write the next blocks of the piece, whole ones except at the end. Raises `DigestMismatchError`, OSError."""
        size = len(data)
        if self._written % BLOCK_BYTES or self._written + size > self._header.length:
            raise BadPieceError("blocks of a piece must be whole, and no more than its length")
        found = block_digests(data)
        start = self._written // BLOCK_BYTES * DIGEST_BYTES
        if found != self._header.digests[start : start + len(found)]:
            raise DigestMismatchError("the bytes of the piece do not have the digests that came with them")
        durable.write_all(self._descriptor, data)
        self._written += size

    def commit(self) -> None:
        """The piece is complete: make it durable and visible. Raises `BadPieceError` if it is incomplete, OSError."""
        if self._written != self._header.length:
            raise BadPieceError(f"{self._written} bytes were sent of a piece of {self._header.length}")
        os.fsync(self._descriptor)
        if os.fstat(self._descriptor).st_size != self._header.data_offset + self._header.length:
            raise OSError(f"{self._temporary}: the disk did not keep the file's length")
        os.close(self._descriptor)
        self._descriptor = -1
        self._store._install(self._temporary, self._header)
        self._open = False

    def close(self) -> None:
        """Abandon the upload, unless it is committed."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._open:
            self._open = False
            self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _parsed(name: str) -> tuple[bytes, int] | None:
    """The piece whose file has this name, if it is a valid one."""
    match = _FILE_NAME.fullmatch(name)
    return (bytes.fromhex(match[1]), int(match[2])) if match else None


def _look_through(folder: Path) -> tuple[int, int]:
    count = size = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                count += 1
                size += piece_bytes(entry.stat(follow_symlinks=False).st_size)
    except FileNotFoundError:
        pass
    return count, size
