"""One mount with the kernel binding: mounting, serving, unmounting. Knows options and `dfsfuse.fusekernel`; no file
system.

The session's threads serve the mount; the thread that calls `serve` waits for the end.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from dfsfuse.common import withdrawal
from dfsfuse.fusekernel import mounting, time_limits, wire
from dfsfuse.fusekernel.dispatch import Patience
from dfsfuse.fusekernel.mounting import MountError
from dfsfuse.fusekernel.negotiation import DEFAULT_FLAGS, PAGE_BYTES, Settings, UnsupportedKernelError
from dfsfuse.fusekernel.session import Session
from dfsfuse.mount import callers, mountpoints
from dfsfuse.mount.errors import FuseMissingError, errno_of_with
from dfsfuse.mount.kernel_caches import KernelCaches
from dfsfuse.mount.kernel_operations import KernelOperations
from dfsfuse.mount.mapped_pages import MappedPages
from dfsfuse.mount.notifications import Device
from dfsfuse.mount.waiting import Waiting
from dfsfuse.net import meanwhile
from dfsfuse.vfs.vfs import Vfs

log = logging.getLogger(__name__)

READ_AHEAD_KIB: Final = 2048
THREADS_MAX: Final = 32
"""Maximum number of operations that may wait for the servers at a time."""
WAITING_THREADS_MAX: Final = 4 * THREADS_MAX
"""The same with `-o wait`, where operations that were being made durable when the servers went down wait with their
threads."""
_DIRECT_IO_ALLOW_MMAP: Final = 1 << 36
"""From Linux 6.6 on, and not in the headers of Debian 12: files that are written past the cache can also be mapped, and
such a write drops the pages that it makes stale."""
_FLAGS: Final = (
    DEFAULT_FLAGS | wire.FUSE_HANDLE_KILLPRIV_V2 | wire.FUSE_POSIX_LOCKS | wire.FUSE_FLOCK_LOCKS | _DIRECT_IO_ALLOW_MMAP
)
_MOUNT_FLAGS: Final = frozenset("ro noexec sync dirsync noatime".split())


def mount_options(fuse: Mapping[str, str | bool]) -> mounting.MountOptions:
    """The arguments for mount(2) or fusermount3 from the options after -o. Devices and setuid must be requested
    explicitly."""
    flags = {word for word in _MOUNT_FLAGS if fuse.get(word)}
    flags |= {"nodev"} if not fuse.get("dev") else set()
    flags |= {"nosuid"} if not fuse.get("suid") else set()
    return mounting.MountOptions(
        fsname=str(fuse.get("fsname", "dfsfuse")),
        subtype=str(fuse.get("subtype", "dfs")),
        allow_other=bool(fuse.get("allow_other")),
        default_permissions=bool(fuse.get("default_permissions")),
        max_read_bytes=int(fuse.get("max_read", 0)),
        flags=frozenset(flags),
        auto_unmount=bool(fuse.get("auto_unmount")),
    )


def write_size(wanted_bytes: int) -> int:
    """The nearest size of write requests that the kernel accepts: whole pages, up to its limit."""
    pages = min(max(wanted_bytes, PAGE_BYTES), Settings.max_write_bytes) // PAGE_BYTES
    return pages * PAGE_BYTES


def operations_of(vfs: Vfs, fuse: Mapping[str, str | bool]) -> KernelOperations:
    """The operations of a mount with these options."""
    return KernelOperations(
        vfs,
        entry_timeout_s=float(fuse.get("entry_timeout", 0)),
        attributes_timeout_s=float(fuse.get("attr_timeout", 0)),
        negative_timeout_s=float(fuse.get("negative_timeout", 0)),
    )


def connect(
    operations: KernelOperations, vfs: Vfs, device: Device, fuse: Mapping[str, str | bool]
) -> tuple[KernelCaches, MappedPages]:
    """The objects that make the kernel forget and hand over data, once there is a device to notify it through; the
    caller starts and closes them."""
    keeps_s = max(float(fuse.get(f"{what}_timeout", 0)) for what in ("entry", "attr"))
    caches = operations.caches = KernelCaches(vfs.look_for_changes, device, keeps_s, is_mapped=vfs.is_any_read)
    mapped = operations.mapped = MappedPages(device)
    vfs.events.on_files_changed = caches.changed
    vfs.events.on_lock_granted = partial(caches.locked, later=mapped.later)
    return caches, mapped


def patience_of(vfs: Vfs, wait_s: float) -> Patience:
    """Which requests wait for servers to return, and until when (`waiting`); and which programs are released while
    servers stall."""
    waiting = Waiting(wait_s, vfs.all_servers_answer, callers.is_ending)
    return Patience(
        waiting.may_wait_s,
        vfs.answering,
        callers.is_told_to_end,
        callers.is_ending,
        vfs.lacks_servers,
        withdrawal.withdraw,
        withdrawal.forget,
    )


class KernelSession:
    """A mount of `vfs` at `mountpoint`. Raises `FuseMissingError` if that is impossible. `eio`: the number that
    programs get for EIO."""

    def __init__(
        self,
        vfs: Vfs,
        mountpoint: Path,
        fuse: Mapping[str, str | bool],
        *,
        eio: int = errno.EIO,
        wait_s: float = 0.0,
        unmount_timeout_s: float = 0.0,
    ) -> None:
        self._mountpoint = mountpoint
        self._operations = operations = operations_of(vfs, fuse)
        settings = Settings(
            flags=_FLAGS,
            max_write_bytes=write_size(int(fuse.get("max_write", Settings.max_write_bytes))),
            max_readahead_bytes=int(fuse.get("max_readahead", Settings.max_readahead_bytes)),
            request_timeout_s=time_limits.wanted_s(),
        )
        if limit_s := time_limits.in_force_s():
            log.warning("the kernel ends this mount if a program waits for a lock for %d s (sysctl fs.fuse)", limit_s)
        try:
            self._mount = mounting.mount(mountpoint, mount_options(fuse))
        except MountError as error:
            raise FuseMissingError(f"{mountpoint}: cannot be mounted: {error}") from error
        self._session = Session(
            self._mount.descriptor,
            operations,
            settings,
            errno_of=errno_of_with(eio),
            threads_max=THREADS_MAX if not wait_s else WAITING_THREADS_MAX,
            patience=patience_of(vfs, wait_s),
            on_unmounted=partial(vfs.ending.is_near, unmount_timeout_s),
            on_start=meanwhile.watch,
        )
        self._caches, self._mapped = connect(operations, vfs, self._session.device, fuse)

    def serve(self, on_ready: Callable[[], None]) -> None:
        """Serve until it is unmounted or cut off. `on_ready` is called when the mount works."""
        with self._mount:
            try:
                agreed = self._session.negotiate()
                self._operations.writes_directly = bool(agreed.flags & _DIRECT_IO_ALLOW_MMAP)
                mounted = mountpoints.mounted_at(self._mountpoint)
                if mounted is None or not mounting.set_read_ahead(mounted.device, READ_AHEAD_KIB):
                    log.debug("%s: the kernel's read-ahead is as it was", self._mountpoint)
                on_ready()
            except BaseException as error:
                self._give_up()
                if isinstance(error, UnsupportedKernelError):
                    raise FuseMissingError(f"{self._mountpoint}: {error}") from error
                raise
            self._caches.start()
            try:
                self._session.serve()
            finally:
                self._mapped.close()
                self._caches.close()

    def cut_off(self) -> None:
        """Give errors to programs that still use the mount, and make `serve` return."""
        self._session.cut_off()

    def _give_up(self) -> None:
        try:
            mounting.unmount(self._mountpoint, lazy=True)
        except MountError as error:
            log.warning("%s", error)
