"""setattr(): attributes, and sizes in bounded steps."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

import pytest
from support.memory_mounts import CALLER, ROOT, MemoryMounts, close, read_file, write_file

from dfs_server.protocol.batches import Batch
from dfsfuse.data.extents import REGION_BYTES
from dfsfuse.errors import MaybeDoneError, UnavailableError
from dfsfuse.namespace.map.transactions import Transaction
from dfsfuse.namespace.records.inode import TIME_MAX_NS, TIME_MIN_NS
from dfsfuse.vfs.caller import Caller
from dfsfuse.vfs.vfs import AttributeChanges
from dfsfuse.vfs.write.regions import STEP_REGIONS


def test_each_attribute_changes_alone_and_ctime_with_it(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", b"data")
    before = vfs.getattr(ino)
    after = vfs.setattr(ino, AttributeChanges(mode=0o4751))
    assert after.mode == stat.S_IFREG | 0o4751
    assert (after.uid, after.mtime_ns, after.ctime_ns) == (before.uid, before.mtime_ns, mounts.now_ns)
    assert vfs.setattr(ino, AttributeChanges(uid=5)).uid == 5
    after = vfs.setattr(ino, AttributeChanges(gid=6, atime_ns=7))
    assert (after.uid, after.gid, after.atime_ns, after.mtime_ns) == (5, 6, 7, before.mtime_ns)


def test_a_time_that_no_record_holds_is_the_nearest_one(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", b"data")
    after = vfs.setattr(ino, AttributeChanges(atime_ns=TIME_MIN_NS - 1, mtime_ns=TIME_MAX_NS + 1))
    assert (after.atime_ns, after.mtime_ns) == (TIME_MIN_NS, TIME_MAX_NS)
    assert (vfs.getattr(ino).atime_ns, vfs.getattr(ino).mtime_ns) == (TIME_MIN_NS, TIME_MAX_NS)


def test_growing_leaves_a_hole_and_shrinking_forgets(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", b"0123456789")
    vfs.setattr(ino, AttributeChanges(size=4))
    after = vfs.setattr(ino, AttributeChanges(size=8))
    assert (after.size, after.blocks, after.mtime_ns) == (8, 1, mounts.now_ns)
    assert read_file(vfs, b"f") == b"0123\0\0\0\0"
    after = vfs.setattr(ino, AttributeChanges(size=0))
    assert (after.size, after.blocks) == (0, 0)
    assert [key for key in mounts.map.items if key.startswith(b"e/")] == []
    assert len(mounts.map.drops) == 1


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_RDWR | os.O_APPEND])
@pytest.mark.parametrize("stored", [b"", b"stored "])
def test_truncating_to_the_size_it_has_saves_nothing_and_changes_the_times(
    mounts: MemoryMounts, flags: int, stored: bytes
) -> None:
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", stored)
    handle = vfs.open(ino, flags)
    vfs.write(handle, len(stored), b"unsaved")
    written, batches = len(mounts.segments.written), len(mounts.map.batches)
    data = stored + b"unsaved"
    for mtime_ns in (None, 5):
        after = vfs.setattr(ino, AttributeChanges(size=len(data), mtime_ns=mtime_ns), handle)
        assert (after.size, after.mtime_ns) == (len(data), mtime_ns or mounts.now_ns)
        assert after.ctime_ns == mounts.now_ns
        assert vfs.getattr(ino) == after
        assert vfs.read(handle, 0, 100) == data
    assert len(mounts.segments.written) == written
    assert all([key[:2] for key, _ in batch.puts] == [b"i/"] for batch in mounts.map.batches[batches:])
    close(vfs, handle)
    found = mounts.mount().getattr(ino)
    assert (found.size, found.mtime_ns) == (len(data), 5)
    assert read_file(vfs, b"f") == data


def test_truncating_to_the_size_it_had_before_it_was_written_saves_and_cuts(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", b"stored")
    handle = vfs.open(ino, os.O_RDWR | os.O_APPEND)
    vfs.write(handle, 0, b" more")
    assert vfs.setattr(ino, AttributeChanges(size=6), handle).size == 6
    close(vfs, handle)
    assert read_file(vfs, b"f") == b"stored"


@pytest.mark.parametrize("is_made", [False, True])
def test_truncating_with_data_in_doubt_reaches_that_size(
    mounts: MemoryMounts, monkeypatch: pytest.MonkeyPatch, is_made: bool
) -> None:
    """The map's size may or may not include the appended bytes, so that has to be found out first."""
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", b"stored")
    handle = vfs.open(ino, os.O_RDWR | os.O_APPEND)
    vfs.write(handle, 0, b" more")
    transact = mounts.map.transact

    def without_answer(work: Callable[[Transaction], object], *, durable: bool = True) -> object:
        if is_made:
            transact(work, durable=durable)
        raise MaybeDoneError("no answer in time")

    monkeypatch.setattr(mounts.map, "transact", without_answer)
    with pytest.raises(MaybeDoneError):
        vfs.fsync(handle)
    monkeypatch.undo()
    assert vfs.setattr(ino, AttributeChanges(size=16), handle).size == 16
    close(vfs, handle)
    assert mounts.mount().getattr(ino).size == 16
    assert read_file(vfs, b"f") == b"stored more" + bytes(5)


