"""How a mount's process shows that it lives, so that `dfsmount -u` can wait until it has written everything.

A mount has left the kernel's table long before its process has brought the last bytes to the servers. So each process
that serves a mount holds a lock (flock) on a small file with its pid, named after the mountpoint, from before the mount
until it is done. A killed process loses its lock: no file is ever stale in a way that matters. Knows no servers, no
FUSE. No threads.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dfsfuse.mount.errors import MountpointError


@dataclass(frozen=True)
class Serving:
    """A process that serves, or was the last to serve, a mountpoint."""

    pid: int
    mountpoint: str
    file: Path

    def has_ended(self) -> bool:
        """Has it let go of its lock? Then everything it had is on the servers (or it was killed)."""
        try:
            descriptor = os.open(self.file, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            return _try_lock(descriptor)
        finally:
            os.close(descriptor)


def folder() -> Path:
    """Where the files are: the same for `dfsmount` and a later `dfsmount -u` of the same user."""
    if os.geteuid() == 0:
        return Path("/run/dfsfuse")
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "dfsfuse" / "mounts"


def file_of(mountpoint: Path, where: Path | None = None) -> Path:
    """The file for `mountpoint` (as `mountpoints.absolute` gives it)."""
    digest = hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:16]
    return (where or folder()) / f"{digest}.json"


def find(mountpoint: Path, where: Path | None = None) -> Serving | None:
    """The live process that serves `mountpoint`, or None."""
    file = file_of(mountpoint, where)
    try:
        fields = json.loads(file.read_text())
        serving = Serving(int(fields["pid"]), str(fields["mountpoint"]), file)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None if serving.has_ended() else serving


@contextmanager
def announced(mountpoint: Path, where: Path | None = None) -> Iterator[None]:
    """Hold the lock for `mountpoint`. Raises `MountpointError` if another live process holds it."""
    file = file_of(mountpoint, where)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = _locked(file)
    if descriptor is None:
        raise MountpointError(
            f"{mountpoint}: another dfsmount serves this mountpoint, or is about to finish with it. Try again."
        )
    try:
        text = json.dumps({"pid": os.getpid(), "mountpoint": os.fspath(mountpoint)})
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
