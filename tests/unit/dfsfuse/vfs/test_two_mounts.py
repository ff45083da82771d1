"""Several mounts of one namespace: close-to-open consistency, and one winner. Lagging ones may use old states."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable

import pytest
from support.executors import Immediate
from support.memory_mounts import CALLER, ROOT, USER, MemoryMounts, close, names, read_file, write_file

from dfsfuse.data.extents import REGION_BYTES
from dfsfuse.namespace.map.transactions import View
from dfsfuse.vfs.caller import Caller
from dfsfuse.vfs.vfs import AttributeChanges, Vfs


def test_open_sees_what_was_closed_before(mounts: MemoryMounts) -> None:
    writer, reader = mounts.mount(lagging=True), mounts.mount(lagging=True)
    ino = write_file(writer, b"f", b"one")
    assert read_file_of(reader, ino) == b"one"
    handle = writer.open(ino, os.O_RDWR)
    writer.write(handle, 0, b"two and more")
    assert read_file_of(reader, ino) == b"one"
    close(writer, handle)
    assert read_file_of(reader, ino) == b"two and more"
    writer.setattr(ino, AttributeChanges(size=2))
    assert read_file_of(reader, ino) == b"tw"


def read_file_of(vfs: Vfs, ino: int) -> bytes:
    handle = vfs.open(ino, os.O_RDONLY)
    data = vfs.read(handle, 0, 1 << 20)
    vfs.release(handle)
    return data


def test_opendir_sees_what_was_made_before(mounts: MemoryMounts) -> None:
    one, other = mounts.mount(lagging=True), mounts.mount(lagging=True)
    assert names(other) == []
    write_file(one, b"f", b"")
    assert names(other) == [b"f"]
    one.rename(ROOT, b"f", ROOT, b"g")
    assert names(other) == [b"g"]


def test_both_write_different_parts_and_both_survive(mounts: MemoryMounts) -> None:
    one, other = mounts.mount(lagging=True), mounts.mount(lagging=True)
    ino = write_file(one, b"f", b"-" * 30)
    a, b = one.open(ino, os.O_RDWR), other.open(ino, os.O_RDWR)
    one.write(a, 0, b"a" * 10)
    other.write(b, 20, b"b" * 15)
    other.write(b, REGION_BYTES, b"b")
    close(one, a)
    close(other, b)
    assert read_file_of(one, ino) == b"a" * 10 + b"-" * 10 + b"b" * 15 + bytes(REGION_BYTES - 35)[: (1 << 20) - 35]
    assert one.getattr(ino).size == REGION_BYTES + 1


def test_a_shorter_flush_does_not_shrink_what_another_made_longer(mounts: MemoryMounts) -> None:
    one, other = mounts.mount(lagging=True), mounts.mount(lagging=True)
    ino = write_file(one, b"f", b"")
    a, b = one.open(ino, os.O_RDWR), other.open(ino, os.O_RDWR)
    other.write(b, 100, b"far")
    close(other, b)
    one.write(a, 0, b"near")
    close(one, a)
    assert read_file_of(other, ino) == b"near" + bytes(96) + b"far"


def test_o_excl_has_exactly_one_winner(mounts: MemoryMounts) -> None:
    vfss = [mounts.mount(lagging=True, background=Immediate()) for _ in range(4)]
    rounds = [b"%d" % turn for turn in range(20)]
    gate = threading.Barrier(len(vfss))
    won: list[bytes] = []
    lost: list[bytes] = []

    def race(vfs: Vfs) -> None:
        for name in rounds:
            gate.wait(30)
            try:
                _, handle = vfs.create(ROOT, name, 0o644, os.O_RDWR | os.O_EXCL, CALLER)
                won.append(name)
                close(vfs, handle)
            except FileExistsError:
                lost.append(name)

    threads = [threading.Thread(target=race, args=(vfs,)) for vfs in vfss]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(won) == sorted(rounds)
    assert len(lost) == len(rounds) * (len(vfss) - 1)


def test_create_that_finds_a_file_which_vanishes_keeps_no_handle_on_it(
    mounts: MemoryMounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, other = mounts.mount(), mounts.mount()
    old = write_file(other, b"f", b"old")
    read, opened = mounts.map.read, here.is_open
    removed: list[int] = []

    def vanishing(work: Callable[[View], object], *, max_age_s: float = 0.0) -> object:
        if max_age_s and opened(old) and len(removed) == 0:
            removed.append(old)
            other.unlink(ROOT, b"f")
        return read(work, max_age_s=max_age_s)

    monkeypatch.setattr(mounts.map, "read", vanishing)
    made, handle = here.create(ROOT, b"f", 0o644, os.O_RDWR, CALLER)
    close(here, handle)
    assert removed == [old]
    assert made.ino != old
    assert not here.is_open(old)


def test_create_without_o_excl_opens_what_another_mount_made(mounts: MemoryMounts) -> None:
    one, other = mounts.mount(lagging=True), mounts.mount(lagging=True)
    ino = write_file(one, b"f", b"theirs")
    attributes, handle = other.create(ROOT, b"f", 0o600, os.O_RDWR, Caller(7, 7))
    assert (attributes.ino, attributes.uid, attributes.size) == (ino, USER, 6)
    assert other.read(handle, 0, 10) == b"theirs"
    close(other, handle)
    _, handle = other.create(ROOT, b"f", 0o600, os.O_RDWR | os.O_TRUNC, Caller(7, 7))
    assert other.read(handle, 0, 10) == b""
    close(other, handle)


def test_a_reader_keeps_the_old_file_while_another_mount_replaces_it_by_rename(mounts: MemoryMounts) -> None:
    one, other = mounts.mount(lagging=True), mounts.mount(lagging=True)
    old = write_file(one, b"f", b"old old old")
    write_file(one, b"new", b"new")
    held = one.open(old, os.O_RDONLY)
    other.lookup(ROOT, b"f")
    one.rename(ROOT, b"new", ROOT, b"f")
    assert one.read(held, 0, 100) == b"old old old"
    one.release(held)
    names(other)
    assert read_file(other, b"f") == b"new"


def test_names_removed_elsewhere_are_gone_when_it_counts(mounts: MemoryMounts) -> None:
    one, other = mounts.mount(lagging=True), mounts.mount(lagging=True)
    folder = one.mkdir(ROOT, b"d", 0o755, CALLER).ino
    assert other.lookup(ROOT, b"d").ino == folder
    one.rmdir(ROOT, b"d")
    with pytest.raises(OSError) as caught:
        other.create(folder, b"f", 0o644, os.O_RDWR, CALLER)
    assert caught.value.errno == errno.ENOENT


def test_appends_of_one_mount_go_to_the_end_it_knows(mounts: MemoryMounts) -> None:
    vfs = mounts.mount(lagging=True)
    ino = write_file(vfs, b"f", b"start")
    one, two = vfs.open(ino, os.O_WRONLY | os.O_APPEND), vfs.open(ino, os.O_WRONLY | os.O_APPEND)
    vfs.write(one, 0, b" one")
    vfs.write(two, 0, b" two")
    vfs.flush(one)
    vfs.write(one, 3, b" three")
    close(vfs, one, two)
    assert read_file(vfs, b"f") == b"start one two three"


def test_many_threads_on_one_file_and_many(mounts: MemoryMounts) -> None:
    vfs = mounts.mount(dirty_limit_bytes=300_000)
    shared, shared_handle = vfs.create(ROOT, b"shared", 0o644, os.O_RDWR, CALLER)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            _, handle = vfs.create(ROOT, b"own%d" % number, 0o644, os.O_RDWR, CALLER)
            for turn in range(30):
                data = bytes([number]) * 5000
                vfs.write(handle, turn * 5000, data)
                vfs.write(shared_handle, (turn * 8 + number) * 5000, data)
                assert vfs.read(handle, turn * 5000, 5000) == data
                if turn % 10 == number:
                    vfs.fsync(shared_handle)
            close(vfs, handle)
        except BaseException as failure:  # noqa: BLE001 (told by the main thread)
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    close(vfs, shared_handle)
    expected = b"".join(bytes([number]) * 5000 for _ in range(30) for number in range(8))
    assert read_file(mounts.mount(), b"shared") == expected
    assert vfs.getattr(shared.ino).size == len(expected)
    assert vfs._uploads.budget.held_bytes == 0
