"""Writes kept bytes to the servers: examines each file as it is now, makes the plan, and carries it out durably.

What is put beside a file is a new file that holds the kept bytes in their places and holes elsewhere, with permissions
600: nothing in it is invented. A file is done when its fsync has returned; only then may its record be removed. If the
process dies in between, the file is applied again: bytes with places of their own are found to be there already, and
before anything is appended the record is changed to say that it may have been (`before_group`). The file's mtime is
that of the recovery: backups and builds that go by it must see that the file has changed.

Called by one thread. Between examining a file and writing it another mount may change it, as with any two writers.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from dfsfuse.common.portions import by_bytes
from dfsfuse.errors import DfsError
from dfsfuse.namespace.records.keys import ROOT
from dfsfuse.upkeep.recovery import plan
from dfsfuse.upkeep.recovery.kept import Kept
from dfsfuse.upkeep.recovery.manifest import KeptFile, Part, segment_of
from dfsfuse.upkeep.recovery.plan import Action, Now
from dfsfuse.vfs.caller import this_process
from dfsfuse.vfs.context import Segments
from dfsfuse.vfs.names import paths
from dfsfuse.vfs.vfs import Vfs

GROUP_FILES: Final = 256
GROUP_BYTES: Final = 8 * 1024 * 1024
"""Files are saved together up to this many bytes."""
PATIENCE_S: Final = 10.0
"""How long to wait for servers that go away meanwhile."""
_NAMES_MAX: Final = 1000
"""At most this many names beside a file are tried."""


@dataclass(frozen=True)
class Done:
    """What became of one file."""

    file: KeptFile
    action: Action
    beside: bytes | None = None
    """The path, from the root, of what was put beside it."""


@dataclass(frozen=True)
class _Begun:
    """A file whose bytes are written and perhaps not durable yet."""

    done: Done
    handle: int | None = None
    made: tuple[int, bytes] | None = None
    """The folder and name of a file that was created for it."""


class Applier:
    """See the module."""

    def __init__(self, vfs: Vfs, segments: Segments, pause: Callable[[float], None]) -> None:
        self._pause = pause
        self._vfs = vfs
        self._segments = segments

    def apply(
        self, kept: Kept, files: Sequence[KeptFile], before_group: Callable[[Sequence[KeptFile]], None]
    ) -> Iterator[tuple[KeptFile, Done | Exception]]:
        """Do what the plan says with these files, many at a time, and yield each when it is durable; a failure may be
        tried again. `before_group` is called before anything is written for a group of files."""
        for group in by_bytes(files, GROUP_BYTES, lambda file: file.size, GROUP_FILES):
            before_group(group)
            begun: list[_Begun] = []
            for file in group:
                try:
                    begun.append(self._begin(kept, file))
                except (DfsError, OSError) as failure:
                    yield file, failure
            if any(one.handle is not None for one in begun):
                # what it cannot save is reported by each file's fsync
                self._vfs.ending.save_all(PATIENCE_S, self._pause)
            for one in begun:
                yield one.done.file, self._finish(one)

    def _begin(self, kept: Kept, file: KeptFile) -> _Begun:
        action = plan.decide(file, self._look(kept, file))
        match action:
            case Action.IN_PLACE:
                return _Begun(Done(file, action), self._written(kept, file, self._vfs.open(file.inode, os.O_WRONLY)))
            case Action.AT_THE_END:
                handle = self._vfs.open(file.inode, os.O_WRONLY | os.O_APPEND)
                return _Begun(Done(file, action), self._written(kept, file, handle))
            case Action.BESIDE:
                return self._beside(kept, file)
            case Action.NOTHING:
                return _Begun(Done(file, action))

    def _finish(self, begun: _Begun) -> Done | Exception:
        if begun.handle is None:
            return begun.done
        try:
            self._vfs.fsync(begun.handle)
        except (DfsError, OSError) as failure:
            self._let_go(begun.handle, begun.made)
            return failure
        self._vfs.release(begun.handle)
        return begun.done

    # ------------------------------------------------------------------ examining

    def _look(self, kept: Kept, file: KeptFile) -> Now | None:
        try:
            found = self._vfs.getattr(file.inode)
        except FileNotFoundError:
            return None
        if not found.nlink:
            return None
        start = file.parts[0].offset if file.is_appended and file.parts else found.size
        shift = found.size - file.size - start if file.is_appended else 0
        is_file = stat.S_ISREG(found.mode)
        state = self._vfs.content_state(file.inode, file.regions) if is_file else None
        return Now(is_file, state, found.size != start, lambda: self._holds(kept, file, shift))

    def _holds(self, kept: Kept, file: KeptFile, shift: int) -> bool:
        """Return whether the file has all these bytes, shifted by this many; what was appended never lies before the
        place that the mount gave it."""
        with self._opened(file.inode, os.O_RDONLY) as handle:
            return shift >= 0 and all(
                self._read(handle, part.offset + shift, part.length) == data for part, data in self._blocks(kept, file)
            )

    def _read(self, handle: int, offset: int, length: int) -> bytes:
        found = b""
        while len(found) < length and (block := self._vfs.read(handle, offset + len(found), length - len(found))):
            found += block
        return found

    # ------------------------------------------------------------------ writing

    def _blocks(self, kept: Kept, file: KeptFile) -> Iterator[tuple[Part, bytes]]:
        """Yield the bytes of all parts, checked."""
        for part in file.parts:
            if part.at is not None:
                yield part, kept.read(part)
            else:
                segment = segment_of(part)
                yield part, self._segments.read(segment, part.segment_offset, part.length)

    def _written(self, kept: Kept, file: KeptFile, handle: int, made: tuple[int, bytes] | None = None) -> int:
        """Write to this handle; if that fails, close it and remove the file that was created for it."""
        try:
            for part, data in self._blocks(kept, file):
                self._vfs.write(handle, part.offset, data)
        except BaseException:
            self._let_go(handle, made)
            raise
        return handle

    def _let_go(self, handle: int, made: tuple[int, bytes] | None) -> None:
        self._vfs.release(handle)
        if made is not None:
            with suppress(DfsError, OSError):  # fewer servers than before: it stays, empty
                self._vfs.unlink(*made)

    @contextmanager
    def _opened(self, ino: int, flags: int) -> Iterator[int]:
        handle = self._vfs.open(ino, flags)
        try:
            yield handle
        finally:
            self._vfs.release(handle)

    def _folder(self, path: bytes) -> int | None:
        """Return the folder that has this path now; None if there is none, or if something else has its name."""
        try:
            found = paths.resolve(self._vfs, path, newest=True)
            return found if stat.S_ISDIR(self._vfs.getattr(found).mode) else None
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _beside(self, kept: Kept, file: KeptFile) -> _Begun:
        above, name = os.path.split(file.path or b"inode %d" % file.inode)
        parent = self._folder(above)
        if parent is None:
            above, parent = b"", ROOT
        for number in range(1, _NAMES_MAX):
            new = plan.name_beside(name, file.written_ns, number)
            try:
                _, handle = self._vfs.create(parent, new, 0o600, os.O_WRONLY | os.O_EXCL, this_process())
            except FileExistsError:
                continue
            done = Done(file, Action.BESIDE, b"/" + (above + b"/" + new if above else new))
            return _Begun(done, self._written(kept, file, handle, (parent, new)), (parent, new))
        raise OSError(errno.EEXIST, "there are too many files beside it already")
