"""Which local files are files of the namespace itself, seen through a mount: a tree put into itself would never end.

A mount tells of each file which namespace and inode it is (`user.dfs.inode`), so it does not matter through which
mountpoint, bind mount or binding a file is seen. Only a file system that has answered so is asked again: for all others
this costs one system call. Knows local paths and the namespace's identity. For one thread.
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
        """Devices of file systems that show something else."""

    def inode(self, path: Path | int, device: int) -> int | None:
        """The number in the namespace of what is at a local path (or open), on this device; None for all else."""
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
