"""Names: lookup, make, link, remove, rename. Each is one transaction; errors are those of a local file system.

An incomplete file is also found under its listed name (incomplete.py), which is tried if the plain one does not exist.

Threads: stateless.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TypeVar

from dfsfuse.errors import posix_error
from dfsfuse.namespace.map.transactions import Transaction, View
from dfsfuse.namespace.ops import directories, inodes, renames
from dfsfuse.namespace.ops.directories import TARGET_MAX_BYTES, Removed, Route
from dfsfuse.namespace.records.inode import Inode
from dfsfuse.namespace.records.keys import ROOT
from dfsfuse.vfs.caller import Caller
from dfsfuse.vfs.context import Context
from dfsfuse.vfs.health.incomplete import Incomplete
from dfsfuse.vfs.names.removal import delete_or_orphan
from dfsfuse.vfs.open.open_files import OpenFiles
from dfsfuse.vfs.read.access_times import AccessTimes

T = TypeVar("T")
Found = tuple[int, Inode]


class Tree:
    """See the module."""

    def __init__(self, context: Context, files: OpenFiles, incomplete: Incomplete, access_times: AccessTimes) -> None:
        self._context = context
        self._files = files
        self._incomplete = incomplete
        self._access_times = access_times

    # ------------------------------------------------------------------ finding

    def lookup(
        self, parent: int, name: bytes, *, holds: bool = False, found_as: Callable[[bytes, int], None] | None = None
    ) -> Found:
        """What has this name in the folder. `.` and `..` too. `holds`: see `Caller`. `found_as` is called with the real
        name and the inode before anything newer is known: it must not wait for anything."""

        def answered(name: bytes, ino: int) -> None:
            if holds:
                self._files.hold(ino)
            if found_as is not None:
                found_as(name, ino)

        def find(name: bytes) -> Found:
            return self._read(lambda view: _step(view, parent, name), lambda found: answered(name, found[0]))

        return self._by_either_name(parent, name, find)

    def lookup_listed(
        self, parent: int, names: Sequence[bytes], found_as: Callable[[Sequence[tuple[bytes, int]]], None]
    ) -> list[Found | None]:
        """What has these names in the folder, in one read; each is held until it is forgotten. None: there is no such
        name, or it is known under its listed name only (`lookup` finds it), or its record is missing. `found_as` is
        called with names and inodes before anything newer is known: it must not wait for anything."""

        def find(view: View) -> list[Found | None]:
            entries = directories.find_many(view, parent, names)
            records = iter(inodes.find_many(view, [entry.ino for entry in entries if entry is not None]))
            found: list[Found | None] = []
            for entry in entries:
                inode = None if entry is None else next(records)
                found.append(None if entry is None or inode is None else (entry.ino, inode))
            return found

        def answered(found: list[Found | None]) -> None:
            held = iter(self._files.hold_many([one[0] for one in found if one is not None]))
            found[:] = [one if one is not None and next(held) else None for one in found]
            found_as([(name, one[0]) for name, one in zip(names, found, strict=True) if one is not None])

        return self._context.store.read(find, max_age_s=self._context.max_age_s, answered=answered)

    def resolve(self, names: Sequence[bytes], *, newest: bool = False) -> tuple[list[int], Inode]:
        """Return what each name of a path, from the root on, leads to, and the record of the last; symbolic links are
        not followed.

        `newest`: in the newest state, as open(2) must see it.
        """

        def walk(view: View) -> tuple[list[int], Inode]:
            inodes_found: list[int] = []
            ino = ROOT
            for name in names[:-1]:
                ino = directories.lookup(view, ino, name).ino
                inodes_found.append(ino)
            if names:
                ino, inode = _step(view, ino, names[-1])
                return [*inodes_found, ino], inode
            return [], inodes.load(view, ino)

        try:
            return self._context.store.read(walk) if newest else self._read(walk)
        except FileNotFoundError:
            slowly: list[int] = []
            found = ROOT, self._read(lambda view: inodes.load(view, ROOT))
            for name in names:  # slowly, since any of the names may be a listed one
                found = self.lookup(found[0], name)
                slowly.append(found[0])
            return slowly, found[1]

    def get(self, ino: int) -> Inode:
        """Return the inode's record. The first one to look at the root of a new namespace creates it."""
        inode = self._read(lambda view: inodes.load(view, ino))
        if ino == ROOT and not inode.ctime_ns and self._context.store.writable():
            now_ns = self._context.clock()
            return self._context.store.transact(lambda tx: inodes.make_root(tx, now_ns))
        return inode

    def readlink(self, ino: int) -> bytes:
        """Return the target of a symbolic link. Raises OSError (EINVAL)."""
        inode = self.get(ino)
        if not stat.S_ISLNK(inode.mode):
            raise posix_error(errno.EINVAL)
        self._access_times.read(ino, inode)
        return inode.target

    # ------------------------------------------------------------------ making

    def make(self, parent: int, name: bytes, mode: int, caller: Caller, *, rdev: int = 0, target: bytes = b"") -> Found:
        """Create an inode of the type in `mode` under a free name."""
        if len(target) > TARGET_MAX_BYTES:
            raise posix_error(errno.ENAMETOOLONG)
        if stat.S_ISLNK(mode) and not target:
            raise posix_error(errno.ENOENT)
        ino = self._context.numbers.take()
        now_ns = self._context.clock()
        new = inodes.new(mode, caller.uid, caller.gid, now_ns, rdev=rdev, target=target, parent=parent)
        with self._holding(ino) if caller.holds else nullcontext():
            return ino, self._transact(lambda tx: directories.make(tx, parent, name, ino, new, now_ns), caller.route)

    def link(self, ino: int, parent: int, name: bytes, caller: Caller) -> Inode:
        """Add a name to a file."""
        now_ns = self._context.clock()
        with self._holding(ino) if caller.holds else nullcontext():
            return self._transact(lambda tx: directories.link(tx, ino, parent, name, now_ns), caller.route)

    @contextmanager
    def _holding(self, ino: int) -> Iterator[None]:
        """Hold it, unless this fails."""
        self._files.hold(ino)
        try:
            yield
        except BaseException:
            self._files.forget(ino, 1)
            raise

    # ------------------------------------------------------------------ removing and moving

    def unlink(self, parent: int, name: bytes, caller: Caller) -> None:
        """Remove a name; with the last one the file goes too, once it is no longer in use here."""
        now_ns = self._context.clock()

        def remove(name: bytes) -> None:
            self._remove(lambda tx: directories.unlink(tx, parent, name, now_ns), caller.route)

        self._by_either_name(parent, name, remove)

    def rmdir(self, parent: int, name: bytes, caller: Caller) -> None:
        """Remove an empty folder."""
        if name == b".":
            raise posix_error(errno.EINVAL)
        if name == b"..":
            raise posix_error(errno.ENOTEMPTY)
        now_ns = self._context.clock()
        self._remove(lambda tx: directories.rmdir(tx, parent, name, now_ns), caller.route)

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int, caller: Caller) -> None:
        """Move an entry, replacing what is there. The caller owns the whiteout that may be left behind."""
        now_ns = self._context.clock()
        left = None
        if flags & renames.WHITEOUT:
            left = renames.whiteout(self._context.numbers.take(), caller.uid, caller.gid, now_ns)

        def move(name: bytes) -> None:
            def work(tx: Transaction) -> Removed | None:
                return renames.rename(tx, parent, name, new_parent, new_name, now_ns, flags=flags, left=left)

            self._remove(work, caller.route)

        self._by_either_name(parent, name, move)

    def replace(self, parent: int, name: bytes, ino: int, fill: Callable[[Transaction, Inode | None], Inode]) -> Inode:
        """Put a nameless file in the place of whatever file has this name. `fill` creates its record, within the
        transaction and given that of the other file."""
        now_ns = self._context.clock()
        made: list[Inode] = []

        def work(tx: Transaction) -> Removed | None:
            old = directories.find(tx, parent, name)
            if old is not None and old.is_directory:
                raise posix_error(errno.EISDIR)
            inode = fill(tx, None if old is None else inodes.load(tx, old.ino))
            made[:] = [inode]
            return directories.replace(tx, parent, name, ino, inode, now_ns)

        self._remove(work)
        return made[0]

    def _remove(self, work: Callable[[Transaction], Removed | None], route: Route = ()) -> None:
        """Run a transaction that may remove a last name, and handle the inode then."""
        nameless: set[int] = set()

        def and_delete(tx: Transaction) -> int | None:
            removed = work(tx)
            if removed is None:
                return None
            nameless.add(removed.ino)
            return removed.ino if delete_or_orphan(tx, removed, self._files, self._context) else None

        try:
            orphan = self._transact(and_delete, route)
        finally:
            for ino in nameless:
                self._files.end_deletion(ino)
        if orphan is not None:
            self._files.orphaned(orphan)

    # ------------------------------------------------------------------ helpers

    def _transact(self, work: Callable[[Transaction], T], route: Route) -> T:
        """Names need not be durable when they are answered; close() and fsync() ensure that."""

        def by_this_route(tx: Transaction) -> T:
            directories.check_route(tx, route)
            return work(tx)

        return self._context.store.transact(by_this_route, durable=False)

    def _read(self, work: Callable[[View], T], answered: Callable[[T], None] | None = None) -> T:
        """Read a state that may be a little old; but only the newest state is trusted to say that something does not
        exist."""
        return self._context.store.read(
            work, max_age_s=self._context.max_age_s, doubted=FileNotFoundError, answered=answered
        )

    def _by_either_name(self, parent: int, name: bytes, action: Callable[[bytes], T]) -> T:
        """Run the action with the plain name; if there is no such name, with the one that is listed like this."""
        try:
            return action(name)
        except FileNotFoundError:
            real_name = self._incomplete.real_name(parent, name)
            if real_name is None:
                raise
        return action(real_name)


def _step(view: View, parent: int, name: bytes) -> Found:
    if name in (b".", b".."):
        folder = inodes.load_directory(view, parent)
        ino = parent if name == b"." else folder.parent
    else:
        ino = directories.lookup(view, parent, name).ino
    found = inodes.find(view, ino)
    if found is None:  # not ENOENT: to a mirroring program that has seen the name listed, this would be a removed file
        raise posix_error(errno.EIO, f"inode {ino} has a name and is missing: `dfc fsck` tells more")
    return ino, found
