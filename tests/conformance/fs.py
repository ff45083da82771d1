"""The interface for conformance cases: a small `os`-like one, and its implementation for a plain folder or a mount.

Paths are bytes, relative to the file system under test, without a leading slash; b"" is its root. Everything raises
`OSError` with the errno that Linux gives. An open file is an int that is meaningful only to the `Fs` that returned it.

`OsFs` implements the interface for a path of the kernel: a plain folder (which tests the tests) or a mount.
`conformance.vfs_fs.VfsFs` implements it for the library, without a kernel. Nothing here knows about servers.
"""

# ruff: noqa: PTH101, PTH102, PTH104, PTH106, PTH108, PTH115, PTH116, PTH118, PTH208, PTH211
# pathlib has no bytes paths, and a test of a file system must name the exact system call

from __future__ import annotations

import ctypes
import os
import stat as stat_bits
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

UTIME_NOW: Final = (1 << 30) - 1
"""A time that means "now"; from <sys/stat.h>."""
UTIME_OMIT: Final = (1 << 30) - 2
"""A time that means "leave it unchanged"; from <sys/stat.h>."""
_AT_FDCWD: Final = -100
_AT_SYMLINK_NOFOLLOW: Final = 0x100


@dataclass(frozen=True)
class Stat:
    """The result of stat(2); times in nanoseconds, `blocks` of 512 bytes."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    rdev: int
    blocks: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int

    @property
    def kind(self) -> int:
        """The file type bits."""
        return stat_bits.S_IFMT(self.mode)

    @property
    def permissions(self) -> int:
        """The mode without the type."""
        return stat_bits.S_IMODE(self.mode)


@dataclass(frozen=True)
class Room:
    """The part of statvfs(3)'s result that is checked."""

    block_bytes: int
    blocks: int
    free: int
    available: int
    name_max: int


class Fs(Protocol):
    """A file system under test. Methods named like `os` functions do the same."""

    def open(self, path: bytes, flags: int, mode: int = 0o644) -> int: ...
    def close(self, fd: int) -> None: ...
    def pread(self, fd: int, size: int, offset: int) -> bytes: ...
    def pwrite(self, fd: int, data: bytes, offset: int) -> int: ...
    def append(self, fd: int, data: bytes) -> int:
        """write(2) on a file opened with O_APPEND."""
        ...

    def fstat(self, fd: int) -> Stat: ...
    def ftruncate(self, fd: int, length: int) -> None: ...
    def fsync(self, fd: int) -> None: ...
    def futimens(self, fd: int, atime_ns: int, mtime_ns: int) -> None: ...
    def stat(self, path: bytes) -> Stat: ...
    def lstat(self, path: bytes) -> Stat: ...
    def truncate(self, path: bytes, length: int) -> None: ...
    def mkdir(self, path: bytes, mode: int = 0o755) -> None: ...
    def rmdir(self, path: bytes) -> None: ...
    def unlink(self, path: bytes) -> None: ...
    def rename(self, old: bytes, new: bytes) -> None: ...
    def link(self, old: bytes, new: bytes) -> None: ...
    def symlink(self, target: bytes, path: bytes) -> None: ...
    def readlink(self, path: bytes) -> bytes: ...
    def mknod(self, path: bytes, mode: int, rdev: int = 0) -> None: ...
    def chmod(self, path: bytes, mode: int) -> None: ...
    def lchown(self, path: bytes, uid: int, gid: int) -> None: ...
    def utimens(self, path: bytes, atime_ns: int, mtime_ns: int) -> None:
        """utimensat(2) without following a symbolic link; takes UTIME_NOW and UTIME_OMIT."""
        ...

    def listdir(self, path: bytes) -> list[bytes]:
        """Return the names in a folder, in any order, without "." and ".."."""
        ...

    def statvfs(self) -> Room: ...
    def setxattr(self, path: bytes, name: str, value: bytes, flags: int = 0) -> None: ...
    def getxattr(self, path: bytes, name: str) -> bytes: ...
    def listxattr(self, path: bytes) -> list[str]: ...
    def removexattr(self, path: bytes, name: str) -> None: ...


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


_libc = ctypes.CDLL(None, use_errno=True)


