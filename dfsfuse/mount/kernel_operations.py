"""The kernel's requests, served by the Vfs: both identify files by inodes, so an operation is a line or two.

Knows values of `dfsfuse.fusekernel` and the Vfs; knows neither /dev/fuse (`kernel_session`) nor servers. An inode
number means the same file for ever, so that hard links are one inode with one cache. Each entry given to the kernel
counts as one lookup, and the Vfs holds the inode until the kernel has forgotten all of them.

If an inode is gone all the same (another mount removed it), the answer is ESTALE, not ENOENT: the kernel then looks up
the path again, bypassing its cache, and finds what the other mount has put in its place. So a file that is replaced by
rename is never missing.

The kernel leaves it to us to clear setuid and setgid when a file's owner or content changes (HANDLE_KILLPRIV_V2);
otherwise it would ask for `security.capability` before each write. For a write and a truncation it says whether the
caller may keep them; for fallocate(2) it only says who called. It caches the old mode until it is told to ask again.
The bits are cleared before the content changes, or together with it: whatever comes afterwards may fail, or its program
may be released.

When a file is closed, `flush` and `release` save its data, and may be repeated while servers are down (`waiting`); the
closing program's locks end in `flushed` and `released`, when saving has succeeded or was given up.

A program that releases an exclusive lock, or makes it a shared one, may have written through a mapping: the kernel is
first made to hand over that data (`mapped_pages`), on another thread, which then answers the lock request.

Threads: called by many at once; no state.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from types import TracebackType
from typing import Final

from dfsfuse.common.events import Changed
from dfsfuse.errors import posix_error
from dfsfuse.fusekernel import wire
from dfsfuse.fusekernel.operations import Operations
from dfsfuse.fusekernel.replies import Reply
from dfsfuse.fusekernel.values import (
    NOW,
    Changes,
    Context,
    Data,
    Entry,
    Listed,
    Lock,
    LockRequest,
    Opened,
    Space,
    TimeChange,
    TimedAttributes,
)
from dfsfuse.mount import callers
from dfsfuse.mount.errors import errno_of
from dfsfuse.mount.kernel_caches import KernelCaches
from dfsfuse.mount.mapped_pages import MappedPages
from dfsfuse.namespace.ops.renames import EXCHANGE
from dfsfuse.namespace.records import locks
from dfsfuse.vfs.attributes import AttributeChanges, Attributes
from dfsfuse.vfs.caller import Caller
from dfsfuse.vfs.locks.one_mount import Guarded, guarded
from dfsfuse.vfs.vfs import Vfs


class _KnownInode:
    """A context for operations on an inode that the kernel has: if it does not exist, it is stale."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, FileNotFoundError):
            raise posix_error(errno.ESTALE) from error


_KNOWN_INODE: Final = _KnownInode()


class _Calling:
    """A context for an operation on these inodes, whose value is the caller. The names by which the kernel has reached
    the inodes belong to it: the kernel may have cached them although they no longer exist. After ESTALE it retries,
    with names that it has just looked up. Without `has_route`, only ESTALE is recorded."""

    __slots__ = ("_caches", "_context", "_has_route", "_inos")

    def __init__(self, caches: KernelCaches | None, context: Context, *inos: int, has_route: bool = True) -> None:
        self._caches = caches
        self._context = context
        self._inos = inos
        self._has_route = has_route

    def __enter__(self) -> Caller:
        uid, gid, pid, _ = self._context
        if self._caches is None or not self._has_route:
            return Caller(uid, gid, holds=True)
        return Caller(uid, gid, self._caches.route(pid, *self._inos), holds=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError) and error.errno == errno.ESTALE and self._caches is not None:
            self._caches.exempt(self._context.pid, *self._inos)


class _ChangesContent:
    """A context for changes of a file's content: whatever the outcome, the kernel's pages may be stale afterwards."""

    __slots__ = ("_caches", "_ino")

    def __init__(self, caches: KernelCaches | None, ino: int) -> None:
        self._caches = caches
        self._ino = ino

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._caches is not None:
            self._caches.changed_here(self._ino)


