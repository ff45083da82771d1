"""Files that lose their last name while other mounts have them open, and what dead clients leave."""

from __future__ import annotations

import errno
import os

import pytest
from support.memory_mounts import CALLER, HOLDER, ROOT, MemoryMounts, close, read_file, write_file

from dfsfuse.data.extents import REGION_BYTES
from dfsfuse.namespace.ops import orphans
from dfsfuse.namespace.records import keys
from dfsfuse.vfs.names.removal import AT_ONCE
from dfsfuse.vfs.open.orphan_keeper import FIRST_SWEEP_S, SWEEP_S
from dfsfuse.vfs.vfs import Vfs

GRACE_S = 10.0
DAY_NS = 24 * 3600 * 10**9


def left(mounts: MemoryMounts) -> list[bytes]:
    """The kinds of keys that are left, apart from the root and the counter."""
    return sorted(key[:2] for key in mounts.map.items if key not in (b"n", b"i/" + (1).to_bytes(8, "big")))


def mount(mounts: MemoryMounts) -> Vfs:
    return mounts.mount(grace_s=GRACE_S)


def pass_time(mounts: MemoryMounts, seconds: float, *who: Vfs) -> None:
    mounts.now_s += seconds
    mounts.now_ns += round(seconds * 10**9)
    for vfs in who:
        vfs.orphan_keeper.turn()


def test_a_removed_file_can_be_opened_during_the_grace_period_after_a_lookup(mounts: MemoryMounts) -> None:
    """Otherwise open(2) in one mount would fail with ESTALE while another mount keeps replacing the file."""
    one, other = mount(mounts), mount(mounts)
    write_file(one, b"f", b"old")
    old = other.lookup(ROOT, b"f", HOLDER).ino
    write_file(one, b"g", b"new")
    one.rename(ROOT, b"g", ROOT, b"f")
    pass_time(mounts, GRACE_S - 1, one, other)
    handle = other.open(old, os.O_RDONLY)
    assert other.read(handle, 0, 100) == b"old"
    assert read_file(other, b"f") == b"new"
    other.release(handle)
    pass_time(mounts, 2, one)
    assert left(mounts) == [b"d/", b"e/", b"i/"]


def test_a_file_stays_until_it_is_closed_everywhere(mounts: MemoryMounts) -> None:
    one, other, third = mount(mounts), mount(mounts), mount(mounts)
    ino = write_file(one, b"f", b"data")
    a, b = other.open(ino, os.O_RDONLY), third.open(ino, os.O_RDWR)
    one.unlink(ROOT, b"f")
    for vfs in (other, third):
        vfs.changed_elsewhere([keys.orphan(ino), keys.inode(ino)])
    pass_time(mounts, 3, other, third)
    pass_time(mounts, 100 * GRACE_S, one, other, third)
    assert other.read(a, 0, 100) == b"data"
    third.write(b, 4, b" more")
    third.fsync(b)
    assert third.read(b, 0, 100) == b"data more"
    close(third, b)
    pass_time(mounts, 100 * GRACE_S, one, other, third)
    assert other.read(a, 0, 100) == b"data more"
    other.release(a)
    pass_time(mounts, 2 * GRACE_S, one, other, third)
    assert left(mounts) == []


def test_opening_a_removed_file_within_the_grace_period_keeps_it(mounts: MemoryMounts) -> None:
    one, other = mount(mounts), mount(mounts)
    ino = write_file(one, b"f", b"data")
    other.lookup(ROOT, b"f", HOLDER)
    one.unlink(ROOT, b"f")
    handle = other.open(ino, os.O_RDONLY)
    pass_time(mounts, 3, other)
    pass_time(mounts, 2 * GRACE_S, one, other)
    assert other.read(handle, 0, 10) == b"data"
    other.release(handle)
    other.forget(ino)
    pass_time(mounts, 2 * GRACE_S, other)
    assert left(mounts) == []


def test_when_anything_may_have_changed_open_files_are_looked_at(mounts: MemoryMounts) -> None:
    one, other = mount(mounts), mount(mounts)
    ino = write_file(one, b"f", b"data")
    kept = write_file(one, b"kept", b"x")
    handles = [other.open(ino, os.O_RDONLY), other.open(kept, os.O_RDONLY)]
    one.unlink(ROOT, b"f")
    other.changed_elsewhere(None)
    pass_time(mounts, 3, other)
    pass_time(mounts, 2 * GRACE_S, one)
    assert other.read(handles[0], 0, 10) == b"data"
    close(other, *handles)
    pass_time(mounts, 2 * GRACE_S, other)
    assert read_file(other, b"kept") == b"x"


def test_many_are_deleted_together(mounts: MemoryMounts) -> None:
    vfs = mount(mounts)
    count = 2 * AT_ONCE + 50
    for number in range(count):
        write_file(vfs, b"f%d" % number, b"x")
        vfs.unlink(ROOT, b"f%d" % number)
    assert left(mounts).count(b"o/") == count
    before = len(mounts.map.batches)
    pass_time(mounts, GRACE_S + 1, vfs)
    assert left(mounts) == []
    assert len(mounts.map.batches) - before <= count / AT_ONCE + 1
    assert len(set(mounts.map.drops)) == count


def test_long_ones_among_them_take_their_steps(mounts: MemoryMounts) -> None:
    vfs = mount(mounts)
    for number in range(3):
        attributes, handle = vfs.create(ROOT, b"f%d" % number, 0o644, os.O_RDWR, CALLER)
        for index in range(150):
            vfs.write(handle, index * REGION_BYTES, b"x")
        close(vfs, handle)
        vfs.unlink(ROOT, b"f%d" % number)
    before = len(mounts.map.batches)
    pass_time(mounts, GRACE_S + 1, vfs)
    assert left(mounts) == []
    assert max(len(batch.deletes) for batch in mounts.map.batches[before:]) < 300
    assert attributes.ino


