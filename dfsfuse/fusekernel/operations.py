"""The interface of a file system: one method for each thing that the kernel asks.

Inodes are known by number; the root is 1. A method raises `OSError`; its errno goes to the program. A method that is
not overridden raises ENOSYS: the kernel then does without it and mostly asks no more.

Threads: called by many at once. An operation occupies a thread of the session until it returns, so none may wait for
a lock of another program: `set_lock` gets a `Reply`, which is answered later from any thread.

A kernel that asks about an inode waits for the answer with that inode (or its pages) locked. So no operation may
notify the kernel about an inode: that is for other threads (`device.Device`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence

from dfsfuse.fusekernel.replies import Reply
from dfsfuse.fusekernel.values import (
    Changes,
    Context,
    Data,
    Entry,
    Listed,
    Lock,
    LockRequest,
    Opened,
    Space,
    TimedAttributes,
)


def no_such_operation() -> OSError:
    """What a file system raises for what it does not have."""
    return OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


class Operations:
    """A file system that has nothing yet. See the module."""

    def destroy(self) -> None:
        """The mount is gone: nothing more will be asked. Called once, also if the connection was cut."""

    # ------------------------------------------------------------------ names

    def lookup(self, context: Context, parent: int, name: bytes) -> Entry:
        """What has this name. Raises ENOENT, or gives an entry without attributes so that the kernel remembers."""
        raise no_such_operation()

    def forget(self, ino: int, lookups: int) -> None:
        """The kernel takes back so many lookups of an inode; after the last one it does not know the number."""

    def readlink(self, context: Context, ino: int) -> bytes:
        """The target of a symbolic link."""
        raise no_such_operation()

    def symlink(self, context: Context, parent: int, name: bytes, target: bytes) -> Entry:
        """A new symbolic link."""
        raise no_such_operation()

    def mknod(self, context: Context, parent: int, name: bytes, mode: int, rdev: int, umask: int) -> Entry:
        """A new file, fifo, socket or device. The umask is applied already, unless FUSE_DONT_MASK is asked for."""
        raise no_such_operation()

    def mkdir(self, context: Context, parent: int, name: bytes, mode: int, umask: int) -> Entry:
        """A new folder."""
        raise no_such_operation()

    def unlink(self, context: Context, parent: int, name: bytes) -> None:
        """Remove a name of anything but a folder."""
        raise no_such_operation()

    def rmdir(self, context: Context, parent: int, name: bytes) -> None:
        """Remove an empty folder."""
        raise no_such_operation()

    def rename(self, context: Context, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int) -> None:
        """rename(2) and renameat2(2): `flags` are RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT."""
        raise no_such_operation()

    def link(self, context: Context, ino: int, parent: int, name: bytes) -> Entry:
        """One more name for a file."""
        raise no_such_operation()

    # ------------------------------------------------------------------ attributes

    def getattr(self, context: Context, ino: int, handle: int | None) -> TimedAttributes:
        """What stat(2) says."""
        raise no_such_operation()

    def setattr(self, context: Context, ino: int, changes: Changes, handle: int | None) -> TimedAttributes:
        """Change attributes."""
        raise no_such_operation()

    def access(self, context: Context, ino: int, mask: int) -> None:
        """access(2). Not asked with the mount option default_permissions."""
        raise no_such_operation()

    def getxattr(self, context: Context, ino: int, name: bytes) -> bytes:
        """An extended attribute. Raises ENODATA."""
        raise no_such_operation()

    def setxattr(self, context: Context, ino: int, name: bytes, value: bytes, flags: int) -> None:
        """Set one; `flags` are XATTR_CREATE or XATTR_REPLACE."""
        raise no_such_operation()

    def listxattr(self, context: Context, ino: int) -> Iterable[bytes]:
        """The names of all."""
        raise no_such_operation()

    def removexattr(self, context: Context, ino: int, name: bytes) -> None:
        """Remove one. Raises ENODATA."""
        raise no_such_operation()

    def statfs(self, context: Context, ino: int) -> Space:
        """What statvfs(3) says."""
        raise no_such_operation()

    # ------------------------------------------------------------------ files

    def create(
        self, context: Context, parent: int, name: bytes, mode: int, flags: int, umask: int
    ) -> tuple[Entry, Opened]:
        """open(2) with O_CREAT where the kernel knows of no such name."""
        raise no_such_operation()

    def open(self, context: Context, ino: int, flags: int, *, kill_privileges: bool) -> Opened:
        """open(2). `flags` have O_TRUNC if FUSE_ATOMIC_O_TRUNC was asked for (`Changes` on `kill_privileges`)."""
        raise no_such_operation()

    def read(self, context: Context, ino: int, handle: int, offset: int, size: int) -> Data:
        """Up to `size` bytes, fewer only at the end of the file."""
        raise no_such_operation()

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
    ) -> int:
        """How many bytes were taken. `data` is valid until this returns, and belongs to the session. `append`: the
        descriptor has O_APPEND now; `offset` is where the kernel believes the file to end."""
        raise no_such_operation()

    def flush(self, context: Context, ino: int, handle: int, owner: int) -> None:
        """A descriptor was closed; fcntl locks of `owner` end, here or in `flushed`."""
        raise no_such_operation()

    def flushed(self, context: Context, ino: int, owner: int) -> None:
        """What `flush` has to do only once: it has come to its end, with or without an error, and is not called again
        for this closing. What this raises is told instead."""

    def close_failed(self, context: Context, ino: int, handle: int, *, is_heard: bool) -> None:
        """`flush` or `flushed` has failed for good, and the program is about to hear it; or will not: it is ending, or
        did not wait for the answer. It may be called after `released` then. Raises nothing."""

    def changed_unheard(self, ino: int) -> None:
        """The inode has been changed for a program that did not wait for the answer, so what the kernel keeps of it may
        be old. It must not wait for anything."""

    def release(self, context: Context, ino: int, handle: int, owner: int | None) -> None:
        """The last duplicate of a descriptor was closed; if `owner` is given, its flock ends, here or in
        `released`."""
        raise no_such_operation()

    def released(self, context: Context, ino: int, handle: int) -> None:
        """The same for `release`."""

    def fsync(self, context: Context, ino: int, handle: int, *, data_only: bool) -> None:
        """fsync(2), fdatasync(2)."""
        raise no_such_operation()

    def fallocate(self, context: Context, ino: int, handle: int, offset: int, length: int, mode: int) -> None:
        """fallocate(2)."""
        raise no_such_operation()

    def lseek(self, context: Context, ino: int, handle: int, offset: int, whence: int) -> int:
        """lseek(2) with SEEK_DATA or SEEK_HOLE."""
        raise no_such_operation()

    def copy_file_range(
        self, context: Context, source: tuple[int, int, int], target: tuple[int, int, int], size: int, flags: int
    ) -> int:
        """copy_file_range(2), each end as (inode, handle, offset). Without it the kernel reads and writes."""
        raise no_such_operation()

    def ioctl(self, context: Context, ino: int) -> None:
        """ioctl(2): no such thing here."""
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))

    # ------------------------------------------------------------------ folders

    def opendir(self, context: Context, ino: int, flags: int) -> Opened:
        """A handle on a listing."""
        raise no_such_operation()

    def readdir(self, context: Context, ino: int, handle: int, offset: int) -> Iterable[Listed]:
        """Entries from `offset` on (0: from the first), `.` and `..` among them. As many are taken as there is room
        for; the rest is asked for later."""
        raise no_such_operation()

    def lookup_listed(self, context: Context, ino: int, entries: Sequence[Listed]) -> Iterable[Entry | None]:
        """`lookup` for entries that were just listed (READDIRPLUS), without `.` and `..`, in their order. None: it is
        gone, or the kernel is to ask when it needs it. What is given counts, also if the next one raises an error."""
        for entry in entries:
            try:
                found = self.lookup(context, ino, entry.name)
            except FileNotFoundError:
                yield None
            else:
                yield found

    def releasedir(self, context: Context, ino: int, handle: int) -> None:
        """Forget the handle."""
        raise no_such_operation()

    def fsyncdir(self, context: Context, ino: int, handle: int, *, data_only: bool) -> None:
        """fsync(2) of a folder."""
        raise no_such_operation()

    # ------------------------------------------------------------------ locks

    def get_lock(self, context: Context, ino: int, request: LockRequest) -> Lock:
        """F_GETLK: a lock that is in the way, or one with F_UNLCK."""
        raise no_such_operation()

    def set_lock(self, context: Context, ino: int, request: LockRequest, *, wait: bool, reply: Reply) -> None:
        """F_SETLK, F_SETLKW, flock(2). `reply` is answered now or later: at once unless `wait`. It is answered with
        EINTR if its `on_interrupt` says so. Only called if FUSE_POSIX_LOCKS or FUSE_FLOCK_LOCKS is asked for."""
        raise no_such_operation()
