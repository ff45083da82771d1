"""What a mount covers: whatever lies below its mountpoint cannot be reached by its path while it is mounted.

Who opens such a path is led into the mount, and if it is the process that serves the mount, it waits for itself. So
before the mount is made, each path that its process needs later is opened (and used by its descriptor from then on,
as `dfsfuse.cli.mount.log` does), taken from elsewhere (`state_folders`), or checked here and refused with a sentence.

Looks at links and at /proc, before the mount is made. No threads, no state.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

import dfsfuse
from dfsfuse.mount import processes
from dfsfuse.mount.errors import MountpointError

_LINKS_MAX = 40
"""As many as the kernel follows."""


def covers(mountpoint: Path, path: Path) -> bool:
    """Whether `path`, which need not be there, is `mountpoint` or below it, as links lead.

    Nothing at or below the mountpoint is touched: what is mounted there may hang.
    """
    wanted, at, links = os.fspath(mountpoint), "/", 0
    parts = list(reversed(path.absolute().parts[1:]))
    while at != wanted and parts:
        part = parts.pop()
        at = os.path.dirname(at) if part == ".." else os.path.join(at, part)  # noqa: PTH118, PTH120
        if at == wanted or links > _LINKS_MAX:
            break
        try:
            target = Path(os.readlink(at))  # noqa: PTH115 (`at` is a text)
        except OSError:
            continue  # no link, or not there
        links += 1
        at = "/" if target.is_absolute() else os.path.dirname(at)  # noqa: PTH120
        parts += [part for part in reversed(target.parts) if part != "/"]
    return at == wanted


def refuse(mountpoint: Path, needed: Iterable[tuple[str, Path]]) -> None:
    """Raise `MountpointError` if the mount would cover something that is needed while it is mounted: (what, where)."""
    for what, path in needed:
        if covers(mountpoint, path):
            raise MountpointError(
                f"{mountpoint}: the mount would cover {what} ({path}), which must be there while it is mounted. "
                "Take another folder."
            )


def of_every_mount() -> Iterator[tuple[str, Path]]:
    """What each mount's process opens by its path later on: modules that are imported when they are needed first,
    sources for a traceback, the system's list of hosts."""
    yield "the program itself", Path(dfsfuse.__file__).parent
    for folder in {sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")}:
        yield "the Python that runs it", Path(folder)
    yield "the system's settings", Path("/etc")


def servers_below(mountpoint: Path) -> Iterator[tuple[str, Path]]:
    """The folders below `mountpoint` that servers on this machine work in, as far as we may look."""
    for process in processes.all_processes():
        if any(word in {b"dfs_server", b"dfs-server"} for word in map(os.path.basename, process.words())):
            for target in process.targets():
                if processes.is_below(target, mountpoint):
                    yield f"the folder of a dfs-server, process {process.pid}", Path(target)
                    break


def forget_covered_imports(mountpoint: Path) -> None:
    """Let Python look for modules nowhere below `mountpoint`: for one, in the folder from which it was started."""
    sys.path[:] = [entry for entry in sys.path if not covers(mountpoint, Path(entry or os.curdir))]
