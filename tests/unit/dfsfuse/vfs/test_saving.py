"""From write() to the map: what becomes one segment, where it goes, what a failure leaves."""

from __future__ import annotations

import errno
import hashlib
import os
import random
from collections.abc import Callable

import pytest
from support.executors import Held
from support.memory_map import MemoryTransaction
from support.memory_mounts import GROUP, ROOT, USER, MemoryMounts, close, read_file, write_file

from dfs_server.protocol.batches import MAX_BATCH_BYTES, Batch
from dfsfuse.data import extents
from dfsfuse.data.extents import REGION_BYTES
from dfsfuse.data.placement import pairs
from dfsfuse.errors import MaybeDoneError, NoSpaceError, ReadOnlyError, UnavailableError
from dfsfuse.namespace import keys
from dfsfuse.namespace.transactions import Transaction
from dfsfuse.vfs import uploaded
from dfsfuse.vfs.vfs import AttributeChanges, Vfs


def create(vfs: Vfs, name: bytes, flags: int = os.O_RDWR) -> tuple[int, int]:
    attributes, handle = vfs.create(ROOT, name, 0o644, flags, USER, GROUP)
    return attributes.ino, handle


def region(mounts: MemoryMounts, ino: int, index: int = 0) -> extents.Region:
    return extents.decode(mounts.map.items[keys.region(ino, index)])


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
    assert len(mounts.segments.written) == 2  # what is up already is not sent again
    assert read_file(vfs, b"f") == b"b" + b"a" * 199_999
    close(vfs, handle)


@pytest.mark.parametrize("size", [1000, 200_000])
@pytest.mark.parametrize("is_append", [False, True])
def test_what_may_have_been_saved_is_saved_again_under_another_segment(
    mounts: MemoryMounts, monkeypatch: pytest.MonkeyPatch, size: int, is_append: bool
) -> None:
    """The batch came through, but nobody could tell; then another mount cut the file, and so dropped the segment."""
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
        file = vfs._files._table.get(ino)  # the one place that knows
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
    vfs.flush(handle)  # with durability=fsync it begins to save, and the failure comes later
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


# ------------------------------------------------------------------ what was up for long


HOUR_NS = 3600 * 10**9


def test_what_has_been_up_for_hours_is_put_again_before_a_batch_refers_to_it(mounts: MemoryMounts) -> None:
    """A sweep may take it for what a dead client left."""
    data = random.Random(3).randbytes(REGION_BYTES)
    vfs = mounts.mount()
    ino, handle = create(vfs, b"f")
    vfs.write(handle, 0, data)
    assert mounts.segments.written == [(data, mounts.segments.written[0][1])]
    (old,) = {piece[0] for held in mounts.segments.pieces.values() for piece in held}
    mounts.now_ns += 7 * HOUR_NS
    close(vfs, handle)
    (segment,) = region(mounts, ino).segments
    assert segment.id != old
    assert mounts.map.drops == [old]
    assert read_file(vfs, b"f") == data


def test_what_is_put_into_a_batch_depends_on_no_sweep_having_begun(mounts: MemoryMounts) -> None:
    read: list[bytes] = []

    class Reading:
        def get(self, key: bytes) -> bytes | None:
            read.append(key)
            return None

    uploaded.check(Reading(), 5, 5 + uploaded.KEEP_NS)  # type: ignore[arg-type]
    assert read == [keys.SWEEP]
    for began_ns, now_ns in ((5, 6 + uploaded.KEEP_NS), (5, 4)):
        with pytest.raises(UnavailableError):
            uploaded.check(Reading(), began_ns, now_ns)  # type: ignore[arg-type]