def _timespec(time_ns: int) -> _Timespec:
    if time_ns in (UTIME_NOW, UTIME_OMIT):
        return _Timespec(0, time_ns)
    return _Timespec(*divmod(time_ns, 1_000_000_000))


def _check(result: int, path: bytes) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


def to_stat(found: os.stat_result) -> Stat:
    """Convert the kernel's result."""
    return Stat(
        ino=found.st_ino,
        mode=found.st_mode,
        nlink=found.st_nlink,
        uid=found.st_uid,
        gid=found.st_gid,
        size=found.st_size,
        rdev=found.st_rdev,
        blocks=found.st_blocks,
        atime_ns=found.st_atime_ns,
        mtime_ns=found.st_mtime_ns,
        ctime_ns=found.st_ctime_ns,
    )


class OsFs:
    """A folder of the kernel's: on the local disk, or a mount."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._root = os.fsencode(root)

    def path(self, path: bytes) -> bytes:
        """Return the absolute path, for cases that need the kernel itself."""
        return os.path.join(self._root, path) if path else self._root

    def open(self, path: bytes, flags: int, mode: int = 0o644) -> int:
        return os.open(self.path(path), flags, mode)

    def close(self, fd: int) -> None:
        os.close(fd)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return os.pread(fd, size, offset)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        return os.pwrite(fd, data, offset)

    def append(self, fd: int, data: bytes) -> int:
        return os.write(fd, data)

    def fstat(self, fd: int) -> Stat:
        return to_stat(os.fstat(fd))

    def ftruncate(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def futimens(self, fd: int, atime_ns: int, mtime_ns: int) -> None:
        times = (_Timespec * 2)(_timespec(atime_ns), _timespec(mtime_ns))
        _check(_libc.futimens(fd, times), b"")

    def stat(self, path: bytes) -> Stat:
        return to_stat(os.stat(self.path(path)))

    def lstat(self, path: bytes) -> Stat:
        return to_stat(os.lstat(self.path(path)))

    def truncate(self, path: bytes, length: int) -> None:
        os.truncate(self.path(path), length)

    def mkdir(self, path: bytes, mode: int = 0o755) -> None:
        os.mkdir(self.path(path), mode)

    def rmdir(self, path: bytes) -> None:
        os.rmdir(self.path(path))

    def unlink(self, path: bytes) -> None:
        os.unlink(self.path(path))

    def rename(self, old: bytes, new: bytes) -> None:
        os.rename(self.path(old), self.path(new))

    def link(self, old: bytes, new: bytes) -> None:
        os.link(self.path(old), self.path(new), follow_symlinks=False)

    def symlink(self, target: bytes, path: bytes) -> None:
        os.symlink(target, self.path(path))

    def readlink(self, path: bytes) -> bytes:
        return os.readlink(self.path(path))

    def mknod(self, path: bytes, mode: int, rdev: int = 0) -> None:
        os.mknod(self.path(path), mode, rdev)

    def chmod(self, path: bytes, mode: int) -> None:
        os.chmod(self.path(path), mode)

    def lchown(self, path: bytes, uid: int, gid: int) -> None:
        os.lchown(self.path(path), uid, gid)

    def utimens(self, path: bytes, atime_ns: int, mtime_ns: int) -> None:
        times = (_Timespec * 2)(_timespec(atime_ns), _timespec(mtime_ns))
        _check(_libc.utimensat(_AT_FDCWD, self.path(path), times, _AT_SYMLINK_NOFOLLOW), path)

    def listdir(self, path: bytes) -> list[bytes]:
        return os.listdir(self.path(path))

    def statvfs(self) -> Room:
        found = os.statvfs(self._root)
        return Room(found.f_frsize, found.f_blocks, found.f_bfree, found.f_bavail, found.f_namemax)

    def setxattr(self, path: bytes, name: str, value: bytes, flags: int = 0) -> None:
        os.setxattr(self.path(path), name, value, flags, follow_symlinks=False)

    def getxattr(self, path: bytes, name: str) -> bytes:
        return os.getxattr(self.path(path), name, follow_symlinks=False)

    def listxattr(self, path: bytes) -> list[str]:
        return os.listxattr(self.path(path), follow_symlinks=False)

    def removexattr(self, path: bytes, name: str) -> None:
        os.removexattr(self.path(path), name, follow_symlinks=False)
