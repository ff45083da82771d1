"""Files that only one mount may use at a time, though the programs that use them assume otherwise. Pure.

Some programs keep what their processes must agree on in a shared mapping: an index of a log, a table of readers, a
mutex. The processes of one machine share the memory itself. Two mounts have two copies of it, whatever is written back
and when: acknowledged changes made by one are then silently overwritten by the other, whatever is locked. But these
programs hold a shared lock on a byte of the file as long as they have it open. So that byte is given to one mount at a
time: a program on another mount is refused as if the lock were exclusive, and reports that its database is locked,
until the first mount's programs have closed it or that mount has died.

A guarded file is identified by its name and by the byte that is locked. Other names and bytes are locked as usual.
SQLite mistakes a refusal there for a transient condition, retries for ten seconds, and then complains of a "locking
protocol". So it is refused earlier, at the lock on the database itself, for which it has the right error message and
honours the user's time-out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Guard:
    """A format whose files only one mount may use."""

    what: str
    """What the file belongs to, for people."""
    name: bytes
    """The file's name, or a `*` followed by the end of its name."""
    byte: int
    """Programs hold an fcntl lock on this byte, and no other, as long as they have the file open."""
    source: str
    """The version that was tested, and where its source or documentation says so."""
    beside: tuple[bytes, ...] = ()
    """Files written under its protection: the suffixes of their names, which replace this one's suffix."""
    before: tuple[int, int] | None = None
    """The first and the last byte of what they lock first, in the file named like this one without its suffix."""

    @property
    def end(self) -> bytes:
        """Return the suffix of its name."""
        return self.name.removeprefix(b"*")

    def fits(self, name: bytes) -> bool:
        """Return whether a file with this name is one of these."""
        return name.endswith(self.end) if self.name.startswith(b"*") else name == self.name


_LMDB: Final = "LMDB 0.9.36 (lmdb 3.0.0 of PyPI), libraries/liblmdb/mdb.c: mdb_env_excl_lock(), mdb_env_share_locks()"
_SQLITE_SHARED: Final = 0x40000002, 0x40000002 + 509
GUARDS: Final = (
    Guard(
        "a SQLite database with a write-ahead log",
        b"*-shm",
        128,
        "SQLite 3.40.1, src/os_unix.c: UNIX_SHM_DMS, unixLockSharedMemory(); src/os.h: SHARED_FIRST, SHARED_SIZE",
        beside=(b"", b"-wal"),
        before=_SQLITE_SHARED,
    ),
    Guard("an LMDB environment", b"lock.mdb", 0, _LMDB, beside=(b"data.mdb",)),
    Guard("an LMDB environment", b"*-lock", 0, _LMDB + "; MDB_NOSUBDIR", beside=(b"",)),
)


@dataclass(frozen=True)
class Guarded:
    """A lock that only one mount may have, on a file with this name."""

    parent: int
    name: bytes
    guard: Guard
    beside: tuple[int, bytes] | None = None
    """If it is not this file but a sibling that only one mount may use: the sibling's folder and name."""

    @property
    def protects(self) -> frozenset[tuple[int, bytes]]:
        """Return folder and name of the files that only the holder of this lock writes."""
        if self.beside is not None:
            return frozenset()
        stem = self.name.removesuffix(self.guard.end)
        return frozenset((self.parent, stem + end) for end in self.guard.beside)

    @property
    def refusal(self) -> str:
        """Return the message for the case that another mount uses it."""
        return (
            f"{self.name!r}: a lock is refused, since {self.guard.what} can be used by one mount at a time and another "
            f"mount has it open; close it there first (docs/conformance.md)"
        )


def guarded(places: Iterable[tuple[int, bytes]], start: int, end: int) -> Guarded | None:
    """Return what an fcntl lock from `start` to `end` on a file with these names (folder and name) falls under."""
    for parent, name in places:
        for guard in GUARDS:
            if guard.byte == start == end and guard.fits(name):
                return Guarded(parent, name, guard)
            if (start, end) == guard.before:
                return Guarded(parent, name, guard, (parent, name + guard.end))
    return None
