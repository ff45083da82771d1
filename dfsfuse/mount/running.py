"""How a mount's process shows that it lives, so that `dfsmount -u` can wait until it has written everything.

A mount has left the kernel's table long before its process has brought the last bytes to the servers. So each process
that serves a mount holds a lock (flock) on a small file with its pid, named after the mountpoint, from before the mount
until it is done. A killed process loses its lock: no file is ever stale in a way that matters. Knows no servers, no
FUSE. No threads.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shlex
import stat
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dfsfuse.mount import covering, state_folders
from dfsfuse.mount.errors import MountpointError

WAIT_S = 10.0
PATIENCE_MAX_S = 600.0
"""More than this in another process's file is not believed: somebody waits for it."""
_MAX_BYTES = 64 * 1024


@dataclass(frozen=True)
class Serving:
    """A process that serves, or was the last to serve, a mountpoint."""

    pid: int
    mountpoint: str
    file: Path
    patience_s: float = 0.0
    """For how long it tries to save at its end, though nothing can be saved."""

    def has_ended(self) -> bool:
        """Has it let go of its lock? Then everything it had is on the servers (or it was killed)."""
        try:
            descriptor = _open(self.file)
        except OSError:
            return True
        try:
            # Whoever holds it now may be the next mount already.
            return _try_lock(descriptor) or (_fields(self.file) or (self.pid, self.mountpoint))[:2] != (
                self.pid,
                self.mountpoint,
            )
        finally:
            os.close(descriptor)


def folders(owner: int | None = None) -> list[Path]:
    """Where the files may be, for `dfsmount` and a later `dfsmount -u` of the same user; or root's, of another user."""
    if os.geteuid() == 0:
        others = [] if not owner else [folder / "mounts" for folder in state_folders.of_user(owner)]
        return [Path("/run/dfsfuse"), *others]
    return [folder / "mounts" for folder in state_folders.candidates()]


def folder(mountpoint: Path) -> Path:
    """Where the file for a new mount at `mountpoint` is to be; it is made. Raises `MountpointError`."""
    if os.geteuid() != 0:
        return state_folders.usable(mountpoint, "mounts")
    (only,) = folders()  # root's
    if covering.covers(mountpoint, only):
        raise MountpointError(f"{mountpoint}: the mount would cover {only}, where its process is announced.")
    only.mkdir(mode=0o700, parents=True, exist_ok=True)
    return only


def file_of(mountpoint: Path, where: Path) -> Path:
    """The file for `mountpoint` (as `mountpoints.absolute` gives it)."""
    digest = hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:16]
    return where / f"{digest}.json"


def find(mountpoint: Path, where: Path | None = None, *, owner: int | None = None) -> Serving | None:
    """The live process that serves `mountpoint`, or None. Touches nothing below the mountpoint. `owner`: who mounted
    it, if that is known: root unmounts for others too. Only what these two have written is believed: anybody may make
    some of the folders first, and would have every unmount wait for him."""
    owners = {os.geteuid(), os.geteuid() if owner is None else owner}
    for folder in folders(owner) if where is None else [where]:
        if covering.covers(mountpoint, folder):
            continue
        file = file_of(mountpoint, folder)
        fields = _fields(file, owners)
        if fields is None or fields[1] != os.fspath(mountpoint):
            continue
        if not (serving := Serving(fields[0], fields[1], file, fields[2])).has_ended():
            return serving
    return None


def _fields(file: Path, owners: Container[int] | None = None) -> tuple[int, str, float] | None:
    """The pid, the mountpoint and the patience in the file; None if they are not written yet, or if the file is none of
    these users'."""
    try:
        descriptor = _open(file)
        try:
            if owners is not None and os.fstat(descriptor).st_uid not in owners:
                return None
            fields = json.loads(os.read(descriptor, _MAX_BYTES))
        finally:
            os.close(descriptor)
        patience_s = float(fields.get("patience_s", 0.0))
        return int(fields["pid"]), str(fields["mountpoint"]), patience_s if 0 <= patience_s <= PATIENCE_MAX_S else 0.0
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _open(file: Path) -> int:
    """The file, to be looked at and locked. It may be in another user's folder: a link, a pipe or a device that lies
    in its place is not touched. Raises OSError."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file", file)


@contextmanager
def announced(
    mountpoint: Path, where: Path | None = None, *, wait_s: float = WAIT_S, patience_s: float = 0.0
) -> Iterator[None]:
    """Hold the lock for `mountpoint`, after waiting for the one who served it before and is about to finish.

    Raises `MountpointError` if another live process still holds it then, or if there is no folder for it.
    """
    file = file_of(mountpoint, folder(mountpoint) if where is None else where)
    deadline = time.monotonic() + wait_s
    while (descriptor := _locked(file)) is None:
        if time.monotonic() > deadline:
            other = _fields(file)
            process = f" (process {other[0]})" if other else ""
            raise MountpointError(
                f"{mountpoint}: another dfsmount{process} still serves this mountpoint. "
                "A program may use files that it opened before the mount was ended, or the last files are being saved. "
                f"This waits until it is done: dfsmount -u {shlex.quote(os.fspath(mountpoint))}"
            )
        time.sleep(0.02)
    try:
        text = json.dumps({"pid": os.getpid(), "mountpoint": os.fspath(mountpoint), "patience_s": patience_s})
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
        yield
    finally:
        with suppress(FileNotFoundError):
            file.unlink()
        os.close(descriptor)


def _locked(file: Path) -> int | None:
    """A locked descriptor of the file that has this name *now*: its last owner may have just removed it."""
    for _ in range(100):
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not _try_lock(descriptor):
            os.close(descriptor)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), file.stat()):
                return descriptor
        os.close(descriptor)
    return None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
