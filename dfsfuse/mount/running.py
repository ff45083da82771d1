"""How a mount's process shows that it is running, so that `dfsmount -u` can wait until it has written everything.

A mount leaves the kernel's table long before its process has written the last bytes to the servers. So each process
that serves a mount holds a lock (flock) on a small file with its pid, named after the mountpoint, from before mounting
until it is done. A killed process loses its lock, so a leftover file does no harm. Knows no servers, no FUSE. No
threads.
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
"""A larger value in another process's file is ignored, since `dfsmount -u` would wait that long."""
_MAX_BYTES = 64 * 1024


@dataclass(frozen=True)
class Serving:
    """A process that serves, or was the last to serve, a mountpoint."""

    pid: int
    mountpoint: str
    file: Path
    patience_s: float = 0.0
    """How long it goes on trying to save at its end without any success."""

    def has_ended(self) -> bool:
        """Whether it has released its lock. Then everything it had is on the servers (or it was killed)."""
        try:
            descriptor = _open(self.file)
        except OSError:
            return True
        try:
            # The current holder may already be the next mount.
            return _try_lock(descriptor) or (_fields(self.file) or (self.pid, self.mountpoint))[:2] != (
                self.pid,
                self.mountpoint,
            )
        finally:
            os.close(descriptor)


def folders(owner: int | None = None) -> list[Path]:
    """The possible folders of the files, for `dfsmount` and a later `dfsmount -u` of the same user; or, for root, of
    another user."""
    if os.geteuid() == 0:
        others = [] if not owner else [folder / "mounts" for folder in state_folders.of_user(owner)]
        return [Path("/run/dfsfuse"), *others]
    return [folder / "mounts" for folder in state_folders.candidates()]


def folder(mountpoint: Path) -> Path:
    """The folder for the file of a new mount at `mountpoint`; it is created. Raises `MountpointError`."""
    if os.geteuid() != 0:
        return state_folders.usable(mountpoint, "mounts")
    (only,) = folders()  # root's
    if covering.covers(mountpoint, only):
        raise MountpointError(f"{mountpoint}: the mount would cover {only}, where its process is announced.")
    only.mkdir(mode=0o700, parents=True, exist_ok=True)
    return only


def file_of(mountpoint: Path, where: Path) -> Path:
    """The file for `mountpoint` (as returned by `mountpoints.absolute`)."""
    digest = hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:16]
    return where / f"{digest}.json"


def find(mountpoint: Path, where: Path | None = None, *, owner: int | None = None) -> Serving | None:
    """The live process that serves `mountpoint`, or None. Touches nothing below the mountpoint. `owner`: the user who
    mounted it, if known, since root also unmounts for others. Only files written by these two users are trusted: any
    user could create some of the folders first, and make every unmount wait."""
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
    """The pid, the mountpoint and the patience in the file; None if they are not written yet, or if the file does not
    belong to these users."""
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
    """Open the file for reading and locking. It may be in another user's folder: a link, a pipe or a device in its
    place is not touched. Raises OSError."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file", file)


@contextmanager
def announced(
    mountpoint: Path, where: Path | None = None, *, wait_s: float = WAIT_S, patience_s: float = 0.0
) -> Iterator[None]:
    """Hold the lock for `mountpoint`, after waiting for the previous process to finish.

    Raises `MountpointError` if another live process still holds it after that, or if there is no folder for it.
    """
    file = file_of(mountpoint, folder(mountpoint) if where is None else where)
    deadline = time.monotonic() + wait_s
    while (descriptor := _locked(file)) is None:
        if time.monotonic() > deadline:
            other = _fields(file)
            process = f" (process {other[0]})" if other else ""
            raise MountpointError(
                f"{mountpoint}: another dfsmount{process} still serves this mountpoint. "
                "A program may be using files that it opened before the unmount, or the last files are still being "
                "saved. "
                f"To wait until it is done: dfsmount -u {shlex.quote(os.fspath(mountpoint))}"
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
    """A locked descriptor of the file that has this name *now*: its last owner may have just removed the file."""
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
