"""Unmounting: at the user's request, and when a killed process left a stale mount behind.

Knows the kernel's table, umount, fusermount3, and the lock by which a mount's process shows that it is running
(`dfsfuse.mount.running`). An unmount is complete when the mount has left the table *and* the process that served it has
written everything to the servers; every wait has a deadline. No threads.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import time
from pathlib import Path

from dfsfuse.fusekernel import mounting
from dfsfuse.mount import children, libfuse, mountpoints, processes, running
from dfsfuse.mount.errors import (
    FuseMissingError,
    MountBusyError,
    MountedElsewhereError,
    MountpointError,
    MountTimeoutError,
)
from dfsfuse.mount.mount_table import Mount

HELPER_TIMEOUT_S = 40.0
"""Longer than the wait for servers that are slow together (`SLOW_S` in `dfsfuse.net.health.slowness`): where umount
must be used, it accesses the mount, and waits that long."""
FLUSH_TIMEOUT_S = 60.0
LOOK_ELSEWHERE_AFTER_S = 1.0
"""If a process is not done after this long, another mount namespace may still have the mount."""


def unmount(
    mountpoint: Path, *, lazy: bool = False, force: bool = False, flush_timeout_s: float = FLUSH_TIMEOUT_S
) -> str:
    """Unmount what dfsfuse mounted at `mountpoint` and wait until it is on the servers. Returns a sentence.

    `lazy` detaches the mount even if programs are using it; its process ends when the last of them closes its files.
    `force` (root): programs that wait for the mount get errors. Raises `MountpointError` if it is not a mount of ours,
    `MountBusyError` with the programs that use it, also for another mount namespace (`MountedElsewhereError`), and
    `MountTimeoutError` if the process is not done in time.
    """
    mountpoint = mountpoints.absolute(mountpoint)
    mount = mountpoints.mounted_at(mountpoint)
    serving = running.find(mountpoint, owner=mount.owner if mount is not None else None)
    if mount is None or mount.automounter is not None:  # autofs's mountpoint for our mount, which is gone
        if serving is None:
            raise MountpointError(f"{mountpoint}: nothing is mounted here.")
        _wait_for(serving, flush_timeout_s)
        return f"{mountpoint}: unmounted"
    if not mount.is_ours:
        raise MountpointError(
            f"{mountpoint}: {mount.source} ({mount.type}) is mounted here, not dfsfuse. It was left alone."
        )
    stale = serving is None and mountpoints.is_stale(mountpoint)
    detach(mountpoint, lazy=lazy or stale, force=force)
    if stale:
        return f"{mountpoint}: unmounted (its dfsmount was no longer running)"
    if lazy:
        return f"{mountpoint}: unmounted; programs that still use it keep it until they close"
    if serving is not None:
        _wait_for(serving, flush_timeout_s, mount)
    return f"{mountpoint}: unmounted"


def detach(mountpoint: Path, *, lazy: bool = False, force: bool = False) -> None:
    """Remove the mount from the kernel's table, with fusermount3, or else as root with umount."""
    result = children.run(_command(mountpoint, lazy, force), HELPER_TIMEOUT_S)
    typed = shlex.quote(os.fspath(mountpoint))
    if result is None:
        raise MountTimeoutError(
            f"{mountpoint}: unmounting takes too long (does its dfsmount hang?). Try: dfsmount -u -z {typed}"
        )
    code, complaint = result
    if code == 0 or mountpoints.mounted_at(mountpoint) is None:
        return
    if _tells_of_use(complaint, mountpoint):
        users = ", ".join(processes.using(mountpoint))
        by = f" by {users}" if users else ""
        raise MountBusyError(
            f"{mountpoint}: in use{by}. Close the files there and try again, or use: dfsmount -u -z {typed}"
        )
    raise MountpointError(f"{mountpoint}: cannot be unmounted: {complaint or f'exit status {code}'}")


def _tells_of_use(complaint: str, mountpoint: Path) -> bool:
    """Whether umount or fusermount3 says that programs use the mount. The path in their output can be any text."""
    path = " ".join(os.fspath(mountpoint).split())
    return re.search(r"target is busy|resource busy", complaint.replace(path, ""), re.IGNORECASE) is not None


def detach_at_any_cost(mountpoint: Path) -> None:
    """Like `detach`, but lazily if programs use the mount. For a mount's own process when it is told to end."""
    try:
        detach(mountpoint)
    except (MountBusyError, MountTimeoutError):
        detach(mountpoint, lazy=True)


def is_stale(mountpoint: Path) -> bool:
    """Whether `mountpoint` was left behind by a process that is gone. Not if a live process says that it serves it."""
    return running.find(mountpoint) is None and mountpoints.is_stale(mountpoint)


def remove_stale(mountpoint: Path) -> bool:
    """Unmount what a killed dfsmount left at `mountpoint`, if anything. Returns whether there was something."""
    mount = mountpoints.mounted_at(mountpoint)
    if mount is None or not mount.is_ours or not is_stale(mountpoint):
        return False
    detach(mountpoint, lazy=True)
    return True


def _command(mountpoint: Path, lazy: bool, force: bool) -> list[str]:
    """The unmount command: fusermount3, since it does not access the mount; umount does, and waits for slow servers.
    Without fusermount3, and with `force`, root's umount is used without its helper, which is `umount.dfs` and would
    call us."""
    umount = shutil.which("umount", path=os.environ.get("PATH", "") + ":/bin:/sbin:/usr/bin:/usr/sbin")
    helper = mounting.fusermount()
    if os.geteuid() == 0 and umount and (force or helper is None):
        return [umount, "-i", *["-l"] * lazy, *["-f"] * force, "--", os.fspath(mountpoint)]
    if helper is None:
        raise FuseMissingError(f"fusermount3 is missing. Install it as root: {libfuse.INSTALL_COMMAND}")
    return [helper, "-u", *(["-z"] if lazy else []), "--", os.fspath(mountpoint)]


def _wait_for(serving: running.Serving, timeout_s: float, gone: Mount | None = None) -> None:
    """Wait until the process is done. Raises `MountedElsewhereError` if the file system of the mount that is `gone`
    here is also mounted elsewhere: then it continues to serve."""
    began = time.monotonic()
    timeout_s += serving.patience_s
    has_looked = False
    while not serving.has_ended():
        waited_s = time.monotonic() - began
        if gone is not None and not has_looked and waited_s > LOOK_ELSEWHERE_AFTER_S:
            has_looked = True
            _refuse_if_elsewhere(serving, gone)
        if waited_s > timeout_s:
            raise MountTimeoutError(
                f"{serving.mountpoint}: unmounted, but process {serving.pid} has not finished writing to the "
                f"servers after {timeout_s:.0f} s. It goes on; see its log."
            )
        time.sleep(0.02)


def _refuse_if_elsewhere(serving: running.Serving, gone: Mount) -> None:
    """Raise `MountedElsewhereError` if another mount namespace (of a container, of a private /tmp) has a copy."""
    others = processes.elsewhere(gone)
    if others:
        by = ", ".join(processes.few([str(other) for other in others]))
        raise MountedElsewhereError(
            f"{serving.mountpoint}: unmounted here, but it is also mounted in the mount namespace of {by}, and process "
            f"{serving.pid} serves it there. Unmount it there too (nsenter -t {others[0].pid} -m umount "
            f"{shlex.quote(serving.mountpoint)}), or end it everywhere, with everything saved: kill {serving.pid}"
        )
