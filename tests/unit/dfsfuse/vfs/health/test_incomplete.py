"""Incomplete files: the second name that marks them, and the other policy, which refuses to open them."""

from __future__ import annotations

import errno
import os
import stat

import pytest
from support.memory_mounts import CALLER, ROOT, MemoryMounts, names, read_file, write_file

from dfsfuse.data.extents import REGION_BYTES
from dfsfuse.errors import IncompleteError
from dfsfuse.namespace.records import inode as records
from dfsfuse.namespace.records import keys
from dfsfuse.namespace.records.inode import Entry
from dfsfuse.vfs.health.incomplete import VERDICT_S, Policy
from dfsfuse.vfs.vfs import Vfs


def two_left(mounts: MemoryMounts, incomplete: Policy = Policy.MARK) -> Vfs:
    """A mount that only two neighbouring servers answer: `whole` is empty, `lost` lacks a piece."""
    vfs = mounts.mount(incomplete=incomplete)
    write_file(vfs, b"lost", b"x" * 1000)
    write_file(vfs, b"whole", b"")
    vfs.mkdir(ROOT, b"folder", 0o755, CALLER)
    mounts.segments.answering = {1, 2}
    return vfs


def test_incomplete_files_are_listed_as_such_and_opened_by_both_names(mounts: MemoryMounts) -> None:
    vfs = two_left(mounts)
    assert names(vfs) == [b"folder", b"lost [incomplete]", b"whole"]
    plain, marked = vfs.lookup(ROOT, b"lost"), vfs.lookup(ROOT, b"lost [incomplete]")
    assert plain == marked == vfs.resolve([b"lost [incomplete]"])
    with pytest.raises(IncompleteError):
        read_file(vfs, b"lost [incomplete]")


