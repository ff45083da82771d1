"""Closing a file whose data could not be saved: it is saved later, unless a program was told that close() failed."""

from __future__ import annotations

import os

import pytest
from support.memory_mounts import ROOT, MemoryMounts, close, create, read_file

from dfs_server.protocol.batches import Batch
from dfsfuse.errors import ReadOnlyError, UnavailableError
from dfsfuse.vfs.vfs import Vfs
from dfsfuse.vfs.write.schedule import RETRY_MAX_S

LIMIT = 1000


def fail_to_close(vfs: Vfs, handle: int, *, is_reported: bool) -> None:
    """Do what a binding does when close() fails."""
    with pytest.raises(ReadOnlyError):
        vfs.flush(handle)
    vfs.close_failed(handle, is_reported=is_reported)


def save_again(mounts: MemoryMounts, vfs: Vfs) -> None:
    """Let the servers accept data again, and let time pass."""
    mounts.map.is_writable = True
    mounts.now_s += 60
    vfs.background_saver.save_due()


def test_an_unreported_failure_is_retried_soon_however_young_the_data_is(mounts: MemoryMounts) -> None:
    vfs, other = mounts.mount(), mounts.mount()
    vfs._backlog._schedule.save_after_s = 1000.0  # as with `-o commit`
    _, handle = create(vfs)
    vfs.write(handle, 0, b"data")

    def refuse(_: bytes) -> None:
        raise UnavailableError("too few servers answer")

    mounts.segments.before_write = refuse
    vfs.release(handle, keep=True)
    mounts.segments.before_write = lambda _: None
    mounts.now_s += RETRY_MAX_S
    vfs.background_saver.save_due()
    assert read_file(other, b"f") == b"data"


@pytest.mark.parametrize("durability", ["close", "fsync"])
def test_data_is_saved_later_if_no_program_was_told_that_close_failed(mounts: MemoryMounts, durability: str) -> None:
    """As when a program is killed and the kernel closes its files."""
    vfs, other = mounts.mount(durability=durability), mounts.mount()
    _, handle = create(vfs)
    vfs.write(handle, 0, b"data")
    mounts.map.is_writable = False
    if durability == "close":
        fail_to_close(vfs, handle, is_reported=False)
    else:
        vfs.flush(handle)
    vfs.release(handle, keep=True)
    assert read_file(vfs, b"f") == b"data"
    save_again(mounts, vfs)
    assert read_file(other, b"f") == b"data"
    assert vfs._uploads.budget.held_bytes == 0
    assert not vfs._files._table.all()


def test_what_is_let_go_without_a_close_or_before_it_has_failed_is_saved_later(mounts: MemoryMounts) -> None:
    vfs, other = mounts.mount(), mounts.mount()
    _, handle = create(vfs)
    vfs.write(handle, 0, b"data")
    mounts.map.is_writable = False
    vfs.release(handle, keep=True)
    vfs.close_failed(handle, is_reported=False)  # too late: the handle is gone
    save_again(mounts, vfs)
    assert read_file(other, b"f") == b"data"


