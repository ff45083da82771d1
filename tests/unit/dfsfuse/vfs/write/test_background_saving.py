"""Saving by age: files that stay open, many files at once, failures, and writers that are too fast."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import pytest
from support.executors import Held
from support.log_cluster import LogCluster
from support.log_mounts import LogMounts
from support.memory_mounts import CALLER, ROOT, MemoryMounts, close, create, read_file, region, write_file
from support.memory_segments import NAMES

from dfs_server.protocol.batches import Batch
from dfsfuse.data.extents import REGION_BYTES
from dfsfuse.data.runs import SURPLUS_MAX
from dfsfuse.errors import MaybeDoneError, UnavailableError
from dfsfuse.namespace.map.transactions import Transaction
from dfsfuse.vfs.open.open_file import OpenFile
from dfsfuse.vfs.settings import MountSettings
from dfsfuse.vfs.vfs import AttributeChanges, Vfs

DEADLINE_S = 30


def pass_time(mounts: MemoryMounts, vfs: Vfs, seconds: float) -> None:
    """Let this much time pass, and save what is due."""
    mounts.now_s += seconds
    vfs.background_saver.save_due()


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_RDWR | os.O_APPEND])
def test_a_file_that_stays_open_is_saved_when_its_data_has_the_age(mounts: MemoryMounts, flags: int) -> None:
    vfs, other = mounts.mount(), mounts.mount()
    ino, handle = create(vfs, b"log", flags)
    vfs.write(handle, 0, b"line 1\n")
    pass_time(mounts, vfs, 0.9)
    assert read_file(other, b"log") == b""
    vfs.write(handle, 7, b"line 2\n")
    pass_time(mounts, vfs, 0.1)
    assert read_file(other, b"log") == b"line 1\nline 2\n"
    assert other.getattr(ino).mtime_ns == vfs.getattr(ino).mtime_ns
    before = len(mounts.map.batches)
    pass_time(mounts, vfs, 100)
    assert len(mounts.map.batches) == before
    vfs.write(handle, 14, b"line 3\n")
    pass_time(mounts, vfs, 1.0)
    assert read_file(other, b"log") == b"line 1\nline 2\nline 3\n"
    close(vfs, handle)


def test_made_written_and_closed_within_the_age_a_file_costs_what_it_did(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    write_file(vfs, b"first", b"")
    before = len(mounts.map.batches)
    for name in (b"a", b"b", b"c"):
        _, handle = create(vfs, name)
        vfs.write(handle, 0, b"some")
        pass_time(mounts, vfs, 0.4)
        vfs.write(handle, 4, b"thing")
        pass_time(mounts, vfs, 0.4)
        close(vfs, handle)
        pass_time(mounts, vfs, 2)
    assert len(mounts.map.batches) - before == 2 * 3
    assert [len(data) for data, _ in mounts.segments.written] == [9, 9, 9]


def test_a_long_file_that_grows_fast_is_made_of_whole_regions(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    _, handle = create(vfs, b"f")
    chunk = random.Random(1).randbytes(REGION_BYTES // 2)
    for turn in range(11):
        vfs.write(handle, turn * len(chunk), chunk)
        pass_time(mounts, vfs, 0.2)
    assert mounts.mount().lookup(ROOT, b"f").size >= 6 * len(chunk)
    close(vfs, handle)
    assert [len(data) for data, _ in mounts.segments.written] == [REGION_BYTES] * 5 + [len(chunk)]
    assert read_file(mounts.mount(), b"f") == chunk * 11


def test_a_log_of_a_line_a_second_has_few_extents_after_hours(mounts: MemoryMounts) -> None:
    vfs, lines = mounts.mount(), 400
    ino, handle = create(vfs, b"log", os.O_WRONLY | os.O_APPEND)
    most = 0
    for turn in range(lines):
        vfs.write(handle, 0, b"%099d\n" % turn)
        pass_time(mounts, vfs, 1.0)
        most = max(most, len(region(mounts, ino).extents))
    assert most <= SURPLUS_MAX + 1
    assert len(mounts.map.batches) <= 1 + lines + lines // SURPLUS_MAX + 1
    assert read_file(mounts.mount(), b"log") == b"".join(b"%099d\n" % turn for turn in range(lines))
    close(vfs, handle)


def test_a_file_without_a_name_is_not_worth_saving(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    _, handle = create(vfs, b"f")
    vfs.unlink(ROOT, b"f")
    vfs.write(handle, 0, b"temporary")
    pass_time(mounts, vfs, 5)
    assert mounts.segments.written == []
    close(vfs, handle)
    assert vfs._files._table.all() == []


def test_one_that_cannot_be_saved_is_not_in_the_way_of_the_others(mounts: MemoryMounts) -> None:
    vfs = mounts.mount(durability="fsync", background=Held())

    def refuse(data: bytes) -> None:
        if data == b"bad":
            raise OSError(5, "this one cannot be stored")

    mounts.segments.before_write = refuse
    for number in range(20):
        write_file(vfs, b"%d" % number, b"bad" if number == 7 else b"good %d" % number)
    pass_time(mounts, vfs, 0)
    other = mounts.mount()
    assert [other.lookup(ROOT, b"%d" % number).size for number in range(20)].count(0) == 1
    assert read_file(vfs, b"7") == b"bad"
    mounts.segments.before_write = lambda _: None
    pass_time(mounts, vfs, 0.5)
    assert other.lookup(ROOT, b"7").size == 0
    pass_time(mounts, vfs, 1)
    assert read_file(other, b"7") == b"bad"
    assert vfs._files._table.all() == []
    assert vfs._uploads.budget.held_bytes == 0


def test_one_that_could_not_be_saved_and_goes_on_growing_is_not_tried_without_a_pause(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    _, handle = create(vfs, b"log")
    vfs.write(handle, 0, b"line 1")

    def refuse(_: bytes) -> None:
        mounts.segments.before_write = lambda _: None
        raise OSError(5, "not this time")

    mounts.segments.before_write = refuse
    pass_time(mounts, vfs, 1.0)
    with pytest.raises(OSError, match="not this time"):
        vfs.write(handle, REGION_BYTES, b"young")
    mounts.now_s += 0.9
    vfs.write(handle, REGION_BYTES, b"young")
    mounts.now_s += 0.2
    saver, rounds = vfs.background_saver, 0
    while saver._save_group():
        rounds += 1
        assert rounds < 5
    assert mounts.mount().lookup(ROOT, b"log").size == len(b"line 1")
    pass_time(mounts, vfs, 1.0)
    assert mounts.mount().lookup(ROOT, b"log").size == REGION_BYTES + len(b"young")
    close(vfs, handle)


@pytest.mark.parametrize("end", ["unlink", "cut"])
def test_one_that_could_not_be_saved_is_let_go_when_nothing_of_it_is_wanted_any_more(
    mounts: MemoryMounts, end: str
) -> None:
    """Otherwise its memory, and its room on the servers, would be held until the mount ends."""
    vfs = mounts.mount()
    ino, handle = create(vfs, b"f")
    vfs.write(handle, 0, b"data")

    def refuse(_: bytes) -> None:
        raise OSError(5, "this one cannot be stored")

    mounts.segments.before_write = refuse
    pass_time(mounts, vfs, 1)
    if end == "unlink":
        vfs.unlink(ROOT, b"f")
    else:
        vfs.setattr(ino, AttributeChanges(size=0))
    with suppress(OSError):
        close(vfs, handle)
    pass_time(mounts, vfs, 10)
    assert vfs._files._table.all() == []
    assert vfs._uploads.budget.held_bytes == 0


def test_what_is_old_is_saved_though_a_younger_region_began_to_go_up_before() -> None:
    file = OpenFile(7)
    file.write(0, b"old", 0, 10.0)
    (young,) = file.write(REGION_BYTES, bytes(REGION_BYTES), 0, 10.9)[1]
    assert file.ready(10.5) == []
    file.seal_all(10.5)
    old = file.sealed[-1]
    assert file.ready(10.5) == [young, old]


def test_what_is_written_while_a_file_is_found_to_have_nothing_unsaved_gets_an_age(
    mounts: MemoryMounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    vfs = mounts.mount()
    ino, handle = create(vfs, b"log")
    saver, backlog = vfs.background_saver, vfs._backlog
    writer = threading.Thread(target=lambda: vfs.write(handle, 0, b"line 1"))
    lock, table = backlog._lock, vfs._files._table
    pin_if_open = table.pin_if_open

    class Late:
        """Lets the program write just before the schedule is updated."""

        def __enter__(self) -> None:
            monkeypatch.setattr(backlog, "_lock", lock)
            writer.start()
            writer.join(0.2)
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    def pin(wanted: int) -> object:
        monkeypatch.setattr(backlog, "_lock", Late())
        return pin_if_open(wanted)

    backlog._schedule.ask(ino)
    monkeypatch.setattr(table, "pin_if_open", pin)
    saver.save_due()
    monkeypatch.setattr(table, "pin_if_open", pin_if_open)
    writer.join(DEADLINE_S)
    pass_time(mounts, vfs, 1.0)
    assert read_file(mounts.mount(), b"log") == b"line 1"
    close(vfs, handle)


def test_while_the_servers_are_away_it_stays_and_goes_out_by_itself_when_they_are_back(mounts: MemoryMounts) -> None:
    vfs, other = mounts.mount(), mounts.mount()
    _, handle = create(vfs, b"log", os.O_WRONLY | os.O_APPEND)
    vfs.write(handle, 0, b"kept ")
    mounts.map.before_commit = _refuse
    for _ in range(5):
        pass_time(mounts, vfs, 20)
        assert vfs._backlog.is_failing
        vfs.write(handle, 0, b"more ")  # a temporary failure is not reported to any write
    mounts.map.before_commit = lambda _: None
    pass_time(mounts, vfs, 6)
    assert read_file(other, b"log") == b"kept " + 5 * b"more "
    assert not vfs._backlog.is_failing
    close(vfs, handle)
    assert vfs._files._table.all() == []


def _refuse(_: Batch) -> None:
    raise UnavailableError("too few servers answer")


def test_with_the_servers_away_a_group_is_not_tried_file_by_file(
    mounts: MemoryMounts, caplog: pytest.LogCaptureFixture
) -> None:
    """Each file would wait for the missing servers again, and log that."""
    vfs = mounts.mount()
    handles = [create(vfs, b"f%d" % number)[1] for number in range(20)]
    for handle in handles:
        vfs.write(handle, 0, b"data")
    mounts.segments.answering = {3, 4}
    tried: list[bytes] = []
    mounts.segments.before_write = tried.append
    pass_time(mounts, vfs, 1.0)
    assert len(tried) == 1
    assert [record.message.partition(":")[0] for record in caplog.records] == ["inode 2 and others"]
    mounts.segments.answering = {1, 3, 4}
    pass_time(mounts, vfs, 5.0)
    assert read_file(mounts.mount(), b"f19") == b"data"
    close(vfs, *handles)


def test_of_a_group_in_doubt_each_file_is_saved_once(mounts: MemoryMounts, monkeypatch: pytest.MonkeyPatch) -> None:
    vfs = mounts.mount()
    names = [b"placed", b"log 1", b"log 2"]
    handles = [create(vfs, name, os.O_RDWR | (0 if name == b"placed" else os.O_APPEND))[1] for name in names]
    for handle in handles:
        vfs.write(handle, 0, b"once ")
    transact = mounts.map.transact

    def without_answer(work: Callable[[Transaction], object], *, durable: bool = True) -> object:
        transact(work, durable=durable)
        raise MaybeDoneError("no answer in time")

    monkeypatch.setattr(mounts.map, "transact", without_answer)
    pass_time(mounts, vfs, 1)
    monkeypatch.undo()
    for handle in handles:
        vfs.write(handle, 5, b"more")
    pass_time(mounts, vfs, 6)
    assert [read_file(mounts.mount(), name) for name in names] == [b"once more"] * 3
    close(vfs, *handles)


def test_a_file_that_somebody_else_is_saving_is_left_for_the_next_round(mounts: MemoryMounts) -> None:
    vfs, other = mounts.mount(background=Held()), mounts.mount()
    _, busy = create(vfs, b"busy")
    _, free = create(vfs, b"free")
    vfs.write(busy, 0, b"x")
    vfs.write(free, 0, b"y")
    file = vfs._files._get(busy).file
    mounts.now_s += 1

    def committed(_: Batch) -> None:
        file.commit_lock.release()
        mounts.map.before_commit = lambda _: None

    mounts.map.before_commit = committed
    file.commit_lock.acquire()
    vfs.background_saver.save_due()
    assert (read_file(other, b"busy"), read_file(other, b"free")) == (b"x", b"y")
    close(vfs, busy, free)


@pytest.mark.parametrize("many", [False, True])
def test_a_writer_waits_while_something_is_unsaved_for_too_long(
    mounts: MemoryMounts, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    """Unsaved data of the writer's own file counts; if many files are unsaved, that of any file."""
    monkeypatch.setattr("dfsfuse.vfs.write.schedule.FEW_FILES", 0 if many else 1)
    monkeypatch.setattr("dfsfuse.vfs.write.backlog.SLOW_MAX_S", 2 * DEADLINE_S)
    vfs = mounts.mount(durability="fsync")
    go, in_batch, order = threading.Event(), threading.Event(), list[str]()

    def slow(batch: Batch) -> None:
        if any(piece.data for piece in batch.pieces):
            in_batch.set()
            assert go.wait(DEADLINE_S)
            order.append("saved")

    mounts.map.before_commit = slow
    _, late = create(vfs, b"late")
    _, other = create(vfs, b"other")
    vfs.background_saver.start()
    vfs.write(late, 0, b"data")
    vfs.flush(late)
    assert in_batch.wait(DEADLINE_S)
    mounts.now_s += 1.4
    vfs._backlog.slow_down()  # not late enough to wait
    mounts.now_s += 0.2
    if not many:
        unconcerned = threading.Thread(target=lambda: vfs.write(other, 0, b"does not wait"), daemon=True)
        unconcerned.start()
        unconcerned.join(DEADLINE_S)
        assert not unconcerned.is_alive()

    def write() -> None:
        vfs.write(other if many else late, 0, b"more")
        order.append("written")

    writer = threading.Thread(target=write)
    writer.start()
    writer.join(0.2)
    assert order == []
    go.set()
    writer.join(DEADLINE_S)
    assert order[:2] == ["saved", "written"]
    close(vfs, late, other)
    vfs.close()


