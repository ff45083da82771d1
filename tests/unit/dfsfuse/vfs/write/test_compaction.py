"""A region in many parts becomes one segment in the background, whatever is written meanwhile."""

from __future__ import annotations

import os
import random
import threading

from support.executors import Held, Immediate
from support.memory_mounts import MemoryMounts, close, create, region

from dfsfuse.data import extents
from dfsfuse.data.runs import SURPLUS_MAX
from dfsfuse.errors import ReadOnlyError
from dfsfuse.namespace.ops.inode_numbers import InodeNumbers
from dfsfuse.vfs.context import Context
from dfsfuse.vfs.vfs import AttributeChanges, Vfs
from dfsfuse.vfs.write import holes
from dfsfuse.vfs.write.compaction import ATTEMPTS, RETRY_S, Compactor


def write_parts(vfs: Vfs, handle: int, count: int = SURPLUS_MAX + 1, step: int = 20) -> bytes:
    """Make `count` writes of 10 bytes, each flushed, and return the file's content."""
    expected = bytearray()
    for turn in range(count):
        expected[turn * step :] = bytes(turn * step - len(expected)) + bytes([turn % 256]) * 10
        vfs.write(handle, turn * step, bytes([turn % 256]) * 10)
        vfs.fsync(handle)
    return bytes(expected)


def compactor(mounts: MemoryMounts, pauses: list[float]) -> Compactor:
    context = Context(
        store=mounts.map,
        segments=mounts.segments,
        numbers=InodeNumbers(mounts.map),
        servers={},
        usable=mounts.segments.usable,
        clock=mounts.clock,
        monotonic=lambda: 0.0,
        max_age_s=0.0,
        wait_for_close=True,
        client=b"client",
        grace_s=0.0,
        background=Immediate(),
        uploads=Immediate(),
    )
    return Compactor(context, Immediate(), pauses.append)