class KernelOperations(Operations):
    """The operations. Timeouts: how long the kernel relies on a name, on attributes, or on the absence of a name
    without asking; another mount's changes become visible that much later."""

    def __init__(
        self,
        vfs: Vfs,
        *,
        entry_timeout_s: float = 0.0,
        attributes_timeout_s: float = 0.0,
        negative_timeout_s: float = 0.0,
    ) -> None:
        self._vfs = vfs
        self._entry_timeout_s = entry_timeout_s
        self._attributes_timeout_s = attributes_timeout_s
        self._negative_timeout_s = negative_timeout_s
        self.caches: KernelCaches | None = None
        """Keeps track of what the kernel caches, if there is one."""
        self.mapped: MappedPages | None = None
        """Collects data written through mappings, if there is one."""
        self.writes_directly = False
        """Whether the kernel drops the pages that an uncached write makes stale: from Linux 6.6 on."""

    def _entry(self, parent: int, name: bytes, attributes: Attributes) -> Entry:
        """The entry for something that was created here."""
        if self.caches is not None:
            self.caches.given(parent, name, attributes.ino)
        return self._timed_entry(attributes)

    def _timed_entry(self, attributes: Attributes) -> Entry:
        # The target of a symbolic link decides what open() opens, and must be the newest: the kernel asks each time.
        entry_timeout_s = 0.0 if stat.S_ISLNK(attributes.mode) else self._entry_timeout_s
        return Entry(attributes, entry_timeout_s, self._attributes_timeout_s, attributes.generation)

    def _timed(self, attributes: Attributes) -> TimedAttributes:
        if self.caches is not None:
            self.caches.relied_on()
        return TimedAttributes(attributes, self._attributes_timeout_s)

    # -------------------------------------------------------------- who calls, and by which names

    def _caller(self, context: Context, *inos: int) -> _Calling:
        return _Calling(self.caches, context, *inos)

    def _caller_on_file(self, context: Context, ino: int, handle: int | None = None) -> _Calling | nullcontext[Caller]:
        """The same for operations that may also go through a descriptor. Then the names do not matter; and since the
        kernel does not say which it was, they do not matter either while any program has the file open."""
        if handle is not None or self._vfs.is_open(ino):
            return nullcontext(Caller(context.uid, context.gid, holds=True))
        return self._caller(context, ino)

    def _retried(self, context: Context, *inos: int) -> _Calling:
        """A context for operations whose ESTALE makes the kernel retry; it has now reached these inodes."""
        return _Calling(self.caches, context, *inos, has_route=False)

    def _changing_content(self, ino: int) -> _ChangesContent:
        return _ChangesContent(self.caches, ino)

    # -------------------------------------------------------------- names

    def lookup(self, context: Context, parent: int, name: bytes) -> Entry:
        caller = Caller(context.uid, context.gid, holds=True)
        found_as = None if self.caches is None else partial(self.caches.given, parent)
        try:
            return self._timed_entry(self._vfs.lookup(parent, name, caller, found_as=found_as))
        except FileNotFoundError:  # to the kernel it is the same, also with a timeout of 0; and here it is no error
            return Entry(None, self._negative_timeout_s)

    def lookup_listed(self, context: Context, ino: int, entries: Sequence[Listed]) -> list[Entry | None]:
        names = [entry.name for entry in entries]
        found_as = _unnoted if self.caches is None else partial(self.caches.given_many, ino)
        found = self._vfs.lookup_listed(ino, names, found_as)
        return [None if one is None else self._timed_entry(one) for one in found]

    def forget(self, ino: int, lookups: int) -> None:
        self._vfs.forget(ino, lookups)
        if self.caches is not None:
            self.caches.forgotten(ino, self._vfs.is_held)

    def readlink(self, context: Context, ino: int) -> bytes:
        with _KNOWN_INODE:
            return self._vfs.readlink(ino)

    def symlink(self, context: Context, parent: int, name: bytes, target: bytes) -> Entry:
        with self._caller(context, parent) as caller:
            made = self._vfs.symlink(parent, name, target, caller)
        return self._entry(parent, name, made)

    def mknod(self, context: Context, parent: int, name: bytes, mode: int, rdev: int, umask: int) -> Entry:
        with self._caller(context, parent) as caller:
            made = self._vfs.mknod(parent, name, mode, rdev, caller)
        return self._entry(parent, name, made)

    def mkdir(self, context: Context, parent: int, name: bytes, mode: int, umask: int) -> Entry:
        with self._caller(context, parent) as caller:
            made = self._vfs.mkdir(parent, name, mode, caller)
        return self._entry(parent, name, made)

    def unlink(self, context: Context, parent: int, name: bytes) -> None:
        with self._caller(context, parent) as caller:
            self._vfs.unlink(parent, name, caller)
        if self.caches is not None:
            self.caches.removed(parent, name)

    def rmdir(self, context: Context, parent: int, name: bytes) -> None:
        with self._caller(context, parent) as caller:
            self._vfs.rmdir(parent, name, caller)
        if self.caches is not None:
            self.caches.removed(parent, name)

    def rename(self, context: Context, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int) -> None:
        with self._caller(context, parent, new_parent) as caller:
            self._vfs.rename(parent, name, new_parent, new_name, flags, caller)
        if self.caches is not None:
            self.caches.moved(parent, name, new_parent, new_name, exchanged=bool(flags & EXCHANGE))

    def link(self, context: Context, ino: int, parent: int, name: bytes) -> Entry:
        of_file = () if self._vfs.is_open(ino) else (ino,)
        with self._caller(context, parent, *of_file) as caller:
            made = self._vfs.link(ino, parent, name, caller)
        return self._entry(parent, name, made)

    # -------------------------------------------------------------- attributes

    def getattr(self, context: Context, ino: int, handle: int | None) -> TimedAttributes:
        with _KNOWN_INODE:
            return self._timed(self._vfs.getattr(ino, handle))

    def setattr(self, context: Context, ino: int, changes: Changes, handle: int | None) -> TimedAttributes:
        if isinstance(changes.mtime_ns, int) and self._may_have_mapped(context, ino):
            assert self.mapped is not None
            self.mapped.collect_within(ino)  # data written before must not change the time that is being set
        mode = changes.mode
        if mode is None and (changes.kill_privileges or changes.uid is not None or changes.gid is not None):
            mode = self._mode_without_privileges(
                context, ino, is_capable=context.uid == 0 and not changes.kill_privileges
            )
        if changes.size is not None:
            self._check_locks(ino)
        now_ns = self._vfs.now_ns()
        wanted = AttributeChanges(
            mode=None if mode is None else stat.S_IMODE(mode),
            uid=changes.uid,
            gid=changes.gid,
            size=changes.size,
            atime_ns=_time_ns(changes.atime_ns, now_ns),
            mtime_ns=_time_ns(changes.mtime_ns, now_ns),
        )
        content = nullcontext() if changes.size is None else self._changing_content(ino)
        with self._caller_on_file(context, ino, handle) as caller, _KNOWN_INODE, content:
            return self._timed(self._vfs.setattr(ino, wanted, handle, caller))

    def _mode_without_privileges(self, context: Context, ino: int, *, is_capable: bool = False) -> int | None:
        """The mode that the file must get when another user may have changed it; None: unchanged. Setgid of a file that
        its group may not execute stays if the caller is in the group, or is privileged."""
        with _KNOWN_INODE:
            found = self._vfs.getattr(ino)
        mode = found.mode
        if stat.S_ISDIR(mode) or not mode & (stat.S_ISUID | stat.S_ISGID):
            return None
        kept = mode & ~stat.S_ISUID
        if kept & stat.S_ISGID and (mode & stat.S_IXGRP or not (is_capable or callers.is_in_group(context, found.gid))):
            kept &= ~stat.S_ISGID
        return None if kept == mode else kept

    def _kill_privileges(self, context: Context, ino: int) -> None:
        mode = self._mode_without_privileges(context, ino)
        if mode is not None:
            # Durably: the changed content is saved apart, and must not survive a loss of this change.
            self._vfs.setattr(ino, AttributeChanges(mode=stat.S_IMODE(mode)), durable=True)
            if self.caches is not None:
                self.caches.notify_of_mode(ino)

    def _check_locks(self, ino: int) -> None:
        """Raise OSError (EIO) if the program about to change the file's data relies on locks that were lost."""
        if self.caches is None:
            self._vfs.locks.check(ino)
        else:
            self._vfs.locks.check(ino, partial(self.caches.names, ino))

    def _may_have_mapped(self, context: Context, ino: int) -> bool:
        """Whether the calling process may have unsaved writes to the file through a mapping."""
        return self.mapped is not None and self._vfs.may_be_mapped(ino) and self.mapped.may_have(context.pid, ino)

    def getxattr(self, context: Context, ino: int, name: bytes) -> bytes:
        if name.startswith((b"security.", b"system.")):
            # `ls -l` asks for each file's ACLs, and the kernel for capabilities: we store neither, and say so without
            # reading the inode.
            number = errno.ENODATA if name.startswith(b"security.") else errno.EOPNOTSUPP
            raise posix_error(number)
        with _KNOWN_INODE:
            return self._vfs.getxattr(ino, name)

    def setxattr(self, context: Context, ino: int, name: bytes, value: bytes, flags: int) -> None:
        with self._caller_on_file(context, ino) as caller:
            self._vfs.setxattr(ino, name, value, flags, caller)

    def listxattr(self, context: Context, ino: int) -> Iterable[bytes]:
        with _KNOWN_INODE:
            return self._vfs.listxattr(ino)

    def removexattr(self, context: Context, ino: int, name: bytes) -> None:
        with self._caller_on_file(context, ino) as caller:
            self._vfs.removexattr(ino, name, caller)

    def statfs(self, context: Context, ino: int) -> Space:
        space = self._vfs.statfs()
        return Space(
            space.block_bytes,
            space.blocks,
            space.free,
            space.available,
            space.files,
            space.files_free,
            space.name_max,
        )

    # -------------------------------------------------------------- files

    def create(
        self, context: Context, parent: int, name: bytes, mode: int, flags: int, umask: int
    ) -> tuple[Entry, Opened]:
        """Create the file only if the name does not exist. The kernel has found no such name, so it expects a new file
        and would check no permission. With ESTALE it looks again, finds what another mount has created in the meantime,
        and opens that."""
        with self._caller(context, parent) as caller:
            try:
                attributes, handle = self._vfs.create(parent, name, mode, flags | os.O_EXCL, caller)
            except FileExistsError as error:
                if flags & os.O_EXCL:
                    raise
                raise posix_error(errno.ESTALE) from error
        return self._entry(parent, name, attributes), self._answer(handle, flags)

    def open(self, context: Context, ino: int, flags: int, *, kill_privileges: bool) -> Opened:
        handle = self._open(context, ino, flags, kill_privileges=kill_privileges)
        try:
            keeps_pages = self.caches is not None and self.caches.keeps_pages(
                ino,
                handle,
                are_stored=not self._vfs.is_unsaved(ino),
                are_noticed=partial(self._vfs.is_reading_noticed, handle),
            )
        except BaseException:
            self._vfs.release(handle)
            raise
        return self._answer(handle, flags, keeps_pages=keeps_pages)

    def _open(self, context: Context, ino: int, flags: int, *, kill_privileges: bool) -> int:
        with self._retried(context, ino), _KNOWN_INODE:
            handle = self._vfs.open(ino, flags & ~os.O_TRUNC)
        try:
            self._opened(context, ino)
            if flags & os.O_TRUNC:
                self._check_locks(ino)
                mode = self._mode_without_privileges(context, ino) if kill_privileges else None
                with self._changing_content(ino):
                    wanted = AttributeChanges(size=0, mode=None if mode is None else stat.S_IMODE(mode))
                    self._vfs.setattr(ino, wanted, handle)
                if mode is not None and self.caches is not None:
                    self.caches.notify_of_mode(ino)
        except BaseException:
            self._vfs.release(handle)
            raise
        return handle

    def _answer(self, handle: int, flags: int, *, keeps_pages: bool = False) -> Opened:
        """Appended records bypass the kernel's cache, which would split them at page boundaries. So do writes through a
        descriptor that cannot read: they are not copied once more, and memory that a program has never touched does not
        arrive in thousands of pieces."""
        is_direct = flags & os.O_APPEND or (self.writes_directly and flags & os.O_ACCMODE == os.O_WRONLY)
        answer = wire.FOPEN_DIRECT_IO if is_direct else 0
        return Opened(handle, answer | wire.FOPEN_KEEP_CACHE if keeps_pages else answer)

    def _opened(self, context: Context, ino: int) -> None:
        """Check, once the newest state is known, whether the name by which the inode is being opened still leads to
        it."""
        if self.caches is not None:
            self.caches.opened(ino, context.pid)

    def read(self, context: Context, ino: int, handle: int, offset: int, size: int) -> Data:
        return self._vfs.read(handle, offset, size)

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
        if kill_privileges:
            self._kill_privileges(context, ino)
        self._check_locks(ino)
        # What may belong under a lock is not taken without servers: the lock may be lost before it is saved.
        is_mapped = is_mapped and not self._vfs.locks.may_matter
        with self._changing_content(ino):
            return self._vfs.write(handle, offset, data, append=append, is_mapped=is_mapped)

    def fallocate(self, context: Context, ino: int, handle: int, offset: int, length: int, mode: int) -> None:
        if context.uid != 0:  # the kernel does not say whether the caller may keep them
            self._kill_privileges(context, ino)
        self._check_locks(ino)
        with self._changing_content(ino):
            self._vfs.fallocate(handle, offset, length, mode)

    def lseek(self, context: Context, ino: int, handle: int, offset: int, whence: int) -> int:
        return self._vfs.lseek(handle, offset, whence)

    def flush(self, context: Context, ino: int, handle: int, owner: int) -> None:
        if self.caches is not None:
            self.caches.closing(handle)
        # first: an error raised by `flush` may be a loss, which is reported only once
        self._vfs.locks.closing(ino, owner)
        self._vfs.flush(handle)

    def flushed(self, context: Context, ino: int, owner: int) -> None:
        self._vfs.locks.closed(ino, owner)

    def close_failed(self, context: Context, ino: int, handle: int, *, is_reported: bool) -> None:
        self._vfs.close_failed(handle, is_reported=is_reported)

    def invalidate(self, ino: int) -> None:
        if self.caches is not None:
            self.caches.changed([Changed(ino, is_data=True)])

    def fsync(self, context: Context, ino: int, handle: int, *, data_only: bool) -> None:
        self._vfs.fsync(handle)

    def release(self, context: Context, ino: int, handle: int, owner: int | None) -> None:
        self._vfs.locks.releasing(ino, handle)

    def released(self, context: Context, ino: int, handle: int) -> None:
        if self.caches is not None:
            self.caches.closing(handle)
        try:
            self._vfs.locks.released(ino, handle)
        finally:
            self._vfs.release(handle, keep=True)

    # -------------------------------------------------------------- locks

    def get_lock(self, context: Context, ino: int, request: LockRequest) -> Lock:
        found = self._vfs.locks.test(ino, _lock(request))
        if found is None:
            return request.lock._replace(type=fcntl.F_UNLCK)
        return Lock(fcntl.F_WRLCK if found.is_exclusive else fcntl.F_RDLCK, found.start, found.end, found.pid)

    def set_lock(self, context: Context, ino: int, request: LockRequest, *, wait: bool, reply: Reply) -> None:
        lets_others_read = request.lock.type != fcntl.F_WRLCK
        if (
            lets_others_read
            and self._vfs.locks.may_have_written(ino, request.owner, is_flock=request.is_flock)
            and self._may_have_mapped(context, ino)
        ):
            assert self.mapped is not None
            self.mapped.later(partial(self._collect_and_set_lock, ino, request, reply, wait=wait))
        else:
            self._set_lock(ino, request, reply, wait=wait)

    def _collect_and_set_lock(self, ino: int, request: LockRequest, reply: Reply, *, wait: bool) -> None:
        """Runs on a thread of `mapped`."""
        assert self.mapped is not None
        try:
            self.mapped.collect(ino)
            self._set_lock(ino, request, reply, wait=wait)
        except Exception as error:  # noqa: BLE001 (the boundary: the program must get an answer)
            reply.fail(errno_of(error, f"setlk of inode {ino}"))

    def _set_lock(self, ino: int, request: LockRequest, reply: Reply, *, wait: bool) -> None:
        wanted = _lock(request)
        if request.lock.type == fcntl.F_UNLCK:
            self._vfs.locks.unlock(ino, wanted.owner, wanted.start, wanted.end, is_flock=wanted.is_flock)
            reply.done()
        else:
            guard = self._guard(ino, wanted)
            self._vfs.locks.lock(ino, wanted, reply, wait=wait, handle=request.handle, guard=guard)

    def _guard(self, ino: int, wanted: locks.Lock) -> Guarded | None:
        if self.caches is None or wanted.is_flock:
            return None
        return guarded(self.caches.names(ino), wanted.start, wanted.end)

    # -------------------------------------------------------------- folders

    def opendir(self, context: Context, ino: int, flags: int) -> Opened:
        with self._retried(context, ino), _KNOWN_INODE:
            handle = self._vfs.opendir(ino)
        try:
            self._opened(context, ino)
        except BaseException:
            self._vfs.releasedir(handle)
            raise
        return Opened(handle)

    def readdir(self, context: Context, ino: int, handle: int, offset: int) -> Iterable[Listed]:
        return self._vfs.readdir(handle, offset)

    def releasedir(self, context: Context, ino: int, handle: int) -> None:
        self._vfs.releasedir(handle)

    def fsyncdir(self, context: Context, ino: int, handle: int, *, data_only: bool) -> None:
        self._vfs.fsyncdir(handle)


def _unnoted(_: Sequence[tuple[bytes, int]]) -> None:
    """Record nothing about what the kernel gets."""


def _lock(request: LockRequest) -> locks.Lock:
    kind, start, end, pid = request.lock
    return locks.Lock(b"", request.owner, request.is_flock, kind == fcntl.F_WRLCK, start, end, pid)


def _time_ns(change: TimeChange, now_ns: int) -> int | None:
    return now_ns if change is NOW else change
