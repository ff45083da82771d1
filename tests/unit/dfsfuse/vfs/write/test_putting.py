"""put_stream(): the whole file appears at once, or nothing does."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator

import pytest
from support.memory_mounts import CALLER, GROUP, ROOT, USER, MemoryMounts, in_chunks, names, read_file, write_file

from dfs_server.protocol.batches import Batch
from dfsfuse.data.extents import REGION_BYTES
from dfsfuse.errors import MaybeDoneError, NoSpaceError, ReadOnlyError, UnavailableError
from dfsfuse.namespace.map.transactions import Transaction
from dfsfuse.namespace.ops import orphans
from dfsfuse.vfs.caller import Caller
from dfsfuse.vfs.write import regions
from dfsfuse.vfs.write.putting import Hole


def test_a_file_is_put_with_one_batch_and_placed_by_its_md5(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    vfs.put_stream(ROOT, b"first", [], mode=0o600)
    before = len(mounts.map.batches)
    data = random.Random(5).randbytes(2 * REGION_BYTES + 777)
    told: list[int] = []
    made = vfs.put_stream(
        ROOT, b"f", in_chunks(data, 99_999), mode=0o640, caller=Caller(7, 8), mtime_ns=5, progress=told.append
    )
    assert len(mounts.map.batches) == before + 1
    x = int(hashlib.md5(data[:REGION_BYTES]).hexdigest(), 16) % 4
    assert sorted(rotation for _, rotation in mounts.segments.written) == sorted([(x + i) % 4 for i in range(3)])
    assert (made.size, made.mode & 0o777, made.uid, made.gid, made.mtime_ns) == (len(data), 0o640, 7, 8, 5)
    assert (made.nlink, made.blocks) == (1, -(-len(data) // 512))
    assert told == [REGION_BYTES, 2 * REGION_BYTES, len(data)]
    assert read_file(mounts.mount(), b"f") == data


def test_holes_take_no_room_and_read_as_zeros(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    data = random.Random(7).randbytes(3 * REGION_BYTES)
    parts = [Hole(2 * REGION_BYTES + 8192), data, Hole(100), b"x" * 50, Hole(8192 + 46), b"y", Hole(REGION_BYTES)]
    whole = b"".join(bytes(part.length) if isinstance(part, Hole) else part for part in parts)
    made = vfs.put_stream(ROOT, b"f", parts)
    assert made.size == len(whole)
    assert made.blocks == -(-(len(data) + 100 + 50 + 1) // 512)  # less than a block is not a hole
    assert read_file(mounts.mount(), b"f") == whole
    handle = vfs.open(made.ino, os.O_RDONLY)
    assert vfs.lseek(handle, 0, os.SEEK_DATA) == 2 * REGION_BYTES + 8192
    end = len(whole) - REGION_BYTES
    assert vfs.lseek(handle, end - 1, os.SEEK_HOLE) == end
    vfs.release(handle)
    x = int(hashlib.md5(data[: REGION_BYTES - 8192]).hexdigest(), 16) % 4
    assert sorted(rotation for _, rotation in mounts.segments.written) == sorted([(x + i) % 4 for i in range(2, 6)])


def test_a_file_of_holes_has_no_data_at_all(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    made = vfs.put_stream(ROOT, b"f", [Hole(1 << 40), Hole(1)])
    assert (made.size, made.blocks) == ((1 << 40) + 1, 0)
    assert [key for key in mounts.map.items if key.startswith(b"e/")] == []
    with pytest.raises(OSError, match="File too large"):
        vfs.put_stream(ROOT, b"g", [b"x", Hole(1 << 62), Hole(1 << 62)])
    assert names(vfs) == [b"f"]


def test_an_empty_file(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    assert vfs.put_stream(ROOT, b"f", []).size == 0
    assert read_file(vfs, b"f") == b""


def test_it_replaces_a_file_whose_readers_keep_what_they_opened(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    old = write_file(vfs, b"f", b"old")
    handle = vfs.open(old, os.O_RDONLY)
    made = vfs.put_stream(ROOT, b"f", [b"new"], mode=0o777, caller=Caller(1, 1))
    assert (made.mode & 0o777, made.uid, made.gid) == (0o644, USER, GROUP)
    assert vfs.read(handle, 0, 10) == b"old"
    assert read_file(vfs, b"f") == b"new"
    vfs.release(handle)
    assert len([key for key in mounts.map.items if key.startswith(b"i/")]) == 2
    assert vfs.getattr(ROOT).nlink == 2


def test_a_very_long_file_appears_at_once_too(mounts: MemoryMounts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions, "BATCH_BYTES", 100_000)
    vfs = mounts.mount()
    data = random.Random(6).randbytes(REGION_BYTES)
    watcher = mounts.mount()
    seen: list[list[bytes]] = []
    mounts.map.before_commit = lambda _: seen.append(names(watcher))
    small = [data, data, b"x" * 100_000]  # the last one travels inside a batch, and takes one of its own
    vfs.put_stream(ROOT, b"f", small)
    mounts.map.before_commit = lambda _: None
    assert len(seen) > 2 and seen[-1] == []
    assert read_file(vfs, b"f") == b"".join(small)
    assert [key for key in mounts.map.items if key.startswith(b"o/")] == []
    assert vfs.lookup(ROOT, b"f").nlink == 1


def test_a_source_that_fails_leaves_nothing(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    write_file(vfs, b"f", b"old")

    def source() -> Iterator[bytes]:
        yield bytes(REGION_BYTES)
        yield bytes(REGION_BYTES)
        raise OSError(5, "the disk that we read from broke")

    with pytest.raises(OSError, match="broke"):
        vfs.put_stream(ROOT, b"f", source())
    assert read_file(vfs, b"f") == b"old"
    assert len(mounts.map.drops) == 2


def test_servers_that_fail_leave_nothing(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()

    def full(_: bytes) -> None:
        raise NoSpaceError("three servers are full")

    mounts.segments.before_write = full
    with pytest.raises(NoSpaceError):
        vfs.put_stream(ROOT, b"f", [bytes(REGION_BYTES)] * 9)
    assert names(vfs) == []
    mounts.map.is_writable = False
    with pytest.raises(ReadOnlyError):
        vfs.put_stream(ROOT, b"f", [b"x"])


def test_what_may_have_happened_is_not_taken_back(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    vfs.put_stream(ROOT, b"first", [])

    def silence(_: Batch) -> None:
        raise MaybeDoneError("no answer in time")

    mounts.map.before_commit = silence
    with pytest.raises(MaybeDoneError):
        vfs.put_stream(ROOT, b"f", [bytes(REGION_BYTES)])
    assert mounts.map.drops == []


def test_interrupted_just_after_the_file_got_its_name_it_stays(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    commit = mounts.map.transact
    data = bytes(300_000)

    def interrupted(work: Callable[[Transaction], object], *, durable: bool = True) -> object:
        result = commit(work, durable=durable)
        if any(key.startswith(b"d/") for key, _ in mounts.map.batches[-1].puts):
            mounts.map.transact = commit  # type: ignore[method-assign]
            raise KeyboardInterrupt
        return result

    mounts.map.transact = interrupted  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        vfs.put_stream(ROOT, b"f", [data])
    assert read_file(vfs, b"f") == data
    assert mounts.map.drops == []


def test_no_file_is_put_in_a_folders_place_or_into_none(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    vfs.mkdir(ROOT, b"d", 0o755, CALLER)
    with pytest.raises(IsADirectoryError):
        vfs.put_stream(ROOT, b"d", [b"x" * 200_000])
    with pytest.raises(FileNotFoundError):
        vfs.put_stream(999, b"f", [b"x" * 200_000])
    assert len(mounts.map.drops) == 2


def test_it_takes_the_place_of_a_symbolic_link(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    vfs.symlink(ROOT, b"l", b"target", CALLER)
    made = vfs.put_stream(ROOT, b"l", [b"x"], mode=0o600)
    assert made.mode == 0o100600
    assert len([key for key in mounts.map.items if key.startswith(b"i/")]) == 2


def test_a_file_that_takes_days_is_referred_to_as_it_goes(mounts: MemoryMounts) -> None:
    """Otherwise its first segments would be swept before the last one is stored."""
    vfs = mounts.mount()
    data = random.Random(7).randbytes(20 * REGION_BYTES)
    oldest_ns = 0

    def slowly() -> Iterator[bytes]:
        nonlocal oldest_ns
        for chunk in in_chunks(data, REGION_BYTES):
            mounts.now_ns += 2 * 3600 * 10**9
            yield chunk
            referred = {
                segment.id
                for key, value in mounts.map.items.items()
                if key.startswith(b"e/")
                for segment in regions.decode(value).segments
            }
            on_servers = {segment for held in mounts.segments.pieces.values() for segment, _ in held}
            assert len(on_servers - referred) <= 2
            assert names(vfs) == []
            for key, value in mounts.map.items.items():
                if key.startswith(b"o/"):
                    oldest_ns = max(oldest_ns, mounts.now_ns - min(orphans.decode(value).values()))

    vfs.put_stream(ROOT, b"f", slowly())
    assert 0 < oldest_ns <= 10 * 3600 * 10**9
    assert read_file(vfs, b"f") == data
    assert not [key for key in mounts.map.items if key.startswith(b"o/")]
    assert mounts.map.drops == []


def test_a_put_that_was_taken_for_dead_meanwhile_makes_no_file_with_part_of_the_data(mounts: MemoryMounts) -> None:
    vfs, other = mounts.mount(), mounts.mount()
    data = random.Random(8).randbytes(6 * REGION_BYTES)
    swept = 0

    def slowly() -> Iterator[bytes]:
        nonlocal swept
        for chunk in in_chunks(data, REGION_BYTES):
            mounts.now_ns += 2 * 3600 * 10**9
            yield chunk
            if not swept and any(key.startswith(b"o/") for key in mounts.map.items):
                now_ns, mounts.now_ns = mounts.now_ns, mounts.now_ns + orphans.VALID_NS
                swept = other.orphan_keeper.sweep()
                mounts.now_ns = now_ns

    with pytest.raises(UnavailableError, match="put it again"):
        vfs.put_stream(ROOT, b"f", slowly())
    assert swept == 1
    assert names(vfs) == []
    assert not [key for key in mounts.map.items if key[:2] in (b"o/", b"e/")]