def test_a_region_in_many_parts_is_compacted_after_the_flush(mounts: MemoryMounts) -> None:
    background = Held()
    vfs = mounts.mount(compaction=background)
    ino, handle = create(vfs)
    expected = write_parts(vfs, handle)
    assert len(region(mounts, ino).extents) == SURPLUS_MAX + 1  # the flush did not wait for the compaction
    background.run()
    made = region(mounts, ino)
    assert len(made.segments) == len(made.extents) == 1
    assert vfs.read(handle, 0, 10_000) == expected
    assert len(set(mounts.map.drops)) == SURPLUS_MAX + 1
    assert vfs.getattr(ino).blocks == -(-made.extents[0].length // 512)
    close(vfs, handle)


def test_a_sparse_region_keeps_its_holes_and_takes_the_room_of_its_data(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino, handle = create(vfs)
    block, step, count = 4096, 5 * 4096, 150
    places = [turn * step for turn in range(count)]
    random.Random(1).shuffle(places)
    for place in places:
        vfs.write(handle, place, place.to_bytes(8, "big") * (block // 8))
        vfs.fsync(handle)
    made = region(mounts, ino)
    assert len(made.segments) <= SURPLUS_MAX  # so it was compacted
    assert len(set(mounts.map.drops)) >= SURPLUS_MAX
    assert sum(segment.length for segment in made.segments) <= 1.3 * block * count
    assert sum(len(data) for data, _ in mounts.segments.written) <= 5 * block * count  # each byte a few times
    assert vfs.getattr(ino).blocks == block * count // 512
    holes = [vfs.lseek(handle, place, os.SEEK_HOLE) for place in sorted(places)]
    assert holes == [place + block for place in sorted(places)]
    assert [vfs.lseek(handle, hole, os.SEEK_DATA) for hole in holes[:-1]] == sorted(places)[1:]
    for place in places:
        assert vfs.read(handle, place, block) == place.to_bytes(8, "big") * (block // 8)
        assert vfs.read(handle, place + block, 16) == bytes(16)[: 16 if place < max(places) else 0]
    close(vfs, handle)


def test_a_region_of_many_stretches_in_one_segment_is_left_alone(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino, handle = create(vfs)
    for turn in range(4 * SURPLUS_MAX):
        vfs.write(handle, turn * 3 * 4096, b"x" * 4096)
    vfs.fsync(handle)
    assert len(mounts.segments.written) == 1
    assert len(region(mounts, ino).extents) == 4 * SURPLUS_MAX
    close(vfs, handle)


def test_the_room_of_holes_that_were_punched_comes_back(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino, handle = create(vfs)
    size = extents.REGION_BYTES
    vfs.write(handle, 0, b"x" * size)
    vfs.fsync(handle)
    for start in range(0, size, size // 2):
        vfs.fallocate(handle, start, size // 2 - 4096, holes.PUNCH_HOLE | holes.KEEP_SIZE)
    made = region(mounts, ino)
    assert [segment.length for segment in made.segments] == [2 * 4096]
    assert vfs.getattr(ino).blocks == 2 * 8
    assert vfs.read(handle, size // 2 - 4096, 8192) == b"x" * 4096 + bytes(4096)
    close(vfs, handle)


def test_a_region_in_many_parts_is_compacted_after_it_was_cut(mounts: MemoryMounts) -> None:
    """The mount that wrote it did not compact it: it is dead, or the file was cut at that very moment."""
    dead, vfs = mounts.mount(compaction=Held()), mounts.mount()
    ino, handle = create(dead)
    expected = write_parts(dead, handle, 2 * SURPLUS_MAX)
    size = (SURPLUS_MAX + 10) * 20
    vfs.setattr(ino, AttributeChanges(size=size))
    made = region(mounts, ino)
    assert len(made.segments) == len(made.extents) == 1
    seen = vfs.open(ino, os.O_RDONLY)
    assert vfs.read(seen, 0, 10_000) == expected[:size]
    close(vfs, seen)


def test_the_room_of_what_was_cut_off_comes_back(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino, handle = create(vfs)
    size = extents.REGION_BYTES
    vfs.write(handle, 0, b"x" * 3 * size)
    vfs.setattr(ino, AttributeChanges(size=size + 100), handle)
    assert [segment.length for segment in region(mounts, ino, 1).segments] == [100]
    assert vfs.read(handle, size - 100, 1000) == b"x" * 200
    written = len(mounts.segments.written)
    vfs.setattr(ino, AttributeChanges(size=size), handle)
    vfs.setattr(ino, AttributeChanges(size=5 * size + 1), handle)
    assert len(mounts.segments.written) == written  # no segment has to be made smaller
    close(vfs, handle)


def test_a_writer_that_never_pauses_does_not_keep_a_region_from_being_compacted(mounts: MemoryMounts) -> None:
    vfs, other = mounts.mount(), mounts.mount(compaction=Held())
    ino, handle = create(vfs)
    theirs = other.open(ino, os.O_RDWR)
    expected = bytearray(write_parts(vfs, handle, SURPLUS_MAX))

    def meanwhile(data: bytes) -> None:
        if len(data) > 100:
            mounts.segments.before_write = lambda _: None
            other.write(theirs, 5, b"other")
            other.fsync(theirs)

    mounts.segments.before_write = meanwhile
    vfs.write(handle, SURPLUS_MAX * 20, b"x" * 10)
    vfs.fsync(handle)
    expected[5:10] = b"other"
    expected += bytes(SURPLUS_MAX * 20 - len(expected)) + b"x" * 10
    assert vfs.read(handle, 0, 10_000) == bytes(expected)
    assert len(region(mounts, ino).segments) == 2
    close(other, theirs)
    close(vfs, handle)


def test_neither_readers_nor_writers_wait_for_a_region_that_is_being_compacted(mounts: MemoryMounts) -> None:
    compaction = Held()
    vfs = mounts.mount(compaction=compaction)
    ino, handle = create(vfs)
    expected = bytearray(write_parts(vfs, handle))
    found: list[bytes] = []

    def use() -> None:
        found.append(vfs.read(handle, 0, 10_000))
        vfs.write(handle, 3, b"new")
        vfs.fsync(handle)
        found.append(vfs.read(handle, 0, 10_000))

    def meanwhile(_: bytes) -> None:
        mounts.segments.before_write = lambda _: None
        user = threading.Thread(target=use, daemon=True)
        user.start()
        user.join(20.0)

    mounts.segments.before_write = meanwhile
    compaction.run()
    before, expected[3:6] = bytes(expected), b"new"
    assert found == [before, bytes(expected)]
    assert len(region(mounts, ino).segments) == 2  # compacted, with what was written meanwhile on top
    assert vfs.read(handle, 0, 10_000) == bytes(expected)
    close(vfs, handle)


def test_a_region_that_is_cut_meanwhile_is_compacted_as_it_is_then(mounts: MemoryMounts) -> None:
    vfs, other = mounts.mount(), mounts.mount(compaction=Held())
    ino, handle = create(vfs)
    mounts.segments.is_at_hand = False
    expected = write_parts(vfs, handle, SURPLUS_MAX, step=10)

    def meanwhile(data: bytes) -> None:
        if len(data) > 100:
            mounts.segments.before_write = lambda _: None
            other.setattr(ino, AttributeChanges(size=300))

    mounts.segments.before_write = meanwhile
    vfs.write(handle, 900, b"x" * 10)
    vfs.fsync(handle)
    assert vfs.read(handle, 0, 10_000) == expected[:300]
    carried = {piece.segment for piece in mounts.map.pieces} - set(mounts.map.drops)
    assert carried == {segment.id for segment in region(mounts, ino).segments}
    close(vfs, handle)


def test_a_failure_is_tried_again_after_a_pause_and_not_for_ever(mounts: MemoryMounts) -> None:
    vfs = mounts.mount(compaction=Held())
    ino, handle = create(vfs)
    expected = write_parts(vfs, handle)
    failures = 0

    def fail(_: bytes) -> None:
        nonlocal failures
        failures += 1
        if failures != 3:
            raise ReadOnlyError("two servers do not answer")

    mounts.segments.before_write = fail
    pauses: list[float] = []
    compactor(mounts, pauses).later(ino, [0])
    assert pauses == [RETRY_S] * 2
    assert len(region(mounts, ino).segments) == 1
    assert vfs.read(handle, 0, 10_000) == expected

    close(vfs, handle)


def test_what_never_succeeds_is_left_to_the_next_flush(mounts: MemoryMounts) -> None:
    vfs = mounts.mount(compaction=Held())
    ino, handle = create(vfs)
    expected = write_parts(vfs, handle)
    mounts.segments.answering = {1, 2}
    pauses: list[float] = []
    compactor(mounts, pauses).later(ino, [0])
    assert len(pauses) == ATTEMPTS - 1
    mounts.segments.answering = {1, 2, 3, 4}
    assert vfs.read(handle, 0, 10_000) == expected
    compactor(mounts, []).later(ino, [0])
    assert len(region(mounts, ino).segments) == 1
    close(vfs, handle)


def test_closing_waits_for_one_region_and_not_for_a_pause(mounts: MemoryMounts) -> None:
    vfs = mounts.mount(compaction=Held())
    ino, handle = create(vfs)
    write_parts(vfs, handle)
    made = compactor(mounts, [])
    made.close()
    made.later(ino, [0])
    assert len(region(mounts, ino).segments) == SURPLUS_MAX + 1
    close(vfs, handle)
