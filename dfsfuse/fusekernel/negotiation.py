"""INIT: negotiates the version and the features of the protocol. Pure.

The features requested, and why:

- ATOMIC_O_TRUNC: open(O_TRUNC) is one request, not open followed by setattr, so no other mount sees only half of it.
- ASYNC_READ, ASYNC_DIO, PARALLEL_DIROPS: many requests at a time; many threads call operations anyway.
- BIG_WRITES, MAX_PAGES: requests of 1 MiB.
- DO_READDIRPLUS: a listing includes attributes, even if no program has asked for any yet. With READDIRPLUS_AUTO the
  kernel requests them only in the first request of a listing; each further name costs `du`, `tar`, `cp -r` and `rm -r`
  a separate request.
- AUTO_INVAL_DATA: pages are dropped when a file's size or mtime has changed behind the kernel's back.
- CACHE_SYMLINKS: the target of a symbolic link never changes.
- ABORT_ERROR: distinguishes a connection that was cut from one that was unmounted.
- HAS_EXPIRE_ONLY: a name can be marked stale without being dropped.
- REQUEST_TIMEOUT, if a time limit is requested (`time_limits`).

Not requested: WRITEBACK_CACHE (the kernel would decide where O_APPEND writes), EXPORT_SUPPORT (NFS), NO_OPEN_SUPPORT
and NO_OPENDIR_SUPPORT (there are handles), POSIX_ACL, DONT_MASK (the kernel applies the umask), SPLICE_* (Python
cannot). Left to the file system: POSIX_LOCKS, FLOCK_LOCKS, HANDLE_KILLPRIV_V2.
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
    """The settings that a session requests."""

    flags: int = DEFAULT_FLAGS
    max_write_bytes: int = 1 << 20
    max_readahead_bytes: int = 8 << 20
    """The kernel accepts no more than the mount's read_ahead_kb, which `mounting.set_read_ahead` raises."""
    max_background: int = 64
    """Maximum number of background requests (read-ahead) at a time."""
    request_timeout_s: int = 0
    """How long a request may remain unanswered before the kernel ends the mount; 0: the system's setting."""


@dataclass(frozen=True)
class Negotiated:
    """The agreed settings."""

    minor: int
    flags: int
    max_write_bytes: int


def negotiate(request: Request, settings: Settings) -> tuple[Negotiated | None, bytes]:
    """The agreed settings, and the answer to INIT. None: the kernel will ask again with a version that we support.

    Raises `UnsupportedKernelError`, `MalformedError`.
    """
    major, minor, readahead, low, high = request.fields(wire.fuse_init_in)
    if major > wire.FUSE_KERNEL_VERSION:
        return None, _pack(Negotiated(wire.FUSE_KERNEL_MINOR_VERSION, 0, 0), settings, 0)
    if major < wire.FUSE_KERNEL_VERSION or minor < MINOR_MIN:
        raise UnsupportedKernelError(
            f"the kernel speaks FUSE {major}.{minor}; {wire.FUSE_KERNEL_VERSION}.{MINOR_MIN} (Linux 5.4) is required"
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
