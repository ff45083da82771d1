"""Where something may be mounted, and what is mounted there now.

Knows the kernel's table (`mount_table`) and what a folder looks like; knows nothing of servers or files. Never touches
a mount whose process may hang: paths are resolved up to the folder that holds the mountpoint, the rest is looked up in
the kernel's table, and whether a mount is stale is asked by a process of its own. No threads, no state.
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
"""Unlike attributes, the kernel keeps nothing of this."""


def mounted_at(mountpoint: Path, table: Path = MOUNT_TABLE) -> Mount | None:
    """The topmost mount at `mountpoint` (as `absolute` gives it), or None."""
    return mount_table.topmost(mount_table.read(table), os.fspath(mountpoint))


def absolute(mountpoint: Path) -> Path:
    """The path under which the kernel's table lists `mountpoint`, without touching what is mounted on it.

    Raises `MountpointError` if it is relative to a folder that is gone.
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
    """Is the process behind this FUSE mount gone? (Every access says "Transport endpoint is not connected".) One that
    does not answer by the deadline is there, and may go on."""
    answer = children.run([sys.executable, "-I", "-S", "-c", _STATVFS, os.fspath(mountpoint)], timeout_s)
    return answer is not None and answer[0] in {errno.ENOTCONN, errno.ECONNABORTED}


def check(mountpoint: Path, *, allow_nonempty: bool = False) -> None:
    """Make sure that one can mount here. Raises `MountpointError` that says what is wrong and what to do."""
    mount = mounted_at(mountpoint)
    if mount is not None and mount.automounter is not None:
        if mount.automounter != os.getpgrp():  # whoever asks for it in another one waits for the mount that we make
            raise MountpointError(
                f"{mountpoint}: {mount.source} (autofs) mounts here when the folder is used. Use it, or take another."
            )
    elif mount is not None:
        what = "dfsfuse" if mount.is_ours else f"{mount.source} ({mount.type})"
        typed = shlex.quote(os.fspath(mountpoint))
        advice = f" Unmount it first: dfsmount -u {typed}" if mount.is_ours else " Take another folder."
        raise MountpointError(f"{mountpoint}: {what} is already mounted here.{advice}")
    try:
        status = mountpoint.lstat()
    except FileNotFoundError:
        raise MountpointError(f"{mountpoint}: there is no such folder. Make it first: mkdir {mountpoint}") from None
    except OSError as error:
        raise MountpointError(f"{mountpoint}: cannot be examined: {error.strerror}") from error
    if not mountpoint.is_dir():
        raise MountpointError(f"{mountpoint}: this is not a folder. A mount needs an empty folder.")
    if os.geteuid() not in {0, status.st_uid} or not os.access(mountpoint, os.W_OK):
        raise MountpointError(f"{mountpoint}: this folder is not yours to mount on; take one that you own.")
    if not allow_nonempty and _has_entries(mountpoint):
        raise MountpointError(
            f"{mountpoint}: the folder is not empty, and the mount would hide what is in it. "
            "Take an empty folder, or say -o nonempty."
        )


def _has_entries(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError as error:
        raise MountpointError(f"{folder}: cannot be listed: {error.strerror}") from error
