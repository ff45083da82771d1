"""Access times: which reads count, and that they cost almost nothing. A mount's thread writes all of them before it
ends."""

from __future__ import annotations

import itertools
import os

import pytest
from support.memory_mounts import ROOT, MemoryMounts, close, names, read_file, write_file

from dfsfuse.errors import ReadOnlyError
from dfsfuse.vfs.caller import SUPERUSER
from dfsfuse.vfs.read.access_times import DAY_NS, due_ns
from dfsfuse.vfs.vfs import AttributeChanges, Vfs

NOW = 1_700_000_000_000_000_000


@pytest.fixture
def vfs(mounts: MemoryMounts) -> Vfs:
    """A mount that updates access times as mounts do by default."""
    return mounts.mount(atime="relatime")


def atime(mounts: MemoryMounts, name: bytes) -> int:
    """The access time that another mount sees."""
    return mounts.mount().lookup(ROOT, name).atime_ns


@pytest.mark.parametrize(
    ("rule", "atime_ns", "changed_ns", "expected"),
    [
        ("relatime", NOW - 10, NOW - 10, NOW),  # read after the file was made
        ("relatime", NOW - 10, NOW - 5, NOW),  # read after a change
        ("relatime", NOW - 5, NOW - 10, None),  # read before, and not changed since
        ("relatime", NOW - DAY_NS + 1, NOW - DAY_NS, None),
        ("relatime", NOW - DAY_NS, NOW - 2 * DAY_NS, NOW),  # once a day
        ("relatime", NOW + 5, NOW - 10, None),  # set ahead by hand
        ("relatime", NOW, NOW + 3600, NOW + 3601),  # changed by a client whose clock is ahead: once, not always
        ("relatime", NOW + 3601, NOW + 3600, None),
        ("strictatime", NOW - 5, NOW - 10, NOW),
        ("noatime", NOW - 10, NOW - 5, None),
    ],
)
def test_which_reads_count(rule: str, atime_ns: int, changed_ns: int, expected: int | None) -> None:
    assert due_ns(rule, atime_ns, changed_ns, NOW) == expected


def test_a_read_after_a_change_is_shown_at_once_and_written_by_the_end(mounts: MemoryMounts, vfs: Vfs) -> None:
    ino = write_file(vfs, b"f", b"content")
    before = vfs.getattr(ino)
    read_file(vfs, b"f")
    after = vfs.getattr(ino)
    assert after.atime_ns > before.ctime_ns
    assert (after.mtime_ns, after.ctime_ns) == (before.mtime_ns, before.ctime_ns)
    assert atime(mounts, b"f") == before.atime_ns  # the read did not wait for that
    vfs.close()
    assert atime(mounts, b"f") == after.atime_ns


def test_reading_alone_writes_access_times_once_a_day(mounts: MemoryMounts) -> None:
    writer = mounts.mount()
    for n in range(600):
        write_file(writer, b"%d" % n, b"content")
    committed = len(mounts.map.batches)
    for _ in range(3):
        reader = mounts.mount(atime="relatime")
        for n in range(600):
            read_file(reader, b"%d" % n)
            read_file(reader, b"%d" % n)
        reader.close()
    assert len(mounts.map.batches) == committed + 3  # 600 inodes, 256 in each batch
    mounts.now_ns += DAY_NS
    reader = mounts.mount(atime="relatime")
    read_file(reader, b"7")
    reader.close()
    assert len(mounts.map.batches) == committed + 4


def test_reading_what_is_not_saved_yet_counts_as_reading_after_that_change(mounts: MemoryMounts, vfs: Vfs) -> None:
    ino = write_file(vfs, b"f", b"content")
    read_file(vfs, b"f")
    handle = vfs.open(ino, os.O_RDWR)
    vfs.write(handle, 0, b"C")
    vfs.read(handle, 0, 10)
    assert vfs.getattr(ino).atime_ns > vfs.getattr(ino).mtime_ns
    close(vfs, handle)
    assert vfs.getattr(ino).atime_ns > vfs.getattr(ino).mtime_ns


def test_a_time_set_by_hand_wins_over_a_read_before_it(mounts: MemoryMounts, vfs: Vfs) -> None:
    here, there = write_file(vfs, b"here", b"content"), write_file(vfs, b"there", b"content")
    read_file(vfs, b"here")
    read_file(vfs, b"there")
    found_ns = mounts.mount().getattr(here).atime_ns
    vfs.setattr(here, AttributeChanges(atime_ns=found_ns))
    mounts.mount().setattr(there, AttributeChanges(atime_ns=7))
    assert (vfs.getattr(here).atime_ns, vfs.getattr(there).atime_ns) == (found_ns, 7)
    vfs.close()
    assert (atime(mounts, b"here"), atime(mounts, b"there")) == (found_ns, 7)


def test_other_changes_go_on_beside_it(mounts: MemoryMounts, vfs: Vfs) -> None:
    ino = write_file(vfs, b"f", b"content")
    read_file(vfs, b"f")
    shown = vfs.getattr(ino).atime_ns
    vfs.setattr(ino, AttributeChanges(mode=0o600))
    assert vfs.getattr(ino).atime_ns == shown
    vfs.close()
    found = mounts.mount().lookup(ROOT, b"f")
    assert (found.atime_ns, found.mode & 0o777) == (shown, 0o600)


