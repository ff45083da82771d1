"""Region records in transactions: the counts are always right, and nothing is left beyond the end of a file."""

from __future__ import annotations

import random
import stat

import msgspec
import pytest
from support.memory_map import MemoryMap
from support.memory_segments import MemorySegments

from dfsfuse.data import extents
from dfsfuse.data.extents import REGION_BYTES, Write
from dfsfuse.namespace.map.transactions import Transaction
from dfsfuse.namespace.ops import inodes
from dfsfuse.namespace.records import keys
from dfsfuse.namespace.records.inode import Inode
from dfsfuse.vfs.write import regions
from dfsfuse.vfs.write.regions import Patch

INO = 9


class File:
    """One file's records, and all segments ever made for it."""

    def __init__(self) -> None:
        self.map = MemoryMap()
        self.segments = MemorySegments()
        new = inodes.new(stat.S_IFREG | 0o644, 1, 1, 1)
        self.map.transact(lambda tx: inodes.save(tx, INO, new))

    @property
    def inode(self) -> Inode:
        return self.map.read(lambda view: inodes.load(view, INO))

    def patch(self, region: int, offset: int, length: int) -> Patch:
        written = self.segments.write(b"x" * length, 0)
        return Patch(region, written.segment, written.inline, (Write(offset, length, 0),))

    def save(self, *patches: Patch) -> None:
        def work(tx: Transaction) -> None:
            inodes.save(tx, INO, regions.save(tx, INO, inodes.load(tx, INO), patches).inode)

        self.map.transact(work)

    def resize(self, size: int) -> bool:
        def work(tx: Transaction) -> bool:
            inode, is_reached = regions.resize(tx, INO, inodes.load(tx, INO), size)
            inodes.save(tx, INO, inode)
            return is_reached

        return self.map.transact(work)

    def check(self) -> None:
        """Check the invariants that regions.py states."""
        stored = {
            keys.index_of(key): extents.decode(value) for key, value in self.map.items.items() if key.startswith(b"e/")
        }
        assert self.inode.stored_bytes == sum(map(extents.covered, stored.values()))
        for index, region in stored.items():
            assert region.extents
            assert index * REGION_BYTES + region.end() <= self.inode.size
        used = {segment.id for region in stored.values() for segment in region.segments}
        made = {number.to_bytes(16, "big") for number in range(1, len(self.segments.written) + 1)}
        assert sorted(self.map.drops) == sorted(made - used), "unreferenced segments must be dropped, once each"


@pytest.mark.parametrize("seed", range(8))
def test_random_patches_and_sizes(seed: int) -> None:
    rng = random.Random(seed)
    file = File()
    for _ in range(80):
        if rng.random() < 0.7:
            file.save(
                *(
                    file.patch(rng.randrange(20), rng.choice([0, 10, 100]), rng.choice([1, 10, 150]))
                    for _ in range(rng.randrange(1, 4))
                )
            )
        else:
            size = rng.choice([0, rng.randrange(20 * REGION_BYTES), rng.randrange(20) * REGION_BYTES + 50, 2**61])
            assert file.resize(size)
            assert file.inode.size == size
        file.check()


def test_an_empty_files_records_are_not_asked_for() -> None:
    file = File()
    asked: list[bytes] = []

    def work(tx: Transaction) -> None:
        get_many = tx.get_many
        tx.get_many = lambda wanted: asked.extend(wanted) or get_many(wanted)  # type: ignore[method-assign, func-returns-value]
        regions.save(tx, INO, inodes.load(tx, INO), [file.patch(0, 0, 5)])

    file.map.transact(work)
    assert asked == []


def test_a_region_is_compacted_under_what_was_written_since_but_not_if_it_was_cut() -> None:
    file = File()
    file.save(file.patch(0, 0, 5))
    old = file.map.read(lambda view: regions.find(view, INO, file.inode, [0])[0])
    file.save(file.patch(0, 2, 5))
    patch = file.patch(0, 0, 5)
    assert file.map.transact(lambda tx: regions.compact(tx, INO, 0, old, patch))
    file.check()
    assert file.inode.stored_bytes == 7
    assert file.map.drops == [old.segments[0].id]

    now = file.map.read(lambda view: regions.find(view, INO, file.inode, [0])[0])
    assert now.segments[0].id == patch.segment.id
    file.resize(6)
    again = file.patch(0, 0, 7)
    assert not file.map.transact(lambda tx: regions.compact(tx, INO, 0, now, again))
    assert not file.map.transact(lambda tx: regions.compact(tx, 777, 0, now, again))
    assert file.inode.stored_bytes == 6


def test_portions_keep_the_order_and_stay_small() -> None:
    file = File()
    patches = [file.patch(index, 0, 100_000) for index in range(20)]
    portions = list(regions.portions(patches))
    assert [patch for portion in portions for patch in portion] == patches
    assert all(sum(patch.cost_bytes for patch in portion) <= regions.BATCH_BYTES for portion in portions)
    assert list(regions.portions([])) == []


def test_only_what_the_file_does_not_use_is_dropped() -> None:
    file = File()
    used, unused = file.patch(0, 0, 5), file.patch(0, 0, 5)
    file.save(used)
    pairs = [(0, used.segment.id), (0, unused.segment.id)]
    file.map.transact(lambda tx: regions.drop_unused(tx, INO, pairs))
    assert file.map.drops == [unused.segment.id]
    file.map.transact(lambda tx: regions.drop_unused(tx, 777, pairs[:1]))
    assert file.map.drops == [unused.segment.id, used.segment.id]


def test_a_truncated_file_has_no_rotation_only_when_it_is_empty() -> None:
    file = File()
    file.save(file.patch(0, 0, 5))
    with_rotation = msgspec.structs.replace(file.inode, rotation=3)
    file.map.transact(lambda tx: inodes.save(tx, INO, with_rotation))
    file.resize(1)
    assert file.inode.rotation == 3
    file.resize(0)
    assert file.inode.rotation is None
