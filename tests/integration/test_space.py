"""Space is really freed, and holes take none: the servers' disks after a file was overwritten a thousand times, and
after a sparse file was written in a few places."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemons import PASSWORDS, VERIFIERS, House, eventually
from support.pieces_on_disk import bytes_in, pieces_of

from dfs_server.config import ServerConfig
from dfsfuse.cli.config import ClientConfig
from dfsfuse.cli.session import Session, open_for_mount
from dfsfuse.data import extents, runs
from dfsfuse.data.extents import REGION_BYTES, Region
from dfsfuse.mount.options import MountOptions
from dfsfuse.namespace.records import keys
from dfsfuse.net.servers import Credentials, ServerAddress
from dfsfuse.vfs.caller import Caller

pytestmark = pytest.mark.integration

USER = "alice"
SIZE = 3 * 1024 * 1024
SMALL, LARGE = 940, 60
LARGE_BYTES = 300_000


@pytest.fixture
def houses(tmp_path: Path) -> Iterator[list[House]]:
    """Four servers that continually delete what was dropped half a second ago."""
    config = ServerConfig(VERIFIERS, grace_period_s=0.5, scrub_days=0)
    with contextlib.ExitStack() as stack:
        houses = []
        for number in range(1, 5):
            house = House(tmp_path / f"DFS{number}", config, sweep_interval_s=0.2)
            stack.callback(house.close)
            houses.append(house)
        yield houses


def session_of(houses: list[House]) -> Session:
    one, two, three, four = (
        ServerAddress(number, f"DFS{number}", "127.0.0.1", house.port) for number, house in enumerate(houses, start=1)
    )
    config = ClientConfig(Path("dfc.yaml"), (one, two, three, four), Credentials(USER, PASSWORDS[USER]))
    # As in a mount: a server that missed a batch has to learn what to delete.
    return open_for_mount(config, MountOptions())


def on_disks(houses: list[House]) -> int:
    """Return the total size of all pieces on all disks."""
    return sum(len(data) for house in houses for _, data in pieces_of(house.root, USER))


def test_a_file_that_is_overwritten_a_thousand_times_takes_the_room_of_one(houses: list[House]) -> None:
    chance = random.Random(1)
    expected = bytearray(chance.randbytes(SIZE))
    with session_of(houses) as session:
        vfs = session.vfs
        attributes, handle = vfs.create(keys.ROOT, b"f", 0o644, os.O_RDWR, Caller(1, 1))
        vfs.write(handle, 0, bytes(expected))
        vfs.flush(handle)
        for turn in range(SMALL + LARGE):
            size = LARGE_BYTES if turn % (SMALL // LARGE + 1) == 0 else chance.randrange(1, 2000)
            start = chance.randrange(SIZE - size)
            data = chance.randbytes(size)
            expected[start : start + size] = data
            vfs.write(handle, start, data)
            vfs.flush(handle)
        assert vfs.read(handle, 0, REGION_BYTES) == bytes(expected)

        def region() -> Region:
            value = session.store.read(lambda view: view.get(keys.region(attributes.ino, 0)))
            assert value is not None
            return extents.decode(value)

        eventually(lambda: not runs.is_crowded(region()), 30.0)  # compacted in the background
        eventually(lambda: on_disks(houses) == 2 * sum(one.length for one in region().segments), 30.0)
        assert on_disks(houses) < 2 * (SIZE + 40 * LARGE_BYTES)
        for house in houses:
            assert bytes_in(house.root / USER) < 24 << 20

        assert vfs.read(handle, 0, REGION_BYTES) == bytes(expected)
        vfs.release(handle)
        vfs.unlink(keys.ROOT, b"f")
        vfs.mkdir(keys.ROOT, b"d", 0o755, Caller(1, 1))
        eventually(lambda: on_disks(houses) == 0, 30.0)


def test_a_sparse_file_that_was_written_here_and_there_takes_the_room_of_its_data(houses: list[House]) -> None:
    block, step, count = 4096, 6 * 4096, 300
    places = [turn * step for turn in range(count)]  # in two regions
    random.Random(1).shuffle(places)
    with session_of(houses) as session:
        vfs = session.vfs
        attributes, handle = vfs.create(keys.ROOT, b"f", 0o644, os.O_RDWR, Caller(1, 1))
        for turn, place in enumerate(places, start=1):
            vfs.write(handle, place, place.to_bytes(8, "big") * (block // 8))
            if turn % 2 == 0:
                vfs.fsync(handle)
        vfs.flush(handle)

        def parts() -> list[Region]:
            values = session.store.read(lambda view: view.get_many([keys.region(attributes.ino, n) for n in (0, 1)]))
            return [extents.decode(value) for value in values if value is not None]

        eventually(lambda: not any(map(runs.is_crowded, parts())), 30.0)
        eventually(lambda: on_disks(houses) == 2 * sum(one.length for part in parts() for one in part.segments), 30.0)
        assert on_disks(houses) <= 1.3 * 2 * block * count
        assert vfs.getattr(attributes.ino).blocks == block * count // 512
        at = 0
        for place in sorted(places):
            assert vfs.lseek(handle, at, os.SEEK_DATA) == place
            assert vfs.read(handle, place, block) == place.to_bytes(8, "big") * (block // 8)
            at = vfs.lseek(handle, place, os.SEEK_HOLE)
            assert at == place + block
        vfs.release(handle)
