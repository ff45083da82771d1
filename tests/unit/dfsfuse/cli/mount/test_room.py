"""The reported room: half of what the disks have, counting each disk once."""

from __future__ import annotations

from dfs_server.protocol.messages import ServerStatus
from dfsfuse.cli.mount.room import room_of
from dfsfuse.vfs.attributes import Room


def status(total: int, free: int) -> ServerStatus:
    return ServerStatus("DFS1", "0", 0, free_bytes=free, total_bytes=total, piece_count=0, piece_bytes=0)


def test_four_machines() -> None:
    assert room_of((f"host{n}", status(100, 10 * n)) for n in range(1, 5)) == Room(200, 50)


def test_one_laptop_has_one_disk() -> None:
    assert room_of(("127.0.0.1", status(100, free)) for free in (40, 41, 42, 43)) == Room(50, 20)


def test_several_disks_in_one_machine() -> None:
    assert room_of(("127.0.0.1", status(total, 10)) for total in (100, 200, 300, 400)) == Room(500, 20)


def test_no_server_answers() -> None:
    assert room_of([]) == Room(0, 0)
