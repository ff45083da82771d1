"""Arguments and results of operations. Values only.

Times are nanoseconds since 1970, timeouts seconds, sizes bytes, `blocks` units of 512 bytes. Names are bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple, Protocol, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview
Data: TypeAlias = Buffer | Sequence[Buffer]
"""One buffer or several consecutive ones. They are passed to the kernel without a copy."""


class Now(Enum):
    """The time at which an operation is carried out."""

    NOW = "now"


NOW: Final = Now.NOW
TimeChange: TypeAlias = int | Now | None
"""A time, `NOW`, or None to leave it unchanged."""


class Context(NamedTuple):
    """The caller. `pid` is 0 if the process is in another pid namespace, or the request comes from the kernel
    itself."""

    uid: int
    gid: int
    pid: int
    unique: int
    """The request's number."""


class Attributes(Protocol):
    """The attributes for stat(2). Any object with these attributes will do."""

    @property
    def ino(self) -> int: ...
    @property
    def mode(self) -> int: ...
    @property
    def nlink(self) -> int: ...
    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def rdev(self) -> int: ...
    @property
    def atime_ns(self) -> int: ...
    @property
    def mtime_ns(self) -> int: ...
    @property
    def ctime_ns(self) -> int: ...
    @property
    def blocks(self) -> int: ...


class Entry(NamedTuple):
    """The inode of a name, and how long the kernel may rely on both without asking again.

    Each one returned counts as one lookup, which `forget` takes back. If `attributes` is None, there is no such name,
    and the kernel may rely on that for `entry_timeout_s`.
    """

    attributes: Attributes | None
    entry_timeout_s: float = 0.0
    attributes_timeout_s: float = 0.0
    generation: int = 1


class TimedAttributes(NamedTuple):
    """Attributes, and how long the kernel may rely on them."""

    attributes: Attributes
    timeout_s: float = 0.0


class Opened(NamedTuple):
    """An open file or folder. `flags` are FOPEN_* of `wire`."""

    handle: int
    flags: int = 0


class Changes(NamedTuple):
    """The changes for setattr; None leaves a value unchanged.

    `kill_privileges`: clear setuid, and setgid if the group may execute (FUSE_HANDLE_KILLPRIV_V2, with a size). A
    change of owner always does so, even without this flag, except on folders.
    """

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: TimeChange = None
    mtime_ns: TimeChange = None
    ctime_ns: int | None = None
    kill_privileges: bool = False


class Listed(Protocol):
    """One name of a listing. `type` is the type bits of a mode; `offset` is where the listing continues after it. Any
    object with these attributes will do."""

    @property
    def name(self) -> bytes: ...
    @property
    def ino(self) -> int: ...
    @property
    def type(self) -> int: ...
    @property
    def offset(self) -> int: ...


class DirectoryEntry(NamedTuple):
    """The same, as a value."""

    name: bytes
    ino: int
    type: int
    offset: int


class Space(NamedTuple):
    """The numbers for statvfs(3)."""

    block_bytes: int
    blocks: int
    free: int
    available: int
    files: int
    files_free: int
    name_max: int


class Lock(NamedTuple):
    """A byte range: `type` is F_RDLCK, F_WRLCK or F_UNLCK; `end` is its last byte."""

    type: int
    start: int
    end: int
    pid: int


class LockRequest(NamedTuple):
    """A request by fcntl(2) or flock(2). `owner` is the kernel's number for the owner of the lock."""

    handle: int
    owner: int
    lock: Lock
    is_flock: bool
