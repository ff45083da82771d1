"""Detects local files that belong to the namespace itself, seen through a mount: copying a tree into itself would never
end.

A mount reports the namespace and inode of each file (`user.dfs.inode`), so the mountpoint, bind mount or binding does
not matter. Only file systems that answer are asked again: all others cost one system call. Knows local paths and the
namespace's identity. For one thread.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from dfsfuse.cli.dfc.remote import Remote
from dfsfuse.vfs.names.xattrs import INODE


class OwnMounts:
    """See the module."""

    def __init__(self, remote: Remote) -> None:
        self._identity = remote.identity()
        self._foreign: set[int] = set()
        """Devices of file systems that do not belong to the namespace."""

    def inode(self, path: Path | int, device: int) -> int | None:
        """The inode number in the namespace of a local path (or descriptor) on this device; None if it is not in the
        namespace."""
        if not self._identity or device in self._foreign:
            return None
        try:
            namespace, _, number = os.getxattr(path, INODE).partition(b":")
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
                self._foreign.add(device)
            return None
        if namespace != self._identity or not number.isdigit():
            self._foreign.add(device)
            return None
        return int(number)
