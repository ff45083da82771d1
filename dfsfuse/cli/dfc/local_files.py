"""The local side of put and get: reading files as chunks and holes, and writing files that appear complete or not at
all.

Knows the local file system and nothing of servers. Errors here are `CommandError`s whose sentence begins with `local`.

A fetched file is written to `.dfc-XXXXXXXX.part` in its folder (mode 0600), fsynced, renamed over its name, and the
folder is fsynced. If this ends early, even by Ctrl-C, the file is removed; after kill -9 or a power cut it stays behind
and can be deleted.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dfsfuse.cli.output import printable
from dfsfuse.cli.reports import CommandError, local_errors
from dfsfuse.vfs.write.putting import Hole

CHUNK_BYTES = 4 * 1024 * 1024
BLOCK_BYTES = 512
"""The unit of `st_blocks`."""
ZEROS_BYTES = 64 * 1024
"""Runs of at least this many zeros become a hole, as a rule."""
_ZEROS = bytes(ZEROS_BYTES)
PERMISSIONS = 0o777  # set-uid and set-gid are dropped, as `cp` does when it does not keep the owner


@dataclass(frozen=True)
class Facts:
    """The attributes that are kept when a file is copied."""

    mode: int
    atime_ns: int
    mtime_ns: int


@contextmanager
def reading(path: Path) -> Iterator[tuple[BinaryIO, os.stat_result]]:
    """Open a regular local file for reading, with its attributes. Anything else is refused, without blocking."""
    with local_errors(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # O_NONBLOCK: a FIFO must not hang us
        file = open(descriptor, "rb", buffering=0)  # noqa: PTH123, SIM115 (closed below)
    with file:
        with local_errors(path):
            facts = os.fstat(descriptor)
        refuse_special(path, facts.st_mode)
        if stat.S_ISDIR(facts.st_mode):
            raise CommandError(f"local {printable(path)} is a folder: use -r")
        yield file, facts


def chunks(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The contents in chunks of 4 MiB, the last one shorter. Also works for pipes, which return little at a time."""
    while True:
        bits: list[bytes] = []
        room = CHUNK_BYTES
        while room:
            with local_errors(path):
                bit = file.read(room)
            if not bit:
                break
            bits.append(bit)
            room -= len(bit)
        if bits:
            yield bits[0] if len(bits) == 1 else b"".join(bits)
        if room:
            return


def stretches(file: BinaryIO, found: os.stat_result, path: Path) -> Iterator[bytes | Hole]:
    """The contents in chunks of at most 4 MiB, with holes marked where the file has them and the file system reports
    them."""
    if found.st_blocks * BLOCK_BYTES >= found.st_size:
        yield from chunks(file, path)
        return
    offset = 0
    while True:
        start = _seek(file, offset, os.SEEK_DATA, path)
        if start is None:
            with local_errors(path):
                size = os.fstat(file.fileno()).st_size
            start = _seek(file, offset, os.SEEK_DATA, path)  # anything appended before the size was read is data
        if start is None:
            break
        if start > offset:
            yield Hole(start - offset)
        end = _seek(file, start, os.SEEK_HOLE, path)
        _seek(file, start, os.SEEK_SET, path)
        offset = start
        while end is None or offset < end:
            with local_errors(path):
                data = file.read(CHUNK_BYTES if end is None else min(CHUNK_BYTES, end - offset))
            if not data:
                break
            yield data
            offset += len(data)
        if offset == start:
            return  # it was truncated in the meantime
    if size > offset:
        yield Hole(size - offset)


def _seek(file: BinaryIO, offset: int, whence: int, path: Path) -> int | None:
    """The position found; None beyond the end. A file system that cannot report holes says that everything is data."""
    with local_errors(path):
        try:
            return os.lseek(file.fileno(), offset, whence)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP) or whence == os.SEEK_SET:
                raise
            size = os.fstat(file.fileno()).st_size
            if offset >= size:
                return None
            return offset if whence == os.SEEK_DATA else size


