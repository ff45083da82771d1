"""INIT: which version and which abilities of the protocol both sides use. Pure.

What is asked for, and why:

- ATOMIC_O_TRUNC: open(O_TRUNC) is one request, not open and then setattr, so no other mount sees a half of it.
- ASYNC_READ, ASYNC_DIO, PARALLEL_DIROPS: many requests at a time; operations are called by many threads anyway.
- BIG_WRITES, MAX_PAGES: requests of 1 MiB.
- DO_READDIRPLUS: a listing brings attributes along, also where nobody has asked for one yet. With READDIRPLUS_AUTO the
  kernel asks for them in the first request of a listing only; the names after that cost `du`, `tar`, `cp -r` and
  `rm -r` a request each.
- AUTO_INVAL_DATA: pages are dropped when a file's size or mtime has changed behind the kernel's back.
- CACHE_SYMLINKS: the target of a symbolic link never changes.
- ABORT_ERROR: a connection that was cut is told from one that was unmounted.
- HAS_EXPIRE_ONLY: a name may be marked old without being dropped.
- REQUEST_TIMEOUT, if a time is to be asked for (`time_limits`).

What is not: WRITEBACK_CACHE (the kernel would decide where O_APPEND writes), EXPORT_SUPPORT (NFS), NO_OPEN_SUPPORT and
NO_OPENDIR_SUPPORT (there are handles), POSIX_ACL, DONT_MASK (the kernel applies the umask), SPLICE_* (Python cannot).
Left to the file system: POSIX_LOCKS, FLOCK_LOCKS, HANDLE_KILLPRIV_V2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dfsfuse.fusekernel import wire
from dfsfuse.fusekernel.requests import Request

MINOR_MIN: Final = 31
"""Linux 5.4."""
PAGE_BYTES: Final = 4096
DEFAULT_FLAGS: Final = (
    wire.FUSE_ASYNC_READ
    | wire.FUSE_ATOMIC_O_TRUNC
    | wire.FUSE_BIG_WRITES
    | wire.FUSE_AUTO_INVAL_DATA
    | wire.FUSE_DO_READDIRPLUS
    | wire.FUSE_ASYNC_DIO
    | wire.FUSE_PARALLEL_DIROPS
    | wire.FUSE_ABORT_ERROR
    | wire.FUSE_CACHE_SYMLINKS
    | wire.FUSE_HAS_EXPIRE_ONLY
)
_REQUEST_TIMEOUT: Final = 1 << 42
"""FUSE_REQUEST_TIMEOUT: from Linux 6.15 on, and not in the headers of Debian 12."""
_NEEDED_FOR_SIZE: Final = wire.FUSE_MAX_PAGES | wire.FUSE_INIT_EXT
_LOW: Final = 2**32 - 1


class UnsupportedKernelError(Exception):
    """The kernel's FUSE is too old, or not FUSE."""


@dataclass(frozen=True)
class Settings:
    """What a session asks for."""

    flags: int = DEFAULT_FLAGS
    max_write_bytes: int = 1 << 20
    max_readahead_bytes: int = 8 << 20
    """The kernel takes no more than the mount's read_ahead_kb, which `mounting.set_read_ahead` raises."""
    max_background: int = 64
    """Requests that nobody waits for (read-ahead) at a time."""
    request_timeout_s: int = 0
    """How long a request may be without an answer before the kernel ends the mount; 0: what the system's setting is."""


@dataclass(frozen=True)
class Negotiated:
    """What both sides use."""

    minor: int
    flags: int
    max_write_bytes: int


def negotiate(request: Request, settings: Settings) -> tuple[Negotiated | None, bytes]:
    """What is agreed on, and the answer to INIT. None: the kernel will ask again with a version that we know.

    Raises `UnsupportedKernelError`, `MalformedError`.
    """
    major, minor, readahead, low, high = request.fields(wire.fuse_init_in)
    if major > wire.FUSE_KERNEL_VERSION:
        return None, _pack(Negotiated(wire.FUSE_KERNEL_MINOR_VERSION, 0, 0), settings, 0)
    if major < wire.FUSE_KERNEL_VERSION or minor < MINOR_MIN:
        raise UnsupportedKernelError(
            f"the kernel speaks FUSE {major}.{minor}; needed is {wire.FUSE_KERNEL_VERSION}.{MINOR_MIN} (Linux 5.4)"
        )
    offered = low | high << 32 if low & wire.FUSE_INIT_EXT else low
    wanted = settings.flags | _NEEDED_FOR_SIZE | (_REQUEST_TIMEOUT if settings.request_timeout_s else 0)
    flags = offered & wanted
    max_write = settings.max_write_bytes if flags & wire.FUSE_MAX_PAGES else 32 * PAGE_BYTES
    agreed = Negotiated(min(minor, wire.FUSE_KERNEL_MINOR_VERSION), flags, min(max_write, settings.max_write_bytes))
    return agreed, _pack(agreed, settings, min(readahead, settings.max_readahead_bytes))


def _pack(agreed: Negotiated, settings: Settings, max_readahead: int) -> bytes:
    return wire.fuse_init_out.pack(
        wire.FUSE_KERNEL_VERSION,
        agreed.minor,
        max_readahead,
        agreed.flags & _LOW,
        settings.max_background,
        settings.max_background * 3 // 4,
        agreed.max_write_bytes,
        1,  # time_gran: nanoseconds
        -(-agreed.max_write_bytes // PAGE_BYTES),
        0,
        agreed.flags >> 32,
        0,
        settings.request_timeout_s,
    )