def test_close_does_not_poll_without_a_pause_while_a_file_is_being_saved(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    _, handle = create(vfs, b"f")
    vfs.write(handle, 0, b"data")
    with vfs._files._get(handle).file.commit_lock:
        closing = threading.Thread(target=vfs.background_saver.close)
        closing.start()
        closing.join(DEADLINE_S)
        assert not closing.is_alive()
    close(vfs, handle)
    assert read_file(mounts.mount(), b"f") == b"data"


SHARE: Final = 20
"""At least this many files share a batch; it may be ten times as many, depending on when the log's thread runs."""


@pytest.fixture
def in_log(log_cluster: LogCluster) -> Vfs:
    """A mount with a real log and its lease, under which changes share batches."""
    mounts = LogMounts(log_cluster)
    store = mounts.cold_map()
    store.start()
    segments = mounts.memory.segments
    clock = log_cluster.grid.clock
    return Vfs(
        store,
        segments,
        servers=NAMES,
        usable=segments.usable,
        monotonic=clock,
        settings=MountSettings(durability="fsync"),
        background=Held(),
    )


def test_many_small_files_share_a_few_batches(in_log: Vfs, log_cluster: LogCluster) -> None:
    count = 250
    for number in range(count):
        write_file(in_log, b"%d" % number, b"x" * 100)
    in_log._context.store.flush()
    before = max(log_cluster.applied())
    in_log.background_saver.save_due()
    assert max(log_cluster.applied()) - before <= count / SHARE
    assert in_log._files._table.all() == []
    assert read_file(in_log, b"%d" % (count - 1)) == b"x" * 100
    in_log.close()
    in_log._context.store.close()


def test_when_the_mount_ends_many_files_share_batches_too(in_log: Vfs, log_cluster: LogCluster) -> None:
    handles, count = [], 200
    for number in range(count):
        _, handle = in_log.create(ROOT, b"%d" % number, 0o644, os.O_WRONLY, CALLER)
        in_log.write(handle, 0, b"x" * 100)
        handles.append(handle)
    in_log._context.store.flush()
    before = max(log_cluster.applied())
    in_log.close()
    assert max(log_cluster.applied()) - before <= count / SHARE
    in_log._context.store.close()


def test_a_file_cut_to_nothing_before_it_is_saved(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino, handle = create(vfs, b"f")
    vfs.write(handle, 0, b"gone")
    vfs.setattr(ino, AttributeChanges(size=0))
    before = len(mounts.map.batches)
    pass_time(mounts, vfs, 2)
    assert len(mounts.map.batches) == before
    close(vfs, handle)


def test_the_log_is_told_when_something_gets_older_than_promised(
    mounts: MemoryMounts, caplog: pytest.LogCaptureFixture
) -> None:
    vfs = mounts.mount()
    _, handle = create(vfs, b"f")
    for turn in range(3):
        vfs.write(handle, turn, b"x")
        pass_time(mounts, vfs, 1.9)
    assert caplog.messages == []
    for turn in range(3):
        vfs.write(handle, turn, b"x")
        pass_time(mounts, vfs, 2.5)
    assert caplog.messages == ["data is saved slowly: a write has been waiting for 2.5 s"]
    close(vfs, handle)
