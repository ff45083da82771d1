"""The interface of a file system: one method for each kind of request.

Inodes are known by number; the root is 1. A method raises `OSError`; its errno goes to the program. A method that is
not overridden raises ENOSYS: the kernel then does without it and usually does not ask again.

Threads: called by many at once. An operation occupies a thread of the session until it returns, so none may wait for
another program's lock: `set_lock` gets a `Reply`, which can be answered later from any thread.

The kernel keeps an inode (or its pages) locked while it waits for the answer to a request about it. So no operation may
notify the kernel about an inode: other threads do that (`device.Device`).
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
    """The error that a file system raises for unsupported operations."""
    return OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


class Operations:
    """A file system without any operations. See the module."""

    def destroy(self) -> None:
        """The mount is gone: there will be no more requests. Called once, even if the connection was cut."""

    # ------------------------------------------------------------------ names

    def lookup(self, context: Context, parent: int, name: bytes) -> Entry:
        """Look up a name. Raises ENOENT, or returns an entry without attributes to make the kernel cache that."""
        raise no_such_operation()

    def forget(self, ino: int, lookups: int) -> None:
        """The kernel takes back `lookups` lookups of an inode; after the last one it no longer knows the number."""

    def readlink(self, context: Context, ino: int) -> bytes:
        """The target of a symbolic link."""
        raise no_such_operation()

    def symlink(self, context: Context, parent: int, name: bytes, target: bytes) -> Entry:
        """Create a symbolic link."""
        raise no_such_operation()

    def mknod(self, context: Context, parent: int, name: bytes, mode: int, rdev: int, umask: int) -> Entry:
        """Create a file, fifo, socket or device. The umask has been applied, unless FUSE_DONT_MASK was requested."""
        raise no_such_operation()

    def mkdir(self, context: Context, parent: int, name: bytes, mode: int, umask: int) -> Entry:
        """Create a folder."""
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
        """Add a name for a file."""
        raise no_such_operation()

    # ------------------------------------------------------------------ attributes

    def getattr(self, context: Context, ino: int, handle: int | None) -> TimedAttributes:
        """The attributes for stat(2)."""
        raise no_such_operation()

    def setattr(self, context: Context, ino: int, changes: Changes, handle: int | None) -> TimedAttributes:
        """Change attributes."""
        raise no_such_operation()

    def access(self, context: Context, ino: int, mask: int) -> None:
        """access(2). Never called with the mount option default_permissions."""
        raise no_such_operation()

    def getxattr(self, context: Context, ino: int, name: bytes) -> bytes:
        """Get an extended attribute. Raises ENODATA."""
        raise no_such_operation()

    def setxattr(self, context: Context, ino: int, name: bytes, value: bytes, flags: int) -> None:
        """Set an extended attribute; `flags` are XATTR_CREATE or XATTR_REPLACE."""
        raise no_such_operation()

    def listxattr(self, context: Context, ino: int) -> Iterable[bytes]:
        """The names of all extended attributes."""
        raise no_such_operation()

    def removexattr(self, context: Context, ino: int, name: bytes) -> None:
        """Remove an extended attribute. Raises ENODATA."""
        raise no_such_operation()

    def statfs(self, context: Context, ino: int) -> Space:
        """The numbers for statvfs(3)."""
        raise no_such_operation()

    # ------------------------------------------------------------------ files

    def create(
        self, context: Context, parent: int, name: bytes, mode: int, flags: int, umask: int
    ) -> tuple[Entry, Opened]:
        """open(2) with O_CREAT, if the kernel knows of no such name."""
        raise no_such_operation()

    def open(self, context: Context, ino: int, flags: int, *, kill_privileges: bool) -> Opened:
        """open(2). `flags` include O_TRUNC if FUSE_ATOMIC_O_TRUNC was requested (see `Changes` on
        `kill_privileges`)."""
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
        is_mapped: bool = False,
    ) -> int:
        """Write, and return the number of bytes accepted. `data` is valid until this returns, and belongs to the
        session. `append`: the descriptor now has O_APPEND; `offset` is where the kernel believes the file to end.
        `is_mapped`: these are pages of a shared mapping, whose program may have ended; the kernel drops them when they
        are refused."""
        raise no_such_operation()

    def flush(self, context: Context, ino: int, handle: int, owner: int) -> None:
        """A descriptor was closed; `owner`'s fcntl locks end, here or in `flushed`."""
        raise no_such_operation()

    def flushed(self, context: Context, ino: int, owner: int) -> None:
        """The part of `flush` that must happen only once: `flush` has finished, with or without an error, and is not
        called again for this close. An error raised here replaces the result."""

    def close_failed(self, context: Context, ino: int, handle: int, *, is_reported: bool) -> None:
        """`flush` or `flushed` has failed for good. `is_reported`: whether the program is about to learn of it. If not,
        it is ending, or did not wait for the answer, and this may be called after `released`. Raises nothing."""

    def invalidate(self, ino: int) -> None:
        """What the kernel has cached of the inode may be stale: it was changed for a program that did not wait for the
        answer. Must not block."""

    def release(self, context: Context, ino: int, handle: int, owner: int | None) -> None:
        """The last duplicate of a descriptor was closed; if `owner` is given, its flock ends, here or in `released`."""
        raise no_such_operation()

    def released(self, context: Context, ino: int, handle: int) -> None:
        """The corresponding part of `release`."""

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
        """copy_file_range(2), each end as (inode, handle, offset). If unsupported, the kernel reads and writes."""
        raise no_such_operation()

    def ioctl(self, context: Context, ino: int) -> None:
        """ioctl(2): not supported."""
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))

    # ------------------------------------------------------------------ folders

    def opendir(self, context: Context, ino: int, flags: int) -> Opened:
        """Open a folder for listing."""
        raise no_such_operation()

    def readdir(self, context: Context, ino: int, handle: int, offset: int) -> Iterable[Listed]:
        """Entries from `offset` on (0: from the first), including `.` and `..`. As many are consumed as fit; the rest
        is requested later."""
        raise no_such_operation()

    def lookup_listed(self, context: Context, ino: int, entries: Sequence[Listed]) -> Iterable[Entry | None]:
        """`lookup` for entries that were just listed (READDIRPLUS), without `.` and `..`, in their order. None: the
        entry is gone, or the kernel should ask when it needs it. Each result counts as a lookup, even if the next one
        raises an error."""
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
        """F_GETLK: a conflicting lock, or one with F_UNLCK."""
        raise no_such_operation()

    def set_lock(self, context: Context, ino: int, request: LockRequest, *, wait: bool, reply: Reply) -> None:
        """F_SETLK, F_SETLKW, flock(2). `reply` is answered now or later: immediately unless `wait`. It is answered with
        EINTR if its `on_interrupt` is called. Only called if FUSE_POSIX_LOCKS or FUSE_FLOCK_LOCKS was requested."""
        raise no_such_operation()
