"""A mount's last save is bounded in time, and what is left over is everything that is unsaved, each byte once."""

from __future__ import annotations

import os
import random

import pytest
from support.executors import Held
from support.memory_mounts import ROOT, MemoryMounts, close, create, read_file, write_file

from dfsfuse.data.extents import REGION_BYTES
from dfsfuse.errors import NoSpaceError, ReadOnlyError
from dfsfuse.namespace.records import keys
from dfsfuse.vfs.open.open_file import Shown
from dfsfuse.vfs.write import left_over
from dfsfuse.vfs.write.left_over import LeftOver


class Pauses:
    """A fake sleep that advances the clock, and calls `then` at the tenth pause."""

    def __init__(self, mounts: MemoryMounts) -> None:
        self._mounts = mounts
        self.count = 0

    def __call__(self, seconds: float) -> None:
        self.count += 1
        self._mounts.now_s += seconds
        if self.count == 10:
            self.then()

    def then(self) -> None:
        pass


@pytest.fixture
def pause(mounts: MemoryMounts) -> Pauses:
    return Pauses(mounts)


def contents(files: list[LeftOver]) -> dict[bytes | None, list[tuple[int, bytes]]]:
    return {
        one.path: [(part.start, bytes(part.data) if part.data is not None else b"") for part in one.parts]
        for one in files
    }


def test_where_all_goes_well_nothing_is_left(mounts: MemoryMounts, pause: Pauses) -> None:
    vfs = mounts.mount()
    _, handle = create(vfs)
    vfs.write(handle, 0, b"never closed")
    assert vfs.ending.save_all(30.0, pause) is None
    assert mounts.map.ends_within_s == 30.0, "a save in progress waits no longer than that either"
    vfs.ending.is_near(5.0)
    assert mounts.map.ends_within_s == 5.0
    assert vfs.ending.left_over() == []
    assert pause.count == 0
    assert read_file(mounts.mount(), b"f") == b"never closed"


def test_servers_that_are_away_are_waited_for_so_long_and_not_tried_file_by_file(
    mounts: MemoryMounts, pause: Pauses
) -> None:
    vfs = mounts.mount()
    for number in range(5):
        _, handle = create(vfs, b"f%d" % number)
        vfs.write(handle, 0, b"data")
    mounts.map.is_writable = False
    began_s, tried = mounts.now_s, len(mounts.segments.written)
    failure = vfs.ending.save_all(30.0, pause)
    assert isinstance(failure, ReadOnlyError)
    assert 30 <= mounts.now_s - began_s < 31
    assert len(mounts.segments.written) == tried
    assert contents(vfs.ending.left_over()) == {b"f%d" % number: [(0, b"data")] for number in range(5)}


def test_servers_that_come_back_in_time_get_it_all(mounts: MemoryMounts, pause: Pauses) -> None:
    vfs = mounts.mount()
    _, handle = create(vfs)
    vfs.write(handle, 0, b"data")
    mounts.map.is_writable = False

    def then() -> None:
        mounts.map.is_writable = True

    pause.then = then  # type: ignore[method-assign]
    assert vfs.ending.save_all(30.0, pause) is None
    assert pause.count == 10
    vfs.close()


def test_names_that_were_answered_and_wait_for_servers_are_waited_for_too(mounts: MemoryMounts, pause: Pauses) -> None:
    vfs = mounts.mount()
    mounts.map.has_answered = True
    assert vfs.ending.save_all(30.0, pause) is None
    assert pause.count == 0, "with servers that answer, closing saves them"
    mounts.map.is_writable = False

    def then() -> None:
        mounts.map.is_writable = True

    pause.then = then  # type: ignore[method-assign]
    assert vfs.ending.save_all(30.0, pause) is None
    assert pause.count == 10
    mounts.map.is_writable, began_s = False, mounts.now_s
    assert vfs.ending.save_all(30.0, pause) is None, "closing reports what is lost"
    assert 30 <= mounts.now_s - began_s < 31


