"""The Vfs as a whole: options, free space, closing."""

from __future__ import annotations

import os

import pytest
from support.executors import Immediate
from support.memory_mounts import CALLER, ROOT, MemoryMounts
from support.memory_segments import NAMES

from dfsfuse.errors import ReadOnlyError
from dfsfuse.vfs.attributes import space_of
from dfsfuse.vfs.settings import MountSettings
from dfsfuse.vfs.vfs import Room, Vfs


def test_unknown_durability_is_refused() -> None:
    with pytest.raises(ValueError, match="close, fsync"):
        MountSettings(durability="never")


def test_statfs_shows_the_room_that_the_caller_passes_in(mounts: MemoryMounts) -> None:
    vfs = Vfs(mounts.map, mounts.segments, servers=NAMES, room=lambda: Room(40960, 8192), background=Immediate())
    space = vfs.statfs()
    assert (space.blocks, space.free, space.available, space.block_bytes) == (10, 2, 2, 4096)
    assert space.name_max == 255
    assert (space.files, space.files_free) == (0, 0), "the number of files has no limit, so none is shown as used up"
    vfs.close()


@pytest.mark.parametrize("total_bytes", [0, 4096, 2**44 - 1, 2**44, 2**50, 2**63 - 1])
def test_the_room_fits_into_the_numbers_of_32_bit_programs(total_bytes: int) -> None:
    space = space_of(Room(total_bytes, total_bytes // 3), 255)
    assert max(space.blocks, space.free, space.block_bytes) < 2**32
    assert total_bytes - space.block_bytes < space.blocks * space.block_bytes <= total_bytes
    assert space.block_bytes == 4096 or space.blocks >= 2**31


def test_closing_tells_what_could_not_be_saved_and_ends_all_the_same(mounts: MemoryMounts) -> None:
    vfs = Vfs(mounts.map, mounts.segments, servers=NAMES)
    for name in (b"a", b"b"):
        _, handle = vfs.create(ROOT, name, 0o644, os.O_RDWR, CALLER)
        vfs.write(handle, 0, b"x")
    mounts.map.is_writable = False
    with pytest.raises(ReadOnlyError):
        vfs.close()


def test_real_threads_do_the_same(mounts: MemoryMounts) -> None:
    vfs = Vfs(
        mounts.map,
        mounts.segments,
        servers=NAMES,
        settings=MountSettings(durability="fsync", dirty_limit_bytes=10 << 20),
    )
    data = os.urandom(30 << 20)
    attributes, handle = vfs.create(ROOT, b"f", 0o644, os.O_RDWR, CALLER)
    for offset in range(0, len(data), 1 << 20):
        vfs.write(handle, offset, data[offset : offset + (1 << 20)])
    vfs.flush(handle)
    vfs.release(handle)
    vfs.close()
    after = Vfs(mounts.map, mounts.segments, servers=NAMES)
    handle = after.open(attributes.ino, os.O_RDONLY)
    assert after.read(handle, 0, len(data) + 1) == data
    after.release(handle)
    after.close()
