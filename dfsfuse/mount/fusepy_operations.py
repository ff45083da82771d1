"""libfuse's callbacks, served by the Vfs: each operation resolves its path to an inode and calls the Vfs.

Knows paths, handles and the Vfs; knows neither ctypes (`fusepy_session`) nor servers. Paths come as latin-1 text, one
character for each byte. Any exception becomes an errno in `__call__`, and nowhere else.

Threads: libfuse calls from many at once. `_inodes` (handle -> inode) is the only state; each of its uses is one
dictionary operation, and a handle belongs to one open file from open() to release().
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import fuse

from dfsfuse.errors import posix_error
from dfsfuse.mount import callers
from dfsfuse.mount.errors import errno_of_with
from dfsfuse.mount.fusepy_session import ENCODING, NOW, TimeChange, has_ended, was_interrupted
from dfsfuse.mount.waiting import Waiting
from dfsfuse.vfs.attributes import AttributeChanges, Attributes
from dfsfuse.vfs.caller import Caller
from dfsfuse.vfs.names import paths
from dfsfuse.vfs.vfs import Vfs

RETRY_S: Final = 1.0
POLL_S: Final = 0.1
"""While an operation waits for servers (`waiting`): how often it is retried, and how often to check whether the servers
have changed or its program was told to end."""
_NEVER_WAITS: Final = frozenset({"init", "destroy", "release", "releasedir"})


class FusepyOperations(fuse.Operations):  # type: ignore[misc]
    """The callbacks. fusepy treats a method that is None as not implemented."""

    use_ns = True
    flag_nullpath_ok = 1
    flag_nopath = 1
    """Operations on a handle need no path: libfuse then neither builds one nor locks the folders leading to it."""
    flag_utime_omit_ok = 1
    """Without it, libfuse ignores a change of only one of the two times, and reports success."""

    access = None  # the kernel checks permissions: default_permissions
    ioctl = None
    lock = None  # without it, the kernel manages locks itself, for this mount only
    bmap = None

    def __init__(self, vfs: Vfs, on_ready: Callable[[], None], *, eio: int = errno.EIO, wait_s: float = 0.0) -> None:
        self._vfs = vfs
        self._errno_of = errno_of_with(eio)
        self._waiting = Waiting(wait_s, vfs.all_servers_answer, callers.is_ending) if wait_s else None
        self._on_ready = on_ready
        self._inodes: dict[int, int] = {}

    def __call__(self, operation: str, *arguments: Any) -> Any:
        until: float | None = None
        while True:
            try:
                return getattr(self, operation)(*arguments)
            except Exception as error:  # noqa: BLE001 - the boundary: libfuse must get a number
                number = self._errno_of(error, f"{operation} {self._subject(arguments)}")
                wait_s = self._may_wait_s(error, operation)
            if not wait_s:
                break
            until = time.monotonic() + wait_s if until is None else until
            if time.monotonic() >= until:
                break
            if not self._wait(until):
                number = errno.EINTR
                break
        if operation == "flush":
            self._close_failed(number, *arguments)
        raise posix_error(number)

    def _close_failed(self, number: int, _path: str | None, info: Any) -> None:
        """As the kernel binding does (`Dispatcher`)."""
        thread = fuse.fuse_get_context()[2]
        is_reported = number != errno.EINTR and not (callers.is_ending(thread) or callers.is_told_to_end(thread))
        self._vfs.close_failed(info.fh, is_reported=is_reported)

    def _may_wait_s(self, error: Exception, operation: str) -> float:
        if self._waiting is None or operation in _NEVER_WAITS:
            return 0.0
        return self._waiting.may_wait_s(error, operation, fuse.fuse_get_context()[2])

    def _wait(self, until: float) -> bool:
        """Wait briefly for a change of the servers, in this thread, since libfuse has as many threads as are needed.
        Returns False if the program is told to end, or the mount has ended."""
        thread, before = fuse.fuse_get_context()[2], self._vfs.answering()
        until = min(until, time.monotonic() + RETRY_S)
        while time.monotonic() < until and self._vfs.answering() == before:
            time.sleep(POLL_S)
            if has_ended() or (was_interrupted() and callers.is_told_to_end(thread)):
                return False
        return True

    def init(self, path: str) -> None:
        self._on_ready()

    # -------------------------------------------------------------- names

    def getattr(self, path: str | None, info: Any = None) -> Attributes:
        if info is not None:
            return self._vfs.getattr(self._inodes[info.fh], info.fh)
        return paths.lookup(self._vfs, _bytes(path))

    def readlink(self, path: str) -> str:
        return self._vfs.readlink(self._resolve(path)).decode(ENCODING)

    def mknod(self, path: str, mode: int, device: int) -> None:
        parent, name = self._split(path)
        caller = Caller(*fuse.fuse_get_context()[:2])
        self._vfs.mknod(parent, name, mode, device, caller)

    def mkdir(self, path: str, mode: int) -> None:
        parent, name = self._split(path)
        caller = Caller(*fuse.fuse_get_context()[:2])
        self._vfs.mkdir(parent, name, mode, caller)

    def symlink(self, path: str, target: str) -> None:
        parent, name = self._split(path)
        caller = Caller(*fuse.fuse_get_context()[:2])
        self._vfs.symlink(parent, name, target.encode(ENCODING), caller)

    def link(self, path: str, existing: str) -> None:
        parent, name = self._split(path)
        self._vfs.link(self._resolve(existing), parent, name)

    def unlink(self, path: str) -> None:
        self._vfs.unlink(*self._split(path))

    def rmdir(self, path: str) -> None:
        self._vfs.rmdir(*self._split(path))

    def rename(self, old: str, new: str) -> None:
        self._vfs.rename(*self._split(old), *self._split(new))

    # -------------------------------------------------------------- attributes

    def chmod(self, path: str, mode: int) -> None:
        self._vfs.setattr(self._resolve(path), AttributeChanges(mode=stat.S_IMODE(mode)))

    def chown(self, path: str, uid: int, gid: int) -> None:
        changes = AttributeChanges(uid=None if uid == -1 else uid, gid=None if gid == -1 else gid)
        self._vfs.setattr(self._resolve(path), changes)

    def truncate(self, path: str | None, length: int, info: Any = None) -> None:
        changes = AttributeChanges(size=length)
        if info is not None:
            self._vfs.setattr(self._inodes[info.fh], changes, info.fh)
        else:
            self._vfs.setattr(self._resolve(path), changes)

    def utimens(self, path: str, times: tuple[TimeChange, TimeChange]) -> None:
        now_ns = self._vfs.now_ns()
        atime_ns, mtime_ns = (now_ns if change is NOW else change for change in times)
        changes = AttributeChanges(atime_ns=atime_ns, mtime_ns=mtime_ns)
        self._vfs.setattr(self._resolve(path), changes)

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        if name.startswith(("security.", "system.")):
            # The kernel asks for security.capability before each write, and `ls -l` for each file's ACLs: we store
            # neither, and say so without reading the inode.
            raise OSError(errno.ENODATA if name.startswith("security.") else errno.EOPNOTSUPP, name)
        return self._vfs.getxattr(self._resolve(path), name.encode(ENCODING))

    def setxattr(self, path: str, name: str, value: bytes, flags: int, position: int = 0) -> None:
        self._vfs.setxattr(self._resolve(path), name.encode(ENCODING), value, flags)

    def listxattr(self, path: str) -> list[str]:
        return [name.decode(ENCODING) for name in self._vfs.listxattr(self._resolve(path))]

    def removexattr(self, path: str, name: str) -> None:
        self._vfs.removexattr(self._resolve(path), name.encode(ENCODING))

    def statfs(self, path: str) -> dict[str, int]:
        space = self._vfs.statfs()
        return {
            "f_bsize": space.block_bytes,
            "f_frsize": space.block_bytes,
            "f_blocks": space.blocks,
            "f_bfree": space.free,
            "f_bavail": space.available,
            "f_files": space.files,
            "f_ffree": space.files_free,
            "f_favail": space.files_free,
            "f_namemax": space.name_max,
        }

    # -------------------------------------------------------------- open files

    def create(self, path: str, mode: int, info: Any) -> None:
        parent, name = self._split(path)
        caller = Caller(*fuse.fuse_get_context()[:2])
        try:
            attributes, handle = self._vfs.create(parent, name, mode, info.flags | os.O_EXCL, caller)
        except FileExistsError as error:
            if info.flags & os.O_EXCL:
                raise
            # The kernel found no such name, and would check no permission; with ESTALE it looks again, and opens what
            # is there.
            raise posix_error(errno.ESTALE) from error
        self._opened(info, attributes.ino, handle)

    def open(self, path: str, info: Any) -> None:
        ino = paths.resolve(self._vfs, _bytes(path), newest=True)  # another mount may just have replaced the file
        self._opened(info, ino, self._vfs.open(ino, info.flags))

    def read(self, path: str | None, size: int, offset: int, info: Any) -> bytes:
        return self._vfs.read(info.fh, offset, size)

    def write(self, path: str | None, data: bytes, offset: int, info: Any) -> int:
        return self._vfs.write(info.fh, offset, data)

    def flush(self, path: str | None, info: Any) -> None:
        self._vfs.flush(info.fh)

    def fsync(self, path: str | None, data_only: int, info: Any) -> None:
        self._vfs.fsync(info.fh)

    def release(self, path: str | None, info: Any) -> None:
        self._inodes.pop(info.fh, None)
        self._vfs.release(info.fh, keep=True)

    # -------------------------------------------------------------- folders

    def opendir(self, path: str) -> int:
        return self._vfs.opendir(self._resolve(path))

    def readdir(self, path: str | None, handle: int) -> Iterable[tuple[bytes, int, int]]:
        return ((entry.name, entry.ino, entry.type) for entry in self._vfs.readdir(handle, 0))

    def releasedir(self, path: str | None, handle: int) -> None:
        self._vfs.releasedir(handle)

    def fsyncdir(self, path: str | None, data_only: int, handle: int) -> None:
        self._vfs.fsyncdir(handle)

    # -------------------------------------------------------------- helpers

    def _opened(self, info: Any, ino: int, handle: int) -> None:
        info.fh = handle
        self._inodes[handle] = ino

    def _subject(self, arguments: tuple[Any, ...]) -> str:
        """What an operation was about, for the log: its path, or for an open file, which comes without a path, the
        inode."""
        path = arguments[0] if arguments else None
        if path is not None:
            return repr(path)
        ino = self._inodes.get(getattr(arguments[-1], "fh", -1)) if arguments else None
        return "of an open folder" if ino is None else f"of inode {ino}"

    def _resolve(self, path: str | None) -> int:
        return paths.resolve(self._vfs, _bytes(path))

    def _split(self, path: str) -> tuple[int, bytes]:
        return paths.split(self._vfs, path.encode(ENCODING))


def _bytes(path: str | None) -> bytes:
    if path is None:  # only operations on a handle may come without a path
        raise OSError(errno.ESTALE, "neither a path nor a handle")
    return path.encode(ENCODING)
