"""The `Fs` interface for the library, without a kernel: does what Linux does between a system call and a file system.

That is: resolving paths, following symbolic links, the checks before a file system is called (O_EXCL, folders opened
for writing, slashes), and the state of open files. It uses `dfsfuse.vfs` only. One thread at a time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat as stat_bits
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

from conformance.fs import UTIME_NOW, UTIME_OMIT, Room, Stat

from dfsfuse.errors import DfsError
from dfsfuse.vfs.attributes import AttributeChanges, Attributes
from dfsfuse.vfs.caller import this_process
from dfsfuse.vfs.vfs import Vfs

ROOT = 1
MAX_LINKS = 40
MAX_NAME_BYTES = 255
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class _Open:
    ino: int
    handle: int
    flags: int


def _as_a_kernel_would(call: Callable[P, T]) -> Callable[P, T]:
    """Turn our own errors into `OSError`s, as a mount does."""

    @wraps(call)
    def wrapped(*arguments: P.args, **options: P.kwargs) -> T:
        try:
            return call(*arguments, **options)
        except DfsError as error:
            raise OSError(error.errno, str(error)) from error

    return wrapped


def _error(number: int, path: bytes = b"") -> OSError:
    return OSError(number, os.strerror(number), path)


def _to_stat(found: Attributes) -> Stat:
    return Stat(
        ino=found.ino,
        mode=found.mode,
        nlink=found.nlink,
        uid=found.uid,
        gid=found.gid,
        size=found.size,
        rdev=found.rdev,
        blocks=found.blocks,
        atime_ns=found.atime_ns,
        mtime_ns=found.mtime_ns,
        ctime_ns=found.ctime_ns,
    )


class VfsFs:
    """A namespace, or a folder in it, as a file system under test."""

    def __init__(self, vfs: Vfs, root: int = ROOT) -> None:
        self.vfs = vfs
        self.root = root
        self._files: dict[int, _Open] = {}
        self._next_fd = 3

    def folder(self, name: bytes) -> VfsFs:
        """Make a folder with this name, and return it as a file system of its own."""
        return VfsFs(self.vfs, self.vfs.mkdir(self.root, name, 0o755, this_process()).ino)

    # ------------------------------------------------------------------ paths

    def _parent(self, path: bytes, links: int = MAX_LINKS) -> tuple[int, bytes]:
        """Return the inode of the folder that contains the path's last name, and that name."""
        folder, _, name = path.rpartition(b"/")
        return self._walk(self.root, folder, links), name

    def _walk(self, start: int, path: bytes, links: int, follow_last: bool = True) -> int:
        ino = start
        parts = [part for part in path.split(b"/") if part]
        for index, part in enumerate(parts):
            found = self._lookup(ino, part)
            if stat_bits.S_ISLNK(found.mode) and (follow_last or index < len(parts) - 1):
                if links == 0:
                    raise _error(errno.ELOOP, path)
                ino = self._walk(ino, self.vfs.readlink(found.ino), links - 1)
            else:
                ino = found.ino
        return ino

    def _lookup(self, folder: int, name: bytes) -> Attributes:
        if not stat_bits.S_ISDIR(self.vfs.getattr(folder).mode):
            raise _error(errno.ENOTDIR, name)
        return self.vfs.lookup(folder, name)

    def _place(self, path: bytes) -> tuple[int, bytes]:
        """Like `_parent`, for a name that is about to be created or removed."""
        parent, name = self._parent(path)
        if not stat_bits.S_ISDIR(self.vfs.getattr(parent).mode):
            raise _error(errno.ENOTDIR, path)
        return parent, name

    def _find(self, path: bytes, *, follow: bool) -> int:
        return self._walk(self.root, path, MAX_LINKS, follow_last=follow)

    # ------------------------------------------------------------------ open files

    @_as_a_kernel_would
    def open(self, path: bytes, flags: int, mode: int = 0o644) -> int:
        parent, name = (self.root, b"") if not path else self._place(path)
        for _ in range(MAX_LINKS):
            try:
                found = self.vfs.getattr(self.root) if not name else self.vfs.lookup(parent, name)
            except FileNotFoundError:
                if not flags & os.O_CREAT:
                    raise
                attributes, handle = self.vfs.create(parent, name, mode, flags, this_process())
                return self._remember(attributes.ino, handle, flags)
            if flags & os.O_CREAT and flags & os.O_EXCL:
                raise _error(errno.EEXIST, path)
            if not stat_bits.S_ISLNK(found.mode):
                return self._open_existing(found, flags, path)
            target = self.vfs.readlink(found.ino)
            folder, _, name = target.rpartition(b"/")
            parent = self._walk(parent, folder, MAX_LINKS)
        raise _error(errno.ELOOP, path)

    def _open_existing(self, found: Attributes, flags: int, path: bytes) -> int:
        if stat_bits.S_ISDIR(found.mode) and flags & (os.O_ACCMODE | os.O_CREAT):
            raise _error(errno.EISDIR, path)
        if flags & os.O_DIRECTORY and not stat_bits.S_ISDIR(found.mode):
            raise _error(errno.ENOTDIR, path)
        return self._remember(found.ino, self.vfs.open(found.ino, flags), flags)

    def _remember(self, ino: int, handle: int, flags: int) -> int:
        fd = self._next_fd
        self._next_fd += 1
        self._files[fd] = _Open(ino, handle, flags)
        return fd

    @_as_a_kernel_would
    def close(self, fd: int) -> None:
        file = self._files.pop(fd)
        try:
            self.vfs.flush(file.handle)
        finally:
            self.vfs.release(file.handle)

    @_as_a_kernel_would
    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return bytes(self.vfs.read(self._files[fd].handle, offset, size))

    @_as_a_kernel_would
    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        return self.vfs.write(self._files[fd].handle, offset, data) if data else 0

    @_as_a_kernel_would
    def append(self, fd: int, data: bytes) -> int:
        """Pass the known size as the offset, as the kernel does; with O_APPEND the library must use the actual end."""
        file = self._files[fd]
        return self.vfs.write(file.handle, self.vfs.getattr(file.ino, file.handle).size, data)

    @_as_a_kernel_would
    def fstat(self, fd: int) -> Stat:
        file = self._files[fd]
        return _to_stat(self.vfs.getattr(file.ino, file.handle))

    @_as_a_kernel_would
    def ftruncate(self, fd: int, length: int) -> None:
        file = self._files[fd]
        self.vfs.setattr(file.ino, AttributeChanges(size=length), file.handle)

    @_as_a_kernel_would
    def fsync(self, fd: int) -> None:
        self.vfs.fsync(self._files[fd].handle)

    @_as_a_kernel_would
    def futimens(self, fd: int, atime_ns: int, mtime_ns: int) -> None:
        file = self._files[fd]
        self.vfs.setattr(file.ino, _times(atime_ns, mtime_ns), file.handle)

    # ------------------------------------------------------------------ attributes

    @_as_a_kernel_would
    def stat(self, path: bytes) -> Stat:
        return _to_stat(self.vfs.getattr(self._find(path, follow=True)))

    @_as_a_kernel_would
    def lstat(self, path: bytes) -> Stat:
        return _to_stat(self.vfs.getattr(self._find(path, follow=False)))

    @_as_a_kernel_would
    def truncate(self, path: bytes, length: int) -> None:
        ino = self._find(path, follow=True)
        if stat_bits.S_ISDIR(self.vfs.getattr(ino).mode):
            raise _error(errno.EISDIR, path)
        self.vfs.setattr(ino, AttributeChanges(size=length))

    @_as_a_kernel_would
    def chmod(self, path: bytes, mode: int) -> None:
        self.vfs.setattr(self._find(path, follow=True), AttributeChanges(mode=mode))

    @_as_a_kernel_would
    def lchown(self, path: bytes, uid: int, gid: int) -> None:
        changes = AttributeChanges(uid=None if uid == -1 else uid, gid=None if gid == -1 else gid)
        self.vfs.setattr(self._find(path, follow=False), changes)

    @_as_a_kernel_would
    def utimens(self, path: bytes, atime_ns: int, mtime_ns: int) -> None:
        self.vfs.setattr(self._find(path, follow=False), _times(atime_ns, mtime_ns))

    @_as_a_kernel_would
    def setxattr(self, path: bytes, name: str, value: bytes, flags: int = 0) -> None:
        self.vfs.setxattr(self._find(path, follow=False), name.encode(), value, flags)

    @_as_a_kernel_would
    def getxattr(self, path: bytes, name: str) -> bytes:
        return self.vfs.getxattr(self._find(path, follow=False), name.encode())

    @_as_a_kernel_would
    def listxattr(self, path: bytes) -> list[str]:
        return [name.decode() for name in self.vfs.listxattr(self._find(path, follow=False))]

    @_as_a_kernel_would
    def removexattr(self, path: bytes, name: str) -> None:
        self.vfs.removexattr(self._find(path, follow=False), name.encode())

    # ------------------------------------------------------------------ names

    @_as_a_kernel_would
    def mkdir(self, path: bytes, mode: int = 0o755) -> None:
        self.vfs.mkdir(*self._place(path), mode, this_process())

    @_as_a_kernel_would
    def rmdir(self, path: bytes) -> None:
        self.vfs.rmdir(*self._place(path))

    @_as_a_kernel_would
    def unlink(self, path: bytes) -> None:
        self.vfs.unlink(*self._place(path))

    @_as_a_kernel_would
    def rename(self, old: bytes, new: bytes) -> None:
        old_parent, old_name = self._place(old)
        new_parent, new_name = self._place(new)
        source = self.vfs.lookup(old_parent, old_name).ino
        if source in self._line_of(new_parent):
            raise _error(errno.EINVAL, new)
        with contextlib.suppress(FileNotFoundError):
            if self.vfs.lookup(new_parent, new_name).ino in self._line_of(old_parent):
                raise _error(errno.ENOTEMPTY, new)
        self.vfs.rename(old_parent, old_name, new_parent, new_name)

    def _line_of(self, folder: int) -> set[int]:
        """Return a folder and all its ancestors."""
        line = {folder}
        while folder != ROOT:
            folder = self.vfs.lookup(folder, b"..").ino
            line.add(folder)
        return line

    @_as_a_kernel_would
    def link(self, old: bytes, new: bytes) -> None:
        self.vfs.link(self._find(old, follow=False), *self._place(new))

    @_as_a_kernel_would
    def symlink(self, target: bytes, path: bytes) -> None:
        self.vfs.symlink(*self._place(path), target, this_process())

    @_as_a_kernel_would
    def readlink(self, path: bytes) -> bytes:
        return self.vfs.readlink(self._find(path, follow=False))

    @_as_a_kernel_would
    def mknod(self, path: bytes, mode: int, rdev: int = 0) -> None:
        self.vfs.mknod(*self._place(path), mode, rdev, this_process())

    @_as_a_kernel_would
    def listdir(self, path: bytes) -> list[bytes]:
        """List in as many steps as the library needs; "." and ".." must appear exactly once."""
        ino = self._find(path, follow=True)
        if not stat_bits.S_ISDIR(self.vfs.getattr(ino).mode):
            raise _error(errno.ENOTDIR, path)
        handle = self.vfs.opendir(ino)
        try:
            names: list[bytes] = []
            while entries := list(self.vfs.readdir(handle, len(names))):
                names += [entry.name for entry in entries]
        finally:
            self.vfs.releasedir(handle)
        assert names.count(b".") == names.count(b"..") == 1
        return [name for name in names if name not in (b".", b"..")]

    @_as_a_kernel_would
    def statvfs(self) -> Room:
        found = self.vfs.statfs()
        return Room(found.block_bytes, found.blocks, found.free, found.available, found.name_max)


def _times(atime_ns: int, mtime_ns: int) -> AttributeChanges:
    def resolved(asked: int) -> int | None:
        return None if asked == UTIME_OMIT else time.time_ns() if asked == UTIME_NOW else asked

    return AttributeChanges(atime_ns=resolved(atime_ns), mtime_ns=resolved(mtime_ns))