def test_with_all_servers_a_listing_checks_nothing(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", b"x" * 1000)
    mounts.segments.lose(1)
    mounts.segments.lose(2)
    assert names(vfs) == [b"f"]
    assert mounts.segments.missing_calls == 0
    assert vfs.incomplete([ino]) == {ino}
    assert vfs.lookup(ROOT, b"f [incomplete]").ino == ino


def test_one_server_less_and_nothing_is_marked(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    write_file(vfs, b"f", b"x" * 1000)
    mounts.segments.answering = {1, 3, 4}
    assert names(vfs) == [b"f"]
    assert mounts.segments.missing_calls == 1


def test_the_marked_name_of_a_complete_file_does_not_exist(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    write_file(vfs, b"f", b"x")
    for name in (b"f [incomplete]", b" [incomplete]", b"none [incomplete]"):
        with pytest.raises(FileNotFoundError):
            vfs.lookup(ROOT, name)
    write_file(vfs, b"f [incomplete]", b"a file of its own")
    assert read_file(vfs, b"f [incomplete]") == b"a file of its own"


def test_a_real_file_of_that_name_wins(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    write_file(vfs, b"f", b"x" * 1000)
    real = write_file(vfs, b"f [incomplete]", b"")
    mounts.segments.answering = {1, 2}
    assert names(vfs) == [b"f", b"f [incomplete]"]
    assert vfs.lookup(ROOT, b"f [incomplete]").ino == real


def test_a_name_that_would_be_too_long_stays_as_it_is(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    for length in (242, 243):
        write_file(vfs, b"n" * length, b"x" * 1000)
    mounts.segments.answering = {1, 2}
    assert names(vfs) == [b"n" * 242 + b" [incomplete]", b"n" * 243]


def test_it_is_removed_and_renamed_by_either_name(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    for name in (b"a", b"b", b"c"):
        write_file(vfs, name, b"x" * 1000)
    mounts.segments.lose(1)
    mounts.segments.lose(2)
    vfs.unlink(ROOT, b"a [incomplete]")
    vfs.unlink(ROOT, b"b")
    vfs.rename(ROOT, b"c [incomplete]", ROOT, b"d")
    assert names(vfs) == [b"d"]
    with pytest.raises(OSError) as caught:
        vfs.unlink(ROOT, b"d [incomplete] [incomplete]")
    assert caught.value.errno == errno.ENOENT


def test_a_verdict_is_kept_for_a_few_seconds_and_no_longer_than_the_servers_stay(
    mounts: MemoryMounts,
) -> None:
    vfs = two_left(mounts)
    names(vfs)
    names(vfs)
    assert mounts.segments.missing_calls == 1
    mounts.segments.answering = {1, 2, 3}
    assert names(vfs) == [b"folder", b"lost", b"whole"]
    assert mounts.segments.missing_calls == 2
    mounts.segments.lose(1)
    mounts.segments.lose(2)
    assert names(vfs) == [b"folder", b"lost", b"whole"]
    mounts.now_s += VERDICT_S + 1
    assert b"lost [incomplete]" in names(vfs)


def test_any_missing_segment_of_a_long_file_counts(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", bytes(2 * REGION_BYTES) + b"end")
    last = max(segment for server in mounts.segments.pieces.values() for segment, _ in server)
    for server in mounts.segments.pieces.values():
        server.pop((last, 2), None)
    assert vfs.incomplete([ino]) == {ino}
    handle = vfs.open(ino, os.O_RDONLY)
    assert vfs.read(handle, 0, 100) == bytes(100)
    vfs.release(handle)


# ------------------------------------------------------------------ the policy `REFUSE`


def test_where_it_is_refused_names_stay_and_files_that_cannot_be_put_together_are_not_opened(
    mounts: MemoryMounts,
) -> None:
    vfs = two_left(mounts, Policy.REFUSE)
    assert names(vfs) == [b"folder", b"lost", b"whole"]
    assert vfs.lookup(ROOT, b"lost").size == 1000
    ino = vfs.lookup(ROOT, b"lost").ino
    for flags in (os.O_RDONLY, os.O_RDWR, os.O_RDONLY | os.O_NONBLOCK):
        with pytest.raises(IncompleteError, match="start the missing servers"):
            vfs.open(ino, flags)
    assert IncompleteError.errno == errno.EIO
    assert read_file(vfs, b"whole") == b""
    with pytest.raises(FileNotFoundError):
        vfs.lookup(ROOT, b"lost [incomplete]")
    assert not vfs.is_open(ino)
    mounts.segments.answering = {1, 2, 3}
    assert read_file(vfs, b"lost") == b"x" * 1000


def test_where_it_is_refused_what_needs_no_data_is_opened(mounts: MemoryMounts) -> None:
    vfs = two_left(mounts, Policy.REFUSE)
    ino = vfs.lookup(ROOT, b"lost").ino
    for flags in (os.O_WRONLY, os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_TRUNC):
        vfs.release(vfs.open(ino, flags))


def test_where_it_is_refused_each_open_asks_anew(mounts: MemoryMounts) -> None:
    """Even if the file was complete a moment ago: otherwise a program would hit the error halfway through it."""
    vfs = mounts.mount(incomplete=Policy.REFUSE)
    ino = write_file(vfs, b"f", b"x" * 1000)
    held = vfs.open(ino, os.O_RDONLY)
    mounts.segments.lose(1)
    mounts.segments.lose(2)
    with pytest.raises(IncompleteError):
        vfs.open(ino, os.O_RDONLY)
    with pytest.raises(IncompleteError):
        vfs.read(held, 0, 1000)
    vfs.release(held)


def listed_name(mounts: MemoryMounts, name: bytes, ino: int) -> None:
    entry = records.encode(Entry(records.FORMAT, ino, stat.S_IFREG))
    mounts.map.items = mounts.map.items | {keys.entry(ROOT, name): entry}


@pytest.mark.parametrize("policy", Policy)
def test_a_listed_name_without_an_inode_is_an_error_and_no_removed_file(mounts: MemoryMounts, policy: Policy) -> None:
    vfs = mounts.mount(incomplete=policy)
    write_file(vfs, b"f", b"")
    listed_name(mounts, b"bad", 77)
    with pytest.raises(OSError, match="dfc fsck") as caught:
        vfs.lookup(ROOT, b"bad")
    assert caught.value.errno == errno.EIO


def test_where_it_is_refused_a_folder_that_lacks_names_is_not_listed(mounts: MemoryMounts) -> None:
    writer, vfs = mounts.mount(), mounts.mount(incomplete=Policy.REFUSE)
    for name in (b"a", b"b"):
        write_file(writer, name, b"")
    assert names(vfs) == [b"a", b"b"]
    mounts.map.items = {key: value for key, value in mounts.map.items.items() if key != keys.entry(ROOT, b"b")}
    assert names(writer) == [b"a"]
    with pytest.raises(OSError, match="1 of 2 names") as caught:
        vfs.opendir(ROOT)
    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize("policy", Policy)
def test_a_folder_with_an_entry_that_cannot_be_read_is_not_listed(mounts: MemoryMounts, policy: Policy) -> None:
    vfs = mounts.mount(incomplete=policy)
    write_file(vfs, b"a", b"")
    mounts.map.items = mounts.map.items | {keys.entry(ROOT, b"b"): b"\xc1"}
    with pytest.raises(OSError) as caught:
        vfs.opendir(ROOT)
    assert caught.value.errno == errno.EIO
    assert vfs.lookup(ROOT, b"a").size == 0
