"""Extended attributes of an inode: those that are stored, and `user.dfs.*`, which are the file system's own.

`user.dfs.inode` shows which namespace and inode this is (NAMESPACE:NUMBER), whatever path, bind mount or machine it is
seen through; the others show a regular file's health (`health.NAMES`). They can be read by name and are never listed:
they describe this copy at this moment, and programs that copy a file copy what is listed (Ceph removed its own from the
list for the same reason). A program that carries them over from elsewhere is not disturbed: setting or removing one
succeeds and changes nothing.

Threads: stateless.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

import msgspec

from dfsfuse.errors import posix_error
from dfsfuse.namespace.map.transactions import Transaction, View
from dfsfuse.namespace.ops import directories, inodes, xattrs
from dfsfuse.namespace.ops.directories import Route
from dfsfuse.namespace.records import members
from dfsfuse.vfs.context import Context
from dfsfuse.vfs.health import health

INODE: Final = health.PREFIX + b"inode"
OWN: Final = (*health.NAMES, INODE)


class Xattrs:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def get(self, ino: int, name: bytes) -> bytes:
        """Return the value. Raises OSError (ENODATA, EOPNOTSUPP)."""
        xattrs.check_name(name)
        if name == INODE:
            return self._identity(ino)
        if name.startswith(health.PREFIX):
            return self._health(ino, name)
        inode = self._context.store.read(lambda view: inodes.load(view, ino), max_age_s=self._context.max_age_s)
        return xattrs.get(inode.xattrs, name)

    def list(self, ino: int) -> list[bytes]:
        """Return the names of those that are stored."""
        inode = self._context.store.read(lambda view: inodes.load(view, ino), max_age_s=self._context.max_age_s)
        return [*inode.xattrs]

    def set(self, ino: int, name: bytes, value: bytes, flags: int, route: Route = ()) -> None:
        """Set it. Raises OSError (EEXIST, ENODATA, ENOSPC, E2BIG, EOPNOTSUPP)."""
        self._change(ino, name, lambda known: xattrs.with_value(known, name, value, flags), route)

    def remove(self, ino: int, name: bytes, route: Route = ()) -> None:
        """Remove it. Raises OSError (ENODATA, EOPNOTSUPP)."""
        self._change(ino, name, lambda known: xattrs.without(known, name), route)

    def _change(
        self, ino: int, name: bytes, change: Callable[[dict[bytes, bytes]], dict[bytes, bytes]], route: Route
    ) -> None:
        xattrs.check_name(name)
        if name in OWN:
            return
        if name.startswith(health.PREFIX):
            raise posix_error(
                errno.EOPNOTSUPP, f"{name!r}: names that begin with {health.PREFIX!r} are the file system's own"
            )
        now_ns = self._context.clock()

        def work(tx: Transaction) -> None:
            inode = inodes.load(tx, ino)
            directories.check_route(tx, route)
            changed, changed_ns = change(inode.xattrs), inodes.change_time_ns(inode, now_ns)
            inodes.save(tx, ino, msgspec.structs.replace(inode, xattrs=changed, ctime_ns=changed_ns))

        self._context.store.transact(work, durable=False)

    def _identity(self, ino: int) -> bytes:
        def look(view: View) -> bytes:
            inodes.load(view, ino)
            return members.namespace_identity(view)

        namespace = self._context.store.read(look, max_age_s=self._context.max_age_s)
        if not namespace:
            raise posix_error(errno.ENODATA)
        return b"%s:%d" % (namespace.hex().encode(), ino)

    def _health(self, ino: int, name: bytes) -> bytes:
        if name not in health.NAMES:
            raise posix_error(errno.ENODATA)
        found = health.health_of_many(self._context, [ino]).get(ino)
        value = None if found is None else health.attribute(found, name, self._context.servers)
        if value is None:
            raise posix_error(errno.ENODATA)
        return value
