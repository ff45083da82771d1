"""Reading requests from /dev/fuse, and writing answers and notifications to it.

Knows the headers and the errors of the device, but no operations. Every read returns one whole request, every write
sends one whole message, so any number of threads may use one descriptor.

Notifications tell the kernel to drop what it has cached. **Never send one from within an operation on the same inode
(or, for a name, the same folder):** the kernel holds that inode's lock while it waits for the operation's answer, and
the notification waits for that lock.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Sequence
from typing import Final

from dfsfuse.fusekernel import wire
from dfsfuse.fusekernel.values import Buffer

log = logging.getLogger(__name__)

_READ_AGAIN: Final = frozenset({errno.EINTR, errno.EAGAIN, errno.ENOENT})
"""ENOENT: the request was withdrawn while it was being read."""
_UNMOUNTED: Final = frozenset({errno.ENODEV, errno.ECONNABORTED, errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE})
_PARTS_MAX: Final = 1000
"""IOV_MAX is 1,024."""
_HEADER: Final = wire.fuse_out_header
_SMALL_BYTES: Final = 4096
"""Up to this size, one write of a copy is cheaper than a vector."""


class Device:
    """The open /dev/fuse of one mount. The descriptor belongs to the caller."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read_into(self, buffer: bytearray) -> int | None:
        """Wait for one request and return its length; None: the mount is gone. Raises OSError for unexpected errors."""
        while True:
            try:
                return os.readv(self._descriptor, (buffer,)) or None
            except OSError as error:
                if error.errno in _UNMOUNTED:
                    return None
                if error.errno not in _READ_AGAIN:
                    raise

    def answer(self, unique: int, error: int, body: Buffer | Sequence[Buffer]) -> bool:
        """Send an answer: an errno without a body, or 0 and a body. False: the kernel no longer wanted it."""
        try:
            if isinstance(body, bytes) and len(body) < _SMALL_BYTES:
                os.write(self._descriptor, _HEADER.pack(_HEADER.size + len(body), -error, unique) + body)
            else:
                self._send(unique, -error, body)
        except OSError as refused:
            if refused.errno == errno.ENOENT or refused.errno in _UNMOUNTED:
                return False  # withdrawn, or the mount is gone
            if error:
                raise
            log.error("request %d: the kernel refuses our answer (%s)", unique, refused)  # noqa: TRY400
            return self.answer(unique, errno.EIO, b"")
        return True

    def inval_inode(self, ino: int, offset: int = 0, length: int = 0) -> bool:
        """FUSE_NOTIFY_INVAL_INODE: forget attributes, and pages from `offset` on (all with length 0, none with a
        negative offset). False: the kernel does not know the inode."""
        return self._notify(wire.FUSE_NOTIFY_INVAL_INODE, wire.fuse_notify_inval_inode_out.pack(ino, offset, length))

    def inval_entry(self, parent: int, name: bytes, *, expire_only: bool = False) -> bool:
        """FUSE_NOTIFY_INVAL_ENTRY: forget the inode of this name; with `expire_only` only look it up again (which needs
        FUSE_HAS_EXPIRE_ONLY, and does not affect mounts and open folders below it). False: the kernel does not know the
        name."""
        flags = wire.FUSE_EXPIRE_ONLY if expire_only else 0
        fixed = wire.fuse_notify_inval_entry_out.pack(parent, len(name), flags)
        return self._notify(wire.FUSE_NOTIFY_INVAL_ENTRY, fixed + name + b"\0")

    def delete(self, parent: int, ino: int, name: bytes) -> bool:
        """FUSE_NOTIFY_DELETE: the name is gone, and programs that watch it (inotify) are notified. False: as above."""
        fixed = wire.fuse_notify_delete_out.pack(parent, ino, len(name), 0)
        return self._notify(wire.FUSE_NOTIFY_DELETE, fixed + name + b"\0")

    def _notify(self, code: int, body: bytes) -> bool:
        try:
            self._send(0, code, body)
        except OSError as refused:
            if refused.errno in {errno.ENOENT, errno.ENOTDIR} or refused.errno in _UNMOUNTED:
                return False
            raise
        return True

    def _send(self, unique: int, code: int, body: Buffer | Sequence[Buffer]) -> None:
        parts: list[Buffer] = [body] if isinstance(body, bytes | bytearray | memoryview) else list(body)
        if len(parts) > _PARTS_MAX:
            parts = [b"".join(parts)]
        length = _HEADER.size + sum(memoryview(part).nbytes for part in parts)
        os.writev(self._descriptor, [_HEADER.pack(length, code, unique), *parts])
