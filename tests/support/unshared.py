"""Run a command as root in a mount namespace of its own, without the FUSE mounts that are there now:

    subprocess.run(unshared.command("sh", "-c", script, keep=[mountpoint]), env=environment())

A new namespace has a copy of every mount, and a file system lives until its last copy is gone: another test's
`dfsmount -u` would find its mount here, and report that. So all copies except those in `keep` are detached before the
command begins, in less time than `dfsmount -u` waits. What is mounted later in one namespace does not appear in the
other. Nothing here touches the mounts themselves, which may hang. Uses the standard library and
`dfsfuse.mount.mount_table` only.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from dfsfuse.mount import mount_table

_CLONE_NEWNS: Final = 0x20000
_MS_REC, _MS_PRIVATE = 1 << 14, 1 << 18
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def command(*words: str | Path, keep: Iterable[Path] = ()) -> list[str]:
    """The command line; its environment is that of `support.mounts`."""
    return [sys.executable, __file__, *map(str, keep), "--", *map(str, words)]


def main(arguments: Sequence[str]) -> None:
    """See the module."""
    begin = arguments.index("--")
    kept, words = set(arguments[:begin]), arguments[begin + 1 :]
    _check(_LIBC.unshare(_CLONE_NEWNS))
    _check(_LIBC.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
    for mount in reversed(mount_table.read()):
        if mount.type.partition(".")[0] == "fuse" and mount.mountpoint not in kept:
            # This fails if another mount hides this one.
            _LIBC.umount2(os.fsencode(mount.mountpoint), _MNT_DETACH | _UMOUNT_NOFOLLOW)
    os.execvp(words[0], words)


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main(sys.argv[1:])
