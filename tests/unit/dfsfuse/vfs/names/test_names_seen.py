"""Hints about the names by which inodes were found."""

from __future__ import annotations

from support.memory_mounts import ROOT, MemoryMounts, create

from dfsfuse.vfs.caller import SUPERUSER
from dfsfuse.vfs.names.names_seen import NamesSeen


def test_paths_are_put_together_and_follow_renames() -> None:
    names = NamesSeen()
    names.saw(ROOT, b"folder", 2)
    names.saw(2, b"file.tmp", 3)
    names.saw(2, b".", 2)
    assert names.path(3) == b"folder/file.tmp"
    names.moved(2, b"file.tmp", 2, b"file")
    names.moved(ROOT, b"folder", ROOT, b"other")
    names.moved(ROOT, b"nobody saw this", ROOT, b"x")
    assert names.path(3) == b"other/file"
    assert names.path(ROOT) == b""
    assert names.path(9) is None


def test_a_ring_of_old_hints_is_no_path() -> None:
    names = NamesSeen()
    names.saw(3, b"a", 2)
    names.saw(2, b"b", 3)
    assert names.path(2) is None


def test_the_older_half_goes() -> None:
    names = NamesSeen(max_names=10)
    for ino in range(2, 100):
        names.saw(ROOT, b"%d" % ino, ino)
    assert names.path(99) == b"99" and names.path(2) is None
    assert len(names._names) <= 10 and len(names._inodes) <= 10


def test_of_a_file_with_many_names_one_after_the_other_the_last_is_kept() -> None:
    names = NamesSeen()
    for number in range(100):
        names.saw(ROOT, b"%d" % number, 7)
    names.saw(ROOT, b"0", 8)
    names.saw(ROOT, b"another", 7)
    assert (names.path(7), names.path(8)) == (b"another", b"0")
    assert len(names._names) == len(names._inodes) == 2


def test_a_mount_knows_the_names_of_what_it_made_found_and_moved(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    folder = vfs.mkdir(ROOT, b"folder", 0o755, SUPERUSER).ino
    ino, handle = create(vfs, b"file")
    vfs.rename(ROOT, b"file", folder, b"moved")
    other = mounts.mount()
    assert other.resolve([b"folder", b"moved"]).ino == ino
    assert [one._names.path(ino) for one in (vfs, other)] == [b"folder/moved"] * 2
    looked = mounts.mount()
    looked.lookup(ROOT, b"folder")
    looked.lookup(folder, b"moved")
    assert looked._names.path(ino) == b"folder/moved"
    vfs.release(handle)
