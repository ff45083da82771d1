"""rename works as on a local file system, and random operations keep the invariants of directories."""

from __future__ import annotations

import errno
import random
import stat
from collections import Counter

import msgspec
import pytest
from support.errnos import fails
from support.memory_map import MemoryMap

from dfsfuse.namespace.ops import directories, inodes, renames
from dfsfuse.namespace.ops.directories import Removed
from dfsfuse.namespace.ops.renames import EXCHANGE, NOREPLACE, WHITEOUT
from dfsfuse.namespace.records import inode as records
from dfsfuse.namespace.records import keys
from dfsfuse.namespace.records.inode import Inode
from dfsfuse.namespace.records.keys import ROOT

FILE, FOLDER = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755


class Space:
    """A namespace with folders d (which contains e) and d2, and files f and g."""

    def __init__(self) -> None:
        self.map = MemoryMap()
        self.now_ns = 100
        self.next = 10
        self.d = self.make(b"d", FOLDER)
        self.e = self.make(b"e", FOLDER, self.d)
        self.d2 = self.make(b"d2", FOLDER)
        self.f = self.make(b"f")
        self.g = self.make(b"g")

    def make(self, name: bytes, mode: int = FILE, parent: int = ROOT) -> int:
        self.next += 1
        self.now_ns += 1
        ino = self.next
        new = inodes.new(mode, 1, 2, self.now_ns, parent=parent)
        self.map.transact(lambda tx: directories.make(tx, parent, name, ino, new, self.now_ns))
        return ino

    def rename(self, old: bytes, new: bytes, parent: int = ROOT, to: int = ROOT, flags: int = 0) -> Removed | None:
        self.now_ns += 1
        self.next += 1
        left = renames.whiteout(self.next, 7, 8, self.now_ns)
        return self.map.transact(lambda tx: renames.rename(tx, parent, old, to, new, self.now_ns, flags, left))

    def inode(self, ino: int) -> Inode:
        return self.map.read(lambda view: inodes.load(view, ino))

    def find(self, name: bytes, parent: int = ROOT) -> int | None:
        found = self.map.read(lambda view: directories.find(view, parent, name))
        return found.ino if found else None


@pytest.fixture
def space() -> Space:
    return Space()


def test_a_file_moves_and_only_its_ctime_changes(space: Space) -> None:
    mtime_ns = space.inode(space.f).mtime_ns
    assert space.rename(b"f", b"h", to=space.d) is None
    assert (space.find(b"f"), space.find(b"h", space.d)) == (None, space.f)
    assert (space.inode(space.f).mtime_ns, space.inode(space.f).ctime_ns) == (mtime_ns, space.now_ns)
    for folder in (ROOT, space.d):
        assert space.inode(folder).mtime_ns == space.inode(folder).ctime_ns == space.now_ns


def test_a_file_replaces_a_file(space: Space) -> None:
    removed = space.rename(b"f", b"g")
    assert removed is not None and (removed.ino, removed.inode.nlink) == (space.g, 0)
    assert (space.find(b"f"), space.find(b"g")) == (None, space.f)


def test_a_whole_folder_moves_with_one_small_batch(space: Space) -> None:
    space.rename(b"d", b"moved", to=space.d2)
    assert space.inode(space.d).parent == space.d2
    assert (space.inode(ROOT).nlink, space.inode(space.d2).nlink) == (3, 3)
    assert space.find(b"e", space.d) == space.e
    assert len(space.map.batches[-1].puts) + len(space.map.batches[-1].deletes) <= 5


def test_a_folder_replaces_only_an_empty_folder(space: Space) -> None:
    fails(errno.ENOTEMPTY, lambda: space.rename(b"d2", b"d"))
    fails(errno.ENOTDIR, lambda: space.rename(b"d2", b"f"))
    fails(errno.EISDIR, lambda: space.rename(b"f", b"d2"))
    replaced = space.rename(b"d", b"d2")
    assert replaced is not None
    assert replaced.inode.nlink == 0
    assert space.find(b"d2") == space.d
    assert space.inode(ROOT).nlink == 3
    fails(errno.ENOENT, lambda: space.inode(space.d2))


def test_a_folder_does_not_move_into_itself(space: Space) -> None:
    fails(errno.EINVAL, lambda: space.rename(b"d", b"x", to=space.d))
    fails(errno.EINVAL, lambda: space.rename(b"d", b"x", to=space.e))
    fails(errno.EINVAL, lambda: space.rename(b"d", b"x", to=space.e, flags=NOREPLACE))
    fails(errno.ENOTEMPTY, lambda: space.rename(b"e", b"d", parent=space.d))


def test_what_is_missing_or_no_folder(space: Space) -> None:
    fails(errno.ENOENT, lambda: space.rename(b"x", b"y"))
    fails(errno.ENOENT, lambda: space.rename(b"f", b"y", to=999))
    fails(errno.ENOTDIR, lambda: space.rename(b"f", b"y", to=space.g))
    fails(errno.EINVAL, lambda: space.rename(b"f", b".."))
    fails(errno.ENAMETOOLONG, lambda: space.rename(b"f", b"y" * 256))
    fails(errno.EINVAL, lambda: space.rename(b"f", b"y", flags=NOREPLACE | EXCHANGE))
    fails(errno.EINVAL, lambda: space.rename(b"f", b"y", flags=8))


def test_two_names_of_one_file_stay(space: Space) -> None:
    space.map.transact(lambda tx: directories.link(tx, space.f, ROOT, b"f2", 1))
    before = dict(space.map.items)
    assert space.rename(b"f", b"f2") is None
    assert space.rename(b"f", b"f") is None
    assert space.map.items == before


