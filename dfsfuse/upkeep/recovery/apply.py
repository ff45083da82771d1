"""Kept bytes onto the servers: each file looked at as it is now, the plan made, and what it says done durably.

What is put beside a file is a new file that holds the kept bytes in their places and holes elsewhere, with permissions
600: nothing in it is invented. A file is done when its fsync has returned; only then may its record go.

Called by one thread. Between the look at a file and the write another mount may change it, as with any two writers.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from dfsfuse.namespace.keys import ROOT
from dfsfuse.upkeep.recovery import kept as format
from dfsfuse.upkeep.recovery import plan
from dfsfuse.upkeep.recovery.kept import Kept, KeptFile, Part
from dfsfuse.upkeep.recovery.plan import Action, Now
from dfsfuse.vfs import paths
from dfsfuse.vfs.context import Segments
from dfsfuse.vfs.vfs import AttributeChanges, Vfs

COPY_BYTES: Final = 4 * 1024 * 1024
_NAMES_MAX: Final = 1000
"""So many names beside a file are tried."""


@dataclass(frozen=True)
class Done:
    """What became of one file."""

    file: KeptFile
    action: Action
    beside: bytes | None = None
    """The path of what was put beside it, from the root on."""


class Applier:
    """See the module."""

    def __init__(self, vfs: Vfs, segments: Segments) -> None:
        self._vfs = vfs
        self._segments = segments

    def apply(self, kept: Kept, file: KeptFile) -> Done:
        """Do what is to be done with one file. Raises DfsError and OSError; then it may be tried again."""
        action = plan.decide(file, kept.manifest.known_ns, self._look(kept, file))
        match action:
            case Action.IN_PLACE:
                with self._opened(file.inode, os.O_WRONLY) as handle:
                    self._write(kept, file, handle)
                self._vfs.setattr(file.inode, AttributeChanges(mtime_ns=file.written_ns))
            case Action.AT_THE_END:
                with self._opened(file.inode, os.O_WRONLY | os.O_APPEND) as handle:
                    self._write(kept, file, handle)
            case Action.BESIDE:
                return Done(file, action, self._beside(kept, file))
            case Action.NOTHING:
                pass
        return Done(file, action)

    # ------------------------------------------------------------------ looking

    def _look(self, kept: Kept, file: KeptFile) -> Now | None:
        try:
            found = self._vfs.getattr(file.inode)
        except FileNotFoundError:
            return None
        if not found.nlink:
            return None
        shift = found.size - file.size - file.parts[0].offset if file.is_appended and file.parts else 0
        return Now(stat.S_ISREG(found.mode), found.ctime_ns, lambda: self._holds(kept, file, shift))

    def _holds(self, kept: Kept, file: KeptFile, shift: int) -> bool:
        with self._opened(file.inode, os.O_RDONLY) as handle:
            return all(
                part.offset + shift >= 0 and self._read(handle, part.offset + shift, part.length) == data
                for part, data in self._blocks(kept, file)
            )

    def _read(self, handle: int, offset: int, length: int) -> bytes:
        found = b""
        while len(found) < length and (block := self._vfs.read(handle, offset + len(found), length - len(found))):
            found += block
        return found

    # ------------------------------------------------------------------ writing

    def _blocks(self, kept: Kept, file: KeptFile) -> Iterator[tuple[Part, bytes]]:
        """The bytes of all parts, checked."""
        for part in file.parts:
            if part.at is not None:
                yield part, kept.read(part)
            else:
                segment = format.segment_of(part)
                yield part, self._segments.read(segment, part.segment_offset, part.length)

    def _write(self, kept: Kept, file: KeptFile, handle: int) -> None:
        for part, data in self._blocks(kept, file):
            self._vfs.write(handle, part.offset, data)
        self._vfs.fsync(handle)

    @contextmanager
    def _opened(self, ino: int, flags: int) -> Iterator[int]:
        handle = self._vfs.open(ino, flags)
        try:
            yield handle
        finally:
            self._vfs.release(handle)

    def _beside(self, kept: Kept, file: KeptFile) -> bytes:
        above, name = os.path.split(file.path or b"inode %d" % file.inode)
        try:
            parent = paths.resolve(self._vfs, above, newest=True)
        except (FileNotFoundError, NotADirectoryError):
            above, parent = b"", ROOT
        for number in range(1, _NAMES_MAX):
            new = plan.name_beside(name, file.written_ns, number)
            try:
                made, handle = self._vfs.create(parent, new, 0o600, os.O_WRONLY | os.O_EXCL, os.geteuid(), os.getegid())
            except FileExistsError:
                continue
            try:
                self._write(kept, file, handle)
            except BaseException:
                self._vfs.release(handle)
                self._vfs.unlink(parent, new)
                raise
            self._vfs.release(handle)
            self._vfs.setattr(made.ino, AttributeChanges(mtime_ns=file.written_ns))
            return b"/" + (above + b"/" + new if above else new)
        raise OSError(errno.EEXIST, "there are too many files beside it already")
