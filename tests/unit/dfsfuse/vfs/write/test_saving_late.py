"""Data that was written long ago and is not saved yet is neither lost nor taken for a dead client's leftovers."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from support.memory_map import MemoryTransaction
from support.memory_mounts import MemoryMounts, close, create, read_file, region

from dfsfuse.data.extents import REGION_BYTES
from dfsfuse.errors import UnavailableError
from dfsfuse.namespace.map.transactions import Transaction
from dfsfuse.namespace.records import keys
from dfsfuse.vfs.write import uploaded

HOUR_NS = 3600 * 10**9


def test_what_has_been_up_for_hours_is_put_again_before_a_batch_refers_to_it(mounts: MemoryMounts) -> None:
    """A sweep may take the first copy for a dead client's leftovers."""
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
        """A sweep overtakes the first run, and the work runs again two days later."""
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


def test_what_waits_for_long_is_saved_without_a_request(mounts: MemoryMounts) -> None:
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
