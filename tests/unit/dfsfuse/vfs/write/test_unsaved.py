"""A reader sees the same file in every state of saving: what read() returns and what stat(2) shows."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from support.executors import Held
from support.memory_mounts import MemoryMounts, close, read_file, write_file

from dfs_server.protocol.batches import Batch
from dfsfuse.data.extents import REGION_BYTES
from dfsfuse.errors import MaybeDoneError, NoSpaceError, UnavailableError
from dfsfuse.namespace.map.transactions import Transaction, View
from dfsfuse.vfs.vfs import AttributeChanges, Vfs

DEADLINE_S = 30
OLD = b"old "
THEIRS = b"theirs "


@dataclass
class Scene:
    """A file that is written through one handle and read through another; other mounts may have appended to it."""

    mounts: MemoryMounts
    vfs: Vfs
    ino: int
    writer: int
    reader: int
    base: bytes
    uploads: Held
    written: bytes = b""
    seen: list[tuple[bytes, int]] = field(default_factory=list)

    @property
    def expected(self) -> bytes:
        return self.base + self.written

    def write(self, data: bytes) -> None:
        self.vfs.write(self.writer, len(self.expected), data)
        self.written += data

    def look(self) -> tuple[bytes, int]:
        found = self.vfs.read(self.reader, 0, 64 * REGION_BYTES), self.vfs.getattr(self.ino).size
        self.seen.append(found)
        return found

    def forget_failure(self) -> None:
        """Clear the upload's failure, which the next write would report too."""
        file = self.vfs._files._table.get(self.ino)
        assert file is not None
        with file.lock:
            file.take_error()

    def check(self) -> None:
        data, size = self.look()
        assert data == self.expected
        assert size == len(self.expected)


@pytest.fixture(params=["appended", "appended, as others did", "placed"])
def scene(request: pytest.FixtureRequest, mounts: MemoryMounts) -> Scene:
    uploads = Held()
    vfs = mounts.mount(uploads=uploads, background=Held())
    ino = write_file(vfs, b"f", OLD)
    flags = os.O_RDWR if request.param == "placed" else os.O_RDWR | os.O_APPEND
    made = Scene(mounts, vfs, ino, vfs.open(ino, flags), vfs.open(ino, os.O_RDONLY), OLD, uploads)
    if request.param == "appended, as others did":
        made.write(b"first ")
        other = mounts.mount()
        handle = other.open(ino, flags)
        other.write(handle, 0, THEIRS)
        close(other, handle)
        made.base += THEIRS
    return made


SIZES = [10, 200_000, REGION_BYTES, 2 * REGION_BYTES + 7]


@pytest.mark.parametrize("size", SIZES)
def test_before_it_is_saved_and_afterwards(scene: Scene, size: int) -> None:
    scene.check()
    scene.write(b"a" * size)
    scene.check()
    with scene.uploads.released():
        scene.vfs.fsync(scene.writer)
    scene.check()
    assert read_file(scene.mounts.mount(), b"f") == scene.expected


@pytest.mark.parametrize("size", SIZES)
def test_while_it_goes_up_and_before_the_batch(scene: Scene, size: int) -> None:
    scene.write(b"a" * size)
    scene.mounts.segments.before_write = lambda _: scene.check()
    if scene.base == OLD:  # otherwise the reader would wait for the commit, in the thread that commits
        scene.mounts.map.before_commit = lambda _: scene.check()
    with scene.uploads.released():
        scene.vfs.fsync(scene.writer)
    assert scene.seen
    scene.check()


