"""The namespace as dfc's commands see it: paths instead of inodes, over a `Vfs`.

Knows the Vfs and nothing of the local file system, the command line or servers. Paths are absolute and normal
(`remote_paths.normal`). Symbolic links are followed here, since the Vfs leaves that to the kernel; one with an absolute
target points out of the namespace (to a path on the machine that created it) and is not followed. Every OSError raised
here carries its path.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dfsfuse.cli.dfc.local_files import Facts, umask
from dfsfuse.common.portions import by_count
from dfsfuse.errors import posix_error
from dfsfuse.vfs.attributes import AttributeChanges, Attributes
from dfsfuse.vfs.caller import this_process
from dfsfuse.vfs.names.xattrs import INODE
from dfsfuse.vfs.write.putting import Chunk, Hole

if TYPE_CHECKING:
    from dfsfuse.vfs.health.health import Health
    from dfsfuse.vfs.vfs import Vfs


ROOT = 1
READ_BYTES = 4 * 1024 * 1024
MAX_LINKS = 40
FILES_AT_ONCE = 200
BLOCK_BYTES = 512
"""The unit of `st_blocks`."""


@dataclass(frozen=True)
class Place:
    """Where a path leads: a name in a folder, and what is there now, if anything. The root has an empty name."""

    path: bytes
    parent: int
    name: bytes
    found: Attributes | None

    def is_folder(self) -> bool:
        """Whether a folder is there."""
        return self.found is not None and stat.S_ISDIR(self.found.mode)


class Remote:
    """Operations on paths of one namespace. Threads: as safe as the Vfs."""

    def __init__(self, vfs: Vfs) -> None:
        self._vfs = vfs

    def identity(self) -> bytes:
        """An id that distinguishes this namespace from all others; empty if it has none yet."""
        try:
            return self._vfs.getxattr(ROOT, INODE).partition(b":")[0]
        except OSError:
            return b""

    def find(self, path: bytes, *, follow: bool = True) -> Place:
        """Resolve a path. Only the last name may be missing: then `found` is None. `follow`: also follow a link at the
        end."""
        with at(path):
            return self._walk(path, follow=follow)

    def existing(self, path: bytes, *, follow: bool = True) -> Attributes:
        """What is at the path. Raises OSError (ENOENT)."""
        found = self.find(path, follow=follow).found
        if found is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return found

    def entries(self, folder: int, path: bytes) -> list[tuple[bytes, Attributes]]:
        """A folder's entries, by name, without `.` and `..`."""
        with at(path):
            return sorted(self._vfs.list_folder(folder))

    def contents(self, inode: int, path: bytes) -> Iterator[bytes]:
        """A file's contents in chunks, holes as zeros. Raises IncompleteError if pieces are missing."""
        with at(path):
            handle = self._vfs.open(inode, os.O_RDONLY)
            try:
                yield from self._read(handle, 0, None)
            finally:
                self._vfs.release(handle)

    def stretches(self, found: Attributes, path: bytes) -> Iterator[bytes | Hole]:
        """A file's contents in chunks, with its holes marked. Raises IncompleteError if pieces are missing."""
        if found.blocks * BLOCK_BYTES >= found.size:
            yield from self.contents(found.ino, path)
            return
        with at(path):
            handle = self._vfs.open(found.ino, os.O_RDONLY)
            try:
                offset = 0
                while True:
                    data = self._next(handle, offset, os.SEEK_DATA)
                    if data is None:
                        size = self._vfs.getattr(found.ino, handle).size
                        # anything appended before the size was read is not a hole
                        data = self._next(handle, offset, os.SEEK_DATA)
                    if data is None:
                        break
                    if data > offset:
                        yield Hole(data - offset)
                    offset = self._next(handle, data, os.SEEK_HOLE) or data
                    yield from self._read(handle, data, offset)
                if size > offset:
                    yield Hole(size - offset)
            finally:
                self._vfs.release(handle)

    def _read(self, handle: int, offset: int, end: int | None) -> Iterator[bytes]:
        """The contents from `offset` to `end`, or to the end of the file."""
        while end is None or offset < end:
            data = self._vfs.read(handle, offset, READ_BYTES if end is None else min(READ_BYTES, end - offset))
            if not data:
                return
            yield data
            offset += len(data)

    def _next(self, handle: int, offset: int, whence: int) -> int | None:
        """Where the next data or hole begins; None if there is none."""
        try:
            return self._vfs.lseek(handle, offset, whence)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return None

    def put(self, place: Place, chunks: Iterable[Chunk], facts: Facts, *, keep_mode: bool = True) -> None:
        """Put a complete file, replacing any file of that name. Nobody ever sees half of it.

        `keep_mode`: use the mode of `facts` even if a file is replaced; otherwise keep the old file's mode.
        """
        with at(place.path):
            made = self._vfs.put_stream(
                place.parent,
                place.name,
                chunks,
                mode=facts.mode,
                atime_ns=facts.atime_ns,
                mtime_ns=facts.mtime_ns,
            )
            if keep_mode and stat.S_IMODE(made.mode) != facts.mode:
                self._vfs.setattr(made.ino, AttributeChanges(mode=facts.mode))

    def put_link(self, place: Place, target: bytes, facts: Facts) -> None:
        """Create a symbolic link, replacing an existing file or link."""
        with at(place.path):
            if place.found is not None:
                self._vfs.unlink(place.parent, place.name)
            made = self._vfs.symlink(place.parent, place.name, target, this_process())
            times = AttributeChanges(atime_ns=facts.atime_ns, mtime_ns=facts.mtime_ns)
            self._vfs.setattr(made.ino, times)

    def link_target(self, inode: int, path: bytes) -> bytes:
        """A symbolic link's target."""
        with at(path):
            return self._vfs.readlink(inode)

    def set_facts(self, inode: int, facts: Facts) -> None:
        """Set mode and times of an inode."""
        self._vfs.setattr(inode, AttributeChanges(mode=facts.mode, atime_ns=facts.atime_ns, mtime_ns=facts.mtime_ns))

    def make_folder(self, path: bytes) -> int:
        """Create a folder, and return its inode. Raises OSError (EEXIST, ENOENT, ...)."""
        place = self.find(path, follow=False)
        with at(path):
            if place.found is not None:
                raise posix_error(errno.EEXIST)
            return self._vfs.mkdir(place.parent, place.name, 0o777 & ~umask(), this_process()).ino

    def ensure_folder(self, path: bytes) -> int:
        """The inode of the folder at the path, which is created if nothing is there; its parent must exist."""
        place = self.find(path)
        with at(path):
            if place.found is None:
                return self.make_folder(path)
            if not place.is_folder():
                raise posix_error(errno.ENOTDIR)
            return place.found.ino

    def ensure_folders(self, path: bytes) -> None:
        """Make sure that the folder at the path and all those above it exist."""
        so_far = b""
        for name in path.split(b"/")[1:]:
            so_far += b"/" + name
            self.ensure_folder(so_far)

    def remove(self, path: bytes) -> None:
        """Remove a file, a link or an empty folder."""
        place = self.find(path, follow=False)
        with at(path):
            if place.found is None:
                raise posix_error(errno.ENOENT)
            if not place.name:
                raise OSError(errno.EBUSY, "the root folder stays")
            if place.is_folder():
                self._vfs.rmdir(place.parent, place.name)
            else:
                self._vfs.unlink(place.parent, place.name)

    def move(self, source: bytes, target: bytes) -> None:
        """Rename a file or a whole folder; a file or an empty folder at the target is replaced."""
        origin = self.find(source, follow=False)
        goal = self.find(target, follow=False)
        with at(source):
            if origin.found is None:
                raise posix_error(errno.ENOENT)
            if not origin.name:
                raise OSError(errno.EBUSY, "the root folder stays")
        with at(target):
            self._vfs.rename(origin.parent, origin.name, goal.parent, goal.name)

    def incomplete(self, files: Sequence[int]) -> set[int]:
        """Those of these inodes that cannot be assembled from the servers that answer."""
        return self._vfs.incomplete(files)

    def health(self, files: Sequence[int]) -> dict[int, Health]:
        """Where the pieces of these files are, by inode."""
        found: dict[int, Health] = {}
        for portion in by_count(files, FILES_AT_ONCE):
            found |= self._vfs.health(portion)
        return found

    def _walk(self, path: bytes, *, follow: bool) -> Place:
        trail: list[tuple[bytes, Attributes]] = [(b"", self._vfs.getattr(ROOT))]
        names = [name for name in reversed(path.split(b"/")) if name]
        links = 0
        while names:
            name = names.pop()
            folder = trail[-1][1]
            if not stat.S_ISDIR(folder.mode):
                raise posix_error(errno.ENOTDIR)
            if name in (b"", b"."):
                continue
            if name == b"..":  # from a link's target; those that were typed are resolved already
                if len(trail) > 1:
                    trail.pop()
                continue
            found = self._lookup(folder.ino, name)
            if found is None:
                if names:
                    raise posix_error(errno.ENOENT)
                return Place(path, folder.ino, name, None)
            if stat.S_ISLNK(found.mode) and (names or follow):
                links += 1
                target = self._vfs.readlink(found.ino)
                if links > MAX_LINKS:
                    raise posix_error(errno.ELOOP)
                if target.startswith(b"/"):
                    raise OSError(
                        errno.ENOENT,
                        "a symbolic link on the way points to a local path",
                    )
                names.extend(reversed(target.split(b"/")))
                continue
            trail.append((name, found))
        name, found = trail[-1]
        parent = trail[-2][1].ino if len(trail) > 1 else ROOT
        return Place(path, parent, name, found)

    def _lookup(self, folder: int, name: bytes) -> Attributes | None:
        try:
            return self._vfs.lookup(folder, name)
        except FileNotFoundError:
            return None


@contextmanager
def at(path: bytes) -> Iterator[None]:
    """Add this path to an OSError that does not have one."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        number = error.errno if error.errno is not None else errno.EIO
        raise OSError(number, error.strerror or os.strerror(number), path) from error
