"""The value that identifies a file's content: it changes with whatever others can change, and with nothing else."""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec
import pytest
from support.memory_mounts import MemoryMounts, create, write_file

from dfsfuse.data.extents import REGION_BYTES
from dfsfuse.namespace.records import inode as records
from dfsfuse.namespace.records import keys
from dfsfuse.vfs.open import content_state


@pytest.mark.parametrize(
    ("field", "counts"),
    [("size", True), ("stored_bytes", True), ("mtime_ns", True), ("ctime_ns", True), ("atime_ns", False)],
)
def test_what_counts_of_the_inode(mounts: MemoryMounts, field: str, counts: bool) -> None:
    ino = write_file(mounts.mount(), b"f", b"data")
    before = content_state.of(ino, [0], mounts.map.recall)
    inode = records.decode_inode(mounts.map.items[keys.inode(ino)])
    changed = msgspec.structs.replace(inode, **{field: getattr(inode, field) + 1})
    mounts.map.items[keys.inode(ino)] = records.encode(changed)
    assert (content_state.of(ino, [0], mounts.map.recall) != before) == counts


def test_a_region_counts_for_its_writer(mounts: MemoryMounts) -> None:
    ino = write_file(mounts.mount(), b"f", b"data")
    before = [content_state.of(ino, regions, mounts.map.recall) for regions in ([], [0], [1], [0, 1])]
    assert len(set(before)) == 4
    mounts.map.items[keys.region(ino, 0)] += b"x"
    after = [content_state.of(ino, regions, mounts.map.recall) for regions in ([], [0], [1], [0, 1])]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True, False]


def test_what_is_not_known(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    full = write_file(vfs, b"f", b"data")
    empty, handle = create(vfs, b"empty", os.O_WRONLY)
    vfs.release(handle)

    def only_inodes(wanted: Sequence[bytes]) -> list[bytes | None] | None:
        return mounts.map.recall(wanted) if all(key.startswith(b"i/") for key in wanted) else None

    assert content_state.of(full, [0], only_inodes) is None
    assert content_state.of(full, [], only_inodes) is not None
    assert content_state.of(empty, [0], only_inodes) is not None, "nothing is stored, so its regions are known"
    assert content_state.of(full + 1000, [0], mounts.map.recall) is None, "there is no such inode"


def test_the_regions_that_are_written_to() -> None:
    starts = [2 * REGION_BYTES + 5, 0, 2 * REGION_BYTES, 7 * REGION_BYTES - 1]
    assert content_state.regions_written(starts, is_appended=False) == [0, 2, 6]
    assert content_state.regions_written(starts, is_appended=True) == []
