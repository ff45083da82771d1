"""Finds the parts of FUSE on this machine: libfuse2 for fusepy, /dev/fuse, fusermount. Says what is missing and how to
get it.

fusepy speaks only libfuse's version 2 interface. It would load whichever `libfuse` the linker finds first, and some
machines have several, so the library is named in full here, before fusepy is imported (on Linux; elsewhere fusepy's own
choice is better). Imports nothing of fusepy itself. No threads.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import sys
from importlib import metadata
from pathlib import Path

from dfsfuse.fusekernel import mounting
from dfsfuse.mount.errors import FuseMissingError

LIBRARY = "libfuse.so.2"
LIBRARY_VARIABLE = "FUSE_LIBRARY_PATH"
DEVICE = Path("/dev/fuse")
SIGACTION_BYTES = 256
"""Size that is sufficient for a `struct sigaction` on every system."""
INSTALL_COMMAND = "apt-get install fuse3 libfuse2"


def require(device: Path = DEVICE, *, library: bool = True) -> None:
    """Check that mounting is possible, and with `library` that fusepy can be imported. Raises `FuseMissingError`."""
    if library:
        load_library()
    if sys.platform != "linux":
        return
    if not device.exists():
        raise FuseMissingError(
            f"{device} is missing: the kernel's FUSE module is not loaded, or this is a container without it. "
            "Try `modprobe fuse` as root; for a container, `--device /dev/fuse --cap-add SYS_ADMIN`."
        )
    if not os.access(device, os.R_OK | os.W_OK):
        raise FuseMissingError(
            f"{device} cannot be opened by this user. Let users mount, as root: chmod 666 {device}; or mount as root."
        )
    if os.geteuid() == 0:
        return
    if mounting.fusermount() is None:
        raise FuseMissingError(f"fusermount3 is missing. Install it as root: {INSTALL_COMMAND}")
    uid = os.getuid()
    try:
        pwd.getpwuid(uid)
    except KeyError as error:  # fusermount3 itself only says "could not determine username"
        raise FuseMissingError(
            f"fusermount3 mounts only for users in the passwd database, and user number {uid} is not in it. "
            f"Add it as root (useradd -u {uid} NAME), or mount as root, for all users."
        ) from error


def load_library() -> ctypes.CDLL | None:
    """Load libfuse2, where it is our choice (Linux). fusepy later loads the same. Raises `FuseMissingError`."""
    if sys.platform != "linux":
        return None
    name = os.environ.setdefault(LIBRARY_VARIABLE, LIBRARY)
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise FuseMissingError(f"libfuse 2 is missing ({error}). Install it as root: {INSTALL_COMMAND}") from error


def copy_handler(source: int, target: int) -> None:
    """Give the signal `target` the handler that `source` has now: libfuse's, once libfuse has installed it."""
    library = ctypes.CDLL(None, use_errno=True)
    action = ctypes.create_string_buffer(SIGACTION_BYTES)
    if library.sigaction(source, None, action) or library.sigaction(target, action, None):
        raise OSError(ctypes.get_errno(), "a signal's handler cannot be set")


def versions() -> str:
    """One line: the binding and the libfuse that a mount on this machine would use."""
    binding = f"fusepy {metadata.version('fusepy')}"
    try:
        library = load_library()
    except FuseMissingError as error:
        return f"binding {binding}; {error}"
    if library is None:
        return f"binding {binding}; libfuse as fusepy finds it"
    library.fuse_version.restype = ctypes.c_int
    major, minor = divmod(library.fuse_version(), 10)
    return f"binding {binding}; libfuse {major}.{minor} ({os.environ[LIBRARY_VARIABLE]})"
