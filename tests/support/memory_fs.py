"""A small file system in memory for the kernel binding: hard links, renames, holes, xattrs, locks.

`python memory_fs.py MOUNTPOINT [auto_unmount] [uid=N]` mounts it (as that user), prints `mounted`, and serves it until
it is unmounted. One lock guards everything: no operation waits except for file locks, which are answered later; the
attribute `user.waiting` is the number of requests that wait for a file's locks.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import stat
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.memory_locks import LockTable

from dfsfuse.fusekernel import mounting, wire
from dfsfuse.fusekernel.negotiation import DEFAULT_FLAGS, Settings
from dfsfuse.fusekernel.operations import Operations
from dfsfuse.fusekernel.replies import Reply
from dfsfuse.fusekernel.session import Session
from dfsfuse.fusekernel.values import (
    NOW,
    Changes,
    Context,
    Data,
    DirectoryEntry,
    Entry,
    Lock,
    LockRequest,
    Opened,
    Space,
    TimedAttributes,
)

PAGE = 4096
NOREPLACE, EXCHANGE = 1, 2
PUNCH_HOLE, KEEP_SIZE = 2, 1


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@dataclass
class Inode:
    ino: int
    mode: int
    uid: int
    gid: int
    rdev: int = 0
    nlink: int = 1
    target: bytes = b""
    parent: int = 1
    atime_ns: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    data: bytearray = field(default_factory=bytearray)
    pages: set[int] = field(default_factory=set)
    names: dict[bytes, int] = field(default_factory=dict)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    locks: tuple[LockTable, LockTable] = field(default_factory=lambda: (LockTable(), LockTable()))
    lookups: int = 0

    @property
    def size(self) -> int:
        return len(self.data) if stat.S_ISREG(self.mode) else len(self.target)

    @property
    def blocks(self) -> int:
        return len(self.pages) * PAGE // 512

    def resize(self, size: int) -> None:
        if size < len(self.data):
            del self.data[size:]
            self.pages = {page for page in self.pages if page * PAGE < size}
        else:
            self.data.extend(bytes(size - len(self.data)))


class MemoryFs(Operations):
    """See the module."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        now = time.time_ns()
        root = Inode(1, stat.S_IFDIR | 0o755, os.getuid(), os.getgid(), nlink=2)
        root.atime_ns = root.mtime_ns = root.ctime_ns = now
        self.inodes = {1: root}
        self._numbers = itertools.count(2)
        self.destroyed = 0
        self.timeout_s = 1.0

    def destroy(self) -> None:
        self.destroyed += 1

    # names

    def _folder(self, ino: int) -> Inode:
        folder = self.inodes[ino]
        if not stat.S_ISDIR(folder.mode):
            raise error(errno.ENOTDIR)
        return folder

    def _child(self, parent: int, name: bytes) -> Inode:
        if name not in self._folder(parent).names:
            raise error(errno.ENOENT)
        return self.inodes[self._folder(parent).names[name]]

    def _entry(self, inode: Inode) -> Entry:
        inode.lookups += 1
        return Entry(inode, self.timeout_s, self.timeout_s)

    def lookup(self, context: Context, parent: int, name: bytes) -> Entry:
        with self._lock:
            return self._entry(self._child(parent, name))

    def forget(self, ino: int, lookups: int) -> None:
        with self._lock:
            inode = self.inodes[ino]
            inode.lookups -= lookups
            assert inode.lookups >= 0 or ino == 1
            if not inode.nlink and not inode.lookups:
                del self.inodes[ino]

    def _make(self, context: Context, parent: int, name: bytes, mode: int, **more: Any) -> Entry:
        with self._lock:
            folder = self._folder(parent)
            if name in folder.names:
                raise error(errno.EEXIST)
            if len(name) > 255:
                raise error(errno.ENAMETOOLONG)
            inode = Inode(next(self._numbers), mode, context.uid, context.gid, parent=parent, **more)
            inode.nlink = 2 if stat.S_ISDIR(mode) else 1
            folder.nlink += stat.S_ISDIR(mode)
            inode.atime_ns = inode.mtime_ns = inode.ctime_ns = folder.mtime_ns = time.time_ns()
            self.inodes[inode.ino] = inode
            folder.names[name] = inode.ino
            return self._entry(inode)

    def mknod(self, context: Context, parent: int, name: bytes, mode: int, rdev: int, umask: int) -> Entry:
        return self._make(context, parent, name, mode, rdev=rdev)

    def mkdir(self, context: Context, parent: int, name: bytes, mode: int, umask: int) -> Entry:
        return self._make(context, parent, name, stat.S_IFDIR | mode)

    def symlink(self, context: Context, parent: int, name: bytes, target: bytes) -> Entry:
        return self._make(context, parent, name, stat.S_IFLNK | 0o777, target=target)

    def readlink(self, context: Context, ino: int) -> bytes:
        return self.inodes[ino].target

    def link(self, context: Context, ino: int, parent: int, name: bytes) -> Entry:
        with self._lock:
            if name in self._folder(parent).names:
                raise error(errno.EEXIST)
            self.inodes[ino].nlink += 1
            self._folder(parent).names[name] = ino
            return self._entry(self.inodes[ino])

    def _drop(self, parent: int, name: bytes) -> None:
        inode = self.inodes[self._folder(parent).names.pop(name)]
        is_folder = stat.S_ISDIR(inode.mode)
        self._folder(parent).nlink -= is_folder
        inode.nlink -= 2 if is_folder else 1
        inode.ctime_ns = time.time_ns()

    def unlink(self, context: Context, parent: int, name: bytes) -> None:
        with self._lock:
            if stat.S_ISDIR(self._child(parent, name).mode):
                raise error(errno.EISDIR)
            self._drop(parent, name)

    def rmdir(self, context: Context, parent: int, name: bytes) -> None:
        with self._lock:
            if self._folder(self._child(parent, name).ino).names:
                raise error(errno.ENOTEMPTY)
            self._drop(parent, name)

    def rename(self, context: Context, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int) -> None:
        with self._lock:
            old, new = self._folder(parent), self._folder(new_parent)
            moved = self._child(parent, name)
            there = self.inodes.get(new.names.get(new_name, 0))
            if flags & EXCHANGE:
                there = self._child(new_parent, new_name)
                old.names[name], new.names[new_name] = there.ino, moved.ino
                for inode, source, target in ((moved, old, new), (there, new, old)):
                    is_folder = stat.S_ISDIR(inode.mode)
                    source.nlink, target.nlink = source.nlink - is_folder, target.nlink + is_folder
                    inode.parent = target.ino
                return
            if there is not None and flags & NOREPLACE:
                raise error(errno.EEXIST)
            if there is moved:
                return
            if there is not None:
                if there.names:
                    raise error(errno.ENOTEMPTY)
                self._drop(new_parent, new_name)
            new.names[new_name] = old.names.pop(name)
            is_folder = stat.S_ISDIR(moved.mode)
            old.nlink, new.nlink, moved.parent = old.nlink - is_folder, new.nlink + is_folder, new_parent

    # attributes

    def getattr(self, context: Context, ino: int, handle: int | None) -> TimedAttributes:
        return TimedAttributes(self.inodes[ino], self.timeout_s)

    def setattr(self, context: Context, ino: int, changes: Changes, handle: int | None) -> TimedAttributes:
        with self._lock:
            inode, now = self.inodes[ino], time.time_ns()
            inode.ctime_ns = now
            if changes.mode is not None:
                inode.mode = stat.S_IFMT(inode.mode) | stat.S_IMODE(changes.mode)
            inode.uid = inode.uid if changes.uid is None else changes.uid
            inode.gid = inode.gid if changes.gid is None else changes.gid
            if changes.size is not None:
                inode.resize(changes.size)
                inode.mtime_ns = now
            for name in ("atime_ns", "mtime_ns"):
                change = getattr(changes, name)
                if change is not None:
                    setattr(inode, name, now if change is NOW else change)
            return TimedAttributes(inode, self.timeout_s)

    def getxattr(self, context: Context, ino: int, name: bytes) -> bytes:
        if name == b"user.waiting":
            return b"%d" % sum(len(table.waiting) for table in self.inodes[ino].locks)
        if name not in self.inodes[ino].xattrs:
            raise error(errno.ENODATA)
        return self.inodes[ino].xattrs[name]

    def setxattr(self, context: Context, ino: int, name: bytes, value: bytes, flags: int) -> None:
        xattrs = self.inodes[ino].xattrs
        if flags & os.XATTR_CREATE and name in xattrs:
            raise error(errno.EEXIST)
        if flags & os.XATTR_REPLACE and name not in xattrs:
            raise error(errno.ENODATA)
        xattrs[name] = value

    def listxattr(self, context: Context, ino: int) -> Iterable[bytes]:
        return list(self.inodes[ino].xattrs)

    def removexattr(self, context: Context, ino: int, name: bytes) -> None:
        self.getxattr(context, ino, name)
        del self.inodes[ino].xattrs[name]

    def statfs(self, context: Context, ino: int) -> Space:
        return Space(PAGE, 1000, 500, 400, 10_000, 9_000, 255)

    # files

    def create(
        self, context: Context, parent: int, name: bytes, mode: int, flags: int, umask: int
    ) -> tuple[Entry, Opened]:
        entry = self._make(context, parent, name, stat.S_IFREG | stat.S_IMODE(mode))
        return entry, Opened(7)

    def open(self, context: Context, ino: int, flags: int, *, kill_privileges: bool) -> Opened:
        if flags & os.O_TRUNC:
            self.setattr(context, ino, Changes(size=0), None)
        return Opened(7)

    def read(self, context: Context, ino: int, handle: int, offset: int, size: int) -> Data:
        with self._lock:
            whole = bytes(self.inodes[ino].data[offset : offset + size])
        return [memoryview(whole)[: len(whole) // 2], memoryview(whole)[len(whole) // 2 :]]

    def write(
        self,
        context: Context,
        ino: int,
        handle: int,
        offset: int,
        data: memoryview,
        *,
        kill_privileges: bool,
        append: bool = False,
        is_mapped: bool = False,
    ) -> int:
        with self._lock:
            inode = self.inodes[ino]
            offset = len(inode.data) if append else offset
            if offset > len(inode.data):
                inode.resize(offset)
            inode.data[offset : offset + len(data)] = data
            inode.pages.update(range(offset // PAGE, -(-(offset + len(data)) // PAGE)))
            inode.mtime_ns = inode.ctime_ns = time.time_ns()
            return len(data)

    def flush(self, context: Context, ino: int, handle: int, owner: int) -> None:
        with self._lock:
            self.inodes[ino].locks[False].drop(owner)

    def release(self, context: Context, ino: int, handle: int, owner: int | None) -> None:
        with self._lock:
            if owner is not None:
                self.inodes[ino].locks[True].drop(owner)

    def fsync(self, context: Context, ino: int, handle: int, *, data_only: bool) -> None:
        pass

    def fallocate(self, context: Context, ino: int, handle: int, offset: int, length: int, mode: int) -> None:
        with self._lock:
            inode, end = self.inodes[ino], offset + length
            if mode & PUNCH_HOLE:
                stop = min(end, len(inode.data))
                inode.data[offset:stop] = bytes(max(stop - offset, 0))
                inode.pages.difference_update(range(-(-offset // PAGE), end // PAGE))
            elif not mode & KEEP_SIZE and end > len(inode.data):
                inode.resize(end)

    def lseek(self, context: Context, ino: int, handle: int, offset: int, whence: int) -> int:
        with self._lock:
            inode = self.inodes[ino]
            if offset >= len(inode.data):
                raise error(errno.ENXIO)
            for page in range(offset // PAGE, -(-len(inode.data) // PAGE)):
                if (page in inode.pages) == (whence == os.SEEK_DATA):
                    return max(offset, page * PAGE)
            if whence == os.SEEK_HOLE:
                return len(inode.data)
            raise error(errno.ENXIO)

    # folders

    def opendir(self, context: Context, ino: int, flags: int) -> Opened:
        return Opened(0)

    def readdir(self, context: Context, ino: int, handle: int, offset: int) -> Iterable[DirectoryEntry]:
        with self._lock:
            folder = self._folder(ino)
            found = [(b".", ino), (b"..", folder.parent), *folder.names.items()]
            return [
                DirectoryEntry(name, child, stat.S_IFMT(self.inodes[child].mode), place + 1)
                for place, (name, child) in itertools.islice(enumerate(found), offset, offset + 2000)
            ]

    def releasedir(self, context: Context, ino: int, handle: int) -> None:
        pass

    def fsyncdir(self, context: Context, ino: int, handle: int, *, data_only: bool) -> None:
        pass

    # locks

    def get_lock(self, context: Context, ino: int, request: LockRequest) -> Lock:
        with self._lock:
            found = self.inodes[ino].locks[request.is_flock].in_the_way(request.owner, request.lock)
            return found or request.lock._replace(type=2)

    def set_lock(self, context: Context, ino: int, request: LockRequest, *, wait: bool, reply: Reply) -> None:
        with self._lock:
            table = self.inodes[ino].locks[request.is_flock]
            waiter = table.set(request.owner, request.lock, reply, wait=wait)
        if waiter is None:
            return

        def interrupted() -> None:
            with self._lock:
                table.interrupt(waiter)

        reply.on_interrupt(interrupted)


FLAGS = DEFAULT_FLAGS | wire.FUSE_POSIX_LOCKS | wire.FUSE_FLOCK_LOCKS


def main(mountpoint: Path, *, auto_unmount: bool = False) -> None:
    """Mount and serve."""
    logging.basicConfig(level=logging.INFO)
    is_root = os.geteuid() == 0
    options = mounting.MountOptions(
        fsname="memory",
        subtype="memoryfs",
        default_permissions=True,
        allow_other=is_root,
        auto_unmount=auto_unmount,
    )
    file_system = MemoryFs()
    with mounting.mount(mountpoint, options) as mount:
        session = Session(mount.descriptor, file_system, Settings(flags=FLAGS))
        session.negotiate()
        print("mounted", flush=True)
        session.serve()
    print("destroyed", file_system.destroyed, flush=True)


if __name__ == "__main__":
    for word in sys.argv[2:]:
        if word.startswith("uid="):
            os.setgid(int(word[4:]))
            os.setuid(int(word[4:]))
    main(Path(sys.argv[1]), auto_unmount="auto_unmount" in sys.argv)
