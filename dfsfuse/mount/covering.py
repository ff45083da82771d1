"""Paths that a mount covers: anything below its mountpoint cannot be reached by its path while it is mounted.

Opening such a path leads into the mount, and the process that serves the mount would wait for itself. So each path that
the process needs later is, before mounting, opened (and then used through its descriptor, as `dfsfuse.cli.mount.log`
does), chosen elsewhere (`state_folders`), or checked here and refused with an explanation. Looks at links and at /proc,
before the mount is made. No threads, no state.
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
"""The same limit as the kernel's."""


def covers(mountpoint: Path, path: Path) -> bool:
    """Whether `path`, which need not exist, is `mountpoint` or below it, following links.

    Nothing at or below the mountpoint is touched: a mount there may hang.
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
            continue  # not a link, or it does not exist
        links += 1
        at = "/" if target.is_absolute() else os.path.dirname(at)  # noqa: PTH120
        parts += [part for part in reversed(target.parts) if part != "/"]
    return at == wanted


def refuse(mountpoint: Path, needed: Iterable[tuple[str, Path]]) -> None:
    """Raise `MountpointError` if the mount would cover something that is needed while it is mounted. `needed`: (what,
    where)."""
    for what, path in needed:
        if covers(mountpoint, path):
            raise MountpointError(
                f"{mountpoint}: the mount would cover {what} ({path}), which is needed while it is mounted. "
                "Choose another folder."
            )


def of_every_mount() -> Iterator[tuple[str, Path]]:
    """What the process of every mount opens by path later on: modules that are imported on first use, sources for a
    traceback, the system's list of hosts."""
    yield "the program itself", Path(dfsfuse.__file__).parent
    for folder in {sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")}:
        yield "the Python that runs it", Path(folder)
    yield "the system's settings", Path("/etc")


def servers_below(mountpoint: Path) -> Iterator[tuple[str, Path]]:
    """The working folders of servers on this machine that are below `mountpoint`, as far as we may look."""
    for process in processes.all_processes():
        if any(word in {b"dfs_server", b"dfs-server"} for word in map(os.path.basename, process.words())):
            for target in process.targets():
                if processes.is_below(target, mountpoint):
                    yield f"the folder of a dfs-server, process {process.pid}", Path(target)
                    break


def forget_covered_imports(mountpoint: Path) -> None:
    """Remove entries below `mountpoint` from Python's module search path, such as the folder in which it was
    started."""
    sys.path[:] = [entry for entry in sys.path if not covers(mountpoint, Path(entry or os.curdir))]