def refuse_special(path: Path, mode: int) -> None:
    """Raise for anything other than a file, folder or symbolic link."""
    kinds = {
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    kind = kinds.get(stat.S_IFMT(mode))
    if kind is not None:
        raise CommandError(f"local {printable(path)} is {kind}: only files, folders and symbolic links are copied")


@contextmanager
def replacing(target: Path, facts: Facts) -> Iterator[BinaryIO]:
    """A file to write to. It replaces the target when the block succeeds, and is removed when the block fails."""
    folder = target.parent
    with local_errors(target):
        _refuse_to_replace(target)
        descriptor, temporary = tempfile.mkstemp(prefix=".dfc-", suffix=".part", dir=folder)
    try:
        with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123
            yield file
            with local_errors(target):
                os.fchmod(descriptor, facts.mode & PERMISSIONS)
                os.utime(descriptor, ns=(facts.atime_ns, facts.mtime_ns))
                os.fsync(descriptor)
        with local_errors(target):
            Path(temporary).rename(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    with local_errors(target):
        sync_folder(folder)


def put_link(path: Path, target: bytes, facts: Facts) -> None:
    """Create a symbolic link, replacing an existing file or link. Its target comes from a server."""
    if not target or b"\0" in target:
        raise CommandError(f"local {printable(path)}: no symbolic link can point to {printable(target)!r}")
    temporary = path.parent / f".dfc-{secrets.token_hex(4)}.part"
    with local_errors(path):
        temporary.symlink_to(os.fsdecode(target))
        try:
            os.utime(temporary, ns=(facts.atime_ns, facts.mtime_ns), follow_symlinks=False)
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


class SparseWriter:
    """Writes a new file from its beginning, leaving holes for the source's holes and for long runs of zeros."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._offset = 0

    def write(self, chunk: bytes | Hole) -> int:
        """Append a chunk, and return its length."""
        if isinstance(chunk, Hole):
            self._offset += chunk.length
            return chunk.length
        start = 0
        for at, end in zero_runs(chunk):
            self._put(memoryview(chunk)[start:at])
            self._offset += end - at
            start = end
        self._put(memoryview(chunk)[start:])
        return len(chunk)

    def finish(self) -> None:
        """Set the file's final size, since it may end in a hole."""
        with local_errors(self._path):
            self._file.truncate(self._offset)

    def _put(self, data: memoryview) -> None:
        while data:  # an unbuffered write may write only a part
            with local_errors(self._path):
                written = os.pwrite(self._file.fileno(), data, self._offset)
            self._offset += written
            data = data[written:]


def zero_runs(data: bytes) -> Iterator[tuple[int, int]]:
    """Runs of whole 64 KiB stretches of zeros: (start, end), in order."""
    start = None
    for at in range(0, len(data) - ZEROS_BYTES + 1, ZEROS_BYTES):
        is_zero = data[at] == 0 and data[at : at + ZEROS_BYTES] == _ZEROS
        if is_zero and start is None:
            start = at
        elif not is_zero and start is not None:
            yield start, at
            start = None
    if start is not None:
        yield start, len(data) // ZEROS_BYTES * ZEROS_BYTES


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable, if the file system supports that."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # some network file systems cannot; the file itself is safe
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def kind_of(path: Path) -> int | None:
    """The type bits of what is at a path (of a link itself, not its target); None if nothing is there."""
    with local_errors(path):
        try:
            return stat.S_IFMT(path.lstat().st_mode)
        except FileNotFoundError:
            return None


def umask() -> int:
    """The permission bits to withhold from new files. Not thread-safe: the umask can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def safe_name(name: bytes) -> str:
    """A name that came from a server, as a local name. Raises if it would lead elsewhere."""
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise CommandError(f"the name {printable(name)!r} is refused: it would lead out of the folder")
    return os.fsdecode(name)


def _refuse_to_replace(target: Path) -> None:
    """Raise if the target must not be replaced: files are replaced, but not folders or devices such as /dev/null."""
    kind = kind_of(target)
    if kind == stat.S_IFDIR:
        raise CommandError(f"local {printable(target)} is a folder: it is not replaced by a file")
    if kind not in (None, stat.S_IFREG, stat.S_IFLNK):
        raise CommandError(
            f"local {printable(target)} is not a regular file: it is not replaced (use - for standard output)"
        )
