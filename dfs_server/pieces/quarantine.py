"""Where bad pieces go: out of readers' reach, but kept, since a bad copy may one day be all that is left.

    quarantine/3f...c2.1.1700000000     the segment's id in hex, the piece's number, when (seconds since 1970)

The file of a large piece is moved here unchanged; the bytes of a small piece are written here. A bad piece is deleted
when its segment is dropped, or after 30 days if a good one has replaced it. Knows no other table or folder.

Threads: everything may be called from any thread; `_lock` guards `_found`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from dfs_server.shared import durable

KEPT_S: Final = 30 * 24 * 3600
_NAME: Final = re.compile(r"([0-9a-f]{32})\.([1-4])\.([0-9]{1,15})")


class BadPiece(NamedTuple):
    """A piece in quarantine, and since when it is there."""

    when_s: int
    segment: bytes
    number: int

    @property
    def file_name(self) -> str:
        return f"{self.segment.hex()}.{self.number}.{self.when_s}"


class Quarantine:
    """The bad pieces in `folder`, which is created for the first one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._found = {bad for path in (folder.iterdir() if folder.is_dir() else ()) if (bad := _parsed(path.name))}

    def __len__(self) -> int:
        with self._lock:
            return len(self._found)

    def latest(self, count: int) -> list[BadPiece]:
        """The latest pieces, most recent first."""
        with self._lock:
            return sorted(self._found, reverse=True)[:count]

    def move_here(self, path: Path, bad: BadPiece) -> Path:
        """Move a large piece's file here; returns its new path. Raises OSError."""
        target = self._made() / bad.file_name
        path.rename(target)
        durable.fsync_folder(self._folder)
        durable.fsync_folder(path.parent)
        self._add(bad)
        return target

    def write_here(self, data: bytes, bad: BadPiece) -> Path:
        """Write the bytes of a small piece here; returns the path. Raises OSError."""
        target = self._made() / bad.file_name
        durable.write_file(target, data)
        self._add(bad)
        return target

    def forget(self, segment: bytes) -> None:
        """Delete the bad pieces of a segment that nothing refers to any more."""
        self._delete(lambda bad: bad.segment == segment)

    def forget_old(self, now_s: int, is_here: Callable[[bytes, int], bool]) -> None:
        """Delete old pieces that have been replaced by good ones."""
        self._delete(lambda bad: bad.when_s + KEPT_S < now_s and is_here(bad.segment, bad.number))

    def _made(self) -> Path:
        durable.make_folder(self._folder)
        return self._folder

    def _add(self, bad: BadPiece) -> None:
        with self._lock:
            self._found.add(bad)

    def _delete(self, wanted: Callable[[BadPiece], bool]) -> None:
        with self._lock:
            candidates = list(self._found)
        for bad in filter(wanted, candidates):
            (self._folder / bad.file_name).unlink(missing_ok=True)
            with self._lock:
                self._found.discard(bad)


def _parsed(name: str) -> BadPiece | None:
    match = _NAME.fullmatch(name)
    return BadPiece(int(match[3]), bytes.fromhex(match[1]), int(match[2])) if match else None
