"""Names through the Vfs: what the namespace's own tests cannot see."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

import pytest
from support.memory_mounts import CALLER, ROOT, MemoryMounts, close, names, write_file

from dfsfuse.errors import UnavailableError
from dfsfuse.namespace.ops.renames import EXCHANGE, NOREPLACE
from dfsfuse.namespace.records import keys
from dfsfuse.namespace.records.inode import Inode
from dfsfuse.vfs.attributes import Attributes


def fails(number: int, action: Callable[[], object]) -> None:
    with pytest.raises(OSError) as caught:
        action()
    assert caught.value.errno == number


def test_every_type_of_file_is_made_and_told(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    fifo = vfs.mknod(ROOT, b"p", stat.S_IFIFO | 0o600, 0, CALLER)
    device = vfs.mknod(ROOT, b"c", stat.S_IFCHR | 0o600, os.makedev(1, 3), CALLER)
    plain = vfs.mknod(ROOT, b"f", 0o600, 0, CALLER)
    folder = vfs.mkdir(ROOT, b"d", 0o700 | stat.S_ISVTX, CALLER)
    link = vfs.symlink(ROOT, b"l", b"some/where", CALLER)
    assert stat.S_ISFIFO(fifo.mode) and stat.S_ISREG(plain.mode)
    assert (device.rdev, device.mode) == (os.makedev(1, 3), stat.S_IFCHR | 0o600)
    assert folder.mode == stat.S_IFDIR | stat.S_ISVTX | 0o700
    assert (link.size, link.mode, vfs.readlink(link.ino)) == (10, stat.S_IFLNK | 0o777, b"some/where")
    fails(errno.EINVAL, lambda: vfs.readlink(plain.ino))
    fails(errno.EINVAL, lambda: vfs.mknod(ROOT, b"x", stat.S_IFDIR, 0, CALLER))
    assert len({made.ino for made in (fifo, device, plain, folder, link)}) == 5


def test_targets_of_symbolic_links_have_a_length(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    assert vfs.symlink(ROOT, b"l", b"x" * 4095, CALLER).size == 4095
    fails(errno.ENAMETOOLONG, lambda: vfs.symlink(ROOT, b"m", b"x" * 4096, CALLER))
    fails(errno.ENOENT, lambda: vfs.symlink(ROOT, b"m", b"", CALLER))


def test_o_excl_and_a_folder_of_that_name(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    write_file(vfs, b"f", b"")
    vfs.mkdir(ROOT, b"d", 0o755, CALLER)
    fails(errno.EEXIST, lambda: vfs.create(ROOT, b"f", 0o644, os.O_EXCL | os.O_RDWR, CALLER))
    fails(errno.EISDIR, lambda: vfs.create(ROOT, b"d", 0o644, os.O_RDWR, CALLER))
    fails(errno.ENAMETOOLONG, lambda: vfs.create(ROOT, b"x" * 256, 0o644, os.O_RDWR, CALLER))
    assert vfs._files._table.all() == []


def test_inode_numbers_are_stable_and_hard_links_are_one_file(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", b"one")
    vfs.link(ino, ROOT, b"g")
    vfs.rename(ROOT, b"f", ROOT, b"h")
    handle = vfs.open(ino, os.O_RDWR)
    vfs.write(handle, 3, b" two")
    assert vfs.lookup(ROOT, b"g") == vfs.lookup(ROOT, b"h")
    assert vfs.lookup(ROOT, b"g").size == 7
    close(vfs, handle)
    assert vfs.lookup(ROOT, b"h").nlink == 2
    vfs.rename(ROOT, b"g", ROOT, b"h")
    assert names(vfs) == [b"g", b"h"]


def test_rename_flags(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    a, b = write_file(vfs, b"a", b""), write_file(vfs, b"b", b"")
    fails(errno.EEXIST, lambda: vfs.rename(ROOT, b"a", ROOT, b"b", NOREPLACE))
    vfs.rename(ROOT, b"a", ROOT, b"b", EXCHANGE)
    assert (vfs.lookup(ROOT, b"a").ino, vfs.lookup(ROOT, b"b").ino) == (b, a)


def test_the_dots(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    folder = vfs.mkdir(ROOT, b"d", 0o755, CALLER).ino
    below = vfs.mkdir(folder, b"e", 0o755, CALLER).ino
    assert vfs.lookup(below, b"..").ino == folder
    assert vfs.lookup(below, b".").ino == below
    vfs.rename(folder, b"e", ROOT, b"e")
    assert vfs.lookup(below, b"..").ino == ROOT
    fails(errno.EINVAL, lambda: vfs.rmdir(folder, b"."))
    fails(errno.ENOTEMPTY, lambda: vfs.rmdir(folder, b".."))


def test_paths_in_one_step(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    folder = vfs.mkdir(ROOT, b"d", 0o755, CALLER).ino
    ino = write_file(vfs, b"f", b"", folder)
    assert vfs.resolve([]).ino == ROOT
    assert vfs.resolve([b"d", b"f"]).ino == ino
    fails(errno.ENOENT, lambda: vfs.resolve([b"d", b"x"]))
    fails(errno.ENOENT, lambda: vfs.resolve([b"x", b"f"]))
    fails(errno.ENOTDIR, lambda: vfs.resolve([b"d", b"f", b"x"]))


def test_a_name_whose_record_is_missing_is_an_io_error_and_no_missing_file(mounts: MemoryMounts) -> None:
    """A mirroring program that has seen the name would take ENOENT for a removed file, and delete its copy."""
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", b"")
    del mounts.map.items[keys.inode(ino)]
    assert b"f" in names(vfs)
    fails(errno.EIO, lambda: vfs.lookup(ROOT, b"f"))
    fails(errno.EIO, lambda: vfs.resolve([b"f"]))


def test_nothing_is_made_where_nothing_can_be_written(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    write_file(vfs, b"f", b"")
    before = dict(mounts.map.items)
    mounts.map.is_writable = False
    for action in (
        lambda: vfs.mkdir(ROOT, b"d", 0o755, CALLER),
        lambda: vfs.create(ROOT, b"g", 0o644, os.O_RDWR, CALLER),
        lambda: vfs.rename(ROOT, b"f", ROOT, b"g"),
        lambda: vfs.unlink(ROOT, b"f"),
    ):
        with pytest.raises(Exception, match="do not answer") as caught:
            action()
        assert caught.value.errno == errno.EROFS  # type: ignore[attr-defined]
    assert mounts.map.items == before
    assert names(vfs) == [b"f"]
    assert vfs._files._table.all() == []


def test_names_that_were_listed_are_looked_up_at_once(mounts: MemoryMounts) -> None:
    vfs = mounts.mount(grace_s=10.0)
    inos = [write_file(vfs, b"%d" % number, b"x" * number) for number in range(3)]
    vfs.link(inos[2], ROOT, b"again")
    told: list[tuple[bytes, int]] = []
    found = vfs.lookup_listed(ROOT, [b"0", b"gone", b"2", b"again"], told.extend)
    assert [one and (one.ino, one.size) for one in found] == [(inos[0], 0), None, (inos[2], 2), (inos[2], 2)]
    assert told == [(b"0", inos[0]), (b"2", inos[2]), (b"again", inos[2])]
    vfs.forget(inos[2])
    assert vfs.is_held(inos[2]), "each name that was looked up counts"
    vfs.forget(inos[2])
    assert [vfs.is_held(ino) for ino in inos] == [True, False, False]
    vfs.unlink(ROOT, b"0")
    assert vfs.getattr(inos[0]).nlink == 0, "it still has a lookup that was not forgotten"
    vfs.forget(inos[0])


def test_what_is_being_deleted_is_not_held_by_a_listing(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", b"")
    assert vfs._table.begin_deletion(ino)
    assert vfs.lookup_listed(ROOT, [b"f"], lambda found: None) == [None]
    assert not vfs.is_held(ino)


def test_nothing_is_held_where_a_listing_cannot_be_looked_up(
    mounts: MemoryMounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    vfs = mounts.mount()
    inos = [write_file(vfs, b"%d" % number, b"") for number in range(2)]

    def fails(ino: int, inode: Inode) -> Attributes:
        raise UnavailableError(f"no server answers about {ino}: {inode.size}")

    monkeypatch.setattr(vfs._files, "attributes", fails)
    with pytest.raises(UnavailableError):
        vfs.lookup_listed(ROOT, [b"0", b"1"], lambda found: None)
    assert not any(map(vfs.is_held, inos))
