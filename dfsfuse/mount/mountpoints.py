"""Where something may be mounted, and what is mounted there now.

Knows the kernel's table (`mount_table`) and the properties of a folder; knows nothing about servers or files. Never
touches a mount whose process may hang: paths are resolved up to the folder that contains the mountpoint, the rest is
looked up in the kernel's table, and a separate process checks whether a mount is stale. No threads, no state.
"""

from __future__ import annotations

import errno
import os
import shlex
import sys
from pathlib import Path
from typing import Final

from dfsfuse.mount import children, mount_table
from dfsfuse.mount.errors import MountpointError
from dfsfuse.mount.mount_table import MOUNT_TABLE, Mount

STALE_TIMEOUT_S: Final = 5.0
_STATVFS: Final = """
import os, sys
try:
    os.statvfs(sys.argv[1])
except OSError as error:
    sys.exit(error.errno)
"""
"""Unlike attributes, the kernel does not cache this."""


def mounted_at(mountpoint: Path, table: Path = MOUNT_TABLE) -> Mount | None:
    """The topmost mount at `mountpoint` (as returned by `absolute`), or None."""
    return mount_table.topmost(mount_table.read(table), os.fspath(mountpoint))


def absolute(mountpoint: Path) -> Path:
    """The path under which the kernel's table lists `mountpoint`, without touching what is mounted on it.

    Raises `MountpointError` if the path is relative to a folder that has been removed.
    """
    try:
        path = Path(os.path.normpath(mountpoint.absolute()))
    except FileNotFoundError:
        raise MountpointError(
            f"{mountpoint}: the working folder that this is relative to has been removed. Give the whole path."
        ) from None
    here = Path(os.path.realpath(path.parent)) / path.name if path.name else path
    if mounted_at(here) is None and _is_link(here):
        return Path(os.path.realpath(here))
    return here


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except OSError:
        return False


def is_stale(mountpoint: Path, timeout_s: float = STALE_TIMEOUT_S) -> bool:
    """Whether the process behind this FUSE mount is gone, so that every access fails with "Transport endpoint is not
    connected". A mount that does not answer by the deadline has a process, which may recover."""
    answer = children.run([sys.executable, "-I", "-S", "-c", _STATVFS, os.fspath(mountpoint)], timeout_s)
    return answer is not None and answer[0] in {errno.ENOTCONN, errno.ECONNABORTED}


def check(mountpoint: Path, *, allow_nonempty: bool = False) -> None:
    """Check that mounting is possible here. Raises `MountpointError` with what is wrong and what to do."""
    mount = mounted_at(mountpoint)
    if mount is not None and mount.automounter is not None:
        if mount.automounter != os.getpgrp():  # processes in other groups wait for the mount that we are making
            raise MountpointError(
                f"{mountpoint}: {mount.source} (autofs) mounts here on demand. Use that mount, or choose another "
                "folder."
            )
    elif mount is not None:
        what = "dfsfuse" if mount.is_ours else f"{mount.source} ({mount.type})"
        typed = shlex.quote(os.fspath(mountpoint))
        advice = f" Unmount it first: dfsmount -u {typed}" if mount.is_ours else " Choose another folder."
        raise MountpointError(f"{mountpoint}: {what} is already mounted here.{advice}")
    try:
        status = mountpoint.lstat()
    except FileNotFoundError:
        raise MountpointError(f"{mountpoint}: there is no such folder. Create it first: mkdir {mountpoint}") from None
    except OSError as error:
        raise MountpointError(f"{mountpoint}: cannot be examined: {error.strerror}") from error
    if not mountpoint.is_dir():
        raise MountpointError(f"{mountpoint}: this is not a folder. A mount needs an empty folder.")
    if os.geteuid() not in {0, status.st_uid} or not os.access(mountpoint, os.W_OK):
        raise MountpointError(
            f"{mountpoint}: you can only mount on a folder that you own and can write to; choose another one."
        )
    if not allow_nonempty and _has_entries(mountpoint):
        raise MountpointError(
            f"{mountpoint}: the folder is not empty, and the mount would hide what is in it. "
            "Choose an empty folder, or use -o nonempty."
        )


def _has_entries(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError as error:
        raise MountpointError(f"{folder}: cannot be listed: {error.strerror}") from error
