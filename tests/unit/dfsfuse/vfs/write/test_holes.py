"""fallocate, and lseek for data and holes."""

from __future__ import annotations

import errno
import os

from support.errnos import fails
from support.executors import Held
from support.memory_mounts import CALLER, ROOT, MemoryMounts, close

from dfsfuse.data.extents import REGION_BYTES
from dfsfuse.vfs.vfs import Vfs
from dfsfuse.vfs.write.holes import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE
from dfsfuse.vfs.write.regions import STEP_REGIONS


def new(vfs: Vfs) -> tuple[int, int]:
    attributes, handle = vfs.create(ROOT, b"f", 0o644, os.O_RDWR, CALLER)
    return attributes.ino, handle


def layout(vfs: Vfs, handle: int) -> list[tuple[int, int]]:
    """All ranges of data, as lseek finds them."""
    found, at = [], 0
    while True:
        try:
            start = vfs.lseek(handle, at, os.SEEK_DATA)
        except OSError as error:
            assert error.errno == errno.ENXIO
            return found
        at = vfs.lseek(handle, start, os.SEEK_HOLE)
        found.append((start, at))


def test_data_and_holes_are_found(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino, handle = new(vfs)
    assert layout(vfs, handle) == []
    vfs.write(handle, 10, b"x" * 10)
    vfs.write(handle, REGION_BYTES - 5, b"y" * 10)
    vfs.fsync(handle)
    vfs.write(handle, 20, b"not saved yet")
    vfs.fallocate(handle, 0, 3 * REGION_BYTES)
    assert layout(vfs, handle) == [(10, 33), (REGION_BYTES - 5, REGION_BYTES + 5)]
    assert vfs.lseek(handle, 0, os.SEEK_HOLE) == 0
    assert vfs.lseek(handle, 15, os.SEEK_HOLE) == 33
    assert vfs.lseek(handle, 3 * REGION_BYTES - 1, os.SEEK_HOLE) == 3 * REGION_BYTES - 1
    assert vfs.getattr(ino).size == 3 * REGION_BYTES
    fails(errno.ENXIO, lambda: vfs.lseek(handle, 3 * REGION_BYTES, os.SEEK_HOLE))
    fails(errno.ENXIO, lambda: vfs.lseek(handle, 2 * REGION_BYTES, os.SEEK_DATA))
    for whence in (os.SEEK_DATA, os.SEEK_HOLE):
        fails(errno.ENXIO, lambda whence=whence: vfs.lseek(handle, -1, whence))
    fails(errno.EINVAL, lambda: vfs.lseek(handle, 0, os.SEEK_END))
    close(vfs, handle)


def test_a_hole_is_punched(mounts: MemoryMounts) -> None:
    vfs = mounts.mount(compaction=Held())
    ino, handle = new(vfs)
    vfs.write(handle, 0, b"a" * (2 * REGION_BYTES + 100))
    vfs.fsync(handle)
    before = len(mounts.map.drops)
    vfs.fallocate(handle, 50, 2 * REGION_BYTES, PUNCH_HOLE | KEEP_SIZE)
    assert layout(vfs, handle) == [(0, 50), (2 * REGION_BYTES + 50, 2 * REGION_BYTES + 100)]
    assert len(mounts.map.drops) == before + 1
    assert vfs.read(handle, 40, 20) == b"a" * 10 + bytes(10)
    assert vfs.read(handle, 2 * REGION_BYTES + 40, 100) == bytes(10) + b"a" * 50
    attributes = vfs.getattr(ino)
    assert (attributes.size, attributes.blocks) == (2 * REGION_BYTES + 100, 1)
    vfs.fallocate(handle, 0, 1 << 50, PUNCH_HOLE | KEEP_SIZE)
    assert layout(vfs, handle) == []
    assert vfs.getattr(ino).blocks == 0
    close(vfs, handle)


def test_a_range_of_zeros(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino, handle = new(vfs)
    vfs.write(handle, 0, b"a" * 100)
    vfs.fallocate(handle, 90, 20, ZERO_RANGE | KEEP_SIZE)
    assert vfs.getattr(ino).size == 100
    vfs.fallocate(handle, 80, 120, ZERO_RANGE)
    assert vfs.read(handle, 0, 1000) == b"a" * 80 + bytes(120)
    close(vfs, handle)


def test_a_size_is_kept_or_reached(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino, handle = new(vfs)
    vfs.fallocate(handle, 0, 1000, KEEP_SIZE)
    assert vfs.getattr(ino).size == 0
    vfs.fallocate(handle, 500, 500)
    vfs.fallocate(handle, 0, 10)
    assert vfs.getattr(ino).size == 1000
    close(vfs, handle)


def test_many_regions_are_cleared_in_steps(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino, handle = new(vfs)
    count = STEP_REGIONS + 10
    for index in range(count):
        vfs.write(handle, index * REGION_BYTES, b"x")
    vfs.fsync(handle)
    before = len(mounts.map.batches)
    vfs.fallocate(handle, REGION_BYTES, count * REGION_BYTES, PUNCH_HOLE | KEEP_SIZE)
    assert len(mounts.map.batches) == before + 2
    assert layout(vfs, handle) == [(0, 1)]
    assert vfs.getattr(ino).size == (count - 1) * REGION_BYTES + 1
    close(vfs, handle)


def test_what_is_refused(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino, handle = new(vfs)
    fails(errno.EINVAL, lambda: vfs.fallocate(handle, 0, 0))
    fails(errno.EINVAL, lambda: vfs.fallocate(handle, -1, 5))
    fails(errno.EFBIG, lambda: vfs.fallocate(handle, 2**63 - 1, 5))
    fails(errno.EOPNOTSUPP, lambda: vfs.fallocate(handle, 0, 5, PUNCH_HOLE))
    fails(errno.EOPNOTSUPP, lambda: vfs.fallocate(handle, 0, 5, 0x20))
    close(vfs, handle)
    handle = vfs.open(ino, os.O_RDONLY)
    fails(errno.EBADF, lambda: vfs.fallocate(handle, 0, 5))
    close(vfs, handle)