def test_folders_and_links_too_but_not_what_only_opens_them(mounts: MemoryMounts, vfs: Vfs) -> None:
    folder = vfs.mkdir(ROOT, b"d", 0o755, SUPERUSER)
    link = vfs.symlink(ROOT, b"s", b"target", SUPERUSER)
    vfs.releasedir(vfs.opendir(folder.ino))
    assert vfs.getattr(folder.ino).atime_ns == folder.atime_ns
    names(vfs, folder.ino)
    vfs.readlink(link.ino)
    assert vfs.getattr(folder.ino).atime_ns > folder.atime_ns
    assert vfs.getattr(link.ino).atime_ns > link.atime_ns


def test_without_folders(mounts: MemoryMounts) -> None:
    vfs = mounts.mount(atime="relatime", diratime=False)
    folder = vfs.mkdir(ROOT, b"d", 0o755, SUPERUSER)
    ino = write_file(vfs, b"f", b"content")
    before = vfs.getattr(ino).atime_ns
    names(vfs, folder.ino)
    read_file(vfs, b"f")
    assert vfs.getattr(folder.ino).atime_ns == folder.atime_ns
    assert vfs.getattr(ino).atime_ns > before


def test_o_noatime(vfs: Vfs) -> None:
    ino = write_file(vfs, b"f", b"content")
    before = vfs.getattr(ino).atime_ns
    handle = vfs.open(ino, os.O_RDONLY | os.O_NOATIME)
    vfs.read(handle, 0, 10)
    close(vfs, handle)
    assert vfs.getattr(ino).atime_ns == before


@pytest.mark.parametrize("rule", ["relatime", "strictatime", "noatime"])
def test_rules(mounts: MemoryMounts, rule: str) -> None:
    vfs = mounts.mount(atime=rule)
    ino = write_file(vfs, b"f", b"content")
    times = [vfs.getattr(ino).atime_ns]
    for _ in range(2):
        read_file(vfs, b"f")
        times.append(vfs.getattr(ino).atime_ns)
    moved = [first != second for first, second in itertools.pairwise(times)]
    assert moved == {"relatime": [True, False], "strictatime": [True, True], "noatime": [False, False]}[rule]


def test_an_unknown_rule(mounts: MemoryMounts) -> None:
    with pytest.raises(ValueError, match="relatime"):
        mounts.mount(atime="sometimes")


def test_a_mount_that_cannot_write_reads_all_the_same(mounts: MemoryMounts, vfs: Vfs) -> None:
    write_file(vfs, b"f", b"content")
    write_file(vfs, b"g", b"content")
    read_file(vfs, b"g")
    before, committed = atime(mounts, b"f"), len(mounts.map.batches)
    mounts.map.is_writable = False
    mounts.segments.answering = {1, 3}
    assert read_file(vfs, b"f") == b"content"
    assert vfs.lookup(ROOT, b"f").atime_ns == before
    vfs.close()  # and the new access time of g is discarded
    assert len(mounts.map.batches) == committed


def test_no_read_waits_for_servers_that_are_down(
    mounts: MemoryMounts, vfs: Vfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only writers check with the servers whether nothing can be written, because the check takes time."""
    write_file(vfs, b"f", b"content")
    mounts.segments.answering = {1, 3}
    asked: list[None] = []
    monkeypatch.setattr(mounts.map, "writable", lambda: asked.append(None))
    assert read_file(vfs, b"f") == b"content"
    assert asked == []


def test_a_store_that_fails_loses_the_time_and_nothing_else(mounts: MemoryMounts, vfs: Vfs) -> None:
    def refuse(_: object) -> None:
        raise ReadOnlyError("gone")

    write_file(vfs, b"f", b"content")
    read_file(vfs, b"f")
    mounts.map.before_commit = refuse
    vfs.close()
    mounts.map.before_commit = lambda _: None
    assert read_file(mounts.mount(), b"f") == b"content"


def test_an_unexpected_exception_does_not_end_the_thread(mounts: MemoryMounts, vfs: Vfs) -> None:
    failures = iter([ValueError("nobody foresaw this")])

    def fail_once(_: object) -> None:
        if failure := next(failures, None):
            raise failure

    ino = write_file(vfs, b"f", b"content")
    read_file(vfs, b"f")
    mounts.map.before_commit = fail_once
    vfs._access_times.write()
    read_file(vfs, b"f")
    shown = vfs.getattr(ino).atime_ns
    vfs.close()
    assert atime(mounts, b"f") == shown


def test_a_file_that_is_gone_stays_gone(mounts: MemoryMounts, vfs: Vfs) -> None:
    write_file(vfs, b"f", b"content")
    read_file(vfs, b"f")
    vfs.unlink(ROOT, b"f")
    committed = len(mounts.map.batches)
    vfs.close()
    assert len(mounts.map.batches) == committed
