"""Files that are fetched together take few requests to read."""

from __future__ import annotations

import os

import pytest
from support.clock import Clock
from support.fake_log import FakeLog, SharedLog
from support.memory_mounts import ROOT, MemoryMounts, write_file
from support.memory_segments import NAMES

from dfsfuse.errors import UnavailableError
from dfsfuse.namespace.map.log_map import LogMap
from dfsfuse.namespace.map.neighbours import BLOCK_INODES
from dfsfuse.namespace.records import keys
from dfsfuse.vfs.settings import MountSettings
from dfsfuse.vfs.vfs import Vfs

N = BLOCK_INODES


@pytest.fixture
def log() -> FakeLog:
    return FakeLog(SharedLog(), Clock())


def test_a_folder_of_small_files_is_read_with_few_requests(mounts: MemoryMounts, log: FakeLog) -> None:
    writer = mounts.mount()
    inos = [write_file(writer, b"%03d" % number, b"%d" % number * 1000) for number in range(3 * N)]
    log.shared.map.update(mounts.map.items)
    vfs = Vfs(
        LogMap(log, keys.family_of, log.clock, log.clock.sleep),
        mounts.segments,
        servers=NAMES,
        settings=MountSettings(max_age_s=1e9),
    )
    log.asked.clear()
    for number in range(3 * N):
        handle = vfs.open(vfs.lookup(ROOT, b"%03d" % number).ino, os.O_RDONLY)
        assert vfs.read(handle, 0, 10_000) == b"%d" % number * 1000
        vfs.release(handle)
    assert log.asked.count("catch up") >= 3 * N  # each open() looks for the newest state
    assert len(log.asked) <= 3 * N + 30  # without neighbours: two more for each file
    fetched = [segment for segments in mounts.segments.fetched_small for segment in segments]
    assert len(fetched) == len(set(fetched)) == len(inos)
    vfs.close()


def test_large_and_damaged_neighbours_are_no_obstacle(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    one, two, damaged = (write_file(vfs, b"%d" % number, b"data") for number in range(3))
    mounts.map.items = {**mounts.map.items, keys.region(damaged, 0): b"no record"}
    for ino in (one, two):
        handle = vfs.open(ino, os.O_RDONLY)
        assert vfs.read(handle, 0, 10) == b"data"
        vfs.release(handle)
    assert [len(segments) for segments in mounts.segments.fetched_small] == [2]


def test_a_known_file_is_read_even_if_its_neighbours_cannot_be_fetched(mounts: MemoryMounts, log: FakeLog) -> None:
    writer = mounts.mount()
    inos = [write_file(writer, b"%d" % number, b"data") for number in range(3)]
    log.shared.map.update(mounts.map.items)
    vfs = Vfs(
        LogMap(log, keys.family_of, log.clock, log.clock.sleep),
        mounts.segments,
        servers=NAMES,
        settings=MountSettings(max_age_s=1e9),
    )
    one, two = (vfs.open(ino, os.O_RDONLY) for ino in inos[:2])
    assert [vfs.read(handle, 1, 10) for handle in (one, two)] == [b"ata"] * 2
    assert vfs.read(one, 0, 10) == b"data"

    def away() -> None:
        raise UnavailableError("no server answers")

    log.before_read.append(away)
    assert vfs.read(two, 0, 10) == b"data"
    assert not log.before_read, "it must have tried to fetch them"
    for handle in (one, two):
        vfs.release(handle)
    vfs.close()
