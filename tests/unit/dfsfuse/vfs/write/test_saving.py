"""From write() to the map: what becomes one segment, where it is stored, what a failure leaves behind."""

from __future__ import annotations

import errno
import hashlib
import os
import random
from collections.abc import Callable

import pytest
from support.errnos import fails
from support.executors import Held
from support.memory_mounts import ROOT, MemoryMounts, close, create, read_file, region, write_file

from dfs_server.protocol.batches import MAX_BATCH_BYTES, Batch
from dfsfuse.data.extents import REGION_BYTES
from dfsfuse.data.placement import pairs
from dfsfuse.errors import MaybeDoneError, NoSpaceError, ReadOnlyError, UnavailableError
from dfsfuse.namespace.map.transactions import Transaction
from dfsfuse.vfs.vfs import AttributeChanges, Vfs


@pytest.mark.parametrize("size", [1, 5, 4096, 130 * 1024, REGION_BYTES])
@pytest.mark.parametrize("seed", range(4))
def test_a_file_up_to_4_mib_is_one_segment_placed_by_its_md5(mounts: MemoryMounts, size: int, seed: int) -> None:
    data = random.Random(seed).randbytes(size)
    vfs = mounts.mount()
    write_file(vfs, b"f", data)
    x = int(hashlib.md5(data).hexdigest(), 16) % 4
    assert mounts.segments.written == [(data, x)]
    for server, pair in pairs(x).items():
        assert {number for _, number in mounts.segments.pieces[server]} == set(pair)
    vfs.close()


def test_segments_of_a_long_file_go_round_the_ring(mounts: MemoryMounts) -> None:
    data = random.Random(1).randbytes(5 * REGION_BYTES + 10)
    vfs = mounts.mount()
    write_file(vfs, b"f", data)
    x = int(hashlib.md5(data[:REGION_BYTES]).hexdigest(), 16) % 4
    assert [rotation for _, rotation in mounts.segments.written] == [(x + i) % 4 for i in range(6)]
    assert b"".join(part for part, _ in mounts.segments.written) == data
    assert read_file(vfs, b"f") == data


