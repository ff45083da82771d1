"""Finding the segments of many files on four real logs: few requests, however little is cached."""

from __future__ import annotations

import pytest
from support.log_cluster import LogCluster
from support.log_mounts import LogMounts
from support.memory_mounts import ROOT, close, create, names, write_file

from dfsfuse.data.extents import REGION_BYTES
from dfsfuse.vfs.caller import SUPERUSER
from dfsfuse.vfs.read import stored_segments
from dfsfuse.vfs.write import regions

FILES = 500


@pytest.fixture
def mounts(log_cluster: LogCluster) -> LogMounts:
    return LogMounts(log_cluster)


def many_files(mounts: LogMounts) -> list[int]:
    """Files of one segment each, in the log."""
    made = [write_file(mounts.maker, b"f%03d" % number, b"x" * 1000) for number in range(FILES)]
    mounts.commit()
    return made


def sparse_file(mounts: LogMounts, name: bytes) -> int:
    """A long file with two segments; its regions are a range of the map."""
    ino, handle = create(mounts.maker, name)
    mounts.maker.write(handle, 0, b"first")
    mounts.maker.write(handle, regions.FEW_REGIONS * REGION_BYTES, b"last")
    close(mounts.maker, handle)
    return ino


def test_a_large_folder_is_listed_without_a_server(mounts: LogMounts) -> None:
    many_files(mounts)
    vfs = mounts.cold(1, 3, 4)
    assert names(vfs) == [b"f%03d" % number for number in range(FILES)]
    assert mounts.reads() < 12


def test_files_that_lack_pieces_are_told_among_many(mounts: LogMounts) -> None:
    made = many_files(mounts)
    vfs = mounts.cold(1, 2, 3)
    mounts.memory.segments.answering = {1, 2}
    assert vfs.incomplete(made) == set(made)
    assert mounts.reads() < 12
    vfs = mounts.cold(1, 2, 3)
    assert vfs.incomplete(made) == set()


def test_the_health_of_many_files_takes_few_requests(mounts: LogMounts) -> None:
    made = many_files(mounts)
    found = mounts.cold(1, 3, 4).health(made)
    assert [found[ino].state for ino in made] == ["degraded"] * FILES
    assert mounts.reads() < 12


def test_a_folder_whose_inodes_are_more_than_a_reply_has_room_for(mounts: LogMounts) -> None:
    """Extended attributes are stored in the inodes' records."""
    mounts.with_much_in_their_records(80)
    vfs = mounts.cold(1, 3, 4)
    assert names(vfs) == [b"x%03d" % number for number in range(80)]
    assert len(vfs.list_folder(ROOT)) == 80
    assert mounts.reads() < 20


def test_more_long_files_than_an_operation_may_have_runs(mounts: LogMounts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them is a range, and a range takes a run."""
    monkeypatch.setattr("dfsfuse.namespace.map.runs.RUNS", 12)
    monkeypatch.setattr(stored_segments, "LONG_FILES_AT_ONCE", 5)
    made = [sparse_file(mounts, b"long%03d" % number) for number in range(30)]
    made += [write_file(mounts.maker, b"f%03d" % number, b"x" * 1000) for number in range(30)]
    folder = mounts.maker.mkdir(ROOT, b"folder", 0o755, SUPERUSER).ino
    mounts.commit()
    found = mounts.cold(1, 2, 3, 4).health([folder, *made, 999])
    assert [(ino, len(health.segments)) for ino, health in found.items()] == [
        *((ino, 2) for ino in made[:30]),
        *((ino, 1) for ino in made[30:]),
    ]