def test_truncating_a_file_that_is_being_written(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    attributes, handle = vfs.create(ROOT, b"f", 0o644, os.O_RDWR, CALLER)
    vfs.write(handle, 0, b"0123456789")
    vfs.setattr(attributes.ino, AttributeChanges(size=3), handle)
    assert vfs.read(handle, 0, 100) == b"012"
    vfs.write(handle, 3, b"x" * 200_000)
    vfs.setattr(attributes.ino, AttributeChanges(size=0), handle)
    assert vfs.read(handle, 0, 100) == b""
    assert vfs._uploads.budget.held_bytes == 0
    vfs.write(handle, 1, b"y")
    close(vfs, handle)
    assert read_file(vfs, b"f") == b"\0y"


def test_emptying_gives_up_what_is_on_its_way_and_drops_it(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino, handle = vfs.create(ROOT, b"f", 0o644, os.O_RDWR, CALLER)
    vfs.write(handle, 0, bytes(REGION_BYTES + 10))
    vfs.setattr(ino.ino, AttributeChanges(size=0))
    assert len(mounts.segments.written) == len(mounts.map.drops) == 1
    close(vfs, handle)
    assert vfs.getattr(ino.ino).size == 0


def test_a_truncate_that_fails_loses_nothing(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    attributes, handle = vfs.create(ROOT, b"f", 0o644, os.O_RDWR, CALLER)
    vfs.write(handle, 0, b"still here")

    def refuse(_: Batch) -> None:
        raise UnavailableError("too few servers answer")

    mounts.map.before_commit = refuse
    with pytest.raises(UnavailableError):
        vfs.setattr(attributes.ino, AttributeChanges(size=0))
    mounts.map.before_commit = lambda _: None
    close(vfs, handle)
    assert read_file(vfs, b"f") == b"still here"


def test_a_long_file_shrinks_in_bounded_steps_each_a_prefix(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    attributes, handle = vfs.create(ROOT, b"f", 0o644, os.O_RDWR, CALLER)
    regions = 2 * STEP_REGIONS + 10
    for index in range(regions):
        vfs.write(handle, index * REGION_BYTES, b"x" * 10)
    vfs.fsync(handle)
    before = len(mounts.map.batches)
    sizes: list[int] = []
    mounts.map.before_commit = lambda _: sizes.append(vfs.getattr(attributes.ino).size)
    after = vfs.setattr(attributes.ino, AttributeChanges(size=5, mtime_ns=77))
    assert len(mounts.map.batches) - before == 3
    assert sizes == sorted(sizes, reverse=True)
    assert (after.size, after.mtime_ns, after.blocks) == (5, 77, 1)
    assert vfs.read(handle, 0, 100) == b"x" * 5
    assert len(set(mounts.map.drops)) == regions - 1
    close(vfs, handle)


@pytest.mark.parametrize(("size", "number"), [(-1, errno.EINVAL), (2**63, errno.EFBIG)])
def test_impossible_sizes(mounts: MemoryMounts, size: int, number: int) -> None:
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", b"x")
    with pytest.raises(OSError) as caught:
        vfs.setattr(ino, AttributeChanges(size=size))
    assert caught.value.errno == number


def test_only_files_have_a_size_to_change(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    folder = vfs.mkdir(ROOT, b"d", 0o755, CALLER).ino
    link = vfs.symlink(ROOT, b"l", b"t", CALLER).ino
    for ino, number in ((folder, errno.EISDIR), (link, errno.EINVAL), (999, errno.ENOENT)):
        with pytest.raises(OSError) as caught:
            vfs.setattr(ino, AttributeChanges(size=0))
        assert caught.value.errno == number


def test_a_file_that_is_cut_in_steps_is_cut_to_the_end_though_another_mount_moves_it_meanwhile(
    mounts: MemoryMounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later steps accept the path that was checked in the first step: ESTALE means that nothing was done."""
    vfs, other = mounts.mount(), mounts.mount()
    ino = write_file(vfs, b"f", b"x")
    handle = vfs.open(ino, os.O_RDWR)
    for index in range(STEP_REGIONS + 10):
        vfs.write(handle, index * REGION_BYTES, b"xxxxx")
    close(vfs, handle)
    transact, steps = mounts.map.transact, 0

    def moving(work: Callable[[Transaction], object], *, durable: bool = True) -> object:
        nonlocal steps
        steps += 1
        done = transact(work, durable=durable)
        if steps == 1:
            other.rename(ROOT, b"f", ROOT, b"g")
        return done

    monkeypatch.setattr(mounts.map, "transact", moving)
    assert vfs.setattr(ino, AttributeChanges(size=5), caller=Caller(0, 0, [(ROOT, b"f", ino)])).size == 5
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        vfs.setattr(ino, AttributeChanges(size=0), caller=Caller(0, 0, [(ROOT, b"f", ino)]))
    assert vfs.getattr(ino).size == 5