def test_emptied_and_written_again_it_is_placed_afresh(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    first, second = (next(d for d in (b"%d" % i for i in range(99)) if md5_mod_4(d) == x) for x in (1, 2))
    write_file(vfs, b"f", first)
    write_file(vfs, b"f", second, flags=os.O_TRUNC)
    assert [rotation for _, rotation in mounts.segments.written] == [1, 2]


def md5_mod_4(data: bytes) -> int:
    return int(hashlib.md5(data).hexdigest(), 16) % 4


def test_a_small_new_file_takes_two_batches_and_carries_its_pieces(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    write_file(vfs, b"first", b"")
    before = len(mounts.map.batches)
    write_file(vfs, b"f", b"hello")
    assert len(mounts.map.batches) == before + 2
    assert [piece.number for piece in mounts.map.batches[-1].pieces] == [1, 2, 3, 4]


def test_many_intervals_of_a_region_become_one_segment(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino, handle = create(vfs, b"f")
    for offset in range(0, 1000, 100):
        vfs.write(handle, offset, b"x" * 10)
    close(vfs, handle)
    assert [len(data) for data, _ in mounts.segments.written] == [100]
    assert len(region(mounts, ino).extents) == 10
    assert read_file(vfs, b"f") == (b"x" * 10 + bytes(90)) * 9 + b"x" * 10
    assert vfs.getattr(ino).blocks == 1


def test_what_is_overwritten_is_dropped_in_the_same_batch(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    write_file(vfs, b"f", b"old")
    old = mounts.map.batches[-1].pieces[0].segment
    write_file(vfs, b"f", b"new!")
    assert mounts.map.batches[-1].drops == (old,)
    assert read_file(vfs, b"f") == b"new!"


def test_a_region_with_very_many_dirty_intervals_is_saved_before_more_are_taken(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    _, handle = create(vfs, b"f")
    for turn in range(1000):
        vfs.write(handle, turn * 2, b"x")
    close(vfs, handle)
    assert read_file(vfs, b"f") == b"x\0" * 999 + b"x"
    assert all(len(value) < 100_000 for batch in mounts.map.batches for _, value in batch.puts)


def test_a_large_flush_is_several_batches_that_grow_the_file_in_order(mounts: MemoryMounts) -> None:
    vfs = mounts.mount(dirty_limit_bytes=1 << 30)
    ino, handle = create(vfs, b"f")
    for index in range(40, -1, -1):
        vfs.write(handle, index * REGION_BYTES, bytes([index]) * 100_000)
    before = len(mounts.map.batches)
    sizes: list[int] = []

    def watch(batch: Batch) -> None:
        sizes.append(vfs.getattr(ino).size)
        assert sum(len(piece.data) for piece in batch.pieces) < MAX_BATCH_BYTES // 2

    mounts.map.before_commit = watch
    vfs.fsync(handle)
    assert len(mounts.map.batches) - before > 3
    stored = [key for batch in mounts.map.batches[before:] for key, _ in batch.puts if key.startswith(b"e/")]
    assert stored == sorted(stored)
    close(vfs, handle)


def test_a_write_that_too_few_servers_can_take_is_refused_at_once(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    _, handle = create(vfs, b"f")
    mounts.map.is_writable = False
    with pytest.raises(ReadOnlyError):
        vfs.write(handle, 0, b"x")
    assert mounts.segments.written == []
    close(vfs, handle)


def test_a_failed_flush_says_so_keeps_the_data_and_can_be_tried_again(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino, handle = create(vfs, b"f")

    def full(_: bytes) -> None:
        raise NoSpaceError("three servers are full")

    mounts.segments.before_write = full
    vfs.write(handle, 0, b"precious")
    for _ in range(2):
        with pytest.raises(NoSpaceError):
            vfs.flush(handle)
    assert vfs.read(handle, 0, 100) == b"precious"
    assert vfs.getattr(ino).size == 8
    mounts.segments.before_write = lambda _: None
    vfs.fsync(handle)
    assert read_file(mounts.mount(), b"f") == b"precious"
    close(vfs, handle)


def test_a_failed_commit_is_the_same(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    _, handle = create(vfs, b"f")
    vfs.write(handle, 0, b"a" * 200_000)

    def refuse(_: Batch) -> None:
        raise UnavailableError("too few servers answer")

    mounts.map.before_commit = refuse
    with pytest.raises(UnavailableError):
        vfs.fsync(handle)
    mounts.map.before_commit = lambda _: None
    vfs.write(handle, 0, b"b")
    vfs.fsync(handle)
    assert len(mounts.segments.written) == 2  # what is already on its servers is not sent again
    assert read_file(vfs, b"f") == b"b" + b"a" * 199_999
    close(vfs, handle)


@pytest.mark.parametrize("size", [1000, 200_000])
@pytest.mark.parametrize("is_append", [False, True])
def test_what_may_have_been_saved_is_saved_again_under_another_segment(
    mounts: MemoryMounts, monkeypatch: pytest.MonkeyPatch, size: int, is_append: bool
) -> None:
    """The batch was committed, but no answer said so; then another mount cut the file, and so dropped the segment."""
    vfs, other = mounts.mount(), mounts.mount()
    ino, handle = create(vfs, b"f", os.O_RDWR | (os.O_APPEND if is_append else 0))
    vfs.write(handle, 0, b"a" * size)
    transact = mounts.map.transact

    def without_answer(work: Callable[[Transaction], object], *, durable: bool = True) -> object:
        monkeypatch.undo()
        transact(work, durable=durable)
        raise MaybeDoneError("no answer in time")

    monkeypatch.setattr(mounts.map, "transact", without_answer)
    with pytest.raises(MaybeDoneError):
        vfs.fsync(handle)
    assert len(region(mounts, ino).segments) == 1
    other.setattr(ino, AttributeChanges(size=0))
    vfs.fsync(handle)
    close(vfs, handle)
    assert read_file(other, b"f") == b"a" * size
    assert not {segment.id for segment in region(mounts, ino).segments} & set(mounts.map.drops)


def test_what_was_not_saved_after_all_leaves_no_segment_behind(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino, handle = create(vfs, b"f")
    vfs.write(handle, 0, b"a" * 200_000)

    def no_answer(_: Batch) -> None:
        raise MaybeDoneError("no answer in time")

    mounts.map.before_commit = no_answer
    with pytest.raises(MaybeDoneError):
        vfs.fsync(handle)
    mounts.map.before_commit = lambda _: None
    close(vfs, handle)
    stored = {segment for pieces in mounts.segments.pieces.values() for segment, _ in pieces}
    (used,) = region(mounts, ino).segments
    assert stored - {used.id} == set(mounts.map.drops)
    assert read_file(vfs, b"f") == b"a" * 200_000


def test_a_background_upload_that_failed_is_told_to_the_next_write_once(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    _, handle = create(vfs, b"f")

    def full(_: bytes) -> None:
        raise NoSpaceError("three servers are full")

    mounts.segments.before_write = full
    vfs.write(handle, 0, bytes(REGION_BYTES))
    with pytest.raises(NoSpaceError):
        vfs.write(handle, REGION_BYTES, b"x")
    mounts.segments.before_write = lambda _: None
    vfs.write(handle, REGION_BYTES, b"y")
    close(vfs, handle)
    assert read_file(vfs, b"f") == bytes(REGION_BYTES) + b"y"


def test_what_close_could_not_save_is_not_served_as_if_it_were(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino, handle = create(vfs, b"f")
    vfs.write(handle, 0, b"lost")
    mounts.map.is_writable = False
    with pytest.raises(ReadOnlyError):
        vfs.flush(handle)
    vfs.release(handle)
    assert vfs.getattr(ino).size == 0
    assert read_file(vfs, b"f") == b""
    vfs.close()


def test_memory_is_bounded_while_a_long_file_streams_through(mounts: MemoryMounts) -> None:
    vfs = mounts.mount(dirty_limit_bytes=3 * REGION_BYTES)
    ino, handle = create(vfs, b"f")
    chunk = random.Random(2).randbytes(REGION_BYTES // 4)
    for turn in range(40):
        vfs.write(handle, turn * len(chunk), chunk)
        file = vfs._files._table.get(ino)  # shown nowhere else
        assert file is not None and sum(item.held_bytes for item in file.sealed) <= 3 * REGION_BYTES
    close(vfs, handle)
    assert vfs.getattr(ino).size == 40 * len(chunk)
    assert [len(data) for data, _ in mounts.segments.written] == [REGION_BYTES] * 10


def test_scattered_writes_beyond_the_limit_are_saved_on_the_way(mounts: MemoryMounts) -> None:
    vfs = mounts.mount(dirty_limit_bytes=100_000)
    _, idle = create(vfs, b"idle")
    vfs.write(idle, 0, b"i" * 60_000)
    _, handle = create(vfs, b"f")
    for turn in range(20):
        vfs.write(handle, turn * REGION_BYTES, b"x" * 30_000)
    close(vfs, handle, idle)
    assert vfs.lookup(ROOT, b"f").size == 19 * REGION_BYTES + 30_000
    assert read_file(vfs, b"idle") == b"i" * 60_000
    assert vfs._uploads.budget.held_bytes == 0


def test_what_is_given_up_to_make_room_for_another_file_is_told_once_by_fsync(mounts: MemoryMounts) -> None:
    vfs, other = mounts.mount(dirty_limit_bytes=100_000), mounts.mount()
    _, gone = create(vfs, b"gone")
    vfs.write(gone, 0, b"g" * 60_000)
    other.unlink(ROOT, b"gone")
    _, handle = create(vfs, b"f")
    vfs.write(handle, 0, b"x" * 60_000)
    vfs.write(gone, 0, b"more")
    fails(errno.ESTALE, lambda: vfs.fsync(gone))
    vfs.fsync(gone)
    close(vfs, gone, handle)


def test_when_nothing_can_be_saved_a_full_memory_is_an_error(mounts: MemoryMounts) -> None:
    vfs = mounts.mount(dirty_limit_bytes=1000)
    _, handle = create(vfs, b"f")
    vfs.write(handle, 0, b"x" * 900)

    def refuse(_: Batch) -> None:
        raise UnavailableError("too few servers answer")

    mounts.map.before_commit = refuse
    with pytest.raises(UnavailableError):
        vfs.write(handle, 900, b"x" * 900)
    mounts.map.before_commit = lambda _: None
    assert vfs.write(handle, 900, b"y" * 900) == 900
    close(vfs, handle)


def test_with_durability_fsync_close_does_not_wait_and_fsync_does(mounts: MemoryMounts) -> None:
    background = Held()
    vfs = mounts.mount(durability="fsync", background=background)
    ino, handle = create(vfs, b"f")
    vfs.write(handle, 0, b"later")
    close(vfs, handle)
    assert mounts.segments.written == []
    assert vfs.getattr(ino).size == 5
    assert read_file(vfs, b"f") == b"later"
    background.run()
    assert read_file(mounts.mount(), b"f") == b"later"
    handle = vfs.open(ino, os.O_RDWR)
    vfs.write(handle, 0, b"now")
    vfs.fsync(handle)
    assert read_file(mounts.mount(), b"f") == b"nower"
    close(vfs, handle)
    assert vfs._files._table.all() == []


def test_a_failed_background_commit_is_kept_and_tried_again(mounts: MemoryMounts) -> None:
    vfs = mounts.mount(durability="fsync")
    ino, handle = create(vfs, b"f")
    vfs.write(handle, 0, b"kept")
    mounts.map.is_writable = False
    close_quietly(vfs, handle)
    assert vfs.getattr(ino).size == 4
    mounts.map.is_writable = True
    vfs.close()
    assert read_file(mounts.mount(), b"f") == b"kept"
    assert vfs._files._table.all() == []


def close_quietly(vfs: Vfs, handle: int) -> None:
    vfs.flush(handle)  # with durability=fsync this only begins to save; the failure comes later
    vfs.release(handle)


def test_closing_the_mount_saves_what_is_open(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    _, handle = create(vfs, b"f")
    vfs.write(handle, 0, b"saved")
    vfs.close()
    assert read_file(mounts.mount(), b"f") == b"saved"


def test_times_set_after_a_write_survive_the_flush(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino, handle = create(vfs, b"f")
    vfs.write(handle, 0, b"copied")
    vfs.setattr(ino, AttributeChanges(atime_ns=1, mtime_ns=2))
    close(vfs, handle)
    found = mounts.mount().getattr(ino)
    assert (found.atime_ns, found.mtime_ns, found.size) == (1, 2, 6)


def test_a_file_has_the_time_of_its_last_write_and_not_of_the_flush(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino, handle = create(vfs, b"f")
    vfs.write(handle, 0, b"x")
    written_ns = vfs.getattr(ino).mtime_ns
    assert written_ns == mounts.now_ns
    close(vfs, handle)
    found = mounts.mount().getattr(ino)
    assert (found.mtime_ns, found.ctime_ns) == (written_ns, written_ns)


def test_offsets_that_linux_does_not_know_are_refused(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino, handle = create(vfs, b"f")
    with pytest.raises(OSError) as caught:
        vfs.write(handle, 2**63 - 2, b"abc")
    assert caught.value.errno == errno.EFBIG
    vfs.write(handle, 2**63 - 3, b"ab")
    close(vfs, handle)
    assert vfs.getattr(ino).size == 2**63 - 1
    handle = vfs.open(ino, os.O_RDONLY)
    assert vfs.read(handle, 2**63 - 5, 100) == b"\0\0ab"
    vfs.release(handle)
    vfs.unlink(ROOT, b"f")
    assert [key for key in mounts.map.items if key[:2] in (b"e/", b"o/")] == []
