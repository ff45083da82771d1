"""Mounts of one namespace in memory: a real Vfs on `MemoryMap` and `MemorySegments`, with a clock that tests advance.

Background work and uploads are done at once in the calling thread, unless a test passes an executor.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from concurrent.futures import Executor

from support.executors import Immediate
from support.memory_map import LaggingMap, MemoryMap
from support.memory_segments import NAMES, MemorySegments

from dfsfuse.data import extents
from dfsfuse.data.extents import Region
from dfsfuse.namespace.map.transactions import MapStore
from dfsfuse.namespace.records import keys
from dfsfuse.vfs.caller import Caller
from dfsfuse.vfs.health.incomplete import Policy
from dfsfuse.vfs.settings import MountSettings
from dfsfuse.vfs.vfs import Vfs

ROOT = 1
USER, GROUP = 1000, 100
CALLER = Caller(USER, GROUP)
HOLDER = Caller(USER, GROUP, holds=True)
"""The same, as the kernel."""
CALLER = Caller(USER, GROUP)
HOLDER = Caller(USER, GROUP, holds=True)
"""The same, as the kernel."""


class MemoryMounts:
    """One namespace and its mounts."""

    def __init__(self) -> None:
        self.map = MemoryMap()
        self.segments = MemorySegments()
        self.now_ns = 1_000_000_000
        self.now_s = 100.0
        self._clients = itertools.count(1)

    def clock(self) -> int:
        """Return a later time with each call."""
        self.now_ns += 1000
        return self.now_ns

    def mount(
        self,
        *,
        lagging: bool = False,
        durability: str = "close",
        dirty_limit_bytes: int = 64 * 1024 * 1024,
        background: Executor | None = None,
        uploads: Executor | None = None,
        compaction: Executor | None = None,
        atime: str = "noatime",
        diratime: bool = True,
        incomplete: Policy = Policy.MARK,
        grace_s: float = 0.0,
    ) -> Vfs:
        """Make another mount. A lagging one answers from old states wherever that is allowed."""
        store: MapStore = LaggingMap(self.map) if lagging else self.map
        return Vfs(
            store,
            self.segments,
            servers=NAMES,
            usable=self.segments.usable,
            clock=self.clock,
            monotonic=lambda: self.now_s,
            settings=MountSettings(
                durability=durability,
                dirty_limit_bytes=dirty_limit_bytes,
                atime=atime,
                diratime=diratime,
                incomplete=incomplete,
                removal_grace_s=grace_s,
            ),
            background=background or Immediate(),
            uploads=uploads or Immediate(),
            compaction=compaction or Immediate(),
            client=b"mount %d" % next(self._clients),
        )


def create(vfs: Vfs, name: bytes = b"f", flags: int = os.O_RDWR) -> tuple[int, int]:
    """Create a file in the root, and return its inode number and a handle."""
    attributes, handle = vfs.create(ROOT, name, 0o644, flags, CALLER)
    return attributes.ino, handle


def region(mounts: MemoryMounts, ino: int, index: int = 0) -> Region:
    """Return the record of a region from the map."""
    return extents.decode(mounts.map.items[keys.region(ino, index)])


def write_file(vfs: Vfs, name: bytes, data: bytes, parent: int = ROOT, *, flags: int = 0) -> int:
    """Create or open a file, write the data at its beginning, close it, and return the inode number."""
    attributes, handle = vfs.create(parent, name, 0o644, os.O_RDWR | flags, CALLER)
    vfs.write(handle, 0, data)
    close(vfs, handle)
    return attributes.ino


def close(vfs: Vfs, *handles: int) -> None:
    """Close handles, as the kernel does for close(2)."""
    for handle in handles:
        vfs.flush(handle)
        vfs.release(handle)


def read_file(vfs: Vfs, name: bytes, parent: int = ROOT, size: int = 1 << 30) -> bytes:
    """Return a file's whole content."""
    handle = vfs.open(vfs.lookup(parent, name).ino, os.O_RDONLY)
    try:
        return vfs.read(handle, 0, size)
    finally:
        vfs.release(handle)


def names(vfs: Vfs, ino: int = ROOT) -> list[bytes]:
    """Return the names that readdir lists, without `.` and `..`."""
    handle = vfs.opendir(ino)
    found = [entry.name for entry in vfs.readdir(handle, 0)]
    vfs.releasedir(handle)
    assert found[:2] == [b".", b".."]
    return found[2:]


def in_chunks(data: bytes, size: int) -> Iterable[bytes]:
    """Split the data into chunks."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
