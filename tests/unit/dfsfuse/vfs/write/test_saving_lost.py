"""A failed save, or the loss of an answered change, is reported through every handle that was open then."""

from __future__ import annotations

import errno
import os

import pytest
from support.errnos import fails
from support.executors import Held
from support.memory_mounts import ROOT, MemoryMounts, close, create, region

from dfsfuse.errors import UnavailableError
from dfsfuse.namespace.records import keys


def test_changes_that_were_answered_and_lost_are_told_by_each_file_that_was_open_then(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino, one = create(vfs, b"f")
    other, folder = vfs.open(ino, os.O_RDONLY), vfs.opendir(ROOT)
    mounts.map.losses.add(UnavailableError("overtaken"))
    early = vfs.opendir(ROOT)  # nothing was reported yet, and this handle may be opened to make sure of a rename
    for tell in (
        lambda: vfs.flush(one),
        lambda: vfs.fsync(other),
        lambda: vfs.fsyncdir(folder),
        lambda: vfs.fsyncdir(early),
    ):
        with pytest.raises(UnavailableError):
            tell()
        tell()
    late, late_folder = vfs.open(ino, os.O_RDWR), vfs.opendir(ROOT)
    vfs.fsync(late)
    vfs.fsyncdir(late_folder)
    for handle in (folder, early, late_folder):
        vfs.releasedir(handle)
    close(vfs, one, other, late)


@pytest.mark.parametrize("durability", ["close", "fsync"])
def test_data_that_was_given_up_is_told_by_each_handle(mounts: MemoryMounts, durability: str) -> None:
    background = Held()
    vfs, other = mounts.mount(durability=durability, background=background), mounts.mount()
    ino, one = create(vfs, b"f")
    two, reader = vfs.open(ino, os.O_RDWR), vfs.open(ino, os.O_RDONLY)
    vfs.write(one, 0, b"one")
    vfs.write(two, 3, b"two")
    other.unlink(ROOT, b"f")
    assert keys.inode(ino) not in mounts.map.items
    if durability == "fsync":
        vfs.flush(one)  # saved later
        background.run()
    fails(errno.ESTALE, lambda: vfs.flush(one))
    vfs.flush(one)
    fails(errno.ESTALE, lambda: vfs.flush(two))
    fails(errno.ESTALE, lambda: vfs.fsync(reader))
    vfs.fsync(reader)
    close(vfs, one, two, reader)
    assert not vfs.is_open(ino)


def test_what_cannot_be_saved_later_now_can_be_the_next_time(mounts: MemoryMounts) -> None:
    background = Held()
    vfs = mounts.mount(durability="fsync", background=background)
    ino, handle = create(vfs, b"f")
    vfs.write(handle, 0, b"data")
    table = vfs._table
    table._being_deleted.add(ino)
    fails(errno.ENOENT, lambda: vfs.flush(handle))
    table.end_deletion(ino)
    vfs.flush(handle)
    background.run()
    assert region(mounts, ino).end() == 4
    close(vfs, handle)