def test_a_machine_that_stands_still_while_it_saves_refers_to_nothing_old(
    mounts: MemoryMounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = random.Random(4).randbytes(REGION_BYTES)
    vfs = mounts.mount()
    ino, handle = create(vfs, b"f")
    vfs.write(handle, 0, data)
    transact = mounts.map.transact

    def suspended(work: Callable[[Transaction], object], *, durable: bool = True) -> object:
        """The first run is overtaken by a sweep: the work runs again, two days later."""
        work(MemoryTransaction(mounts.map.items))
        mounts.now_ns += 48 * HOUR_NS
        monkeypatch.undo()
        return transact(work, durable=durable)

    monkeypatch.setattr(mounts.map, "transact", suspended)
    with pytest.raises(UnavailableError):
        vfs.flush(handle)
    assert keys.region(ino, 0) not in mounts.map.items
    close(vfs, handle)
    assert len(mounts.segments.written) == 2
    assert read_file(vfs, b"f") == data


def test_what_waits_for_long_is_saved_though_nobody_asks(mounts: MemoryMounts) -> None:
    data = random.Random(5).randbytes(REGION_BYTES)
    vfs = mounts.mount()
    ino, handle = create(vfs, b"f")
    vfs.write(handle, 0, data + b"more")
    vfs.save_long_unsaved()
    assert keys.region(ino, 0) not in mounts.map.items
    mounts.now_ns += 2 * HOUR_NS
    vfs.save_long_unsaved()
    assert [len(mounts.segments.written), region(mounts, ino).end()] == [1, REGION_BYTES]
    close(vfs, handle)
    assert read_file(vfs, b"f") == data + b"more"


# ------------------------------------------------------------------ what was lost


def fails(number: int, action: Callable[[], object]) -> None:
    with pytest.raises(OSError) as caught:
        action()
    assert caught.value.errno == number


def test_changes_that_were_answered_and_lost_are_told_by_each_file_that_was_open_then(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino, one = create(vfs, b"f")
    other, folder = vfs.open(ino, os.O_RDONLY), vfs.opendir(ROOT)
    mounts.map.losses.add(UnavailableError("overtaken"))
    early = vfs.opendir(ROOT)  # nobody has been told yet: this may be who wants to rely on a rename
    for tell in (
        lambda: vfs.flush(one),
        lambda: vfs.fsync(other),
        lambda: vfs.fsyncdir(folder),
        lambda: vfs.fsyncdir(early),
    ):
        with pytest.raises(UnavailableError):
            tell()
        tell()
    late, late_folder = vfs.open(ino, os.O_RDWR), vfs.opendir(ROOT)
    vfs.fsync(late)
    vfs.fsyncdir(late_folder)
    for handle in (folder, early, late_folder):
        vfs.releasedir(handle)
    close(vfs, one, other, late)


@pytest.mark.parametrize("durability", ["close", "fsync"])
def test_data_that_was_given_up_is_told_by_each_handle(mounts: MemoryMounts, durability: str) -> None:
    background = Held()
    vfs, other = mounts.mount(durability=durability, background=background), mounts.mount()
    ino, one = create(vfs, b"f")
    two, reader = vfs.open(ino, os.O_RDWR), vfs.open(ino, os.O_RDONLY)
    vfs.write(one, 0, b"one")
    vfs.write(two, 3, b"two")
    other.unlink(ROOT, b"f")
    assert keys.inode(ino) not in mounts.map.items
    if durability == "fsync":
        vfs.flush(one)  # is saved later
        background.run()
    fails(errno.ESTALE, lambda: vfs.flush(one))
    vfs.flush(one)
    fails(errno.ESTALE, lambda: vfs.flush(two))
    fails(errno.ESTALE, lambda: vfs.fsync(reader))
    vfs.fsync(reader)
    close(vfs, one, two, reader)
    assert not vfs.is_open(ino)


def test_what_cannot_be_saved_later_now_can_be_the_next_time(mounts: MemoryMounts) -> None:
    background = Held()
    vfs = mounts.mount(durability="fsync", background=background)
    ino, handle = create(vfs, b"f")
    vfs.write(handle, 0, b"data")
    table = vfs._table
    table._doomed.add(ino)
    fails(errno.ENOENT, lambda: vfs.flush(handle))
    table.pardon(ino)
    vfs.flush(handle)
    background.run()
    assert region(mounts, ino).end() == 4
    close(vfs, handle)
