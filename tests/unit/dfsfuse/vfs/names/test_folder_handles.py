"""Listing folders."""

from __future__ import annotations

import errno
import stat

import pytest
from support.memory_mounts import CALLER, ROOT, MemoryMounts, names, write_file

from dfsfuse.namespace.ops import directories, inodes
from dfsfuse.namespace.records import inode as records
from dfsfuse.namespace.records import keys
from dfsfuse.namespace.records.inode import Entry
from dfsfuse.vfs.attributes import AttributeChanges
from dfsfuse.vfs.vfs import Vfs


def test_a_listing_has_types_inodes_and_the_two_dots(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    folder = vfs.mkdir(ROOT, b"d", 0o755, CALLER).ino
    below = vfs.mkdir(folder, b"e", 0o755, CALLER).ino
    file = write_file(vfs, b"\xff\n", b"", folder)
    link = vfs.symlink(folder, b"l", b"t", CALLER).ino
    handle = vfs.opendir(folder)
    found = list(vfs.readdir(handle, 0))
    vfs.releasedir(handle)
    assert [(entry.name, entry.ino, entry.type) for entry in found] == [
        (b".", folder, stat.S_IFDIR),
        (b"..", ROOT, stat.S_IFDIR),
        (b"e", below, stat.S_IFDIR),
        (b"l", link, stat.S_IFLNK),
        (b"\xff\n", file, stat.S_IFREG),
    ]


def test_offsets_are_stable_while_the_folder_changes(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    for number in range(10):
        write_file(vfs, b"%d" % number, b"")
    handle = vfs.opendir(ROOT)
    first = [entry for entry, _ in zip(vfs.readdir(handle, 0), range(5), strict=False)]
    vfs.unlink(ROOT, b"1")
    vfs.unlink(ROOT, b"7")
    write_file(vfs, b"00", b"")
    rest = list(vfs.readdir(handle, first[-1].offset))
    assert [entry.name for entry in first + rest][2:] == [b"%d" % number for number in range(10)]
    assert list(vfs.readdir(handle, rest[-1].offset)) == []
    vfs.releasedir(handle)
    assert b"7" not in names(vfs)


def test_reading_from_the_start_begins_anew(mounts: MemoryMounts) -> None:
    vfs, other = mounts.mount(), mounts.mount()
    write_file(vfs, b"a", b"")
    handle = vfs.opendir(ROOT)
    assert _listed(vfs, handle) == [b"a"]
    vfs.unlink(ROOT, b"a")
    write_file(other, b"b", b"")
    assert _listed(vfs, handle, offset=2) == [b"a"], "continuing a listing reads the state in which it began"
    assert _listed(vfs, handle) == [b"b"]
    vfs.releasedir(handle)


def test_each_later_reading_from_the_start_sees_what_other_mounts_did(mounts: MemoryMounts) -> None:
    """This also holds while this mount knows only an older state of the folder, for which its listing is current."""
    vfs, other = mounts.mount(lagging=True), mounts.mount()
    handle = vfs.opendir(ROOT)
    assert _listed(vfs, handle) == []
    write_file(other, b"a", b"")
    assert _listed(vfs, handle) == [b"a"]
    other.unlink(ROOT, b"a")
    assert _listed(vfs, handle) == []
    vfs.releasedir(handle)


def test_the_first_reading_sees_what_has_changed_since_the_folder_was_opened(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    handle = vfs.opendir(ROOT)
    write_file(vfs, b"a", b"")
    assert _listed(vfs, handle) == [b"a"]
    vfs.releasedir(handle)


@pytest.mark.parametrize("between", ["nothing", "chmod", "setxattr", "moved"])
def test_that_also_holds_for_changes_within_one_tick_of_the_clock(
    mounts: MemoryMounts, monkeypatch: pytest.MonkeyPatch, between: str
) -> None:
    monkeypatch.setattr(MemoryMounts, "clock", lambda _: 7_000_000_000)
    vfs = mounts.mount()
    folder = vfs.mkdir(ROOT, b"d", 0o755, CALLER).ino
    write_file(vfs, b"a", b"", folder)
    write_file(vfs, b"b", b"", folder)
    handle = vfs.opendir(folder)
    if between == "chmod":
        vfs.setattr(folder, AttributeChanges(mode=0o700))
    elif between == "setxattr":
        vfs.setxattr(folder, b"user.a", b"1")
    elif between == "moved":
        vfs.rename(ROOT, b"d", ROOT, b"e")
    vfs.rename(folder, b"a", folder, b"c")
    assert _listed(vfs, handle) == [b"b", b"c"]
    vfs.releasedir(handle)


def test_a_folder_that_was_removed_meanwhile_is_empty(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    folder = vfs.mkdir(ROOT, b"d", 0o755, CALLER).ino
    write_file(vfs, b"f", b"", folder)
    handles = [vfs.opendir(folder), vfs.opendir(folder)]
    assert _listed(vfs, handles[0]) == [b"f"]
    vfs.unlink(folder, b"f")
    vfs.rmdir(ROOT, b"d")
    for handle in handles:
        assert list(vfs.readdir(handle)) == []
        vfs.releasedir(handle)


def test_listing_a_folder_that_has_not_changed_reads_it_once(
    mounts: MemoryMounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    vfs = mounts.mount()
    write_file(vfs, b"a", b"")
    handle = vfs.opendir(ROOT)
    with monkeypatch.context() as patched:
        patched.delattr(directories, "scan")
        assert _listed(vfs, handle) == [b"a"]
    vfs.releasedir(handle)


def _listed(vfs: Vfs, handle: int, offset: int = 0) -> list[bytes]:
    return [entry.name for entry in vfs.readdir(handle, offset) if entry.name not in (b".", b"..")]


def test_a_large_folder_is_listed_in_one_pass(mounts: MemoryMounts) -> None:
    count = 5000
    folder = records.encode(inodes.new(stat.S_IFREG | 0o644, 1, 1, 1))
    root = inodes.new_root(5)
    mounts.map.items = {
        keys.inode(ROOT): records.encode(_with_size(root, count)),
        **{keys.inode(ino): folder for ino in range(2, count + 2)},
        **{
            keys.entry(ROOT, b"%06d" % ino): records.encode(Entry(records.FORMAT, ino, stat.S_IFREG))
            for ino in range(2, count + 2)
        },
    }
    vfs = mounts.mount()
    handle = vfs.opendir(ROOT)
    offset, found = 0, 0
    while portion := [entry for entry, _ in zip(vfs.readdir(handle, offset), range(700), strict=False)]:
        offset, found = portion[-1].offset, found + len(portion)
    assert found == count + 2
    vfs.releasedir(handle)
    assert len(vfs.list_folder(ROOT)) == count


def _with_size(inode: records.Inode, size: int) -> records.Inode:
    fields = {name: getattr(inode, name) for name in inode.__struct_fields__}
    return records.Inode(**{**fields, "size": size})


def test_only_folders_are_listed(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", b"")
    for bad, number in ((ino, errno.ENOTDIR), (999, errno.ENOENT)):
        with pytest.raises(OSError) as caught:
            vfs.opendir(bad)
        assert caught.value.errno == number
    for action in (vfs.releasedir, vfs.readdir):
        with pytest.raises(OSError) as caught:
            action(999)
        assert caught.value.errno == errno.EBADF


def test_the_roots_parent_is_the_root_and_its_first_look_makes_it(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    assert vfs.lookup(ROOT, b"..").ino == ROOT
    found = vfs.getattr(ROOT)
    assert found.mtime_ns == mounts.now_ns
    assert vfs.getattr(ROOT) == found
    assert len(mounts.map.batches) == 1


def test_fsync_of_a_folder_waits_until_all_names_are_durable(
    mounts: MemoryMounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(mounts.map, "flush", lambda _: flushed.append(1))
    vfs = mounts.mount()
    handle = vfs.opendir(ROOT)
    vfs.fsyncdir(handle)
    assert flushed == [1]
    vfs.releasedir(handle)
    with pytest.raises(OSError, match="Bad file descriptor"):
        vfs.fsyncdir(handle)