def test_one_that_cannot_be_read_does_not_keep_the_others(mounts: MemoryMounts) -> None:
    vfs = mount(mounts)
    inos = [write_file(vfs, b"f%d" % number, b"x") for number in range(3)]
    for number in range(3):
        vfs.unlink(ROOT, b"f%d" % number)
    mounts.map.items[keys.orphan(inos[1])] = b"\x92\x07\x80"  # in format 7
    pass_time(mounts, GRACE_S + 1, vfs)
    assert left(mounts) == [b"e/", b"i/", b"o/"]


def test_without_enough_servers_they_wait(mounts: MemoryMounts) -> None:
    vfs = mount(mounts)
    write_file(vfs, b"f", b"x")
    vfs.unlink(ROOT, b"f")
    mounts.map.is_writable = False
    pass_time(mounts, GRACE_S + 1, vfs)
    assert b"o/" in left(mounts)
    mounts.map.is_writable = True
    pass_time(mounts, 1, vfs)
    assert left(mounts) == []


def test_at_the_end_of_a_mount_nothing_waits(mounts: MemoryMounts) -> None:
    vfs = mount(mounts)
    for number in range(AT_ONCE + 5):
        vfs.mkdir(ROOT, b"d%d" % number, 0o755, CALLER)
        vfs.rmdir(ROOT, b"d%d" % number)
    vfs.close()
    assert left(mounts) == []


def test_what_dead_clients_left_is_swept_after_a_day(mounts: MemoryMounts) -> None:
    dead, vfs = mount(mounts), mount(mounts)
    write_file(dead, b"f", b"data")
    dead.unlink(ROOT, b"f")
    mounts.map.items[keys.orphan(77)] = b"\x01"  # a record of the first version, whose inode is gone
    pass_time(mounts, FIRST_SWEEP_S + 1, vfs)
    assert left(mounts) == [b"e/", b"i/", b"o/"]
    pass_time(mounts, 24 * 3600, vfs)
    assert left(mounts) == []


def test_what_a_living_mount_has_open_is_not_swept(mounts: MemoryMounts) -> None:
    """Neither by others nor by itself, even after several days."""
    owner, other = mount(mounts), mount(mounts)
    _, handle = owner.create(ROOT, b"f", 0o600, os.O_RDWR, CALLER)
    owner.write(handle, 0, b"scratch")
    owner.fsync(handle)
    owner.unlink(ROOT, b"f")
    for _ in range(100):
        pass_time(mounts, SWEEP_S, owner, other)
    assert owner.read(handle, 0, 10) == b"scratch"
    owner.release(handle)
    pass_time(mounts, 2 * GRACE_S, owner)
    assert left(mounts) == []


def test_a_claim_of_another_day_is_no_reason_to_keep_it(mounts: MemoryMounts) -> None:
    """Another mount claimed the orphan of a living mount, and then died."""
    one, dead = mount(mounts), mount(mounts)
    ino = write_file(one, b"f", b"data")
    own = one.open(ino, os.O_RDONLY)
    dead.open(ino, os.O_RDONLY)
    one.unlink(ROOT, b"f")
    dead.changed_elsewhere([keys.orphan(ino)])
    pass_time(mounts, 3, dead)
    mounts.now_ns += DAY_NS
    one.release(own)
    pass_time(mounts, 2 * GRACE_S, one)
    assert left(mounts) == []


def test_a_newer_clients_orphans_are_left_to_it(mounts: MemoryMounts) -> None:
    vfs = mount(mounts)
    ino = write_file(vfs, b"f", b"data")
    vfs.unlink(ROOT, b"f")
    newer = b"\x93\x07\x80\x00"
    mounts.map.items[keys.orphan(ino)] = newer
    pass_time(mounts, GRACE_S + 1, vfs)
    pass_time(mounts, 3 * 24 * 3600, vfs)
    assert mounts.map.items[keys.orphan(ino)] == newer
    with pytest.raises(OSError, match="format 7") as caught:
        orphans.decode(newer)
    assert caught.value.errno == errno.EIO


def test_one_that_a_newer_client_keeps_does_not_keep_the_others_from_being_claimed(mounts: MemoryMounts) -> None:
    owner, other = mount(mounts), mount(mounts)
    inos = [write_file(owner, name, b"data") for name in (b"f", b"g")]
    handles = [other.open(ino, os.O_RDONLY) for ino in inos]
    owner.unlink(ROOT, b"f")
    owner.unlink(ROOT, b"g")
    mounts.map.items[keys.orphan(inos[0])] = b"\x93\x07\x80\x00"
    other.changed_elsewhere([keys.orphan(ino) for ino in inos])
    pass_time(mounts, 3, other)
    pass_time(mounts, GRACE_S, owner)
    assert other.read(handles[1], 0, 10) == b"data"
    assert other.read(handles[0], 0, 10) == b"data"


def test_a_mount_that_ends_does_not_wait_until_all_is_deleted(mounts: MemoryMounts) -> None:
    """Deletions that take long are left to other mounts (`Reaper.finish`)."""
    vfs = mount(mounts)
    for number in range(3 * AT_ONCE):
        vfs.mkdir(ROOT, b"d%d" % number, 0o755, CALLER)
        vfs.rmdir(ROOT, b"d%d" % number)
    batches = len(mounts.map.batches)
    mounts.map.before_commit = lambda _: vfs.orphan_keeper.close()
    pass_time(mounts, GRACE_S + 1, vfs)
    assert len(mounts.map.batches) == batches + 1
    mounts.map.before_commit = lambda _: None
    vfs.close()
    assert left(mounts) == []
