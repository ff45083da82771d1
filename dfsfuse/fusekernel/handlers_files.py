"""Requests about open files, open folders and locks: parse the body, call the operation, pack its result.

Like `handlers_names`. Data is not copied: written data is a view of the request, read data is sent as it is.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final

from dfsfuse.fusekernel import wire
from dfsfuse.fusekernel.operations import Operations
from dfsfuse.fusekernel.packing import dirent, dirent_size, direntplus, entry_out, lock_out, open_out
from dfsfuse.fusekernel.replies import Reply
from dfsfuse.fusekernel.requests import MalformedError, Request
from dfsfuse.fusekernel.values import Buffer, Entry, Listed, Lock, LockRequest

_OFFSET_MAX: Final = 2**63 - 1
_NOT_LOOKED_UP: Final = Entry(None)

# ---------------------------------------------------------------------- files


def create(operations: Operations, request: Request) -> bytes:
    flags, mode, umask, _ = request.fields(wire.fuse_create_in)
    name = request.name(wire.fuse_create_in.size)
    entry, opened = operations.create(request.context, request.nodeid, name, mode, flags, umask)
    return entry_out(entry) + open_out(opened)


def open_(operations: Operations, request: Request) -> bytes:
    flags, how = request.fields(wire.fuse_open_in)
    kill = bool(how & wire.FUSE_OPEN_KILL_SUIDGID)
    return open_out(operations.open(request.context, request.nodeid, flags, kill_privileges=kill))


def read(operations: Operations, request: Request) -> Buffer | list[Buffer]:
    handle, offset, size, *_ = request.fields(wire.fuse_read_in)
    found = operations.read(request.context, request.nodeid, handle, _checked(offset), size)
    if isinstance(found, bytes | bytearray | memoryview):
        parts: Buffer | list[Buffer] = found
        length = len(found) if not isinstance(found, memoryview) else found.nbytes
    else:
        parts = list(found)
        length = sum(memoryview(part).nbytes for part in parts)
    if length > size:
        raise ValueError(f"the file system gave {length} bytes where {size} were asked for")
    return parts


def write(operations: Operations, request: Request) -> bytes:
    handle, offset, size, flags, _, of_descriptor, _ = request.fields(wire.fuse_write_in)
    data = request.body[wire.fuse_write_in.size :]
    if len(data) != size:
        raise MalformedError(f"{len(data)} bytes of data, said to be {size}")
    kill = bool(flags & wire.FUSE_WRITE_KILL_SUIDGID)
    is_mapped = bool(flags & wire.FUSE_WRITE_CACHE)
    append = bool(of_descriptor & os.O_APPEND and not is_mapped)
    ino, offset = request.nodeid, _checked(offset)
    taken = operations.write(
        request.context, ino, handle, offset, data, kill_privileges=kill, append=append, is_mapped=is_mapped
    )
    return wire.fuse_write_out.pack(taken, 0)


def flush(operations: Operations, request: Request) -> bytes:
    handle, _, _, owner = request.fields(wire.fuse_flush_in)
    operations.flush(request.context, request.nodeid, handle, owner)
    return b""


def flushed(operations: Operations, request: Request) -> None:
    _, _, _, owner = request.fields(wire.fuse_flush_in)
    operations.flushed(request.context, request.nodeid, owner)


def close_failed(operations: Operations, request: Request, *, is_reported: bool) -> None:
    handle, _, _, _ = request.fields(wire.fuse_flush_in)
    operations.close_failed(request.context, request.nodeid, handle, is_reported=is_reported)


def release(operations: Operations, request: Request) -> bytes:
    handle, _, flags, owner = request.fields(wire.fuse_release_in)
    ends_flock = flags & wire.FUSE_RELEASE_FLOCK_UNLOCK
    operations.release(request.context, request.nodeid, handle, owner if ends_flock else None)
    return b""


def released(operations: Operations, request: Request) -> None:
    handle, _, _, _ = request.fields(wire.fuse_release_in)
    operations.released(request.context, request.nodeid, handle)


def fsync(operations: Operations, request: Request) -> bytes:
    handle, flags, _ = request.fields(wire.fuse_fsync_in)
    data_only = bool(flags & wire.FUSE_FSYNC_FDATASYNC)
    operations.fsync(request.context, request.nodeid, handle, data_only=data_only)
    return b""


def fallocate(operations: Operations, request: Request) -> bytes:
    handle, offset, length, mode, _ = request.fields(wire.fuse_fallocate_in)
    _checked(offset + length)
    operations.fallocate(request.context, request.nodeid, handle, offset, length, mode)
    return b""


def lseek(operations: Operations, request: Request) -> bytes:
    handle, offset, whence, _ = request.fields(wire.fuse_lseek_in)
    if offset > _OFFSET_MAX:  # a negative offset, which the kernel passes on: there is no data and no hole
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
    place = operations.lseek(request.context, request.nodeid, handle, offset, whence)
    return wire.fuse_lseek_out.pack(place)


def copy_file_range(operations: Operations, request: Request) -> bytes:
    handle, offset, target_ino, target_handle, target_offset, size, flags = request.fields(wire.fuse_copy_file_range_in)
    source = request.nodeid, handle, _checked(offset)
    target = target_ino, target_handle, _checked(target_offset)
    return wire.fuse_write_out.pack(operations.copy_file_range(request.context, source, target, size, flags), 0)


def ioctl(operations: Operations, request: Request) -> bytes:
    operations.ioctl(request.context, request.nodeid)
    return b""


def _checked(offset: int) -> int:
    """Check an offset in a file, which must not be negative, but is transferred as an unsigned number."""
    if offset > _OFFSET_MAX:
        raise MalformedError(f"{offset} is not an offset")
    return int(offset)


# ---------------------------------------------------------------------- folders


def opendir(operations: Operations, request: Request) -> bytes:
    flags, _ = request.fields(wire.fuse_open_in)
    return open_out(operations.opendir(request.context, request.nodeid, flags))


def readdir(operations: Operations, request: Request) -> bytes:
    handle, offset, size, *_ = request.fields(wire.fuse_read_in)
    packed: list[bytes] = []
    for entry in operations.readdir(request.context, request.nodeid, handle, _checked(offset)):
        size -= dirent_size(entry.name, plus=False)
        if size < 0:
            break
        packed.append(dirent(entry))
    return b"".join(packed)


def readdirplus(operations: Operations, request: Request, failed: Callable[[Exception], object]) -> bytes:
    """Entries are looked up only when they are certain to be sent, since the kernel counts the lookups it gets. So from
    then on no exception makes the request fail: it is passed to `failed`, the rest is sent without being looked up, and
    the kernel asks for it when needed. An entry that has disappeared since it was listed does not affect the others."""
    handle, offset, size, *_ = request.fields(wire.fuse_read_in)
    listed: list[Listed] = []
    try:
        for entry in operations.readdir(request.context, request.nodeid, handle, _checked(offset)):
            size -= dirent_size(entry.name, plus=True)
            if size < 0:
                break
            listed.append(entry)
    except Exception as error:
        if not listed:
            raise
        failed(error)  # the kernel requests the rest of the listing, and gets the error then
    named = [entry for entry in listed if entry.name not in (b".", b"..")]
    found: list[Entry | None] = []
    try:
        for one in operations.lookup_listed(request.context, request.nodeid, named):
            found.append(one)
    except Exception as error:  # noqa: BLE001 - the entries before it must reach the kernel
        failed(error)
    known = {entry.name: one for entry, one in zip(named, found, strict=False) if one is not None}
    return b"".join(direntplus(entry, known.get(entry.name, _NOT_LOOKED_UP)) for entry in listed)


def releasedir(operations: Operations, request: Request) -> bytes:
    handle, *_ = request.fields(wire.fuse_release_in)
    operations.releasedir(request.context, request.nodeid, handle)
    return b""


def fsyncdir(operations: Operations, request: Request) -> bytes:
    handle, flags, _ = request.fields(wire.fuse_fsync_in)
    data_only = bool(flags & wire.FUSE_FSYNC_FDATASYNC)
    operations.fsyncdir(request.context, request.nodeid, handle, data_only=data_only)
    return b""


# ---------------------------------------------------------------------- locks


def getlk(operations: Operations, request: Request) -> bytes:
    return lock_out(operations.get_lock(request.context, request.nodeid, _lock_request(request)))


def setlk(operations: Operations, request: Request, expect: Callable[[int], Reply]) -> None:
    """SETLK and SETLKW. The reply exists before the operation begins, so that INTERRUPT finds it."""
    asked = _lock_request(request)
    reply = expect(request.unique)
    try:
        wait = request.opcode == wire.FUSE_SETLKW
        operations.set_lock(request.context, request.nodeid, asked, wait=wait, reply=reply)
    except BaseException:
        if reply.forget():
            raise  # answered like any other request that fails


def _lock_request(request: Request) -> LockRequest:
    handle, owner, start, end, kind, pid, flags, _ = request.fields(wire.fuse_lk_in)
    if start > end or end > _OFFSET_MAX:
        raise MalformedError(f"a lock from {start} to {end}")
    return LockRequest(handle, owner, Lock(kind, start, end, pid), bool(flags & wire.FUSE_LK_FLOCK))
