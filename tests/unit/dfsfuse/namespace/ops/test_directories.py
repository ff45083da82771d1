"""Names are made and removed as on a local file system, errno by errno."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from support.errnos import fails
from support.memory_map import MemoryMap

from dfsfuse.namespace.ops import directories, inodes
from dfsfuse.namespace.records import keys
from dfsfuse.namespace.records.inode import Inode
from dfsfuse.namespace.records.keys import ROOT

FILE, FOLDER, LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777


class Space:
    """A namespace whose clock counts transactions."""

    def __init__(self) -> None:
        self.map = MemoryMap()
        self.now_ns = 100
        self.next = 10

    def do(self, work: Callable[[Any], Any]) -> Any:
        self.now_ns += 1
        return self.map.transact(work)

    def make(self, name: bytes, mode: int = FILE, parent: int = ROOT) -> int:
        self.next += 1
        ino = self.next
        self.do(
            lambda tx: directories.make(
                tx, parent, name, ino, inodes.new(mode, 1, 2, self.now_ns, parent=parent), self.now_ns
            )
        )
        return ino

    def inode(self, ino: int) -> Inode:
        return self.map.read(lambda view: inodes.load(view, ino))

    def unlink(self, name: bytes, parent: int = ROOT) -> directories.Removed:
        found: directories.Removed = self.do(lambda tx: directories.unlink(tx, parent, name, self.now_ns))
        return found

    def rmdir(self, name: bytes, parent: int = ROOT) -> None:
        self.do(lambda tx: directories.rmdir(tx, parent, name, self.now_ns))

    def link(self, ino: int, name: bytes, parent: int = ROOT) -> None:
        self.do(lambda tx: directories.link(tx, ino, parent, name, self.now_ns))

    def names(self, ino: int = ROOT) -> list[bytes]:
        return [name for name, _ in self.map.read(lambda view: directories.scan(view, ino))]


@pytest.fixture
def space() -> Space:
    return Space()


@pytest.mark.parametrize(
    ("name", "number"),
    [
        (b"", errno.ENOENT),
        (b".", errno.EINVAL),
        (b"..", errno.EINVAL),
        (b"a/b", errno.EINVAL),
        (b"a\0", errno.EINVAL),
        (b"x" * 256, errno.ENAMETOOLONG),
    ],
)
def test_what_cannot_be_a_name_is_refused(space: Space, name: bytes, number: int) -> None:
    before = dict(space.map.items)
    fails(number, lambda: space.make(name))
    fails(number, lambda: space.unlink(name))
    assert space.map.items == before


@pytest.mark.parametrize("name", [b"x" * 255, b"new\nline", b"\xff\xfe", b"...", b" "])
def test_any_other_bytes_are_a_name(space: Space, name: bytes) -> None:
    space.make(name)
    assert space.names() == [name]


def test_a_taken_name_and_a_missing_or_wrong_parent(space: Space) -> None:
    ino = space.make(b"f")
    fails(errno.EEXIST, lambda: space.make(b"f"))
    fails(errno.ENOENT, lambda: space.make(b"g", parent=999))
    fails(errno.ENOTDIR, lambda: space.make(b"g", parent=ino))
    fails(errno.ENOTDIR, lambda: space.unlink(b"g", parent=ino))
    fails(errno.ENOENT, lambda: space.unlink(b"g", parent=999))


def test_folders_count_their_entries_and_folders(space: Space) -> None:
    folder = space.make(b"d", FOLDER)
    space.make(b"f", parent=folder)
    space.make(b"e", FOLDER, parent=folder)
    assert (space.inode(folder).size, space.inode(folder).nlink, space.inode(ROOT).nlink) == (2, 3, 3)
    fails(errno.ENOTEMPTY, lambda: space.rmdir(b"d"))
    space.rmdir(b"e", folder)
    space.unlink(b"f", folder)
    assert (space.inode(folder).size, space.inode(folder).nlink) == (0, 2)
    space.rmdir(b"d")
    assert (space.inode(ROOT).size, space.inode(ROOT).nlink) == (0, 2)
    fails(errno.ENOENT, lambda: space.inode(folder))


def test_changing_entries_changes_the_folders_times(space: Space) -> None:
    for change in (
        lambda: space.make(b"f"),
        lambda: space.make(b"d", FOLDER),
        lambda: space.rmdir(b"d"),
        lambda: space.unlink(b"f"),
    ):
        change()
        assert (space.inode(ROOT).mtime_ns, space.inode(ROOT).ctime_ns) == (space.now_ns, space.now_ns)


def test_unlink_is_for_files_and_rmdir_for_folders(space: Space) -> None:
    space.make(b"d", FOLDER)
    space.make(b"f")
    fails(errno.EISDIR, lambda: space.unlink(b"d"))
    fails(errno.ENOTDIR, lambda: space.rmdir(b"f"))
    fails(errno.ENOENT, lambda: space.rmdir(b"g"))


def test_hard_links_count_names_and_change_ctime_only(space: Space) -> None:
    ino = space.make(b"a")
    made_ns = space.now_ns
    space.link(ino, b"b")
    inode = space.inode(ino)
    assert (inode.nlink, inode.mtime_ns, inode.ctime_ns) == (2, made_ns, space.now_ns)
    assert space.unlink(b"a").inode.nlink == 1
    removed = space.unlink(b"b")
    assert (removed.ino, removed.inode.nlink, removed.inode.ctime_ns) == (ino, 0, space.now_ns)
    fails(errno.ENOENT, lambda: space.link(ino, b"c"))


def test_a_file_with_too_many_names_gets_no_more(space: Space) -> None:
    ino = space.make(b"a")
    full = msgspec.structs.replace(space.inode(ino), nlink=inodes.LINKS_MAX - 1)
    space.map.transact(lambda tx: inodes.save(tx, ino, full))
    space.link(ino, b"b")
    fails(errno.EMLINK, lambda: space.link(ino, b"c"))
    assert space.inode(ino).nlink == inodes.LINKS_MAX


def test_a_folder_gets_no_second_name(space: Space) -> None:
    folder = space.make(b"d", FOLDER)
    fails(errno.EPERM, lambda: space.link(folder, b"e"))
    fails(errno.EEXIST, lambda: space.link(folder, b"d"))


def test_a_set_group_id_folder_passes_on_its_group(space: Space) -> None:
    folder = space.make(b"d", FOLDER | stat.S_ISGID)
    assert space.inode(space.make(b"f", parent=folder)).gid == space.inode(folder).gid
    below = space.inode(space.make(b"e", FOLDER, parent=folder))
    assert below.mode & stat.S_ISGID
    link = space.inode(space.make(b"l", LINK, parent=folder))
    assert not link.mode & stat.S_ISGID


def test_replace_puts_a_file_in_the_place_of_another(space: Space) -> None:
    old = space.make(b"f")
    new = inodes.new(FILE, 1, 2, 5)
    removed = space.do(lambda tx: directories.replace(tx, ROOT, b"f", 77, new, space.now_ns))
    assert (removed.ino, removed.inode.nlink) == (old, 0)
    assert space.map.read(lambda view: directories.lookup(view, ROOT, b"f")).ino == 77
    assert space.inode(ROOT).size == 1
    assert space.do(lambda tx: directories.replace(tx, ROOT, b"g", 78, new, space.now_ns)) is None
    assert space.inode(ROOT).size == 2
    space.make(b"d", FOLDER)
    fails(errno.EISDIR, lambda: space.do(lambda tx: directories.replace(tx, ROOT, b"d", 79, new, 0)))


def test_an_entry_that_cannot_be_read_is_an_io_error_and_no_missing_file(space: Space) -> None:
    space.map.items = {**space.map.items, keys.entry(ROOT, b"f"): b"junk"}
    fails(errno.EIO, lambda: space.map.read(lambda view: directories.lookup(view, ROOT, b"f")))
