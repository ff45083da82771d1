"""Changes to a file's content whose program was released: they are made in one batch or not at all, and never late.

A mount in memory on a log that others write to as well (`support.fake_log`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from support.clock import Clock
from support.fake_log import FakeLog, SharedLog
from support.memory_mounts import MemoryMounts, close, create, read_file, write_file
from support.memory_segments import NAMES
from support.withdrawing import withdraw_this_thread

from dfsfuse.common import withdrawal
from dfsfuse.data.extents import REGION_BYTES
from dfsfuse.namespace.map.log_map import LogMap
from dfsfuse.namespace.records import keys
from dfsfuse.vfs.vfs import AttributeChanges, Vfs
from dfsfuse.vfs.write.holes import KEEP_SIZE, PUNCH_HOLE
from dfsfuse.vfs.write.regions import STEP_REGIONS

STORED = b"what is stored "
UNSAVED = b"and what is not"
DATA = STORED + UNSAVED


@dataclass
class Place:
    """A mount with an open file that has unsaved data."""

    vfs: Vfs
    log: FakeLog
    ino: int
    handle: int

    def content(self) -> bytes:
        """Close the file and return what is stored."""
        close(self.vfs, self.handle)
        return read_file(self.vfs, b"f")


@pytest.fixture
def place(mounts: MemoryMounts) -> Iterator[Place]:
    write_file(mounts.mount(), b"f", STORED)
    log = FakeLog(SharedLog(dict(mounts.map.items)), clock := Clock())
    store = LogMap(log, keys.family_of, clock, clock.sleep)  # type: ignore[arg-type]
    vfs = Vfs(store, mounts.segments, servers=NAMES, clock=mounts.clock, monotonic=clock)
    ino = vfs.lookup(1, b"f").ino
    handle = vfs.open(ino, os.O_RDWR)
    vfs.write(handle, len(STORED), UNSAVED)
    yield Place(vfs, log, ino, handle)
    withdrawal.forget()
    withdrawal.over()
    vfs.close()


CHANGES: dict[str, tuple[Callable[[Place], object], bytes]] = {
    "to nothing": (lambda place: place.vfs.setattr(place.ino, AttributeChanges(size=0)), b""),
    "shorter": (lambda place: place.vfs.setattr(place.ino, AttributeChanges(size=4)), DATA[:4]),
    "longer": (lambda place: place.vfs.setattr(place.ino, AttributeChanges(size=40)), DATA + bytes(10)),
    "to its size": (lambda place: place.vfs.setattr(place.ino, AttributeChanges(size=30)), DATA),
    "open": (lambda place: place.vfs.release(place.vfs.open(place.ino, os.O_RDWR | os.O_TRUNC)), b""),
    "allocate": (lambda place: place.vfs.fallocate(place.handle, 0, 40), DATA + bytes(10)),
    "punch": (lambda place: place.vfs.fallocate(place.handle, 0, 4, PUNCH_HOLE | KEEP_SIZE), bytes(4) + DATA[4:]),
}
EACH = pytest.mark.parametrize(("change", "changed"), CHANGES.values(), ids=CHANGES)


@EACH
def test_what_was_withdrawn_before_it_began_changes_nothing(
    place: Place, change: Callable[[Place], object], changed: bytes
) -> None:
    assert withdraw_this_thread()
    before = place.vfs.getattr(place.ino)
    with pytest.raises(InterruptedError):
        change(place)
    assert place.vfs.getattr(place.ino).size == before.size == len(DATA)
    withdrawal.forget()
    assert place.content() == DATA
    assert place.vfs._uploads.budget.held_bytes == 0


@EACH
def test_what_is_on_its_way_is_made(place: Place, change: Callable[[Place], object], changed: bytes) -> None:
    place.vfs.fsync(place.handle)
    place.log.before_commit.append(lambda: withdraw_this_thread() or None)
    change(place)
    withdrawal.forget()
    assert place.content() == changed


@EACH
def test_and_not_made_anew_behind_what_others_did(
    place: Place, change: Callable[[Place], object], changed: bytes
) -> None:
    """The others' change came first: this one is dropped, and what was written here before it stays."""
    place.vfs.fsync(place.handle)

    def others_come_first() -> None:
        key = keys.inode(place.ino)
        place.log.shared.commit({key: place.log.shared.map[key]}, ())
        withdraw_this_thread()

    place.vfs.write(place.handle, 0, DATA[:1])
    place.log.before_commit += [lambda: None] * (not place_is_cut_first(changed)) + [others_come_first]
    with pytest.raises(InterruptedError):
        change(place)
    withdrawal.forget()
    assert place.content() == DATA


def place_is_cut_first(changed: bytes) -> bool:
    """Whether the unsaved data is discarded or left alone; otherwise a batch of its own saves it before the change."""
    return changed in (b"", DATA)


@pytest.mark.parametrize("change", ["cut", "punch"])
def test_what_takes_several_batches_is_done_to_the_end(place: Place, change: str) -> None:
    ino, handle = create(place.vfs, b"long")
    for index in range(STEP_REGIONS + 10):
        place.vfs.write(handle, index * REGION_BYTES, b"x")
    place.vfs.fsync(handle)
    tries: list[bool] = []
    place.log.before_commit += [lambda: tries.append(withdraw_this_thread())] * 2
    size = place.vfs.getattr(ino).size
    if change == "cut":
        place.vfs.setattr(ino, AttributeChanges(size=0))
    else:
        place.vfs.fallocate(handle, 0, size, PUNCH_HOLE | KEEP_SIZE)
    assert tries == [False, False]
    found = place.vfs.getattr(ino)
    assert (found.size, found.blocks) == (0 if change == "cut" else size, 0)
    assert withdraw_this_thread(), "the thread's next operation can be withdrawn again"
    withdrawal.forget()
    close(place.vfs, handle)
