"""Requests about names and attributes: parse the body, call the operation, pack its result.

A handler returns the answer's body, or None if there is none to send now. It raises whatever the operation raises, or
`MalformedError`. Threads: any; no state.
"""

from __future__ import annotations

import errno
import os
import stat

from dfsfuse.fusekernel import wire
from dfsfuse.fusekernel.operations import Operations
from dfsfuse.fusekernel.packing import NS_PER_S, attr_out, entry_out, statfs_out
from dfsfuse.fusekernel.requests import PATH_MAX_BYTES, XATTR_NAME_MAX_BYTES, MalformedError, Request
from dfsfuse.fusekernel.values import NOW, Changes, TimeChange

# ---------------------------------------------------------------------- names


def lookup(operations: Operations, request: Request) -> bytes:
    return entry_out(operations.lookup(request.context, request.nodeid, request.name()))


def forget(operations: Operations, request: Request) -> None:
    (lookups,) = request.fields(wire.fuse_forget_in)
    operations.forget(request.nodeid, lookups)


def batch_forget(operations: Operations, request: Request) -> None:
    count, _ = request.fields(wire.fuse_batch_forget_in)
    records = request.body[wire.fuse_batch_forget_in.size :]
    if len(records) != count * wire.fuse_forget_one.size:
        raise MalformedError(f"{len(records)} bytes are not {count} records")
    for ino, lookups in wire.fuse_forget_one.iter_unpack(records):
        operations.forget(ino, lookups)


def readlink(operations: Operations, request: Request) -> bytes:
    return operations.readlink(request.context, request.nodeid)


def symlink(operations: Operations, request: Request) -> bytes:
    name, target = request.strings(0, 1024, PATH_MAX_BYTES)
    if b"/" in name:
        raise MalformedError("a path in place of a name")
    return entry_out(operations.symlink(request.context, request.nodeid, name, target))


def mknod(operations: Operations, request: Request) -> bytes:
    mode, rdev, umask, _ = request.fields(wire.fuse_mknod_in)
    name = request.name(wire.fuse_mknod_in.size)
    return entry_out(operations.mknod(request.context, request.nodeid, name, mode, rdev, umask))


def mkdir(operations: Operations, request: Request) -> bytes:
    mode, umask = request.fields(wire.fuse_mkdir_in)
    name = request.name(wire.fuse_mkdir_in.size)
    return entry_out(operations.mkdir(request.context, request.nodeid, name, stat.S_IMODE(mode), umask))


def unlink(operations: Operations, request: Request) -> bytes:
    operations.unlink(request.context, request.nodeid, request.name())
    return b""


def rmdir(operations: Operations, request: Request) -> bytes:
    operations.rmdir(request.context, request.nodeid, request.name())
    return b""


def rename(operations: Operations, request: Request) -> bytes:
    (new_parent,) = request.fields(wire.fuse_rename_in)
    old, new = request.two_names(wire.fuse_rename_in.size)
    operations.rename(request.context, request.nodeid, old, new_parent, new, 0)
    return b""


def rename2(operations: Operations, request: Request) -> bytes:
    new_parent, flags, _ = request.fields(wire.fuse_rename2_in)
    old, new = request.two_names(wire.fuse_rename2_in.size)
    operations.rename(request.context, request.nodeid, old, new_parent, new, flags)
    return b""


def link(operations: Operations, request: Request) -> bytes:
    (ino,) = request.fields(wire.fuse_link_in)
    name = request.name(wire.fuse_link_in.size)
    return entry_out(operations.link(request.context, ino, request.nodeid, name))


# ---------------------------------------------------------------------- attributes


def getattr_(operations: Operations, request: Request) -> bytes:
    flags, _, handle = request.fields(wire.fuse_getattr_in)
    given = handle if flags & wire.FUSE_GETATTR_FH else None
    return attr_out(operations.getattr(request.context, request.nodeid, given))


def setattr_(operations: Operations, request: Request) -> bytes:
    fields = request.fields(wire.fuse_setattr_in)
    valid, _, handle, size, _, atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns, mode, _, uid, gid, _ = fields
    changes = Changes(
        mode=mode if valid & wire.FATTR_MODE else None,
        uid=uid if valid & wire.FATTR_UID else None,
        gid=gid if valid & wire.FATTR_GID else None,
        size=size if valid & wire.FATTR_SIZE else None,
        atime_ns=_time(valid, wire.FATTR_ATIME, wire.FATTR_ATIME_NOW, atime, atime_ns),
        mtime_ns=_time(valid, wire.FATTR_MTIME, wire.FATTR_MTIME_NOW, mtime, mtime_ns),
        ctime_ns=ctime * NS_PER_S + ctime_ns if valid & wire.FATTR_CTIME else None,
        kill_privileges=bool(valid & wire.FATTR_KILL_SUIDGID),
    )
    given = handle if valid & wire.FATTR_FH else None
    return attr_out(operations.setattr(request.context, request.nodeid, changes, given))


def _time(valid: int, is_set: int, is_now: int, seconds: int, nanoseconds: int) -> TimeChange:
    if not valid & is_set:
        return None
    return NOW if valid & is_now else seconds * NS_PER_S + nanoseconds


def access(operations: Operations, request: Request) -> bytes:
    mask, _ = request.fields(wire.fuse_access_in)
    operations.access(request.context, request.nodeid, mask)
    return b""


def statfs(operations: Operations, request: Request) -> bytes:
    return statfs_out(operations.statfs(request.context, request.nodeid))


# ---------------------------------------------------------------------- extended attributes


def setxattr(operations: Operations, request: Request) -> bytes:
    size, flags = request.fields(wire.fuse_setxattr_in)
    rest = bytes(request.body[wire.fuse_setxattr_in.size :])
    name, end, value = rest.partition(b"\0")
    if not 0 < len(name) <= XATTR_NAME_MAX_BYTES or not end or len(value) != size:
        raise MalformedError("not a name and a value of the length that is said")
    operations.setxattr(request.context, request.nodeid, name, value, flags)
    return b""


def getxattr(operations: Operations, request: Request) -> bytes:
    size, _ = request.fields(wire.fuse_getxattr_in)
    (name,) = request.strings(wire.fuse_getxattr_in.size, XATTR_NAME_MAX_BYTES)
    return _value_or_size(operations.getxattr(request.context, request.nodeid, name), size)


def listxattr(operations: Operations, request: Request) -> bytes:
    size, _ = request.fields(wire.fuse_getxattr_in)
    names = b"".join(name + b"\0" for name in operations.listxattr(request.context, request.nodeid))
    return _value_or_size(names, size)


def _value_or_size(value: bytes, size: int) -> bytes:
    """The kernel either asks for the size (0), or says how much space it has."""
    if size == 0:
        return wire.fuse_getxattr_out.pack(len(value), 0)
    if len(value) > size:
        raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
    return value


def removexattr(operations: Operations, request: Request) -> bytes:
    (name,) = request.strings(0, XATTR_NAME_MAX_BYTES)
    operations.removexattr(request.context, request.nodeid, name)
    return b""