@pytest.mark.parametrize("size", SIZES)
def test_when_the_batch_is_in_the_map_and_the_data_still_here(
    scene: Scene, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.write(b"a" * size)
    readers: list[threading.Thread] = []
    has_read = threading.Event()
    transact, read = scene.mounts.map.transact, scene.mounts.map.read
    failures: list[Exception] = []

    def look() -> None:
        try:
            scene.look()
        except Exception as failure:  # noqa: BLE001
            failures.append(failure)
        finally:
            has_read.set()

    def committed(work: Callable[[Transaction], object], *, durable: bool = True) -> object:
        result = transact(work, durable=durable)
        readers.append(threading.Thread(target=look))
        has_read.clear()
        readers[-1].start()
        assert has_read.wait(DEADLINE_S)
        return result

    def looked(work: Callable[[View], object], **how: Any) -> object:
        result = read(work, **how)
        has_read.set()
        return result

    monkeypatch.setattr(scene.mounts.map, "transact", committed)
    monkeypatch.setattr(scene.mounts.map, "read", looked)
    with scene.uploads.released():
        scene.vfs.fsync(scene.writer)
    for reader in readers:
        reader.join(DEADLINE_S)
    assert not failures
    assert scene.seen
    assert set(scene.seen) == {(scene.expected, len(scene.expected))}
    scene.write(b"more")
    scene.check()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("failure", [NoSpaceError("full"), UnavailableError("too few servers")])
def test_when_it_could_not_be_saved(scene: Scene, size: int, failure: Exception) -> None:
    scene.write(b"a" * size)

    def fail(_: object) -> None:
        raise failure

    for hook in ("upload", "commit"):
        scene.mounts.segments.before_write = fail if hook == "upload" else lambda _: None
        scene.mounts.map.before_commit = fail if hook == "commit" else lambda _: None
        with scene.uploads.released(), pytest.raises(type(failure)):
            scene.vfs.fsync(scene.writer)
        scene.check()
    scene.mounts.map.before_commit = lambda _: None
    scene.forget_failure()
    scene.write(b"more")
    scene.check()
    with scene.uploads.released():
        scene.vfs.fsync(scene.writer)
    scene.check()
    assert read_file(scene.mounts.mount(), b"f") == scene.expected


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("is_made", [False, True])
def test_while_it_is_not_known_whether_it_was_saved(
    scene: Scene, size: int, is_made: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.write(b"a" * size)
    transact = scene.mounts.map.transact

    def without_answer(work: Callable[[Transaction], object], *, durable: bool = True) -> object:
        if is_made:
            transact(work, durable=durable)
        raise MaybeDoneError("no answer in time")

    monkeypatch.setattr(scene.mounts.map, "transact", without_answer)
    with scene.uploads.released(), pytest.raises(MaybeDoneError):
        scene.vfs.fsync(scene.writer)
    scene.check()
    scene.write(b"more ")
    scene.check()
    with scene.uploads.released(), pytest.raises(MaybeDoneError):
        scene.vfs.fsync(scene.writer)
    scene.check()
    monkeypatch.undo()
    with scene.uploads.released():
        scene.vfs.fsync(scene.writer)
    scene.check()
    assert read_file(scene.mounts.mount(), b"f") == scene.expected


def test_when_it_was_sealed_and_is_taken_back(scene: Scene) -> None:
    """Failed saves leave several segments of one region, which become one before they are committed."""

    def full(_: bytes) -> None:
        raise NoSpaceError("three servers are full")

    scene.mounts.segments.before_write = full
    for turn in range(4):
        scene.write(b"%d " % turn)
        with scene.uploads.released(), pytest.raises(NoSpaceError):
            scene.vfs.fsync(scene.writer)
        scene.forget_failure()
        scene.check()
    scene.mounts.segments.before_write = lambda _: scene.check()
    with scene.uploads.released():
        scene.vfs.fsync(scene.writer)
    scene.check()


def test_while_it_is_cut_to_nothing_the_old_file_or_the_new_one_is_seen(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.write(b"not saved")
    before = scene.expected
    transact, readers = scene.mounts.map.transact, []

    def cut(work: Callable[[Transaction], object], *, durable: bool = True) -> object:
        scene.mounts.map.before_commit = lambda _: readers.append(threading.Thread(target=scene.look))
        result = transact(work, durable=durable)
        scene.mounts.map.before_commit = lambda _: None
        readers[-1].start()
        return result

    monkeypatch.setattr(scene.mounts.map, "transact", cut)
    with scene.uploads.released():
        scene.vfs.setattr(scene.ino, AttributeChanges(size=0))
    for reader in readers:
        reader.join(DEADLINE_S)
    assert set(scene.seen) <= {(before, len(before)), (b"", 0)}
    assert readers


def test_a_batch_of_others_is_seen_before_what_was_appended_here(scene: Scene) -> None:
    if scene.base == OLD:
        return
    data = [OLD + THEIRS, scene.written]
    assert scene.look()[0] == b"".join(data)
    batches: list[Batch] = []
    scene.mounts.map.before_commit = batches.append
    with scene.uploads.released():
        scene.vfs.fsync(scene.writer)
    assert len(batches) == 1
    scene.check()
