"""write(): a shortage of memory makes writers wait, and never fail, as long as the servers accept data."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.memory_mounts import MemoryMounts, close, create, read_file
from support.withdrawing import withdraw_this_thread

from dfs_server.protocol.batches import Batch
from dfsfuse.common import withdrawal
from dfsfuse.errors import NoSpaceError, ReadOnlyError, UnavailableError
from dfsfuse.vfs.write.writing import ROOM_WAIT_S

WRITERS = 63
SIZE = 30_000
DEADLINE_S = 60


def test_of_many_writers_at_once_none_fails_for_want_of_memory(mounts: MemoryMounts) -> None:
    """The memory has room for three of the writers, which all begin together."""
    vfs = mounts.mount(
        dirty_limit_bytes=3 * SIZE + 100, background=ThreadPoolExecutor(1), uploads=ThreadPoolExecutor(2)
    )
    start = threading.Barrier(WRITERS, timeout=DEADLINE_S)
    failures: list[BaseException] = []

    def write(number: int) -> None:
        try:
            _, handle = create(vfs, b"%d" % number)
            start.wait()
            for turn in range(3):
                vfs.write(handle, turn * SIZE, b"%d" % (number % 10) * SIZE)
            close(vfs, handle)
        except BaseException as failure:  # noqa: BLE001
            failures.append(failure)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert failures == []
    assert all(read_file(vfs, b"%d" % number) == b"%d" % (number % 10) * 3 * SIZE for number in range(WRITERS))
    assert vfs._uploads.budget.held_bytes == 0
    vfs.close()


def test_memory_that_others_have_reserved_and_not_written_yet_is_waited_for(mounts: MemoryMounts) -> None:
    vfs = mounts.mount(dirty_limit_bytes=1000)
    _, handle = create(vfs, b"f")
    budget = vfs._uploads.budget
    assert budget.reserve(900, 0)
    writer = threading.Thread(target=vfs.write, args=(handle, 0, b"x" * 900))
    writer.start()
    writer.join(0.2)
    assert writer.is_alive()
    budget.release(900)
    writer.join(DEADLINE_S)
    assert not writer.is_alive()
    close(vfs, handle)
    assert read_file(vfs, b"f") == b"x" * 900


def test_it_is_waited_for_as_long_as_some_is_given_back_now_and_then(
    mounts: MemoryMounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    vfs = mounts.mount(dirty_limit_bytes=1000)
    _, handle = create(vfs)
    budget = vfs._uploads.budget
    assert budget.reserve(900, 0)
    is_freed = itertools.cycle((True, False))

    def wait(_freed_bytes: int, _timeout_s: float) -> bool:
        mounts.now_s += 0.8 * ROOM_WAIT_S
        if not next(is_freed):
            return False
        budget.release(200)
        return True

    monkeypatch.setattr(budget, "wait_until_freed", wait)
    assert vfs.write(handle, 0, b"x" * 900) == 900
    close(vfs, handle)
    assert read_file(vfs, b"f") == b"x" * 900


def test_when_the_servers_take_nothing_it_is_an_error(mounts: MemoryMounts) -> None:
    """The memory is full of another file's data, which cannot be saved."""
    vfs = mounts.mount(dirty_limit_bytes=1000)
    _, full = create(vfs, b"full")
    _, handle = create(vfs, b"f")
    vfs.write(full, 0, b"x" * 900)

    def refuse(_: Batch) -> None:
        raise UnavailableError("too few servers answer")

    mounts.map.before_commit = refuse
    with pytest.raises(UnavailableError, match="waits in memory"):
        vfs.write(handle, 0, b"y" * 900)
    mounts.map.before_commit = lambda _: None
    mounts.now_s += 10
    assert vfs.write(handle, 0, b"y" * 900) == 900
    close(vfs, full, handle)


