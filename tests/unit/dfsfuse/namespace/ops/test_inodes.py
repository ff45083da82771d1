"""Inodes are made as a local file system makes them; the root exists from the start."""

from __future__ import annotations

import os
import stat

from support.memory_map import MemoryMap

from dfsfuse.namespace.ops import inodes
from dfsfuse.namespace.records import keys


def test_the_root_is_there_before_anybody_made_it() -> None:
    store = MemoryMap()
    root = store.read(lambda view: inodes.load_directory(view, keys.ROOT))
    assert (root.mode, root.uid, root.nlink, root.parent) == (stat.S_IFDIR | 0o755, os.getuid(), 2, keys.ROOT)
    made = store.transact(lambda tx: inodes.make_root(tx, 55))
    assert made.ctime_ns == 55
    assert store.transact(lambda tx: inodes.make_root(tx, 66)) == made


def test_only_devices_have_device_numbers() -> None:
    assert inodes.new(stat.S_IFCHR | 0o600, 0, 0, 0, rdev=5).rdev == 5
    assert inodes.new(stat.S_IFREG | 0o600, 0, 0, 0, rdev=5).rdev == 0


def test_a_time_of_change_is_never_the_same_twice_and_never_stays_far_ahead() -> None:
    inode = inodes.new(stat.S_IFREG | 0o644, 1, 1, 5_000_000_000)
    for now_ns, expected in (
        (5_000_000_000, 5_000_000_001),
        (4_900_000_000, 5_000_000_001),
        (5_000_000_007, 5_000_000_007),
        (3_999_999_999, 3_999_999_999),
    ):
        assert inodes.change_time_ns(inode, now_ns) == expected
