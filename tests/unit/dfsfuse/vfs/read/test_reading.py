"""read(): unsaved data lies over stored data, and that over zeros; read-ahead; missing pieces."""

from __future__ import annotations

import errno
import os
import random

import pytest
from support.executors import Held
from support.memory_mounts import CALLER, ROOT, MemoryMounts, close, read_file, write_file

from dfsfuse.data.extents import REGION_BYTES
from dfsfuse.errors import IncompleteError
from dfsfuse.vfs.vfs import AttributeChanges


def test_the_end_of_a_file_and_holes(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", b"abc")
    handle = vfs.open(ino, os.O_RDWR)
    vfs.write(handle, REGION_BYTES + 5, b"xyz")
    for _ in range(2):
        assert vfs.read(handle, 0, 5) == b"abc\0\0"
        assert vfs.read(handle, REGION_BYTES - 2, 8) == bytes(7) + b"x"
        assert vfs.read(handle, REGION_BYTES + 7, 100) == b"z"
        assert vfs.read(handle, REGION_BYTES + 8, 100) == b""
        assert vfs.read(handle, 2**62, 100) == b""
        assert vfs.read(handle, 0, 0) == b""
        vfs.fsync(handle)
    close(vfs, handle)


@pytest.mark.parametrize("seed", range(5))
def test_every_mixture_of_dirty_sealed_uploaded_and_stored_bytes_reads_as_written(
    mounts: MemoryMounts, seed: int
) -> None:
    rng = random.Random(seed)
    uploads = Held()
    vfs = mounts.mount(uploads=uploads, dirty_limit_bytes=1 << 30)
    attributes, handle = vfs.create(ROOT, b"f", 0o644, os.O_RDWR, CALLER)
    model = bytearray()
    for _ in range(120):
        offset, length = rng.randrange(3 * REGION_BYTES), rng.choice([1, 500, 200_000, REGION_BYTES])
        match rng.randrange(8):
            case 0:
                uploads.run()
            case 1 if rng.random() < 0.5:
                with uploads.released():
                    vfs.fsync(handle)
            case 2:
                size = rng.choice([0, offset, len(model)])
                with uploads.released():
                    vfs.setattr(attributes.ino, AttributeChanges(size=size))
                model = model[:size] + bytes(max(0, size - len(model)))
            case 3 | 4:
                data = rng.randbytes(length)
                offset = rng.choice([offset, offset - offset % REGION_BYTES])
                vfs.write(handle, offset, data)
                model += bytes(max(0, offset - len(model)))
                model[offset : offset + length] = data
            case _:
                assert vfs.read(handle, offset, length) == model[offset : offset + length]
        assert vfs.getattr(attributes.ino).size == len(model)
    with uploads.released():
        close(vfs, handle)
    assert read_file(mounts.mount(), b"f") == model
    vfs.close()


def test_a_read_asks_for_no_more_than_it_was_asked(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", bytes(3 * REGION_BYTES))
    handle = vfs.open(ino, os.O_RDONLY)
    for offset in (5 * 4096, REGION_BYTES + 777, 2 * REGION_BYTES + 4096):
        vfs.read(handle, offset, 4096)
    assert [(offset, length) for _, offset, length in mounts.segments.reads] == [
        (5 * 4096, 4096),
        (777, 4096),
        (4096, 4096),
    ]
    assert mounts.segments.prefetched == []
    vfs.release(handle)


def test_a_sequential_reader_has_the_next_segments_fetched(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", bytes(5 * REGION_BYTES))
    handle = vfs.open(ino, os.O_RDONLY)
    vfs.read(handle, 0, 128 * 1024)
    assert mounts.segments.prefetched == []
    vfs.read(handle, 128 * 1024, 128 * 1024)
    assert len(mounts.segments.prefetched) == 3
    for step in range(3):
        vfs.read(handle, REGION_BYTES + step * 128 * 1024, 128 * 1024)
    assert len(mounts.segments.prefetched) >= 4
    vfs.release(handle)


def test_only_the_missing_bytes_cannot_be_read(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    data = random.Random(3).randbytes(400_000)
    ino = write_file(vfs, b"f", data)
    x = mounts.segments.written[0][1]
    mounts.segments.answering = {x % 4 + 1, (x + 1) % 4 + 1}  # the pairs (1,2) and (2,3): P4 is missing
    handle = vfs.open(ino, os.O_RDONLY)
    assert vfs.read(handle, 0, 300_000) == data[:300_000]
    with pytest.raises(IncompleteError):
        vfs.read(handle, 299_999, 2)
    vfs.release(handle)


def test_what_was_written_here_hides_what_is_missing(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", bytes(400_000))
    handle = vfs.open(ino, os.O_RDWR)
    vfs.write(handle, 0, b"x" * 400_000)
    mounts.segments.answering = set()
    assert vfs.read(handle, 0, 400_000) == b"x" * 400_000
    mounts.segments.answering = {1, 2, 3, 4}
    close(vfs, handle)


def test_handles_are_for_what_they_were_opened_for(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    ino = write_file(vfs, b"f", b"x")
    reader, writer = vfs.open(ino, os.O_RDONLY), vfs.open(ino, os.O_WRONLY)
    for action in (
        lambda: vfs.write(reader, 0, b"x"),
        lambda: vfs.read(writer, 0, 1),
        lambda: vfs.read(999, 0, 1),
        lambda: vfs.release(999),
        lambda: vfs.flush(999),
    ):
        with pytest.raises(OSError) as caught:
            action()
        assert caught.value.errno == errno.EBADF
    close(vfs, reader, writer)


def test_only_regular_files_are_opened(mounts: MemoryMounts) -> None:
    vfs = mounts.mount()
    folder = vfs.mkdir(ROOT, b"d", 0o755, CALLER).ino
    link = vfs.symlink(ROOT, b"l", b"target", CALLER).ino
    for ino, number in ((folder, errno.EISDIR), (link, errno.ELOOP), (999, errno.ENOENT)):
        with pytest.raises(OSError) as caught:
            vfs.open(ino, os.O_RDONLY)
        assert caught.value.errno == number
    assert vfs._files._table.all() == []