def test_a_write_that_is_withdrawn_takes_nothing_and_one_that_is_taken_cannot_be(mounts: MemoryMounts) -> None:
    """The writing program was ended while it waited; its data must not appear after what others write meanwhile."""
    vfs = mounts.mount(dirty_limit_bytes=1000)
    _, handle = create(vfs, b"f")
    budget = vfs._uploads.budget
    assert budget.reserve(900, 0)
    failures: list[BaseException] = []

    def write() -> None:
        try:
            vfs.write(handle, 0, b"x" * 900)
        except InterruptedError as failure:
            failures.append(failure)
        withdrawal.forget()

    writer = threading.Thread(target=write)
    writer.start()
    assert writer.ident is not None
    assert withdrawal.withdraw(writer.ident)
    budget.release(900)
    writer.join(DEADLINE_S)
    assert len(failures) == 1
    assert budget.held_bytes == 0

    withdrawn: list[bool] = []
    submit = vfs._uploads.submit

    def try_to_withdraw(*arguments: object) -> None:
        withdrawn.append(withdraw_this_thread())
        submit(*arguments)  # type: ignore[arg-type]

    vfs._uploads.submit = try_to_withdraw  # type: ignore[method-assign]
    assert vfs.write(handle, 0, b"y" * 10) == 10
    assert withdrawn == [False]
    vfs._uploads.submit = submit  # type: ignore[method-assign]
    close(vfs, handle)
    assert read_file(mounts.mount(), b"f") == b"y" * 10


def test_pages_of_a_mapping_are_taken_without_servers_and_every_fsync_fails_until_they_are_saved(
    mounts: MemoryMounts,
) -> None:
    """The program was not told of an error when it wrote to its mapping, and may have ended."""
    vfs, other = mounts.mount(dirty_limit_bytes=10_000), mounts.mount()
    ino, handle = create(vfs, b"f")
    vfs.write(handle, 0, b"x" * 9000)
    vfs.fsync(handle)
    mounts.map.is_writable = False
    with pytest.raises(ReadOnlyError):
        vfs.write(handle, 0, b"y")
    assert vfs.write(handle, 4096, b"y" * 4096, is_mapped=True) == 4096
    assert vfs.read(handle, 4095, 2) == b"xy"
    for _ in range(2):
        with pytest.raises(ReadOnlyError):
            vfs.fsync(handle)
    assert vfs.write(handle, 4096, b"z" * 4096, is_mapped=True) == 4096, "the failure was already reported"
    vfs.release(handle, keep=True)
    assert vfs.is_unsaved(ino)
    mounts.map.is_writable = True
    mounts.now_s += 10
    vfs.background_saver.save_due()
    assert read_file(other, b"f") == b"x" * 4096 + b"z" * 4096 + b"x" * 808


def test_without_servers_pages_are_taken_only_while_there_is_memory(mounts: MemoryMounts) -> None:
    """And nothing waits for memory: all threads that serve requests would end up waiting."""
    vfs = mounts.mount(dirty_limit_bytes=10_000)
    _, handle = create(vfs, b"f")
    vfs.write(handle, 0, b"x" * 9000)
    vfs.fsync(handle)
    mounts.map.is_writable = False
    for page in (0, 1):
        vfs.write(handle, page * 4096, b"y" * 4096, is_mapped=True)
    mounts.segments.answering = set()
    before_s = mounts.now_s
    with pytest.raises(ReadOnlyError):
        vfs.write(handle, 2 * 4096, b"y" * 4096, is_mapped=True)
    assert mounts.now_s == before_s
    assert vfs._uploads.budget.held_bytes == 2 * 4096
    mounts.segments.answering = {1, 2, 3, 4}
    mounts.map.is_writable = True
    close(vfs, handle)
    assert read_file(mounts.mount(), b"f") == b"y" * 8192 + b"x" * 808


def test_pages_of_a_mapping_are_taken_also_where_something_failed_before(mounts: MemoryMounts) -> None:
    """The earlier failure is reported to the next write or flush; if the pages got it, the kernel would drop them."""
    vfs = mounts.mount()
    ino, handle = create(vfs, b"f")
    vfs.write(handle, 0, b"x")

    def refuse(_: Batch) -> None:
        raise NoSpaceError("all servers are full")

    mounts.map.before_commit = refuse
    vfs.background_saver.save_later(vfs._table.get(ino))  # type: ignore[arg-type]
    mounts.map.before_commit = lambda _: None
    assert vfs.write(handle, 0, b"y" * 4096, is_mapped=True) == 4096
    with pytest.raises(NoSpaceError):
        vfs.write(handle, 0, b"z")
    close(vfs, handle)
    assert read_file(mounts.mount(), b"f") == b"y" * 4096