def test_however_much_there_is_it_goes_on_while_something_is_saved(
    mounts: MemoryMounts, pause: Pauses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfsfuse.vfs.write.ending.GROUP_FILES", 1)
    vfs = mounts.mount()
    for number in range(10):
        _, handle = create(vfs, b"f%d" % number)
        vfs.write(handle, 0, b"data")

    def slowly(_: object) -> None:
        mounts.now_s += 20

    mounts.segments.before_write = slowly
    assert vfs.ending.save_all(30.0, pause) is None


def test_one_file_that_cannot_be_saved_keeps_no_other_from_it(mounts: MemoryMounts, pause: Pauses) -> None:
    vfs = mounts.mount()
    for name in (b"a", b"bad", b"c"):
        _, handle = create(vfs, name)
        vfs.write(handle, 0, name)

    def refuse(data: bytes) -> None:
        if data == b"bad":
            raise NoSpaceError("too few servers have room")

    mounts.segments.before_write = refuse
    assert isinstance(vfs.ending.save_all(5.0, pause), NoSpaceError)
    assert contents(vfs.ending.left_over()) == {b"bad": [(0, b"bad")]}
    vfs.ending.abandon()
    vfs.close()
    assert read_file(mounts.mount(), b"c") == b"c"


def test_what_is_left_has_the_state_of_its_file_if_that_can_be_told(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", b"before")
    handle = vfs.open(ino, os.O_WRONLY)
    vfs.write(handle, 0, b"data")
    (one,) = vfs.ending.left_over()
    assert one.state is not None and one.state == vfs.content_state(ino, [0])
    mounts.map.remembers = False
    assert [one.state for one in vfs.ending.left_over()] == [None]
    mounts.map.remembers = True
    mounts.map.items = {**mounts.map.items, keys.inode(ino): b"of another format"}
    (one,) = vfs.ending.left_over()
    assert (one.state, contents([one])) == (None, {b"f": [(0, b"data")]})


def test_what_was_removed_here_is_not_kept(mounts: MemoryMounts) -> None:
    """As on a local disk; what other mounts have removed is kept."""
    vfs = mounts.mount()
    for name in (b"removed here", b"removed elsewhere"):
        _, handle = create(vfs, name)
        vfs.write(handle, 0, b"data")
    vfs.unlink(ROOT, b"removed here")
    mounts.mount().unlink(ROOT, b"removed elsewhere")
    assert contents(vfs.ending.left_over()) == {b"removed elsewhere": [(0, b"data")]}


def test_appended_data_and_data_with_places(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    write_file(vfs, b"log", b"before")
    handle = vfs.open(vfs.lookup(ROOT, b"log").ino, os.O_WRONLY | os.O_APPEND)
    vfs.write(handle, 0, b" after")
    _, sparse = create(vfs, b"sparse")
    vfs.write(sparse, 2**40, b"far")
    vfs.write(sparse, 3, b"near")
    found = {one.path: one for one in vfs.ending.left_over()}
    assert contents(list(found.values())) == {b"log": [(6, b" after")], b"sparse": [(3, b"near"), (2**40, b"far")]}
    assert found[b"log"].is_appended and not found[b"sparse"].is_appended
    assert found[b"log"].size == 6
    assert found[b"log"].written_ns > 1_000_000_000


def test_what_is_up_and_not_referred_to_is_given_as_a_part_of_its_segment(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    _, handle = create(vfs)
    data = random.Random(1).randbytes(REGION_BYTES)
    vfs.write(handle, 0, data)  # a full region is uploaded at once
    vfs.write(handle, 100, b"over it")
    (one,) = vfs.ending.left_over()
    assert [(part.start, part.length, part.data is None) for part in one.parts] == [
        (0, 100, True),
        (100, 7, False),
        (107, REGION_BYTES - 107, True),
    ]
    last = one.parts[-1]
    assert last.segment is not None
    assert mounts.segments.read(last.segment, last.segment_offset, last.length) == data[107:]
    vfs.ending.abandon()
    assert mounts.map.drops == []


@pytest.mark.parametrize("seed", range(10))
def test_each_byte_is_given_once_and_from_the_top(seed: int) -> None:
    chance = random.Random(seed)
    size = 60
    layers, wanted = [], bytearray(size)
    for number in range(5):
        cuts = sorted(chance.sample(range(size), 2 * chance.randint(1, 4)))
        layers.append(
            [
                Shown(start, end - start, memoryview(bytes([number + 1]) * (end - start)))
                for start, end in zip(cuts[::2], cuts[1::2], strict=True)
            ]
        )
    for layer in reversed(layers):
        for shown in layer:
            assert shown.data is not None
            wanted[shown.start : shown.start + shown.length] = shown.data
    seen = left_over.visible(layers)
    found = bytearray(size)
    for shown in seen:
        assert shown.data is not None and len(shown.data) == shown.length > 0
        found[shown.start : shown.start + shown.length] = shown.data
    assert found == wanted
    assert sum(shown.length for shown in seen) == size - wanted.count(0)
    assert [shown.start for shown in seen] == sorted(shown.start for shown in seen)


def test_a_save_that_hangs_holds_up_nothing_for_long(mounts: MemoryMounts, monkeypatch: pytest.MonkeyPatch) -> None:
    vfs = mounts.mount(uploads=Held())
    monkeypatch.setattr("dfsfuse.vfs.write.ending.LAST_COMMIT_S", 0.0)
    ino, handle = create(vfs)
    vfs.write(handle, 0, b"data")
    file = vfs._table.get(ino)
    assert file is not None
    with file.commit_lock:
        left = vfs.ending.left_over()
    assert contents(left) == {b"f": [(0, b"data")]}
    assert [one.is_doubtful for one in left] == [True], "that save may still succeed"
    assert [one.is_doubtful for one in vfs.ending.left_over()] == [False]
    close(vfs, handle)
