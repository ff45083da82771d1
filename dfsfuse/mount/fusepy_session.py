"""fusepy's FUSE class, with fixes for errors in version 3.0.1. Import it only after `libfuse.require()`.

Knows ctypes structures and libfuse's calling conventions, but no file system. Differences from fusepy:

- Names are latin-1 text: one character for each byte, so that every name is passed on unchanged. (With fusepy's UTF-8 a
  name that is not UTF-8 raises in the middle of a callback.)
- `utimens` distinguishes "omit" and "now" from times: fusepy adds up seconds and nanoseconds, including UTIME_OMIT.
- `statfs` fills the real structure: fusepy's has no f_fsid, so that f_namemax lands in f_flag and NAME_MAX reads 0.
- `readdir` hands over (name, inode, mode) and reuses one structure.
- `getattr` fills the structure from `Attributes` instead of a dictionary.

libfuse calls the methods from its own threads, many at once.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import fuse

if TYPE_CHECKING:
    from dfsfuse.vfs.attributes import Attributes


class Now(Enum):
    """The time at which an operation is carried out."""

    NOW = "now"


ENCODING = "latin-1"
BLOCK_BYTES = 128 * 1024
"""st_blksize: the preferred I/O size of programs; one FUSE request."""
UTIME_NOW = (1 << 30) - 1
UTIME_OMIT = (1 << 30) - 2
NOW: Final = Now.NOW
TimeChange: TypeAlias = int | Now | None
"""Nanoseconds since 1970, `NOW`, or None to leave the time unchanged."""
_NS = 10**9


class Statvfs(ctypes.Structure):
    """struct statvfs of glibc on 64-bit Linux."""

    _fields_ = [
        (name, ctypes.c_ulong)
        for name in (
            "f_bsize f_frsize f_blocks f_bfree f_bavail f_files f_ffree f_favail f_fsid f_flag f_namemax".split()
        )
    ] + [("spare", ctypes.c_int * 6)]


class Filler(Protocol):
    """libfuse's callback that adds one entry of a folder."""

    def __call__(self, buffer: int, name: bytes, status: Any, offset: int) -> int: ...


class FusepySession(fuse.FUSE):  # type: ignore[misc]
    """One mount: the constructor returns when it is unmounted. Raises RuntimeError if libfuse could not mount."""

    def __init__(self, operations: Any, mountpoint: Path, options: dict[str, str | bool]) -> None:
        super().__init__(
            operations,
            os.fsencode(mountpoint).decode(ENCODING),
            raw_fi=True,
            encoding=ENCODING,
            foreground=True,
            **{name: escaped(value) if isinstance(value, str) else value for name, value in options.items()},
        )

    def fgetattr(self, path: bytes | None, buffer: Any, file_info: Any) -> int:
        info = file_info.contents if file_info else None
        fill_stat(buffer, self.operations("getattr", self._decode_optional_path(path), info))
        return 0

    def utimens(self, path: bytes, buffer: Any) -> int:
        if buffer:
            times = tuple(time_of(spec) for spec in (buffer.contents.actime, buffer.contents.modtime))
        else:
            times = (NOW, NOW)
        self.operations("utimens", path.decode(ENCODING), times)
        return 0

    def statfs(self, path: bytes, buffer: Any) -> int:
        fields: dict[str, int] = self.operations("statfs", path.decode(ENCODING))
        status = ctypes.cast(buffer, ctypes.POINTER(Statvfs)).contents
        for name, value in fields.items():
            setattr(status, name, value)
        return 0

    def readdir(self, path: bytes | None, buffer: int, filler: Filler, offset: int, file_info: Any) -> int:
        """All entries at once: libfuse keeps them for the rest of this listing."""
        status = fuse.c_stat()
        entries: Iterable[tuple[bytes, int, int]] = self.operations("readdir", None, file_info.contents.fh)
        for name, inode, mode in entries:
            status.st_ino = inode
            status.st_mode = mode
            if filler(buffer, name, status, 0) != 0:
                break
        return 0


def escaped(value: str) -> str:
    """Escape an option's value for libfuse, which splits options at commas."""
    return value.replace("\\", "\\\\").replace(",", "\\,")


def was_interrupted() -> bool:
    """Whether the program whose operation this thread carries out has received a signal since the call."""
    return bool(fuse._libfuse.fuse_interrupted())


def has_ended() -> bool:
    """Whether the mount whose operation this thread carries out is gone: libfuse then waits for its threads."""
    library = fuse._libfuse
    return bool(library.fuse_exited(ctypes.c_void_p(library.fuse_get_context().contents.fuse)))


def fill_stat(buffer: Any, attributes: Attributes) -> None:
    """Write `attributes` into the struct stat that `buffer` points to."""
    ctypes.memset(buffer, 0, ctypes.sizeof(fuse.c_stat))
    status = buffer.contents
    status.st_ino = attributes.ino
    status.st_mode = attributes.mode
    status.st_nlink = attributes.nlink
    status.st_uid = attributes.uid
    status.st_gid = attributes.gid
    status.st_rdev = attributes.rdev
    status.st_size = attributes.size
    status.st_blksize = BLOCK_BYTES
    status.st_blocks = attributes.blocks
    for spec, time_ns in (
        (status.st_atimespec, attributes.atime_ns),
        (status.st_mtimespec, attributes.mtime_ns),
        (status.st_ctimespec, attributes.ctime_ns),
    ):
        spec.tv_sec, spec.tv_nsec = divmod(time_ns, _NS)


def time_of(spec: Any) -> TimeChange:
    """The change requested by a struct timespec of utimensat(2)."""
    if spec.tv_nsec == UTIME_OMIT:
        return None
    if spec.tv_nsec == UTIME_NOW:
        return NOW
    seconds: int = spec.tv_sec
    nanoseconds: int = spec.tv_nsec
    return seconds * _NS + nanoseconds