def test_what_a_program_heard_of_is_given_up(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino, handle = create(vfs)
    vfs.write(handle, 0, b"lost")
    mounts.map.is_writable = False
    fail_to_close(vfs, handle, is_reported=True)
    vfs.release(handle, keep=True)
    assert vfs.getattr(ino).size == 0
    assert vfs._uploads.budget.held_bytes == 0
    save_again(mounts, vfs)
    assert read_file(vfs, b"f") == b""


def test_what_was_written_by_a_mapping_after_a_close_that_failed_is_saved_later(mounts: MemoryMounts) -> None:
    vfs, other = mounts.mount(), mounts.mount()
    _, handle = create(vfs)
    vfs.write(handle, 0, b"data")
    mounts.map.is_writable = False
    fail_to_close(vfs, handle, is_reported=True)
    mounts.map.is_writable = True  # for a moment, since write() is refused without servers
    vfs.write(handle, 4, b" more")
    mounts.map.is_writable = False
    vfs.release(handle, keep=True)
    save_again(mounts, vfs)
    assert read_file(other, b"f") == b"data more"


def test_of_two_programs_that_share_an_open_file_the_one_that_was_not_told_counts(mounts: MemoryMounts) -> None:
    """After a fork: the child's close() reports the failure, and then its parent is killed."""
    vfs, other = mounts.mount(), mounts.mount()
    _, handle = create(vfs)
    vfs.write(handle, 0, b"data")
    mounts.map.is_writable = False
    fail_to_close(vfs, handle, is_reported=True)
    fail_to_close(vfs, handle, is_reported=False)
    vfs.release(handle, keep=True)
    save_again(mounts, vfs)
    assert read_file(other, b"f") == b"data"


def test_a_reader_keeps_nothing_of_what_the_writer_heard_of(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino, handle = create(vfs)
    reader = vfs.open(ino, os.O_RDONLY)
    vfs.write(handle, 0, b"lost")
    mounts.map.is_writable = False
    fail_to_close(vfs, handle, is_reported=True)
    vfs.release(handle, keep=True)
    vfs.flush(reader)
    vfs.release(reader, keep=True)
    assert vfs.getattr(ino).size == 0


def test_of_a_file_that_was_removed_here_nothing_is_kept(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    _, handle = create(vfs)
    vfs.write(handle, 0, b"data")
    vfs.unlink(ROOT, b"f")
    mounts.map.is_writable = False
    vfs.flush(handle)
    vfs.release(handle, keep=True)
    assert vfs._uploads.budget.held_bytes == 0


def test_what_is_kept_counts_as_memory_and_further_writes_are_refused_until_it_is_saved(mounts: MemoryMounts) -> None:
    vfs = mounts.mount(dirty_limit_bytes=LIMIT)

    def refuse(_: Batch) -> None:
        raise UnavailableError("too few servers answer")

    for name in (b"killed", b"next"):
        _, handle = create(vfs, name)
        vfs.write(handle, 0, b"x" * (LIMIT // 2))
        mounts.map.before_commit = refuse
        with pytest.raises(UnavailableError):
            vfs.flush(handle)
        vfs.release(handle, keep=True)
        mounts.map.before_commit = lambda _: None
    assert vfs._uploads.budget.held_bytes == LIMIT
    ino, handle = create(vfs, b"writer")
    mounts.map.before_commit = refuse
    with pytest.raises(UnavailableError, match="waits in memory"):
        vfs.write(handle, 0, b"more")
    assert vfs._uploads.budget.held_bytes == LIMIT
    mounts.map.before_commit = lambda _: None
    mounts.now_s += 60
    vfs.write(handle, 0, b"more")
    close(vfs, handle)
    assert vfs.getattr(ino).size == 4
    assert read_file(mounts.mount(), b"killed") == read_file(mounts.mount(), b"next") == b"x" * (LIMIT // 2)


def test_what_is_kept_is_left_over_when_the_mount_ends_without_servers(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino, handle = create(vfs)
    vfs.write(handle, 0, b"data")
    mounts.map.is_writable = False
    fail_to_close(vfs, handle, is_reported=False)
    vfs.release(handle, keep=True)
    assert isinstance(vfs.ending.save_all(0.0, lambda _: None), ReadOnlyError)
    (left,) = vfs.ending.left_over()
    assert left.ino == ino
    vfs.ending.abandon()
    vfs.close()


@pytest.mark.parametrize(
    ("flags", "is_followed"),
    [(os.O_WRONLY, True), (os.O_RDWR, True), (os.O_RDWR | os.O_EXCL, True), (os.O_RDONLY, False)],
)
def test_the_name_of_a_new_file_is_left_to_the_close_of_its_writer(
    mounts: MemoryMounts, flags: int, *, is_followed: bool
) -> None:
    create(mounts.mount(), b"f", flags)
    assert mounts.map.are_followed[-1] == is_followed
