"""Appended data goes to the end that the file has at its commit: several mounts, moves, region borders, failures."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Callable

import pytest
from support.executors import Held
from support.memory_mounts import CALLER, ROOT, MemoryMounts, close, read_file, region, write_file

from dfs_server.protocol.batches import Batch
from dfsfuse.data.extents import REGION_BYTES
from dfsfuse.data.runs import NEIGHBOURS, SURPLUS_MAX
from dfsfuse.errors import MaybeDoneError, NoSpaceError
from dfsfuse.namespace.map.transactions import Transaction
from dfsfuse.vfs.vfs import AttributeChanges, Vfs

APPEND = os.O_RDWR | os.O_APPEND
DEADLINE_S = 30


def pair(mounts: MemoryMounts, data: bytes = b"") -> tuple[Vfs, int, Vfs, int, int]:
    """Two mounts that have the same file open for appending, and know its current state."""
    one, other = mounts.mount(lagging=True, compaction=Held()), mounts.mount(lagging=True)
    ino = write_file(one, b"f", data)
    return one, one.open(ino, APPEND), other, other.open(ino, APPEND), ino


def test_both_append_before_either_saves(mounts: MemoryMounts) -> None:
    one, a, other, b, _ = pair(mounts, b"old ")
    one.write(a, 0, b"from one ")
    other.write(b, 0, b"from the other ")
    other.write(b, 0, b"twice ")
    one.fsync(a)
    other.fsync(b)
    assert read_file(one, b"f") == b"old from one from the other twice "
    one.write(a, 0, b"end")
    close(one, a)
    close(other, b)
    assert read_file(other, b"f") == b"old from one from the other twice end"
    assert one._uploads.budget.held_bytes == other._uploads.budget.held_bytes == 0


def test_until_then_it_is_read_behind_what_is_known_of_others(mounts: MemoryMounts) -> None:
    one, a, other, b, ino = pair(mounts, b"old ")
    one.write(a, 0, b"mine ")
    assert one.read(a, 0, 100) == b"old mine "
    other.write(b, 0, b"theirs ")
    close(other, b)
    assert one.read(a, 0, 100) == b"old mine "
    one.release(one.open(ino, os.O_RDONLY))  # looks up the newest state
    assert one.read(a, 0, 100) == b"old theirs mine "
    assert one.read(a, 6, 8) == b"eirs min"
    close(one, a)
    assert read_file(one, b"f") == b"old theirs mine "


@pytest.mark.parametrize("size", [100, 200_000, REGION_BYTES, 2 * REGION_BYTES + 7])
@pytest.mark.parametrize("before", [REGION_BYTES - 50, REGION_BYTES])
def test_what_moves_across_a_border_stays_whole(mounts: MemoryMounts, size: int, before: int) -> None:
    start, theirs, mine = (random.Random(size + k).randbytes(n) for k, n in enumerate((before, 30, size)))
    one, a, other, b, ino = pair(mounts, start)
    one.write(a, 0, mine)
    other.write(b, 0, theirs)
    close(other, b)
    batches = len(mounts.map.batches)
    one.fsync(a)
    assert len(mounts.map.batches) == batches + 1
    close(one, a)
    assert read_file(other, b"f") == start + theirs + mine
    assert one.getattr(ino).blocks == -(-(before + 30 + size) // 512)
    assert one._uploads.budget.held_bytes == 0
    used = {bytes(piece[0]) for pieces in mounts.segments.pieces.values() for piece in pieces}
    assert one.getattr(ino).size == before + 30 + size
    assert len(used - set(mounts.map.drops)) <= 12


def test_what_is_appended_during_a_commit_follows_it(mounts: MemoryMounts) -> None:
    one, a, other, b, ino = pair(mounts)
    one.write(a, 0, b"first ")
    other.write(b, 0, b"theirs ")
    close(other, b)

    def meanwhile(_: Batch) -> None:
        mounts.map.before_commit = lambda _: None
        one.write(a, 0, b"second ")

    mounts.map.before_commit = meanwhile
    one.fsync(a)
    assert one.read(a, 0, 100) == b"theirs first second "
    assert one.getattr(ino).size == len(b"theirs first second ")
    close(one, a)
    assert read_file(other, b"f") == b"theirs first second "


def test_writes_to_a_place_and_appends_keep_their_order(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", b"0123456789")
    log, at = vfs.open(ino, APPEND), vfs.open(ino, os.O_RDWR)
    vfs.write(log, 0, b"abc")
    vfs.write(at, 11, b"B")
    vfs.write(at, 0, b"Z")
    vfs.write(log, 0, b"def")
    assert vfs.read(at, 0, 100) == b"Z123456789aBcdef"
    vfs.setattr(ino, AttributeChanges(size=3))
    vfs.write(log, 0, b"!")
    vfs.write(log, 0, b"?", append=False)
    vfs.write(at, 0, b"$", append=True)
    close(vfs, log, at)
    assert read_file(vfs, b"f") == b"?12!$"


def test_emptied_what_was_appended_is_gone(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", b"0123456789")
    log = vfs.open(ino, APPEND)
    vfs.write(log, 0, b"abc")
    vfs.setattr(ino, AttributeChanges(size=0))
    vfs.write(log, 0, b"new")
    assert vfs.read(log, 0, 100) == b"new"
    close(vfs, log)
    assert read_file(vfs, b"f") == b"new"
    assert vfs._uploads.budget.held_bytes == 0


def test_a_commit_that_may_have_been_made_is_not_made_twice(mounts: MemoryMounts) -> None:
    one, a, other, b, _ = pair(mounts, b"old ")

    one.write(a, 0, b"mine ")
    real = mounts.map.transact

    def transact(work: Callable[[Transaction], object], *, durable: bool = True) -> None:
        real(work, durable=durable)
        mounts.map.transact = real  # type: ignore[method-assign]
        raise MaybeDoneError("no answer")

    mounts.map.transact = transact  # type: ignore[assignment, method-assign]
    with pytest.raises(MaybeDoneError):
        one.fsync(a)
    other.write(b, 0, b"theirs ")
    other.fsync(b)
    one.write(a, 0, b"more ")
    one.fsync(a)
    assert read_file(one, b"f") == b"old mine theirs more "
    close(one, a)
    close(other, b)


@pytest.mark.parametrize("what", ["compacted", "cut off"])
def test_nor_if_its_segments_are_there_no_more(mounts: MemoryMounts, what: str) -> None:
    """Compacting a region replaces its segments with a new one; truncating a file removes them."""
    one, a, other, b, ino = pair(mounts, b"old ")
    one.write(a, 0, b"mine ")
    real = mounts.map.transact

    def transact(work: Callable[[Transaction], object], *, durable: bool = True) -> None:
        real(work, durable=durable)
        mounts.map.transact = real  # type: ignore[method-assign]
        failure = MaybeDoneError("no answer")
        failure.sequence = 7
        mounts.map.made.add(7)
        raise failure

    mounts.map.transact = transact  # type: ignore[assignment, method-assign]
    with pytest.raises(MaybeDoneError):
        one.fsync(a)
    if what == "compacted":
        for turn in range(80):
            other.write(b, 0, b"%02d " % turn)
            other.fsync(b)
        expected = b"old mine " + b"".join(b"%02d " % turn for turn in range(80))
    else:
        other.setattr(ino, AttributeChanges(size=4), b)
        expected = b"old "
    one.write(a, 0, b"more ")
    one.fsync(a)
    assert read_file(one, b"f") == expected + b"more "
    close(one, a)
    close(other, b)


def test_one_that_failed_is_tried_again_with_what_followed(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    _, log = create(vfs)

    def full(_: bytes) -> None:
        raise NoSpaceError("three servers are full")

    mounts.segments.before_write = full
    for turn in range(40):
        vfs.write(log, 0, b"%02d" % turn + bytes(99_998))
        with pytest.raises(NoSpaceError):
            vfs.fsync(log)
        with pytest.raises(NoSpaceError):
            vfs.write(log, 0, b"a write is told as well, once")
    mounts.segments.before_write = lambda _: None
    close(vfs, log)
    data = read_file(vfs, b"f")
    assert [data[at : at + 2] for at in range(0, len(data), 100_000)] == [b"%02d" % turn for turn in range(40)]
    assert vfs._uploads.budget.held_bytes == 0


def create(vfs: Vfs) -> tuple[int, int]:
    attributes, handle = vfs.create(ROOT, b"f", 0o644, APPEND, CALLER)
    return attributes.ino, handle


def test_a_long_stream_is_committed_on_the_way(mounts: MemoryMounts) -> None:
    background = Held()
    vfs = mounts.mount(background=background, dirty_limit_bytes=24 * REGION_BYTES)
    ino, log = create(vfs)
    chunk = random.Random(5).randbytes(700_001)
    for _ in range(60):
        vfs.write(log, 0, chunk)
    assert mounts.map.batches[-1].drops == ()
    background.run()
    assert len(read_file(mounts.mount(), b"f")) > 30 * len(chunk)
    close(vfs, log)
    assert read_file(vfs, b"f") == chunk * 60
    assert vfs.getattr(ino).size == 60 * len(chunk)
    assert vfs._uploads.budget.held_bytes == 0


def test_a_file_removed_elsewhere_is_stale(mounts: MemoryMounts) -> None:
    one, a, other, b, _ = pair(mounts)
    one.write(a, 0, b"x")
    close(other, b)
    other.unlink(ROOT, b"f")
    with pytest.raises(OSError, match="removed by another mount") as raised:
        one.fsync(a)
    assert raised.value.errno == errno.ESTALE
    close(one, a)


def test_many_append_at_once(mounts: MemoryMounts) -> None:
    """Six threads on three mounts append records, some followed by an fsync, some long."""
    vfss = [mounts.mount(lagging=True) for _ in range(3)]
    ino = write_file(vfss[0], b"f", bytes(REGION_BYTES - 40_000))
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            vfs = vfss[number % 3]
            log = vfs.open(ino, APPEND)
            for turn in range(30):
                vfs.write(log, 0, b"<%d %d %s>" % (number, turn, b"x" * (50 * number * turn)))
                if turn % 3 == 0:
                    vfs.fsync(log)
                assert vfs.read(log, 0, 5) == bytes(5)
            close(vfs, log)
        except BaseException as failure:  # noqa: BLE001
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert not failures
    records = read_file(vfss[0], b"f")[REGION_BYTES - 40_000 :].decode().replace("x", "")
    found = [record.removeprefix("<").split() for record in records.split(">")[:-1]]
    for number in range(6):
        assert [int(turn) for who, turn in found if int(who) == number] == list(range(30))
    assert [vfs._uploads.budget.held_bytes for vfs in vfss] == [0, 0, 0]


def append_lines(vfs: Vfs, log: int, count: int, start: int = 0) -> bytes:
    """So many appends of 100 bytes, each flushed; what was appended."""
    lines = [b"%099d\n" % number for number in range(start, start + count)]
    for line in lines:
        vfs.write(log, 0, line)
        vfs.fsync(log)
    return b"".join(lines)


def check_drops(mounts: MemoryMounts, ino: int) -> None:
    """Every segment that a batch carried is either referred to or dropped, and dropped once."""
    carried = {piece.segment for piece in mounts.map.pieces}
    assert len(set(mounts.map.drops)) == len(mounts.map.drops)
    assert carried - set(mounts.map.drops) == {segment.id for segment in region(mounts, ino).segments}


def test_small_appends_are_joined_in_the_batches_of_later_ones(mounts: MemoryMounts) -> None:
    vfs, count = mounts.mount(compaction=Held()), 700
    ino, log = create(vfs)
    batches, most, expected = len(mounts.map.batches), 0, b""
    for turn in range(count):
        expected += append_lines(vfs, log, 1, turn)
        most = max(most, len(region(mounts, ino).segments))
    assert len(mounts.map.batches) == batches + count
    assert most <= 2 * NEIGHBOURS
    bytes_carried = sum(len(piece.data) for piece in mounts.map.pieces)
    assert bytes_carried <= 6 * len(expected), "each byte is written again a few times, as long as it is in small ones"
    assert read_file(mounts.mount(), b"f") == expected
    check_drops(mounts, ino)
    close(vfs, log)


def test_so_are_writes_to_places_that_follow_each_other(mounts: MemoryMounts) -> None:
    vfs = mounts.mount(compaction=Held())
    ino = write_file(vfs, b"f", bytes(5000))
    handle = vfs.open(ino, os.O_RDWR)
    for turn in range(NEIGHBOURS + 1):
        vfs.write(handle, 1000 + 10 * turn, b"%09d\n" % turn)
        vfs.fsync(handle)
    assert sorted(segment.length for segment in region(mounts, ino).segments) == [10, 10 * NEIGHBOURS, 5000]
    assert read_file(vfs, b"f")[1000:1010] == b"000000000\n"
    assert len(read_file(vfs, b"f")) == 5000
    check_drops(mounts, ino)
    close(vfs, handle)


def test_what_is_not_at_hand_waits_for_compaction(mounts: MemoryMounts) -> None:
    vfs = mounts.mount(compaction=Held())
    ino, log = create(vfs)
    mounts.segments.is_at_hand = False
    expected = append_lines(vfs, log, 2 * NEIGHBOURS)
    assert len(region(mounts, ino).segments) == 2 * NEIGHBOURS <= SURPLUS_MAX
    mounts.segments.is_at_hand = True
    expected += append_lines(vfs, log, 1, 2 * NEIGHBOURS)
    assert len(region(mounts, ino).segments) == 2
    assert read_file(vfs, b"f") == expected
    close(vfs, log)


@pytest.mark.parametrize("is_made", [False, True])
def test_a_batch_that_joins_is_in_doubt(mounts: MemoryMounts, is_made: bool) -> None:
    vfs = mounts.mount(compaction=Held())
    ino, log = create(vfs)
    expected = append_lines(vfs, log, NEIGHBOURS)
    real = mounts.map.transact

    def transact(work: Callable[[Transaction], object], *, durable: bool = True) -> None:
        mounts.map.transact = real  # type: ignore[method-assign]
        if is_made:
            real(work, durable=durable)
        raise MaybeDoneError("no answer")

    mounts.map.transact = transact  # type: ignore[assignment, method-assign]
    vfs.write(log, 0, b"doubtful")
    with pytest.raises(MaybeDoneError):
        vfs.fsync(log)
    assert len(region(mounts, ino).segments) == (2 if is_made else NEIGHBOURS)
    vfs.fsync(log)
    assert read_file(vfs, b"f") == expected + b"doubtful"
    assert len(region(mounts, ino).segments) == 2
    close(vfs, log)