def test_noreplace_leaves_what_is_there(space: Space) -> None:
    fails(errno.EEXIST, lambda: space.rename(b"f", b"g", flags=NOREPLACE))
    fails(errno.EEXIST, lambda: space.rename(b"f", b"f", flags=NOREPLACE))
    space.rename(b"f", b"h", flags=NOREPLACE)
    assert space.find(b"h") == space.f


def test_exchange_swaps_anything_with_anything(space: Space) -> None:
    space.rename(b"f", b"e", to=space.d, flags=EXCHANGE)
    assert (space.find(b"f"), space.find(b"e", space.d)) == (space.e, space.f)
    assert space.inode(space.e).parent == ROOT
    assert (space.inode(ROOT).nlink, space.inode(space.d).nlink) == (5, 2)
    fails(errno.ENOENT, lambda: space.rename(b"f", b"none", flags=EXCHANGE))
    fails(errno.EINVAL, lambda: space.rename(b"d", b"e", to=space.d, flags=EXCHANGE))


def test_exchange_with_a_folder_above_is_refused(space: Space) -> None:
    fails(errno.EINVAL, lambda: space.rename(b"e", b"d", parent=space.d, flags=EXCHANGE))


def check_invariants(items: dict[bytes, bytes]) -> None:
    """Check what directories.py promises about every committed state."""
    known = {
        int.from_bytes(key[2:], "big"): records.decode_inode(value)
        for key, value in items.items()
        if key.startswith(b"i/")
    }
    entries = [
        (int.from_bytes(key[2:10], "big"), records.decode_entry(value))
        for key, value in items.items()
        if key.startswith(b"d/")
    ]
    named = Counter(entry.ino for _, entry in entries)
    sizes = Counter(parent for parent, _ in entries)
    folders = Counter(parent for parent, entry in entries if entry.is_directory)
    for parent, entry in entries:
        assert known[entry.ino].mode & 0o170000 == entry.type
        assert not entry.is_directory or known[entry.ino].parent == parent
    for ino, inode in known.items():
        if inode.is_directory:
            assert (inode.size, inode.nlink) == (sizes[ino], 2 + folders[ino])
            assert named[ino] == (ino != ROOT)
            steps = 0
            while ino != ROOT:
                ino, steps = known[ino].parent, steps + 1
                assert steps < 1000, "a loop of folders"
        else:
            assert inode.nlink == named[ino]


@pytest.mark.parametrize("seed", range(10))
def test_random_operations_keep_the_invariants(seed: int) -> None:
    rng = random.Random(seed)
    space = Space()
    names = [b"a", b"b", b"c", b"d", b"e"]

    def folders() -> list[int]:
        return [
            int.from_bytes(key[2:], "big")
            for key, value in space.map.items.items()
            if key.startswith(b"i/") and records.decode_inode(value).is_directory
        ]

    def step() -> None:
        parent, other = rng.choice(folders()), rng.choice(folders())
        name, new_name = rng.choice(names), rng.choice(names)
        match rng.randrange(7):
            case 0:
                space.make(name, FILE, parent)
            case 1:
                space.make(name, FOLDER, parent)
            case 2:
                space.map.transact(lambda tx: directories.unlink(tx, parent, name, 1))
            case 3:
                space.map.transact(lambda tx: directories.rmdir(tx, parent, name, 1))
            case 4:
                space.map.transact(lambda tx: directories.link(tx, space.f, parent, name, 1))
            case 5:
                space.rename(name, new_name, parent, other)
            case _:
                space.rename(name, new_name, parent, other, rng.choice([NOREPLACE, EXCHANGE]))

    done = 0
    for _ in range(300):
        try:
            step()
            done += 1
        except OSError:
            pass
        check_invariants(space.map.items)
    assert done > 50
    assert keys.inode(ROOT) in space.map.items


def test_a_whiteout_stays_at_the_old_name(space: Space) -> None:
    entries = space.inode(ROOT).size
    space.rename(b"f", b"new", flags=WHITEOUT)
    assert space.find(b"new") == space.f
    left = space.find(b"f")
    assert left is not None
    inode = space.inode(left)
    assert (inode.mode, inode.rdev, inode.nlink, inode.uid, inode.gid) == (stat.S_IFCHR, 0, 1, 7, 8)
    assert space.inode(ROOT).size == entries + 1
    fails(errno.EEXIST, lambda: space.rename(b"g", b"new", flags=WHITEOUT | NOREPLACE))
    fails(errno.EINVAL, lambda: space.rename(b"g", b"new", flags=WHITEOUT | EXCHANGE))
    removed = space.rename(b"g", b"new", flags=WHITEOUT)
    assert removed is not None
    assert removed.ino == space.f
    assert space.find(b"g") not in (None, space.g)


def test_a_folder_that_is_moved_with_a_whiteout_leaves_no_folder(space: Space) -> None:
    links = space.inode(ROOT).nlink
    space.rename(b"d", b"inside", to=space.d2, flags=WHITEOUT)
    assert space.inode(ROOT).nlink == links - 1
    assert space.inode(space.d).parent == space.d2
    left = space.find(b"d")
    assert left is not None
    assert stat.S_ISCHR(space.inode(left).mode)


def test_a_folder_that_has_too_many_folders_gets_no_more(space: Space) -> None:
    full = msgspec.structs.replace(space.inode(space.d2), nlink=inodes.LINKS_MAX)
    space.map.transact(lambda tx: inodes.save(tx, space.d2, full))
    fails(errno.EMLINK, lambda: space.rename(b"d", b"d", to=space.d2))
    fails(errno.EMLINK, lambda: space.make(b"x", FOLDER, space.d2))
    space.rename(b"f", b"f", to=space.d2)
    assert space.find(b"d") == space.d
