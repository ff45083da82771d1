"""Which files cannot be assembled from the servers that answer, and what a program sees of them.

A `Policy` decides that:
- `MARK`: an incomplete file is listed as `NAME [incomplete]` and opens under both names; reading what is missing gives
  EIO. A real file with that very name takes precedence, and a name that would be longer than 255 bytes stays as it is.
  While all servers are usable a listing checks nothing, since normally nothing is missing then.
- `REFUSE`: names stay as they are, and open() for reading is refused (EIO). For backups: a name that changes looks like
  a removed file, and many programs mistake an error in the middle of a file for its end. Each open() asks the servers.
  A folder that has fewer entries than its record says cannot be listed. To know for certain which files are incomplete,
  call `among`.

Threads: one lock guards the verdicts, which are kept for a few seconds and as long as the usable servers are the same.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable, Sequence
from enum import Enum, auto
from typing import Final, NamedTuple

from dfsfuse.common.portions import by_count
from dfsfuse.errors import IncompleteError, posix_error
from dfsfuse.namespace.map.transactions import View
from dfsfuse.namespace.ops import directories
from dfsfuse.namespace.records.inode import Entry, Inode
from dfsfuse.vfs.context import Context
from dfsfuse.vfs.read.stored_segments import FILES_AT_ONCE, stored_segments

SUFFIX: Final = b" [incomplete]"
VERDICT_S: Final = 3.0
SEGMENTS_AT_ONCE: Final = 1000
VERDICTS_MAX: Final = 100_000


class Policy(Enum):
    """How files that cannot be assembled are shown. See the module."""

    MARK = auto()
    REFUSE = auto()


class _Verdict(NamedTuple):
    until: float
    usable: frozenset[int]
    is_incomplete: bool


class Incomplete:
    """See the module."""

    def __init__(self, context: Context, policy: Policy) -> None:
        self._context = context
        self._policy = policy
        self._lock = threading.Lock()
        self._verdicts: dict[int, _Verdict] = {}

    def among(self, inos: Iterable[int]) -> set[int]:
        """Return those of these files that lack a piece that no answering server has. Asks the servers, at most once in
        a few seconds per file."""
        wanted = list(dict.fromkeys(inos))
        found = {ino for ino in wanted if self._known(ino)}
        unknown = [ino for ino in wanted if self._known(ino) is None]
        for portion in by_count(unknown, FILES_AT_ONCE):
            found |= self._check(portion)
        return found

    def names(self, entries: Sequence[tuple[bytes, Entry]]) -> list[bytes]:
        """Return the names under which a folder's entries are listed."""
        plain = [name for name, _ in entries]
        if self._policy is not Policy.MARK or len(self._context.usable()) == len(self._context.servers):
            return plain
        incomplete = self.among(entry.ino for _, entry in entries if entry.is_file)
        taken = set(plain)
        return [
            name + SUFFIX if entry.ino in incomplete and _may_be_marked(name, taken) else name
            for name, entry in entries
        ]

    def check_listing(self, folder: Inode, entries: Sequence[object]) -> None:
        """Check a folder's complete list of entries. Raises OSError (EIO) if names are missing, where that is
        refused."""
        if self._policy is Policy.REFUSE and len(entries) != folder.size:
            raise posix_error(
                errno.EIO, f"{len(entries)} of {folder.size} names of a folder are there: `dfc fsck` tells more"
            )

    def real_name(self, parent: int, name: bytes) -> bytes | None:
        """Return the name in the folder that is listed as `name`, if it is that of an incomplete file; else None."""
        base = name.removesuffix(SUFFIX)
        if self._policy is not Policy.MARK or base == name or not base:
            return None

        def work(view: View) -> Entry | None:
            return directories.find(view, parent, base)

        entry = self._context.store.read(work, max_age_s=self._context.max_age_s)
        if entry is None or not entry.is_file or not self.among([entry.ino]):
            return None
        return base

    def check_open(self, ino: int) -> None:
        """Check a file that is about to be opened for reading. Raises `IncompleteError` if that is refused.

        That it was complete a moment ago is not relied on: servers may have failed since.
        """
        if self._policy is Policy.REFUSE and (self._known(ino) or self._check([ino])):
            raise IncompleteError(
                f"inode {ino} cannot be assembled from the servers that answer, and is not opened by this mount: "
                "start the missing servers"
            )

    def _known(self, ino: int) -> bool | None:
        with self._lock:
            verdict = self._verdicts.get(ino)
        if verdict is None or verdict.until < self._context.monotonic():
            return None
        return verdict.is_incomplete if verdict.usable == self._context.usable() else None

    def _check(self, inos: list[int]) -> set[int]:
        usable = self._context.usable()
        found = stored_segments(self._context, inos)
        pairs = [(ino, segment) for ino, segments in found.items() for segment in segments]
        incomplete = set()
        for portion in by_count(pairs, SEGMENTS_AT_ONCE):
            missing = self._context.segments.missing([segment for _, segment in portion])
            incomplete |= {ino for (ino, _), pieces in zip(portion, missing, strict=True) if pieces}
        until = self._context.monotonic() + VERDICT_S
        with self._lock:
            if len(self._verdicts) > VERDICTS_MAX:
                self._verdicts.clear()
            self._verdicts.update((ino, _Verdict(until, usable, ino in incomplete)) for ino in inos)
        return incomplete


def _may_be_marked(name: bytes, taken: set[bytes]) -> bool:
    marked = name + SUFFIX
    return len(marked) <= directories.NAME_MAX_BYTES and marked not in taken
