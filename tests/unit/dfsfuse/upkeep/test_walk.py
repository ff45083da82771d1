"""The walk over all region records, on four real logs in virtual time."""

from __future__ import annotations

import msgspec
import pytest
from support.grid import Fault
from support.log_cluster import LogCluster, LogServer
from support.log_mounts import LogMounts

from dfs_server.protocol.messages import Error, GetChanges, Message
from dfs_server.protocol.status import Status
from dfsfuse.data import extents
from dfsfuse.data.extents import EMPTY, REGION_BYTES, Region, Segment, overlay
from dfsfuse.data.placement import ring
from dfsfuse.errors import UnavailableError
from dfsfuse.log.quorum_log import QuorumLog
from dfsfuse.log.state import Contents
from dfsfuse.namespace.ops import inodes
from dfsfuse.namespace.records import inode as records
from dfsfuse.namespace.records import keys
from dfsfuse.upkeep import map_reader
from dfsfuse.upkeep.map_reader import MapReader
from dfsfuse.upkeep.walk import RegionRecord, walk


def log_of(cluster: LogCluster) -> QuorumLog:
    return QuorumLog(cluster, clock=cluster.grid.clock, time_ns=lambda: 7)  # type: ignore[arg-type]


def region_of(number: int) -> Region:
    segment = Segment(number.to_bytes(16, "big"), REGION_BYTES, ring(0), (bytes(32),) * 4)
    return overlay(EMPTY, segment, [(0, REGION_BYTES, 0)])[0]


def inode_of(rotation: int | None) -> bytes:
    return records.encode(msgspec.structs.replace(inodes.new(0o100644, 0, 0, 0), rotation=rotation))


def put(log: QuorumLog, *items: tuple[bytes, bytes]) -> None:
    assert log.commit(Contents(puts=items), lambda _: False)


def found(reader: MapReader, inos: list[int] | None = None) -> list[RegionRecord]:
    assert reader.begin()
    return [record for page in walk(reader, inos) for record in page]


def test_all_records_with_the_rotation_that_places_them(log_cluster: LogCluster) -> None:
    log = log_of(log_cluster)
    put(log, (keys.inode(2), inode_of(3)), (keys.region(2, 0), extents.encode(region_of(1))))
    put(log, (keys.region(2, 1), extents.encode(region_of(2))))
    put(log, (keys.inode(9), inode_of(1)), (keys.region(9, 5), extents.encode(region_of(3))))
    put(log, (b"d/no region", b"x"), (b"f", b"x"))
    records_found = found(MapReader(log_of(log_cluster)))
    assert [(record.ino, record.index, record.rotation) for record in records_found] == [
        (2, 0, 3),
        (2, 1, 3),
        (9, 5, 1),
    ]
    assert [record.region for record in records_found] == [region_of(1), region_of(2), region_of(3)]
    assert [record.ring() for record in records_found] == [ring(3), ring(0), ring(2)]


def test_those_of_some_files(log_cluster: LogCluster) -> None:
    log = log_of(log_cluster)
    for ino in (2, 3, 4):
        put(log, (keys.inode(ino), inode_of(0)), (keys.region(ino, 0), extents.encode(region_of(ino))))
    assert [record.ino for record in found(MapReader(log_of(log_cluster)), [4, 2])] == [4, 2]


def test_what_cannot_be_read_is_told_and_not_left_out(log_cluster: LogCluster) -> None:
    put(log_of(log_cluster), (keys.inode(2), b"?"), (keys.region(2, 0), b"?"), (keys.region(3, 0), b"?"))
    assert [(record.ino, record.region, record.ring()) for record in found(MapReader(log_of(log_cluster)))] == [
        (2, None, None),
        (3, None, None),
    ]


def test_in_pages_while_the_log_goes_on(log_cluster: LogCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that exists throughout the walk is found, although every page is read at a different slot."""
    monkeypatch.setattr(map_reader, "PAGE_ITEMS", 3)
    log = log_of(log_cluster)
    put(log, (keys.inode(2), inode_of(0)), *((keys.region(2, i), extents.encode(region_of(i))) for i in range(10)))
    reader = MapReader(log_of(log_cluster))
    assert reader.begin()
    seen = []
    for page in walk(reader):
        seen += [record.index for record in page]
        put(log, (keys.inode(2), inode_of(0)), (b"elsewhere", bytes(len(seen))))
    assert seen == list(range(10))


def test_files_whose_inodes_are_more_than_a_reply_has_room_for(log_cluster: LogCluster) -> None:
    mounts = LogMounts(log_cluster)
    made = mounts.with_much_in_their_records(80)
    records_found = found(MapReader(log_of(log_cluster)))
    assert [(record.ino, record.rotation is None) for record in records_found] == [(ino, False) for ino in made]


def test_a_page_is_asked_for_again_if_the_log_went_on_too_far(
    log_cluster: LogCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The servers' logs were trimmed, so none of them can tell any more what has changed since the walk began."""
    answer = LogServer.answer

    def trimmed(server: LogServer, request: Message, payload: bytes) -> tuple[Message, bytes]:
        if isinstance(request, GetChanges):
            return Error(Status.TRIMMED, "trimmed"), b""
        return answer(server, request, payload)

    monkeypatch.setattr(LogServer, "answer", trimmed)
    log = log_of(log_cluster)
    put(log, (keys.inode(2), inode_of(0)), (keys.region(2, 0), extents.encode(region_of(0))))
    reader = MapReader(log_of(log_cluster))
    assert reader.begin()
    for value in (b"1", b"2"):
        put(log, (b"x", value))
    assert [record.ino for page in walk(reader) for record in page] == [2]


def test_without_a_server_it_ends_with_an_error(log_cluster: LogCluster) -> None:
    put(log_of(log_cluster), (keys.inode(2), inode_of(0)), (keys.region(2, 0), extents.encode(region_of(0))))
    reader = MapReader(log_of(log_cluster))
    assert reader.begin()
    log_cluster.down(1, 2)
    assert not reader.begin()
    assert [record.ino for page in walk(reader) for record in page] == [2]
    for server in log_cluster.servers:
        server.fault = Fault.DOWN
    with pytest.raises(UnavailableError):
        list(walk(reader))
